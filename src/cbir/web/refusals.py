"""Makes addresses wait whose uploads are refused again and again.

Receiving, parsing and refusing an upload costs about as much as answering one, so a client that
sends nothing else could take the cores from everybody.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

REFUSALS = frozenset({400, 401, 413})
"""Statuses that count. Not 403, which any web site open in a visitor's browser can cause."""
AT_ONCE = 20
PER_SECOND = 10.0
MOST_SECONDS = 5.0
"""The longest wait. Behind a proxy, everybody has one address."""


class Refusals:
    """Counts the refused uploads of each address: AT_ONCE are free, then PER_SECOND. Thread-safe.

    A leaky bucket: uploads wait until what their address got beyond AT_ONCE has leaked away.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._empty_at: dict[str, float] = {}
        """When the bucket of an address is empty."""

    def count(self, address: str, status: int) -> None:
        """Count the answer to an upload, if it is a refusal."""
        if status in REFUSALS:
            now = self._clock()
            with self._lock:
                empty_at = max(self._empty_at.get(address, 0), now) + 1 / PER_SECOND
                self._empty_at[address] = min(empty_at, now + AT_ONCE / PER_SECOND + MOST_SECONDS)

    def seconds(self, address: str) -> float:
        """How long the next upload of an address has to wait."""
        empty_at = self._empty_at.get(address)
        return 0 if empty_at is None else max(0, empty_at - self._clock() - AT_ONCE / PER_SECOND)

    def forget(self) -> None:
        """Forget the addresses whose bucket is empty."""
        now = self._clock()
        with self._lock:
            self._empty_at = {who: at for who, at in self._empty_at.items() if at > now}
