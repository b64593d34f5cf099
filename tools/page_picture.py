"""Takes the README's screenshot of the search page: `python -m tools.page_picture`.

The index contains scenes drawn by this script, so the repository contains no third-party pictures.
Needs Chromium and playwright.
"""

from __future__ import annotations

import io
import logging
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = (480, 360)
PICTURE = Path(__file__).parent.parent / "docs" / "page.webp"
EACH = 14

Rgb = tuple[int, int, int]
Random = np.random.Generator


def sunset(rng: Random) -> Image.Image:
    """A sun over the sea."""
    horizon = int(rng.integers(200, 250))
    image = _sky(rng, (90, 50, 110), (255, 170, 90))
    draw = ImageDraw.Draw(image)
    x, radius = int(rng.integers(120, 360)), int(rng.integers(28, 44))
    draw.ellipse((x - radius, horizon - 2 * radius, x + radius, horizon), fill=(255, 225, 150))
    draw.rectangle((0, horizon, *SIZE), fill=(70, 60, 110))
    for y in range(horizon + 4, SIZE[1], 7):
        half = int(rng.integers(8, 60))
        draw.line((x - half, y, x + half, y), fill=(250, 190, 120), width=2)
    return image


def mountains(rng: Random) -> Image.Image:
    """Three ranges, one behind the other."""
    image = _sky(rng, (120, 170, 220), (225, 235, 245))
    draw = ImageDraw.Draw(image)
    for depth, colour in enumerate([(150, 165, 190), (95, 115, 145), (45, 65, 80)]):
        base, tops = 190 + 55 * depth, range(-40, SIZE[0] + 120, 80)
        ridge = [(x + int(rng.integers(-15, 15)), base - int(rng.integers(0, 110))) for x in tops]
        valleys = [(x + 40, base) for x in tops]
        line = [point for pair in zip(ridge, valleys, strict=True) for point in pair]
        draw.polygon([(-60, SIZE[1]), *line, (SIZE[0] + 200, SIZE[1])], fill=colour)
    return image


def city(rng: Random) -> Image.Image:
    """Lit windows at night."""
    image = _sky(rng, (12, 14, 40), (60, 50, 90))
    draw = ImageDraw.Draw(image)
    x = 0
    while x < SIZE[0]:
        width, top = int(rng.integers(40, 80)), int(rng.integers(90, 240))
        draw.rectangle((x, top, x + width - 4, SIZE[1]), fill=(24, 26, 46))
        for wx in range(x + 6, x + width - 12, 12):
            for wy in range(top + 8, SIZE[1], 16):
                if rng.random() < 0.45:
                    draw.rectangle((wx, wy, wx + 6, wy + 8), fill=(250, 215, 130))
        x += width
    return image


def flower(rng: Random) -> Image.Image:
    """A flower on a meadow."""
    image = Image.new("RGB", SIZE, (84, 140, 72))
    draw = ImageDraw.Draw(image)
    for _ in range(500):
        x, y, lean = (int(rng.integers(*span)) for span in ((0, SIZE[0]), (0, SIZE[1]), (-4, 4)))
        draw.line((x, y, x + lean, y - 18), fill=(60, 115, 55), width=2)
    colour = [(230, 80, 120), (240, 200, 70), (180, 110, 220), (245, 245, 250)][rng.integers(4)]
    cx, cy, reach = int(rng.integers(190, 290)), int(rng.integers(150, 210)), 80
    for angle in np.linspace(0, 2 * np.pi, int(rng.integers(7, 11)), endpoint=False):
        x, y = cx + reach * np.cos(angle), cy + reach * np.sin(angle)
        draw.ellipse((x - 38, y - 38, x + 38, y + 38), fill=colour)
    draw.ellipse((cx - 42, cy - 42, cx + 42, cy + 42), fill=(120, 80, 40))
    return image


def sailing(rng: Random) -> Image.Image:
    """A boat by day."""
    image = _sky(rng, (110, 180, 235), (200, 230, 250))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 210, *SIZE), fill=(40, 105, 160))
    x, y = int(rng.integers(130, 340)), int(rng.integers(225, 270))
    draw.polygon([(x - 60, y), (x + 60, y), (x + 40, y + 26), (x - 44, y + 26)], fill=(140, 60, 40))
    draw.polygon([(x, y - 6), (x, y - 150), (x + 74, y - 10)], fill=(250, 250, 250))
    draw.polygon([(x - 6, y - 8), (x - 6, y - 120), (x - 56, y - 10)], fill=(230, 230, 235))
    for _ in range(60):
        wx, wy = int(rng.integers(0, SIZE[0])), int(rng.integers(215, SIZE[1]))
        draw.line((wx, wy, wx + 22, wy), fill=(90, 150, 195), width=2)
    return image


SCENES: dict[str, Callable[[Random], Image.Image]] = {
    "sunset": sunset,
    "mountains": mountains,
    "city": city,
    "flower": flower,
    "sailing": sailing,
}


def _sky(rng: Random, top: Rgb, bottom: Rgb) -> Image.Image:
    shade = rng.integers(-14, 14, size=3)
    ramp = np.linspace(np.add(top, shade), np.add(bottom, shade), SIZE[1])
    return Image.fromarray(np.repeat(ramp.clip(0, 255)[:, None], SIZE[0], 1).astype(np.uint8))


def _draw(scene: str, rng: Random) -> Image.Image:
    image = SCENES[scene](rng).filter(ImageFilter.GaussianBlur(0.8))
    noisy = np.asarray(image, dtype=np.float64) + rng.normal(0, 5, (SIZE[1], SIZE[0], 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def main() -> None:
    """Draw, index, serve, search in a browser, and write `PICTURE`."""
    from playwright.sync_api import sync_playwright
    from werkzeug.serving import make_server

    import cbir
    from cbir.web.app import create_app

    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for scene in SCENES:
            place = Path(folder, "pictures", scene)
            place.mkdir(parents=True)
            for number in range(EACH):
                _draw(scene, rng).save(place / f"{scene}-{number:02}.jpg", quality=90)
        query = Path(folder, "my-sailing-trip.jpg")
        _draw("sailing", rng).save(query, quality=90)
        index = Path(folder, "pictures.cbir")
        cbir.index_images([Path(folder, "pictures")], index, label_from_folder=True)
        searcher = cbir.Searcher.open(index)
        searcher.warm_up()
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        server = make_server("127.0.0.1", 0, create_app(searcher), threaded=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            page = browser.new_page(viewport={"width": 1180, "height": 820})
            page.goto(f"http://127.0.0.1:{server.port}/")
            page.set_input_files("#image", query)
            page.wait_for_url("**/search")
            page.wait_for_load_state("networkidle")
            shot = page.screenshot()
            browser.close()
        server.shutdown()
    Image.open(io.BytesIO(shot)).save(PICTURE, quality=80, method=6)


if __name__ == "__main__":
    main()
