"""The processor, its usable cores, and thread limits for numerical libraries."""

from __future__ import annotations

import errno
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path


def usable_cores() -> int:
    """The number of processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_WANT = re.compile(
    r"bad_?alloc|bad allocation|out of memory|unable to allocate|failed to allocate"
    r"|insufficient memory|can't start new thread|cannot allocate memory"
    r"|failed to map segment",
    re.IGNORECASE,
)
"""How libraries say that memory is lacking; none has an error of its own for it."""

LACKS_MEMORY = "needs more memory than is available"

ADDRESS_SPACE = 1_000_000_000
"""Bytes of address space that searching, indexing and serving need on two cores.

With less, libraries crash where they should say why.
"""


def address_space() -> int | None:
    """The limit of this process in bytes (`ulimit -v`), None if there is none."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is the want of memory (or of another thread)."""
    while error is not None:
        if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
            return True
        # The name of a file may be any text.
        if getattr(error, "filename", None) is None and _WANT.search(str(error)):
            return True
        error = error.__cause__
    return False


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
