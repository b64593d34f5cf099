"""Records and their vectors as arrays in id order, for searching and caching."""

from __future__ import annotations

import sqlite3
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cbir.index.embedded import record_rows, schema
from cbir.index.exact import Space
from cbir.types import Box, Vectors

_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Ids:
    """Ids in byte order, concatenated as UTF-8 and decoded lazily.

    `text` uint8, `ends` int64 (n + 1,): id i is text[ends[i]:ends[i + 1]].
    """

    text: NDArray[np.uint8]
    ends: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ends) - 1

    def raw(self, number: int) -> bytes:
        return self.text[self.ends[number] : self.ends[number + 1]].tobytes()

    def __getitem__(self, number: int) -> str:
        return self.raw(number).decode("utf-8", "surrogatepass")

    def position(self, record_id: str) -> int:
        """The number of ids before `record_id`."""
        return bisect_left(range(len(self)), _utf8(record_id), key=self.raw)

    def find(self, record_id: str) -> int:
        """The position of `record_id`, or -1."""
        number = self.position(record_id)
        return number if number < len(self) and self[number] == record_id else -1


@dataclass(frozen=True)
class Block:
    """Records in id order: `keys` int64 (n,), ids and vectors, part by part.

    `starts` int64 (n + 1,) and `matrix` float32 (rows, dim) as in `exact.Space`. `boxes` float64
    (rows - n, 4): the boxes of all parts except the whole images, in row order.
    """

    keys: NDArray[np.int64]
    ids: Ids
    starts: NDArray[np.int64]
    matrix: Vectors
    boxes: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def space(self) -> Space:
        return Space(self.matrix, self.starts)

    def box(self, number: int, row: int) -> Box | None:
        """The box of `row` of record `number`, None for the whole image."""
        if row == self.starts[number]:
            return None
        left, top, right, bottom = self.boxes[row - number - 1].tolist()
        return (left, top, right, bottom)

    def select(self, numbers: NDArray[np.int64]) -> Space:
        """The vectors of the records `numbers` (ascending)."""
        parts = self.starts[numbers + 1] - self.starts[numbers]
        starts = _running_sum(parts)
        rows = np.arange(starts[-1]) + np.repeat(self.starts[numbers] - starts[:-1], parts)
        return Space(self.matrix[rows], starts)

    def inner_boxes(self, numbers: NDArray[np.int64]) -> NDArray[np.float64]:
        """The part boxes, without the whole images, of the records `numbers` (ascending)."""
        chosen = np.zeros(len(self), dtype=np.bool_)
        chosen[numbers] = True
        return self.boxes[np.repeat(chosen, np.diff(self.starts) - 1)]


def join_ids(ids: Iterable[str]) -> Ids:
    """Concatenate `ids`, which must be in byte order."""
    encoded = [_utf8(record_id) for record_id in ids]
    lengths = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
    return Ids(np.frombuffer(b"".join(encoded), dtype=np.uint8), _running_sum(lengths))


def read_block(connection: sqlite3.Connection, dim: int, after: int = 0) -> Block:
    """Read all records with a key above `after` from the database.

    Skips records without vectors: searches cannot find them, and `verify` reports them.
    """
    # Read everything in disk order, but look up a few new records through the index.
    limit = f"WHERE record > {after}" if after else ""
    parts_of: dict[int, int] = dict(
        connection.execute(f"SELECT record, count(*) FROM vectors {limit} GROUP BY record")
    )
    listed = connection.execute(
        "SELECT key, id FROM records WHERE key > ? ORDER BY id", (after,)
    ).fetchall()
    listed = [row for row in listed if row[0] in parts_of]
    if not all(isinstance(record_id, str) for _, record_id in listed):
        raise schema.damaged("an id is no text")
    keys = np.array([key for key, _ in listed], dtype=np.int64)
    starts = _running_sum(np.array([parts_of[key] for key, _ in listed], dtype=np.int64))
    matrix = np.empty((int(starts[-1]), dim), dtype=np.float32)
    boxes = np.zeros((len(matrix) - len(keys), 4), dtype=np.float64)
    block = Block(keys, join_ids(record_id for _, record_id in listed), starts, matrix, boxes)
    if listed:
        _fill(connection, block, limit)
    return block


def _fill(connection: sqlite3.Connection, block: Block, limit: str) -> None:
    by_key = np.argsort(block.keys)
    sorted_keys = block.keys[by_key]
    sealed = schema.format_of(connection) >= schema.SEALED_SINCE
    cursor = connection.execute(
        f"SELECT record, part, x0, y0, x1, y1, vector, checksum FROM vectors {limit}"
        if sealed
        else f"SELECT record, part, x0, y0, x1, y1, vector, NULL FROM vectors {limit}"
    )
    dim = block.matrix.shape[1]
    while rows := cursor.fetchmany(_ROWS_AT_ONCE):
        if sealed:
            record_rows.check_vectors(rows)
        try:
            table = np.array([row[:6] for row in rows], dtype=np.float64)
            vectors = b"".join(row[6] for row in rows)
        except (TypeError, ValueError) as error:
            raise schema.damaged("a vector's row holds text where a number belongs") from error
        if any(len(row[6]) != 4 * dim for row in rows):
            raise schema.damaged("a vector has the wrong size")
        owner, part = table[:, 0].astype(np.int64), table[:, 1].astype(np.int64)
        found = np.searchsorted(sorted_keys, owner)
        found = np.minimum(found, len(sorted_keys) - 1)
        known = sorted_keys[found] == owner
        number = by_key[found[known]]
        row = block.starts[number] + part[known]
        if np.any(row >= block.starts[number + 1]):
            raise schema.damaged("records whose parts are not numbered consecutively")
        block.matrix[row] = np.frombuffer(vectors, dtype="<f4").reshape(-1, dim)[known]
        inner = part[known] > 0
        block.boxes[(row - number - 1)[inner]] = table[known][inner, 2:6]


def _running_sum(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
