"""EXIF fields, against what Pillow writes, and against damage."""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from cbir.images.exif import exif_fields
from cbir.index.filters import is_date

WHOLE = {
    "taken": "2024-05-03T12:30:45",
    "camera": "Canon EOS 5D",
    "lens": "EF 50mm f/1.8",
    "latitude": -33.8567844,
    "longitude": 151.2152967,
}


def block(**changes: object) -> Image.Exif:
    """An EXIF block as a camera writes it."""
    exif = Image.Exif()
    told = {"make": "Canon", "model": "Canon EOS 5D", "taken": "2024:05:03 12:30:45"}
    told |= {"lens": "EF 50mm f/1.8", "latitude": (33, 51, IFDRational(244237, 10000))}
    told |= {"longitude": (151, 12, IFDRational(550681, 10000)), "south": "S", "east": "E"}
    told |= changes  # type: ignore[assignment]
    exif[0x010F], exif[0x0110] = told["make"], told["model"]
    exif[0x0132] = "2025:01:01 00:00:00"  # when it was edited
    exif.get_ifd(0x8769).update({0x9003: told["taken"], 0xA434: told["lens"]})
    exif.get_ifd(0x8825).update(
        {1: told["south"], 2: told["latitude"], 3: told["east"], 4: told["longitude"]}
    )
    return exif


def file(exif: Image.Exif, kind: str = "JPEG") -> bytes:
    target = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(target, kind, exif=exif)
    return target.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_fields_are_read_from_every_format(kind: str) -> None:
    assert exif_fields(file(block(), kind)) == WHOLE


def test_a_tiff_file_is_a_block_itself() -> None:
    assert exif_fields(block().tobytes().removeprefix(b"Exif\0\0")) == WHOLE


def test_big_endian_blocks_are_read() -> None:
    exif = block()
    exif.endian = ">"
    assert exif_fields(file(exif)) == WHOLE


@pytest.mark.parametrize(
    ("make", "model", "camera"),
    [
        ("NIKON CORPORATION", "NIKON D70", "NIKON D70"),
        ("Apple", "iPhone 12", "Apple iPhone 12"),
        (" Apple \0x", " iPhone\n 12 ", "Apple iPhone 12"),
        ("", "X100", "X100"),
        ("Leica", "", "Leica"),
        ("", "", None),
    ],
)
def test_make_and_model_are_one_name(make: str, model: str, camera: str | None) -> None:
    assert exif_fields(file(block(make=make, model=model))).get("camera") == camera


@pytest.mark.parametrize(
    ("written", "taken"),
    [
        ("2024:02:30 12:00:00", None),
        ("0000:00:00 00:00:00", None),
        ("    :  :     :  :  ", None),
        ("2024:05:03", "2024-05-03"),
        ("2024:05:03 99:00:00", "2024-05-03"),
        ("2024-05-03 12:30:45", "2024-05-03T12:30:45"),
        ("0300:05:03 12:30:45", "0300-05-03T12:30:45"),
    ],
)
def test_only_dates_are_dates(written: str, taken: str | None) -> None:
    assert exif_fields(file(block(taken=written))).get("taken") == taken


@pytest.mark.parametrize(
    "changes",
    [
        {"south": "X"},
        {"latitude": (91, 0, 0)},
        {"longitude": (IFDRational(1, 0), 0, 0)},
        {"longitude": (181, 0, 0)},
        {"east": ""},
        {"latitude": (IFDRational(0, 0), IFDRational(0, 0), IFDRational(0, 0))},
    ],
)
def test_a_position_is_whole_or_left_out(changes: dict[str, object]) -> None:
    found = exif_fields(file(block(**changes)))
    assert set(found) == {"taken", "camera", "lens"}


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\xff\xd8\xff\xe1\0\x10Exif\0\0II*\0", b"II*\0"])
def test_a_file_without_a_block_has_no_fields(data: bytes) -> None:
    assert exif_fields(data) == {}


def _is_plain(name: str, value: object) -> bool:
    if name in ("latitude", "longitude"):
        return isinstance(value, float) and math.isfinite(value) and abs(value) <= 180
    kept = isinstance(value, str) and value == value.strip() != "" and value.isprintable()
    return kept and (name != "taken" or is_date(str(value)))


_MADE: list[Callable[[], bytes]] = [lambda: file(block()), lambda: block().tobytes()[6:]]


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from([made() for made in _MADE]),
    st.lists(st.tuples(st.integers(0, 600), st.binary(min_size=1, max_size=8)), max_size=6),
    st.integers(0, 2000),
)
def test_damage_costs_fields_and_nothing_else(
    data: bytes, damage: list[tuple[int, bytes]], cut: int
) -> None:
    changed = bytearray(data)
    for at, some in damage:
        changed[at : at + len(some)] = some
    whole = bytes(changed)
    for found in (exif_fields(whole), exif_fields(whole[: len(whole) - cut])):
        assert set(found) <= set(WHOLE)
        assert all(_is_plain(name, value) for name, value in found.items()), found
