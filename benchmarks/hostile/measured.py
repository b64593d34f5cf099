"""Time and peak memory of code in a process of its own (Linux)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.setting import PEAK

ROOT = Path(__file__).resolve().parents[2]
_MEMORY = f"""
import json, resource
{PEAK}
children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
print(json.dumps([max(peak, children), result]))
"""


@dataclass(frozen=True)
class Measured:
    """How a process ended: wall time, peak memory in bytes, exit code, standard error, result.

    The peak is that of the process, or of the largest one that it started. Both the peak and the
    result are missing (0 and None) if the exit code is not 0.
    """

    seconds: float
    code: int
    errors: str
    peak: int
    result: Any


def measured(code: str, *arguments: object, most_seconds: float) -> Measured:
    """Run Python `code`, which sets `result` (of JSON) and prints nothing, for `most_seconds`."""
    started = time.perf_counter()
    command = [sys.executable, "-c", code + _MEMORY, *map(str, arguments)]
    with group(command, stderr=subprocess.PIPE) as child:
        try:
            output, errors = child.communicate(timeout=most_seconds)
        except subprocess.TimeoutExpired:
            kill(child)
            output, errors = child.communicate()
    seconds = time.perf_counter() - started
    peak, result = (0, None) if child.returncode else json.loads(output)
    return Measured(seconds, child.returncode, errors, peak, result)


@contextmanager
def group(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that Ctrl-C does not reach; the block's end kills it and all that it started."""
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
        **options,
    ) as child:
        try:
            yield child
        finally:
            kill(child)


def kill(child: subprocess.Popen[str]) -> None:
    """Kill a process of `group` and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
