"""Keeps uploads in memory for a while, so that a search can be changed without a new upload."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

MOST = 500
MOST_BYTES = 256 * 1024 * 1024
MINUTES = 30
"""How long an upload is kept after its last use; less if newer ones need the room."""


@dataclass(frozen=True, slots=True)
class Upload:
    """The bytes of an uploaded picture, and its name for display."""

    name: str
    data: bytes


class Uploads:
    """Uploads by token. Only who was given a token, which cannot be guessed, gets its picture.

    Bounded by number, bytes and time since the last use; the longest unused go first. Thread-safe.
    """

    def __init__(
        self,
        most: int = MOST,
        most_bytes: int = MOST_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._clock = clock
        self._lock = Lock()
        self._kept: OrderedDict[str, tuple[float, Upload]] = OrderedDict()
        self._bytes = 0

    def keep(self, upload: Upload) -> str:
        """Keep `upload`; returns the token to get it with."""
        token = secrets.token_urlsafe(24)
        with self._lock:
            self._kept[token] = (self._clock(), upload)
            self._bytes += len(upload.data)
            self._tidy()
        return token

    def get(self, token: str) -> Upload | None:
        """The upload of this token, None if it is not kept (any more)."""
        with self._lock:
            self._tidy()
            if token not in self._kept:
                return None
            _, upload = self._kept[token]
            self._kept[token] = (self._clock(), upload)
            self._kept.move_to_end(token)
            return upload

    def _tidy(self) -> None:
        oldest = self._clock() - MINUTES * 60
        while self._kept:
            used, upload = next(iter(self._kept.values()))
            if used >= oldest and len(self._kept) <= self._most and self._bytes <= self._most_bytes:
                return
            self._kept.popitem(last=False)
            self._bytes -= len(upload.data)
