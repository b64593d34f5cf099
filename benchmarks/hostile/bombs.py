"""Bombs: small files that ask a decoder for much time or memory. What they get is bounded."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

from PIL import Image

from benchmarks.hostile.measured import Measured, group, measured
from benchmarks.hostile.trials import Trial, Trials
from cbir.images.limits import MEMORY, SECONDS
from tests.images import support_hostile as hostile

SLACK_SECONDS = 10.0  # to start a process on a busy machine
SLACK_MEMORY = 300_000_000  # what Python and the libraries take


def _empty(mode: str, side: int, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (side, side)).save(file, form, **options)
    return file.getvalue()


BOMBS: Mapping[str, Callable[[], bytes]] = {
    "JPEG of 10,000 scans": lambda: hostile.many_scans(10_000),
    "JPEG of 450 scans, 9,000 x 9,000": lambda: hostile.many_scans(450, side=9000),
    "JPEG of 30,000 segments": hostile.many_segments,
    "JPEG whose tags share their bytes": hostile.shared_tags_in_jpeg,
    "float TIFF, 9,900 x 9,900": lambda: _empty("F", 9900, "TIFF", compression="tiff_lzw"),
    "float TIFF, 9,900 x 9,900, deflated": lambda: _empty(
        "F", 9900, "TIFF", compression="tiff_adobe_deflate"
    ),
    "TIFF of 120,000 strips": hostile.many_strips,
    "TIFF whose tags share their bytes": hostile.shared_tags_in_tiff,
    "RAW of 64 x 65,000 tags": hostile.many_directories,
    "WebP, 9,900 x 9,900": lambda: _empty("RGB", 9900, "WEBP"),
    "WebP whose tags share their bytes": lambda: hostile.shared_tags("WEBP"),
    "AVIF whose tags share their bytes": lambda: hostile.shared_tags("AVIF"),
    "PNG, 9,900 x 9,900, transparent": lambda: _empty("RGBA", 9900, "PNG"),
    "PNG, 50,000 x 50,000": lambda: _empty("1", 50_000, "PNG"),
    "PNG of 30,000 chunks": hostile.many_chunks,
    "PNG whose tags share their bytes": lambda: hostile.shared_tags("PNG"),
    "GIF of 30,000 blocks": hostile.many_blocks,
    "JPEG 2000 of 256 x 65,535 layers": hostile.many_layers,
    "PNM with a comment of 100 kB": hostile.long_comment,
}

DECODE = """
import sys
from cbir.errors import ImageError
from cbir.images.decode import decode_file
from cbir.images.exif import exif_fields
with open(sys.argv[1], "rb") as file:
    data = file.read()
exif_fields(data)
try:
    result = str(decode_file(data).pixels.shape)
except ImageError as error:
    result = error.message
"""


def trials(folder: Path) -> Trials:
    """Each bomb once; the note of each has its figures."""
    path = folder / "bomb"
    for name in BOMBS:
        # What it takes to make one is not measured.
        with group([sys.executable, "-m", __name__, name, str(path)]) as maker:
            assert maker.wait() == 0, f"no {name} was made"
        told = measured(DECODE, path, most_seconds=SECONDS + SLACK_SECONDS)
        problem = _problem(told)
        note = f"{name}: {told.seconds:.1f} s, {told.peak / 1e9:.2f} GB, {told.result}"
        yield Trial("bombs", problem and f"{name}: {problem}", note)


def _problem(told: Measured) -> str:
    if told.code:
        return f"exit code {told.code} after {told.seconds:.0f} s: {told.errors[-500:]}"
    if told.peak > MEMORY + SLACK_MEMORY:
        return f"took {told.peak / 1e9:.2f} GB"
    return ""


def main() -> None:
    """Write the bomb that is named to a file."""
    Image.MAX_IMAGE_PIXELS = None
    warnings.simplefilter("ignore")
    name, path = sys.argv[1:]
    Path(path).write_bytes(BOMBS[name]())


if __name__ == "__main__":
    main()
