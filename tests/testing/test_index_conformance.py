"""The conformance kit over every engine, and over engines and descriptors that are wrong."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cbir import testing
from cbir.errors import QueryError, RecordGoneError
from cbir.index.embedded.index import EmbeddedIndex
from cbir.index.open import create_index
from cbir.types import DescriptorSpec, RgbImage, Vectors


def test_the_embedded_engine_conforms(tmp_path: Path) -> None:
    number = itertools.count()
    testing.check_index(lambda spec: create_index(str(tmp_path / f"{next(number)}.cbir"), spec))


@pytest.mark.parametrize(
    ("method", "wrong"),
    [
        ("search", lambda self, *a, **o: [m for m in real_search(self, *a, **o) for _ in "ab"]),
        ("search", lambda self, v, k, **o: real_search(self, v, k + 1, **o)),
        ("search", lambda self, v, k, where=(), **o: real_search(self, v, k, **o)),
        ("search", lambda self, v, k, exclude=None, **o: real_search(self, v, k, **o)),
        ("search", lambda self, v, k, **o: real_search(self, -v, k, **o)),
        ("remove", lambda self, ids: list(ids)),
        ("mark_missing", lambda self, ids: None),
        ("set_details", lambda self, details: None),
        ("thumbnail", lambda self, record_id: b"the same for all"),
        ("thumbnail", lambda self, i: real_thumbnail(self, i) if i in real_ids(self) else None),
        ("records", lambda self, ids: real_records(self, [i for i in ids if i in real_ids(self)])),
        ("vectors", lambda self, i: gone_as(QueryError("gone"), real_vectors, self, i)),
        ("search", lambda self, *a, **o: gone_as(RecordGoneError("x"), real_search, self, *a, **o)),
        ("labels", lambda self: {}),
        ("ids", lambda self, where=(): iter(sorted(real_ids(self, where), reverse=True))),
        ("ids", lambda self, where=(): real_ids(self)),
        ("rename", lambda self, renamed, *rest: real_rename(self, dict(list(renamed.items())[:1]))),
        ("bury", lambda self, tombstones: self.remove(t.id for t in tombstones)),
    ],
)
def test_the_kit_finds_an_engine_that_is_wrong(
    method: str, wrong: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EmbeddedIndex, method, wrong)
    number = itertools.count()
    with pytest.raises((AssertionError, ValueError)):
        testing.check_index(lambda spec: create_index(str(tmp_path / f"{next(number)}.cbir"), spec))


real_search = EmbeddedIndex.search
real_ids = EmbeddedIndex.ids
real_rename = EmbeddedIndex.rename
real_records = EmbeddedIndex.records
real_vectors = EmbeddedIndex.vectors
real_thumbnail = EmbeddedIndex.thumbnail


def gone_as(error: QueryError, call: Callable[..., object], *given: Any, **options: Any) -> object:
    """What `call` returns, with `error` in the place of its `QueryError`."""
    try:
        return call(*given, **options)
    except QueryError:
        raise error from None


class MeanColour:
    """Red, green, blue and one: a descriptor in the fewest lines."""

    spec = DescriptorSpec("mean-colour", 4, "c" * 64)

    def describe(self, images: Sequence[RgbImage]) -> Vectors:
        means = [np.append(image.mean(axis=(0, 1)) / 255, 1) for image in images]
        return testing.unit(np.array(means))


def test_a_descriptor_of_a_few_lines_conforms() -> None:
    testing.check_descriptor(MeanColour())


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda rows: rows * 2, "unit norm"),
        (lambda rows: rows * np.nan, "unit norm"),
        (lambda rows: rows.astype(np.float64), "float32"),
        (lambda rows: rows[:-1], "expected shape"),
        (lambda rows: testing.unit(rows + len(rows)), "alone and in a batch"),
        (lambda rows: rows[:: 1 if rows[0, 0] <= rows[-1, 0] else -1], "at another position"),
    ],
)
def test_the_kit_finds_a_descriptor_that_is_wrong(change: object, complaint: str) -> None:
    class Wrong(MeanColour):
        def describe(self, images: Sequence[RgbImage]) -> Vectors:
            return change(super().describe(images))  # type: ignore[operator, no-any-return]

    with pytest.raises(AssertionError, match=complaint):
        testing.check_descriptor(Wrong())


class Lengths(MeanColour):
    """Its text tower: how many letters, spaces and bytes a text has."""

    has_text = True

    def describe_texts(self, texts: Sequence[str]) -> Vectors:
        rows = [[len(text), text.count(" "), len(text.encode()), 1] for text in texts]
        return testing.unit(np.array(rows, dtype=np.float64))


def test_a_descriptor_with_a_text_tower_conforms() -> None:
    testing.check_descriptor(Lengths())


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda rows: rows * 2, "unit norm"),
        (lambda rows: rows * np.nan, "unit norm"),
        (lambda rows: rows.astype(np.float64), "float32"),
        (lambda rows: rows[:, :3], r"describe_texts returned .*expected shape"),
        (lambda rows: testing.unit(rows + len(rows)), "text 0 alone and in a batch"),
        (lambda rows: rows[:: 1 if rows[0, 0] <= rows[-1, 0] else -1], "at another position"),
    ],
)
def test_the_kit_finds_a_text_tower_that_is_wrong(change: object, complaint: str) -> None:
    class Wrong(Lengths):
        def describe_texts(self, texts: Sequence[str]) -> Vectors:
            return change(super().describe_texts(texts))  # type: ignore[operator, no-any-return]

    with pytest.raises(AssertionError, match=complaint):
        testing.check_descriptor(Wrong())
    Wrong.has_text = False
    testing.check_descriptor(Wrong())  # never called then
