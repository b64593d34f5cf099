"""The search cache: a memory-mapped file with a block of records, verified when opened.

Layout: a header page of 4096 bytes (magic, sha256 of the rest of the page, JSON), then the
little-endian arrays, each aligned to 64 bytes. The JSON contains the sha256 of all following bytes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbir.files import put_in_place
from cbir.index.embedded.block import Block, Ids

FORMAT = 1

_MAGIC = b"cbircach"
_PAGE = 4096
_ALIGNMENT = 64
_ARRAYS = {
    "keys": "<i8",
    "ends": "<i8",
    "starts": "<i8",
    "boxes": "<f8",
    "text": "<u1",
    "matrix": "<f4",
}


class UnusableCacheError(Exception):
    """The cache file must not be used; the message says why."""


@dataclass(frozen=True)
class Cached:
    """A block and the database state it was read from.

    It holds every record of `generation`; records with a key above `max_key` are newer.
    """

    block: Block
    generation: int
    max_key: int


def write(path: Path, draft: Path, cached: Cached, index_id: str) -> None:
    """Write `cached` to `draft`, flush it to disk, and atomically rename it to `path`."""
    arrays = _arrays(cached.block)
    checksum = hashlib.sha256()
    with draft.open("wb") as file:
        file.write(bytes(_PAGE))
        sections: dict[str, Any] = {}
        for name, array in arrays.items():
            sections[name] = {"at": file.tell(), "shape": array.shape}
            for piece in (array.reshape(-1).view(np.uint8).data, bytes(-array.nbytes % _ALIGNMENT)):
                file.write(piece)
                checksum.update(piece)
        facts = {
            "format": FORMAT,
            "index": index_id,
            "generation": cached.generation,
            "max_key": cached.max_key,
            "size": file.tell(),
            "sha256": checksum.hexdigest(),
            "sections": sections,
        }
        file.seek(0)
        file.write(_first_page(facts))
    put_in_place(draft, path)


def read(path: Path, index_id: str, dim: int) -> Cached:
    """Open the memory-mapped cache at `path`; raises `UnusableCacheError` if it is invalid."""
    try:
        size = path.stat().st_size
        if size < _PAGE:
            raise UnusableCacheError("it is truncated")
        data = np.memmap(path, dtype=np.uint8, mode="r")
    except FileNotFoundError:
        raise UnusableCacheError("it is missing") from None
    except OSError as error:
        raise UnusableCacheError(f"it cannot be read: {error.strerror}") from None
    facts = _facts(data[:_PAGE].tobytes())
    if facts["format"] != FORMAT:
        raise UnusableCacheError(f"it has format {facts['format']}")
    if facts["index"] != index_id:
        raise UnusableCacheError("it belongs to another index")
    if facts["size"] != len(data):
        raise UnusableCacheError("it is truncated")
    if hashlib.sha256(data[_PAGE:].data).hexdigest() != facts["sha256"]:
        raise UnusableCacheError("its checksum is wrong")
    block = _block(data, facts["sections"])
    if block.matrix.shape[1] != dim:
        raise UnusableCacheError(f"its vectors have {block.matrix.shape[1]} dimensions")
    return Cached(block, facts["generation"], facts["max_key"])


def generation(path: Path) -> int | None:
    """The generation of the cache at `path` as its header says; None without a valid header."""
    try:
        with path.open("rb") as file:
            return int(_facts(file.read(_PAGE))["generation"])
    except (OSError, UnusableCacheError):
        return None


def _arrays(block: Block) -> dict[str, NDArray[Any]]:
    arrays = {
        "keys": block.keys,
        "ends": block.ids.ends,
        "starts": block.starts,
        "boxes": block.boxes,
        "text": block.ids.text,
        "matrix": block.matrix,
    }
    return {name: np.ascontiguousarray(arrays[name], dtype=kind) for name, kind in _ARRAYS.items()}


def _block(data: NDArray[np.uint8], sections: dict[str, Any]) -> Block:
    arrays: dict[str, NDArray[Any]] = {}
    for name, kind in _ARRAYS.items():
        at, shape = sections[name]["at"], tuple(sections[name]["shape"])
        length = int(np.prod(shape)) * np.dtype(kind).itemsize
        # A plain array on top of the map: slices of np.memmap are slow. It keeps the map alive.
        arrays[name] = np.asarray(data[at : at + length]).view(kind).reshape(shape)
    return Block(
        arrays["keys"],
        Ids(arrays["text"], arrays["ends"]),
        arrays["starts"],
        arrays["matrix"],
        arrays["boxes"],
    )


def _first_page(facts: dict[str, Any]) -> bytes:
    body = json.dumps(facts).encode()
    body += b" " * (_PAGE - len(_MAGIC) - 32 - len(body))
    return _MAGIC + hashlib.sha256(body).digest() + body


def _facts(page: bytes) -> dict[str, Any]:
    magic, digest, body = page[: len(_MAGIC)], page[len(_MAGIC) :][:32], page[len(_MAGIC) + 32 :]
    if magic != _MAGIC or hashlib.sha256(body).digest() != digest:
        raise UnusableCacheError("its header is damaged")
    facts: dict[str, Any] = json.loads(body)
    return facts
