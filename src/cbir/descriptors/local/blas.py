"""NumPy's linear algebra as describing uses it: one thread a call.

Callers run one batch a core. Two of them with a BLAS that spreads each product over all cores wait
for each other's threads, most of the time where the cores are busy.
"""

from __future__ import annotations

from functools import cache


@cache
def keep_blas_on_one_thread() -> None:
    """Keep every matrix product of this process on the thread that asks for it, from now on."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(1, user_api="blas")
