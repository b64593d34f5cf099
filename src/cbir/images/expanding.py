"""Decompresses in small portions, so that nothing expands beyond what its reader asks for."""

from __future__ import annotations

import bz2
import importlib
import lzma
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

PORTION = 2**16
"""The most bytes that are decompressed at once."""

XZ_MEMORY = 2**29
"""The most memory, in bytes, that decoding an xz stream may take; `xz -9` needs 65 MB."""

DAMAGE = (zlib.error, lzma.LZMAError, EOFError, OSError)
"""What reading damaged or truncated compressed data raises."""


class Decompressor(Protocol):
    """The interface that the decompressors of bz2, lzma and zstd share."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class Inflater:
    """zlib's decompressor with the interface of the others; `wbits` as in zlib."""

    def __init__(self, wbits: int) -> None:
        self._inner = zlib.decompressobj(wbits)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        out = self._inner.decompress(self._inner.unconsumed_tail + data, max_length)
        # A full portion may leave more inside, also when all input is consumed.
        self.needs_input = not self._inner.unconsumed_tail and len(out) < max_length
        return out


def decompressor(head: bytes) -> Callable[[], Decompressor] | None:
    """What decompresses a file that begins with `head`; None if it is not compressed."""
    if head.startswith(b"\x1f\x8b\x08"):
        return partial(Inflater, 16 + zlib.MAX_WBITS)
    if head.startswith(b"BZh"):
        return bz2.BZ2Decompressor
    if head.startswith((b"\xfd7zXZ", b"\x5d\x00\x00\x80")):
        return partial(lzma.LZMADecompressor, memlimit=XZ_MEMORY)
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return _zstd()
    return None


def _zstd() -> Callable[[], Decompressor] | None:
    try:
        made: Any = importlib.import_module("compression.zstd").ZstdDecompressor
    except ImportError:  # before Python 3.14
        return None
    return made  # type: ignore[no-any-return]


def portions(
    read: Callable[[int], bytes], new: Callable[[], Decompressor], *, whole: bool
) -> Iterator[bytes]:
    """The decompressed content of what `read` returns, at most `PORTION` bytes at a time.

    `whole`: reads streams to the end of the file and raises EOFError if the last one is truncated;
    otherwise reads one stream, whose length the caller checks. Damage raises one of `DAMAGE`.
    """
    current = new()
    while True:
        data = b""
        if current.eof:
            if not whole:
                return
            data = current.unused_data.lstrip(b"\0")  # tools pad streams with zeros
            while not data:
                if not (more := read(PORTION)):
                    return
                data = more.lstrip(b"\0")
            current = new()
        elif current.needs_input and not (data := read(PORTION)):
            if whole:
                raise EOFError("the compressed data is truncated")
            return
        if out := current.decompress(data, PORTION):
            yield out
