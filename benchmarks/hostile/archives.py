"""Archives that expand, lie, or have names without end: the good pictures in them are read."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import sha256
from itertools import product
from pathlib import Path

from benchmarks.hostile.measured import measured
from benchmarks.hostile.trials import Trial, Trials
from tests.images.support_archives import (
    COMPRESSORS,
    PNG,
    bloated_tar,
    long_name_tar,
    lying_zip,
)

EXPANDED = 500_000_000
MOST_SECONDS = 30.0
MOST_MEMORY = 250_000_000  # what Python and the libraries take, and much less than EXPANDED

METHODS = {"deflate": zipfile.ZIP_DEFLATED, "bzip2": zipfile.ZIP_BZIP2, "LZMA": zipfile.ZIP_LZMA}
HEADERS = {"long name": b"L", "long link": b"K", "pax header": b"x", "global header": b"g"}

READ = """
import sys
from hashlib import sha256
from cbir.errors import CbirError, ImageError
from cbir.images.sources import open_source
result = {}
try:
    for item in open_source(sys.argv[1]).items():
        try:
            result[item.key] = sha256(item.read()).hexdigest()
        except ImageError as error:
            result[item.key] = error.message
except CbirError as error:
    result[""] = error.message
"""


def trials(folder: Path) -> Trials:
    """Each archive once."""
    path = folder / "archive"
    for row, what, make, good in _cases():
        make(path)
        problem = _problem(path, good)
        yield Trial(row, problem and f"{what}: {problem}")


def _long_name_zip(path: Path, name: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, PNG)
        archive.writestr("a.png", PNG)


def _shared_zip(path: Path) -> None:
    """1,000 members that share their bytes, and a good one."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("shared.png", PNG)
        archive.writestr("a.png", PNG)
        first = archive.getinfo("shared.png")
        for number in range(1000):
            info = zipfile.ZipInfo(f"{number}.png")
            for field in ("header_offset", "CRC", "compress_size", "file_size"):
                setattr(info, field, getattr(first, field))
            archive.filelist.append(info)


def _cases() -> Iterator[tuple[str, str, Callable[[Path], object], set[str]]]:
    """Row, words, how to write the file, and its good pictures."""
    for (name, method), stated in product(METHODS.items(), (0, 1000, 2**31)):
        yield (
            *("zip bombs", f"{name}, {stated} bytes stated"),
            partial(lying_zip, method=method, stated=stated, size=EXPANDED),
            {"a.png", "c.png"},
        )
    yield "zip bombs", "shared bytes", _shared_zip, {"a.png"}
    for packer, (name, kind) in product(COMPRESSORS, HEADERS.items()):
        make = partial(bloated_tar, packer=packer, kind=kind, size=EXPANDED)
        yield "tar bombs", f"{packer}, {name}", make, {"a.png", "b.png"}
    for name in ("n" * 60_000 + ".png", "d/" * 300 + "x.png"):
        yield "long names", f"zip, {name[:9]}", partial(_long_name_zip, name=name), {"a.png"}
    for key, value in product((b"path=", b"linkpath="), (b"n" * 60_000, b"d/" * 300)):
        record = key + value
        make = partial(long_name_tar, record=record)
        yield "long names", f"tar, {record[:12]!r}", make, {"a.png"}


def _problem(path: Path, good: set[str]) -> str:
    told = measured(READ, path, most_seconds=MOST_SECONDS)
    if told.code:
        return f"exit code {told.code} after {told.seconds:.0f} s: {told.errors[-500:]}"
    found = told.result
    if told.peak > MOST_MEMORY:
        return f"took {told.peak / 1e6:.0f} MB"
    if lost := [name for name in good if found.get(name) != sha256(PNG).hexdigest()]:
        return f"{lost} not read: {found}"
    if len(found) > len(good) + 1 and "shared.png" not in found:
        return f"more than one row: {found}"
    return ""
