"""Slows down addresses that get one refusal after the other.

To receive, take apart and refuse a request costs about as much as to answer one, so whoever sends
nothing else could take the cores from everybody.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

REFUSALS = frozenset({400, 401, 403, 413})
"""Statuses that count. Pages request pictures that may be gone, so 404 does not."""
AT_ONCE = 20
PER_SECOND = 10.0


class Refusals:
    """Counts the refusals of each address: AT_ONCE are free, then PER_SECOND. Thread-safe.

    A leaky bucket: an address is slowed down until what it got beyond AT_ONCE has leaked away.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._empty_at: dict[str, float] = {}
        """When the bucket of an address is empty."""

    def count(self, address: str, status: int) -> None:
        """Count an answer, if it is a refusal."""
        if status in REFUSALS:
            now = self._clock()
            with self._lock:
                self._empty_at[address] = max(self._empty_at.get(address, 0), now) + 1 / PER_SECOND

    def is_slowed(self, address: str) -> bool:
        """Whether the next request of an address has to wait."""
        empty_at = self._empty_at.get(address)
        return empty_at is not None and empty_at - self._clock() > AT_ONCE / PER_SECOND

    def forget(self) -> None:
        """Forget the addresses whose bucket is empty."""
        now = self._clock()
        with self._lock:
            self._empty_at = {who: at for who, at in self._empty_at.items() if at > now}
