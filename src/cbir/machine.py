"""The processor this runs on, and how many of its cores numerical libraries may use."""

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
    """The processor's name, as far as the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


@cache
def keep_blas_on_one_thread() -> None:
    """Keep every matrix product of this process on its calling thread, from now on.

    Callers run one batch per core. With a BLAS that spreads each product over all cores, they
    would mostly wait for each other's threads.
    """
    from threadpoolctl import threadpool_limits

    threadpool_limits(1, user_api="blas")


@contextmanager
def limited_threads() -> Iterator[None]:
    """Keep BLAS and OpenMP on one thread per caller, for pools that use all cores themselves."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield
