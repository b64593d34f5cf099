"""Small images and small data sets that the tests of the images room make for themselves."""

from __future__ import annotations

import base64
import io
import pickle
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from cbir.images.batches import CLASSES

CORNERS = {"red": (230, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 230), "grey": (128,) * 3}


def four_colours(width: int = 48, height: int = 32) -> Image.Image:
    """Red, green / blue, grey: every turn and mirror of it looks different."""
    image = Image.new("RGB", (width, height))
    half = (width // 2, height // 2)
    places = ((0, 0), (half[0], 0), (0, half[1]), half)
    for colour, place in zip(CORNERS.values(), places, strict=True):
        image.paste(colour, (*place, place[0] + half[0], place[1] + half[1]))
    return image


def noise(seed: int, height: int = 32, width: int = 32) -> np.ndarray:
    """RGB pixels that no other seed has."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(image: Image.Image | np.ndarray, form: str = "JPEG", **options: object) -> bytes:
    """The bytes of an image file."""
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    target = io.BytesIO()
    picture.save(target, form, **options)
    return target.getvalue()


def write(path: Path, data: bytes) -> Path:
    """A file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def add_to_tar(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """A member with this very name."""
    info = tarfile.TarInfo(name)
    info.size, info.mtime = len(data), 1_600_000_000
    tar.addfile(info, io.BytesIO(data))


def tiny_cifar10(per_batch: int = 7) -> dict[str, tuple[np.ndarray, list[int]]]:
    """The six batches of a small CIFAR-10: rows (n, 3072) and labels, every class among them."""
    rng = np.random.default_rng(10)
    names = [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]
    batches = {}
    for name in names:
        count = len(CLASSES) + per_batch
        labels = rng.permutation([*range(len(CLASSES)), *rng.integers(0, 10, per_batch)])
        rows = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
        batches[name] = (rows, [int(label) for label in labels])
    return batches


def write_batches(folder: Path, batches: dict[str, tuple[np.ndarray, list[int]]]) -> Path:
    """The extracted canonical form: pickles with bytes for keys, as Python 2 wrote them."""
    for name, (rows, labels) in batches.items():
        content = {b"batch_label": name.encode(), b"labels": labels, b"data": rows}
        write(folder / name, pickle.dumps(content, protocol=2))
    return folder


def write_batches_archive(path: Path, batches: dict[str, tuple[np.ndarray, list[int]]]) -> Path:
    """The canonical archive, its batches out of order as in the real one."""
    folder = write_batches(path.parent / "unpacked", batches)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name in ("data_batch_4", "test_batch", "data_batch_3", "data_batch_2", "data_batch_5"):
            tar.add(folder / name, f"cifar-10-batches-py/{name}")
        tar.add(folder / "data_batch_1", "cifar-10-batches-py/data_batch_1")
    return path


def write_tree(folder: Path, batches: dict[str, tuple[np.ndarray, list[int]]]) -> Path:
    """The class-folder tree of lossless PNG files, numbered within the class."""
    seen: dict[tuple[str, str], int] = {}
    for name, (rows, labels) in batches.items():
        split = "test" if name == "test_batch" else "train"
        for row, label in zip(rows, labels, strict=True):
            number = seen.get((split, CLASSES[label]), 0)
            seen[split, CLASSES[label]] = number + 1
            pixels = np.stack(row.reshape(3, 32, 32), axis=-1)
            path = folder / split / CLASSES[label] / f"{number:04d}.png"
            write(path, encoded(pixels, "PNG"))
    return folder


def write_flat(
    folder: Path,
    batches: dict[str, tuple[np.ndarray, list[int]]],
    labels: Sequence[object] = CLASSES,
) -> Path:
    """The flat form of cbir-deep-learning: `<split>/<index>-<label>.png`."""
    seen = {"train": 0, "test": 0}
    for name, (rows, numbers) in batches.items():
        split = "test" if name == "test_batch" else "train"
        for row, number in zip(rows, numbers, strict=True):
            pixels = np.stack(row.reshape(3, 32, 32), axis=-1)
            path = folder / split / f"{seen[split]}-{labels[number]}.png"
            seen[split] += 1
            write(path, encoded(pixels, "PNG"))
    return folder


# 24 x 16 pixels, the left half red, the right half blue; made by libheif, as no package of ours
# can write the format. The second is stored so and shown turned right: red above, blue below.
HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAXxtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAA"
    "AAAAAAAAAAAAACJpbG9jAAAAAERAAAEAAQAAAAABoAABAAAAAAAAAHgAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAA"
    "AAABAABodmMxAAAAAA5waXRtAAAAAAABAAAA/GlwcnAAAADcaXBjbwAAAHVodmNDAQNwAAAAkAAAAAAAHvAA/P34"
    "+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQApQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbqrprm"
    "4CGgwIAAAAyAAAADAIRiAAEABkQBwXPBiQAAABNjb2xybmNseAABAA0ABoAAAAAUaXNwZQAAAAAAAABAAAAAQAAA"
    "AChjbGFwAAAAGAAAAAEAAAAQAAAAAf///9gAAAAC////0AAAAAIAAAAQcGl4aQAAAAADCAgIAAAAGGlwbWEAAAAA"
    "AAAAAQABBYECAwWEAAAAgG1kYXQAAAB0KAGvBPIb45aAQlCV79Nw//yP9/5Hz7/QfxNUkcfjQvWDWTFFYgmhipNW"
    "zcL817O28af7fpO4eOep6r5MQXTz7OZ1t6jPlRB0VdxEUmcivwD1ZZ4cgtaAMvxEosA/rxKMJGY3TerBBEAWSJY5"
    "3wR2eWpTfWQ="
)

HEIC_TURNED = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAcdtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAA"
    "AAAAAAAAAAAAADRpbG9jAAAAAERAAAIAAQAAAAAB6wABAAAAAAAAAHgAAgAAAAACYwABAAAAAAAAACQAAAA4aWlu"
    "ZgAAAAAAAgAAABVpbmZlAgAAAAABAABodmMxAAAAABVpbmZlAgAAAQACAABFeGlmAAAAAA5waXRtAAAAAAABAAAB"
    "BmlwcnAAAADlaXBjbwAAAHVodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMA"
    "AAMAHroCQGEAAQApQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbqrprm4CGgwIAAAAyAAAADAIRiAAEABkQBwXPBiQAA"
    "ABNjb2xybmNseAABAA0ABoAAAAAUaXNwZQAAAAAAAABAAAAAQAAAAChjbGFwAAAAGAAAAAEAAAAQAAAAAf///9gA"
    "AAAC////0AAAAAIAAAAQcGl4aQAAAAADCAgIAAAACWlyb3QDAAAAGWlwbWEAAAAAAAAAAQABBoECAwWEhgAAABpp"
    "cmVmAAAAAAAAAA5jZHNjAAIAAQABAAAApG1kYXQAAAB0KAGvBPIb45aAQlCV79Nw//yP9/5Hz7/QfxNUkcfjQvWD"
    "WTFFYgmhipNWzcL817O28af7fpO4eOep6r5MQXTz7OZ1t6jPlRB0VdxEUmcivwD1ZZ4cgtaAMvxEosA/rxKMJGY3"
    "TerBBEAWSJY53wR2eWpTfWQAAAAGRXhpZgAATU0AKgAAAAgAAQESAAMAAAABAAYAAAAAAAA="
)

# 96 x 64 pixels of gradients and noise; made by ImageMagick 6.9 with x265, at quality 50.
HEIC_PHOTO = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAT9tZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAA"
    "AAAAAAAAAA5waXRtAAAAAAABAAAAImlsb2MAAAAAREAAAQABAAAAAAFjAAEAAAAAAAAC7gAAACNpaW5mAAAAAAABAAAA"
    "FWluZmUCAAAAAAEAAGh2YzEAAAAAv2lwcnAAAAChaXBjbwAAAHVodmNDAQNwAAAAAAAAAAAAHvAA/P34+AAADwMgAAEA"
    "GEABDAH//wNwAAADAJAAAAMAAAMAHroCQCEAAQAoQgEBA3AAAAMAkAAAAwAAAwAeoDCBBZbqSSmubAgAAAMACAAAAwAI"
    "QCIAAQAHRAHBcrAiQAAAABRpc3BlAAAAAAAAAGAAAABAAAAAEHBpeGkAAAAAAwgICAAAABZpcG1hAAAAAAAAAAEAAQOB"
    "AoMAAAL2bWRhdAAAAuooAa8TgHkMuaMTXqCELhowppx2A04b1jeK9AChp+kZGEWt4rr6ONSj9pX0KrPp0TnBJ96rFcNh"
    "T0GCUyH0A4wXwbtliC+CxygDgNPOGU8VubbXJlmBGiKpYs3HtxHU3pOJnU5iTh3Q1FWcZMeDipBEuIYLowWbY3KsCB4x"
    "3eCdp3hN3qwCRQv8A4+7RCKU8CCYAeT6z4Ouwnx/yvcrgD1HuiscuYf/KRHvQu7dcwjd+16U2jtPHLzIOnoojvOzH5OC"
    "x/M5620lmAIL+G/KxH0KLyJJoFA63O7XkLNTawz+1zrKMRnedrWu3CiaxMdjVogMACsLjD5/SZeudyJX0w7yoGs6+EL/"
    "GaGBhwX95RrNx2HigPKREnIoEhCHv0g53wqrz31jwOayL6z7aUqiCLaWJ1cZocq462jxD9VzLwbmF1OaJZfwo/t3cV6S"
    "x0w5H5ai2zKaGrl5HXrrI9Tn9U62oNGuPknz2u47TJ5Zpg4m/sYGdcF29oU08T4eh4DrrlrA13lUPHZDUdOtT7X/7E9V"
    "x9bdjsykCfUqww0LG2yqEepkCIGln3XOqg/lHvNaCV0pnAL8Gw5wTSDvFtiDBPB2+dgPKTcQp6Kl2fkexCWTnTwDc8mn"
    "IrCuFowvLCHUftOmvesoMenuiLjOPltJG5tU3MiQmCbUJzcnVqvcYZUvZaLfM4+QOLWz6PGy7HHVi7HOgwg5gHbOMohA"
    "viHmugfAmUBw3zXZvR+u7KlhvpqXd0jmlPxzR/bjqlY7fySc7s59ATGQXKvJA5BSBgNh+/ldr8pSQm6yYzF1+AVTJxGi"
    "qny/WFMDv9sJ9LiU83mD7nHIIgvhAZ8MKC57jt7RXaC7IzEAyhMDp7KIBpkJOrpTiTVmeHRYGmOAFsSNdGzUI5IWN9jS"
    "60h60sbafBFzhaWc1RkZkhXSb4bBmMp5bm08KCGJmp1OXoHrBSqvQ7HKsoPs3/avW2EzPhJYevB/M1XNpDDdwoD5zGFr"
    "aA=="
)
