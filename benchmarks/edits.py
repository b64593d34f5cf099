"""The edits of the copy detection benchmark: common changes to shared images."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from random import Random

from PIL import Image, ImageDraw, ImageFont

Edit = Callable[[Image.Image, Random, Sequence[Image.Image]], Image.Image]
"""Takes the image, the random generator, and other images for collages."""

STRIP = 0.16
"""Height of the bar above an image on a screen, as a fraction of the image's."""


def _crop(area: float) -> Edit:
    def cropped(picture: Image.Image, draw: Random, _: Sequence[Image.Image]) -> Image.Image:
        return _cut(picture, math.sqrt(area), draw)

    return cropped


def _rotate(degrees: float) -> Edit:
    """The whole image rotated; empty corners are black."""

    def rotated(picture: Image.Image, _: Random, __: Sequence[Image.Image]) -> Image.Image:
        return picture.rotate(degrees, Image.Resampling.BICUBIC, expand=True)

    return rotated


def _rotate_and_crop(picture: Image.Image, draw: Random, _: Sequence[Image.Image]) -> Image.Image:
    """Rotated by 10 to 30 degrees either way, without empty corners, and cropped."""
    degrees = draw.choice((-1, 1)) * draw.uniform(10, 30)
    turned = picture.rotate(degrees, Image.Resampling.BICUBIC, expand=True)
    width, height = _inscribed(*picture.size, math.radians(degrees))
    left, top = (turned.width - width) / 2, (turned.height - height) / 2
    inner = turned.crop((round(left), round(top), round(left + width), round(top + height)))
    return _cut(inner, math.sqrt(0.8), draw)


def _mirror(picture: Image.Image, _: Random, __: Sequence[Image.Image]) -> Image.Image:
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def _jpeg(picture: Image.Image, _: Random, __: Sequence[Image.Image]) -> Image.Image:
    return _compressed(picture, 30)


def _half(picture: Image.Image, _: Random, __: Sequence[Image.Image]) -> Image.Image:
    return picture.resize(
        (max(1, picture.width // 2), max(1, picture.height // 2)), Image.Resampling.LANCZOS
    )


def _overlay(picture: Image.Image, draw: Random, _: Sequence[Image.Image]) -> Image.Image:
    """A line of large text on a strip, and a round logo in a corner."""
    edited = picture.copy()
    pen = ImageDraw.Draw(edited)
    size = max(8, edited.height // 7)
    top = draw.randint(edited.height // 2, edited.height - size)
    pen.rectangle((0, top, edited.width, top + size), fill=_colour(draw))
    words = " ".join(draw.sample(("BEST", "SALE", "WOW", "NEWS", "look!", "2 for 1", "HOT"), 4))
    pen.text((4, top), words, fill=_colour(draw), font=ImageFont.load_default(size * 0.8))
    side = edited.height // 4
    left = draw.choice((2, edited.width - side - 2))
    pen.ellipse(
        (left, 2, left + side, 2 + side), fill=_colour(draw), outline=_colour(draw), width=4
    )
    return edited


def _collage(picture: Image.Image, draw: Random, others: Sequence[Image.Image]) -> Image.Image:
    """Two by two: the image and three others, resized to its size."""
    width, height = picture.size
    four = [picture, *draw.sample(list(others), 3)]
    draw.shuffle(four)
    sheet = Image.new("RGB", (2 * width, 2 * height), "white")
    for place, one in enumerate(four):
        part = one.resize((width, height), Image.Resampling.LANCZOS)
        sheet.paste(part, ((place % 2) * width, (place // 2) * height))
    return sheet


def _screenshot(picture: Image.Image, draw: Random, _: Sequence[Image.Image]) -> Image.Image:
    """The image on a phone screen: bars with text above and below, a margin, JPEG."""
    bar = max(12, round(STRIP * picture.height))
    margin = draw.randint(0, picture.width // 8)
    back, ink = draw.choice((("white", "black"), ("black", "white"), ("#f0f2f5", "#1c1e21")))
    screen = Image.new("RGB", (picture.width + 2 * margin, picture.height + 4 * bar), back)
    screen.paste(picture, (margin, 2 * bar))
    pen = ImageDraw.Draw(screen)
    font = ImageFont.load_default(bar * 0.5)
    pen.text((6, bar * 0.2), f"{draw.randint(0, 23):02}:{draw.randint(0, 59):02}", ink, font)
    pen.text((6, bar * 1.2), f"someone.{draw.randint(1, 99)}", ink, font)
    bottom = 2 * bar + picture.height
    pen.text((6, bottom + bar * 0.2), f"{draw.randint(2, 9999)} likes", ink, font)
    pen.text((6, bottom + bar * 1.2), "view all comments", ink, font)
    return _compressed(screen, 70)


EDITS: Mapping[str, Edit] = {
    "crop to 60%": _crop(0.60),
    "crop to 36%": _crop(0.36),
    "crop to 25%": _crop(0.25),
    "crop to 16%": _crop(0.16),
    "rotation by 15": _rotate(15),
    "rotation by 90": _rotate(90),
    "rotation and crop": _rotate_and_crop,
    "mirror": _mirror,
    "JPEG quality 30": _jpeg,
    "half size": _half,
    "overlay": _overlay,
    "collage 2 x 2": _collage,
    "screenshot": _screenshot,
}


def _cut(picture: Image.Image, side: float, draw: Random) -> Image.Image:
    """A random crop of `side` of the width and the height."""
    width, height = max(1, round(picture.width * side)), max(1, round(picture.height * side))
    left, top = draw.randint(0, picture.width - width), draw.randint(0, picture.height - height)
    return picture.crop((left, top, left + width, top + height))


def _inscribed(width: float, height: float, angle: float) -> tuple[float, float]:
    """The largest upright rectangle of the same shape inside the image rotated by `angle`."""
    sin, cos = abs(math.sin(angle)), abs(math.cos(angle))
    scale = min(width / (width * cos + height * sin), height / (width * sin + height * cos))
    return width * scale, height * scale


def _compressed(picture: Image.Image, quality: int) -> Image.Image:
    file = BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def _colour(draw: Random) -> tuple[int, int, int]:
    return draw.randint(0, 255), draw.randint(0, 255), draw.randint(0, 255)
