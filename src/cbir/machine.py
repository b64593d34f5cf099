"""The processor, its usable cores, and thread limits for numerical libraries."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path


def usable_cores() -> int:
    """The number of processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    """The processor's name as the system reports it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


@cache
def keep_blas_on_one_thread() -> None:
    """Limit BLAS to one thread for the rest of the process.

    Callers run one batch per core; a multi-threaded BLAS would oversubscribe the cores.
    """
    from threadpoolctl import threadpool_limits

    threadpool_limits(1, user_api="blas")


@contextmanager
def limited_threads() -> Iterator[None]:
    """Limit BLAS and OpenMP to one thread per caller, for pools that already use all cores."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield
