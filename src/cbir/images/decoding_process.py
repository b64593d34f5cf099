"""Decodes a picture in a process that can be stopped, and whose memory is limited.

A message is a line of JSON and the bytes after it. `decode_task` runs in the process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from math import ceil
from pathlib import Path
from threading import Lock
from typing import IO, Any

import numpy as np

from cbir.errors import ImageError
from cbir.images.limits import MEMORY, Limits
from cbir.types import RgbImage

_BASE = 700_000_000  # address space of Python with its libraries
_LOOK = 0.2  # seconds between two looks at the clock
_KILLED = 9  # the signal
_PER_PIXEL = 20  # bytes that a pixel takes in the worst format
_REMEMBERED = 1800.0  # seconds: a busy machine may have been the reason
_MOST_REMEMBERED = 1000

_Answer = tuple[dict[str, Any], RgbImage]
_Received = tuple[_Answer | None, int]

_too_slow: dict[tuple[bytes, Task, float], float] = {}
"""Until when a picture that ran out of time is not tried again."""
_lock = Lock()


@dataclass(frozen=True, slots=True)
class Task:
    """What to decode: see `decode.decode_form`."""

    kind: str
    pixels: int | None
    side: int | None
    orientation: int


@dataclass(frozen=True, slots=True)
class Decoded:
    """RGB pixels, uint8 (height, width, 3), perhaps read-only; the width and height of the picture.

    `pixels` have another size if a JPEG was decoded at reduced scale. `notes`: one line each about
    what was unusual and is no failure.
    """

    pixels: RgbImage
    width: int
    height: int
    notes: tuple[str, ...] = ()


def decode_in_process(task: Task, data: bytes, limits: Limits) -> Decoded:
    """Decode a picture in another process.

    Raises `ImageError` if that fails, takes longer than `limits.seconds`, is stopped or needs more
    than `limits.MEMORY`; `MemoryError` if this machine lacks the memory. A picture that took too
    long is not tried again for half an hour: a watched folder is read after every change.
    """
    picture = (sha256(data).digest(), task, limits.seconds)
    with _lock:
        if _too_slow.get(picture, 0.0) > time.monotonic():
            raise _overdue(limits)
    home = str(Path(__file__).parents[2])
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")])),
        "OPENBLAS_NUM_THREADS": "1",
    }
    memory = max(MEMORY, _PER_PIXEL * (task.pixels or 0))
    settings = asdict(task) | {
        "seconds": limits.seconds,
        "memory": memory + _BASE,
        "parent": os.getpid(),
    }
    with (
        subprocess.Popen(
            # Without the working directory, which may hold anyone's modules, among its paths.
            [sys.executable, "-P", "-m", "cbir.images.decode_task"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for this process, which then ends the other one
        ) as process,
        ThreadPoolExecutor(2, "cbir-decoding") as pool,
    ):
        assert process.stdin is not None and process.stdout is not None
        # Not `communicate`, which would hold the pixels twice.
        pipe, process.stdin = process.stdin, None
        pool.submit(_feed, pipe, json.dumps(settings).encode() + b"\n", data)
        receiving = pool.submit(_received, process, process.stdout)
        try:
            answer, code = _until_done(receiving, limits)
        except TimeoutError:
            _remember(picture)
            raise _overdue(limits) from None
        finally:
            process.kill()
    return _read(answer, code, memory)


def _feed(pipe: IO[bytes], *parts: bytes) -> None:
    with suppress(OSError), pipe:  # the process may end before it has read all
        for part in parts:
            pipe.write(part)


def _received(process: subprocess.Popen[bytes], pipe: IO[bytes]) -> _Received:
    """What the process says; None and its exit code if it ends before that."""
    line = pipe.readline()
    if line.endswith(b"\n"):
        told = json.loads(line)
        pixels = np.empty((*told.get("shape", (0, 0)), 3), np.uint8)
        length = pipe.readinto(pixels.reshape(-1).data)  # type: ignore[attr-defined] # is buffered
        if length == pixels.nbytes:
            return (told, pixels), 0
    return None, process.wait()


def _until_done(receiving: Future[_Received], limits: Limits) -> _Received:
    deadline = time.monotonic() + limits.seconds
    while True:
        try:
            return receiving.result(min(_LOOK, limits.seconds))
        except TimeoutError:
            if limits.stopped is not None and limits.stopped.is_set():
                raise ImageError("decoding was stopped") from None
            if time.monotonic() >= deadline:
                raise TimeoutError from None


def _overdue(limits: Limits) -> ImageError:
    return ImageError(
        f"took longer than {limits.seconds:g} s to decode",
        "save it as an ordinary JPEG or PNG; cbir index takes longer with "
        f"--max-seconds {ceil(3 * limits.seconds)}",
    )


def _remember(picture: tuple[bytes, Task, float]) -> None:
    with _lock:
        while len(_too_slow) >= _MOST_REMEMBERED:
            del _too_slow[next(iter(_too_slow))]
        _too_slow[picture] = time.monotonic() + _REMEMBERED


def _read(answer: _Answer | None, code: int, memory: int) -> Decoded:
    if answer is None:
        if code == -_KILLED:  # by the system, for want of memory
            raise MemoryError
        raise ImageError("damaged image: its decoder ended without an answer")
    told, pixels = answer
    if "error" in told:
        raise ImageError(told["error"], told["hint"])
    if told.get("lacks") == "limit":
        raise ImageError(f"needs more than {memory / 1e9:g} GB of memory to decode")
    if "lacks" in told:
        raise MemoryError
    return Decoded(pixels, told["width"], told["height"], tuple(told["notes"]))
