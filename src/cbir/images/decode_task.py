"""The process of `decoding_process`: decodes one picture from standard input."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress
from math import ceil, inf
from typing import Any

from cbir.errors import ImageError
from cbir.images.decode import decode_form
from cbir.images.limits import Limits
from cbir.machine import usable_cores

_ON_END_OF_PARENT = 1  # PR_SET_PDEATHSIG
_MOST_SECONDS, _MOST_MEMORY = 2**31, 2**60  # systems count in nanoseconds and bytes of 64 bits


def main() -> None:
    """Read a task, limit this process, and write the answer."""
    task = json.loads(sys.stdin.buffer.readline())
    _end_with(task["parent"])
    # Some decoders use all cores.
    is_limit = _limit(task["memory"], usable_cores() * (ceil(task["seconds"]) + 5))
    pixels: Any = b""
    try:
        limits = Limits(task["pixels"], seconds=inf, side=task["side"])
        found = decode_form(task["kind"], sys.stdin.buffer.read(), limits, task["orientation"])
        pixels = found.pixels
        told = {
            "shape": pixels.shape[:2],
            "width": found.width,
            "height": found.height,
            "notes": found.notes,
        }
    except ImageError as error:
        told = {"error": error.message, "hint": error.hint}
    except MemoryError:
        told = {"lacks": "limit" if is_limit else "memory"}
    sys.stdout.buffer.write(json.dumps(told).encode() + b"\n")
    sys.stdout.buffer.write(pixels)


def _end_with(parent: int) -> None:
    """Let the system (Linux) end this process with its parent, however that ends."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_ON_END_OF_PARENT, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit(1)


def _limit(memory: int, seconds: int) -> bool:
    """Limit address space and processor time, where the system can (not on Windows).

    Returns whether `memory` is the limit, and not a lower one that was there before.
    """
    with suppress(ImportError, OSError, ValueError):
        import resource

        # In case that nobody is left to end this process.
        resource.setrlimit(resource.RLIMIT_CPU, (min(seconds, _MOST_SECONDS),) * 2)
        before, most = resource.getrlimit(resource.RLIMIT_AS)
        if before != resource.RLIM_INFINITY and before <= memory:
            return False
        resource.setrlimit(resource.RLIMIT_AS, (min(memory, _MOST_MEMORY), most))
        return True
    return False


if __name__ == "__main__":
    main()
