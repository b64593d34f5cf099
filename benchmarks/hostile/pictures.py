"""Mutated pictures: each is decoded, or refused with a reason, in time, and so is it in an index.

They are read in a process of its own, so that a crash is counted and the others are still read.
`python -m benchmarks.hostile.pictures FIRST END FOLDER` is that process; `python -m
benchmarks.hostile.pictures NUMBER` writes a mutated picture to standard output.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from shutil import rmtree

import numpy as np

from benchmarks.hostile.measured import group
from benchmarks.hostile.seeds import seeds
from benchmarks.hostile.trials import Trial, Trials
from cbir.errors import CbirError, ImageError
from cbir.images.decode import decode_file
from cbir.images.exif import exif_fields
from cbir.images.limits import SECONDS
from cbir.ingest.indexing import index_images
from tests.descriptors.support_photos import MeanColour

BATCH = 50
SLACK = 10.0
"""Seconds beyond the time limit of a picture: a process has to start, on a busy machine."""
EDGES = (b"\0", b"\xff", b"\x7f", b"\x80", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4))

Mutation = Callable[[bytearray, random.Random], None]


def mutated(number: int) -> tuple[str, bytes]:
    """The name and the bytes of the mutated picture `number`; seeds take turns."""
    dice = random.Random(number)
    all_seeds = seeds()
    name = list(all_seeds)[number % len(all_seeds)]
    data = bytearray(all_seeds[name])
    for _ in range(dice.choice((1, 1, 2, 4))):
        if data:
            dice.choice(MUTATIONS)(data, dice)
    return f"{number:06}-{name}", bytes(data)


def trials(count: int, folder: Path) -> Trials:
    """`count` mutated pictures."""
    first = 0
    while first < count:
        command = [sys.executable, "-m", __name__, str(first), str(count), str(folder)]
        with group(command) as child:
            for problem in _told(child):
                yield Trial("mutated pictures", problem and f"picture {first}: {problem}")
                first += 1
        if first < count:
            yield Trial("mutated pictures", f"picture {first}: exit code {child.returncode}")
            first += 1


def _told(child: subprocess.Popen[str]) -> Iterator[str]:
    """What a process says of each picture; ends if it is silent for too long."""
    assert child.stdout is not None
    with DefaultSelector() as selector:
        selector.register(child.stdout, EVENT_READ)
        while selector.select(BATCH * (SECONDS + SLACK)) and (line := child.stdout.readline()):
            yield json.loads(line)


def read(first: int, end: int, folder: Path) -> Iterator[str]:
    """What is wrong about the reading of each picture, "" if nothing is."""
    for start in range(first, end, BATCH):
        numbers = range(start, min(end, start + BATCH))
        pictures = dict(mutated(number) for number in numbers)
        decoded, problems = set(), {}
        for name, data in pictures.items():
            began = time.monotonic()
            try:
                decoded.update([name] if _is_decoded(data) else [])
            except Exception as error:  # noqa: BLE001 # whatever it is, it is counted
                problems[name] = f"{type(error).__name__}: {error}"
            if (seconds := time.monotonic() - began) > SECONDS + SLACK:
                problems[name] = f"took {seconds:.0f} s"
        problems = {**_indexed(pictures, decoded, folder), **problems}
        yield from (problems.get(name, "") for name in pictures)


def _is_decoded(data: bytes) -> bool:
    """Whether a picture is decoded; raises anything but `ImageError`."""
    exif_fields(data)
    try:
        pixels = decode_file(data).pixels
    except ImageError as error:
        assert str(error) and "\n" not in str(error), f"no reason in one line: {error!r}"
        return False
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size
    return True


def _indexed(pictures: dict[str, bytes], decoded: set[str], folder: Path) -> dict[str, str]:
    """Name -> what is wrong about the pictures in an index of them."""
    rmtree(folder, ignore_errors=True)
    (folder / "in").mkdir(parents=True)
    for name, data in pictures.items():
        (folder / "in" / name).write_bytes(data)
    try:
        report = index_images([folder / "in"], folder / "i.cbir", descriptor=MeanColour())
        failed = {failure.location for failure in report.failures}
    except Exception as error:  # noqa: BLE001
        if decoded or not isinstance(error, CbirError):  # without any image there is no index
            return dict.fromkeys(pictures, f"indexing: {type(error).__name__}: {error}")
        failed = set(pictures)
    return {
        name: f"indexing {'adds' if name not in failed else 'refuses'} it, decoding does not"
        for name in pictures
        if (name in failed) == (name in decoded)
    }


def _flip(data: bytearray, dice: random.Random) -> None:
    for _ in range(dice.choice((1, 3, 20))):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def _flip_in_header(data: bytearray, dice: random.Random) -> None:
    data[dice.randrange(min(len(data), 64))] ^= 1 << dice.randrange(8)


def _overwrite(data: bytearray, dice: random.Random) -> None:
    value, at = dice.choice(EDGES), dice.randrange(len(data))
    data[at : at + len(value)] = value


def _noise(data: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(data))
    data[at : at + 16] = dice.randbytes(16)


def _cut(data: bytearray, dice: random.Random) -> None:
    del data[dice.randrange(len(data)) :]


def _remove(data: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(data))
    del data[at : at + dice.choice((1, 4, 100))]


def _repeat(data: bytearray, dice: random.Random) -> None:
    at, size = dice.randrange(len(data)), dice.choice((1, 12, 200))
    data[at:at] = data[at : at + size] * dice.choice((1, 50))


def _insert(data: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(data))
    data[at:at] = dice.randbytes(dice.choice((1, 4, 100)))


def _graft(data: bytearray, dice: random.Random) -> None:
    """The rest of another picture."""
    other = dice.choice(list(seeds().values()))
    at = dice.randrange(len(data))
    data[at:] = other[min(at, len(other) // 2) :]


MUTATIONS: tuple[Mutation, ...] = (
    _flip, _flip_in_header, _overwrite, _noise, _cut, _remove, _repeat, _insert, _graft,
)  # fmt: skip


def main() -> None:
    """Read the pictures that are asked for, and say in a line of JSON what is wrong of each."""
    if len(sys.argv) == 2:
        sys.stdout.buffer.write(mutated(int(sys.argv[1]))[1])
        return
    warnings.simplefilter("error")
    for problem in read(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])):
        print(json.dumps(problem), flush=True)


if __name__ == "__main__":
    main()
