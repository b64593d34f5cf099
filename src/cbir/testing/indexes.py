"""Conformance tests for index engines, compared with NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial

import numpy as np

from cbir.errors import CbirError, QueryError, RecordGoneError
from cbir.index.base import (
    SCORE_TOLERANCE,
    Detail,
    Entry,
    FileState,
    Index,
    Matches,
    SourceRun,
    Tombstone,
)
from cbir.testing.expect import expect, expect_near, expect_raises
from cbir.testing.samples import LEFT_HALF, RIGHT_HALF, make_entry, sample_entries, unit
from cbir.types import WHOLE, Box, DescriptorSpec, Failure, ImageRecord, MetadataValue, Vectors


def check_index(make_index: Callable[[DescriptorSpec], Index]) -> None:
    """Check adding, changing, removing, reading, searching and ordering against NumPy.

    Each call of `make_index` returns a new empty index for a spec, open for writing. All indexes
    are closed at the end.
    """
    for check in (
        _check_empty,
        _check_reading_back,
        _check_replacing_and_removing,
        _check_details_and_marks,
        _check_sources_and_failures,
        _check_renaming,
        _check_swapping_ids,
        _check_renaming_sources,
        _check_tombstones,
        _check_search,
        _check_ties,
        _check_parts,
        _check_filters,
        _check_bad_questions,
    ):
        with closing(make_index(_spec())) as index:
            check(index)


def _check_empty(index: Index) -> None:
    expect(index.writable, "make_index must return an index that is open for writing")
    expect(index.count() == 0, "a new index is not empty")
    expect(index.spec == _spec(), "spec differs from the one the index was created with")
    queries = unit(np.ones((2, 8)))
    found = index.search(queries, 5)
    expect([m.ids for m in found] == [[], []], "an empty index must return no hits")
    expect(index.search(queries[:0], 5) == [], "no queries must give no results")
    expect(
        list(index.ids()) == [] and list(index.entries()) == [], "an empty index must list nothing"
    )
    expect(index.remove(["a/none"]) == [], "removing unknown ids must return nothing")
    index.add([])
    expect(index.count() == 0, "adding nothing must add nothing")


def _check_reading_back(index: Index) -> None:
    entries = sample_entries(7, parts=2, metadata={"price": 2.5, "colour": "réd", "year": 1999})
    index.add(entries[4:])
    index.add(entries[:4])
    index.refresh()
    ids = [entry.record.id for entry in entries]
    expect(index.count() == 7, f"count is {index.count()} after 7 records were added")
    expect(list(index.ids()) == ids, "ids must come in byte order")
    backwards = index.records(ids[::-1])
    expect(
        backwards == [entry.record for entry in entries[::-1]],
        "records must be returned unchanged, in the requested order",
    )
    for entry in entries:
        expect_near(index.vectors(entry.record.id), entry.vectors, f"vectors of {entry.record.id}")
        expect(
            index.thumbnail(entry.record.id) == entry.thumbnail,
            f"the thumbnail of {entry.record.id} was not returned",
        )
    for listed, entry in zip(index.entries(), entries, strict=True):
        expect(listed.record == entry.record, "entries must return the records in id order")
        expect(tuple(listed.boxes) == tuple(entry.boxes), "entries must return the boxes")
        expect(listed.thumbnail == entry.thumbnail, "entries must return the thumbnails")
        expect_near(listed.vectors, entry.vectors, "vectors from entries()")
    named, wholes = index.matrix()
    expect(named == ids, "matrix must list all ids in byte order")
    expect_near(wholes, np.stack([e.vectors[0] for e in entries]), "the rows of matrix()")
    expect(
        index.labels() == {entry.record.id: entry.record.label for entry in entries},
        "labels do not match",
    )
    stamp = index.stamps("a")[ids[0]]
    first = entries[0].record
    expect(
        (stamp.content_hash, stamp.missing, *stamp.file)
        == (
            *(first.content_hash, first.missing),
            *(first.file_size, first.mtime_ns, first.stamp, first.decoder),
        ),
        "stamps must return the file state",
    )
    expect(
        (stamp.parts, stamp.label, dict(stamp.metadata)) == (2, first.label, dict(first.metadata)),
        "stamps must return parts, label and metadata",
    )
    info = index.info()
    expect(info["count"] == 7 and info["dim"] == 8, "info must return count and dim")
    expect(
        info["descriptor"]["fingerprint"] == index.spec.fingerprint,
        "info must return the descriptor's name and fingerprint",
    )
    expect(index.verify() == [], f"verify finds problems: {index.verify()}")


def _check_replacing_and_removing(index: Index) -> None:
    entries = {entry.record.id: entry for entry in sample_entries(30)}
    index.add(list(entries.values()))
    index.refresh()
    changed = sample_entries(10, seed=1)
    index.add(changed)
    entries.update({entry.record.id: entry for entry in changed})
    gone = ["a/0003", "a/0020", "a/none"]
    expect(index.remove(gone) == gone[:2], "remove must return the ids that existed")
    for record_id in gone[:2]:
        del entries[record_id]
        _expect_gone(index, record_id)
    for refreshed in (False, True):
        if refreshed:
            index.refresh()
        expect(index.count() == 28, f"count is {index.count()}; expected 28")
        _expect_answers(index, entries.values(), unit(np.eye(8)), k=28)
        expect(index.matrix()[0] == sorted(entries), "matrix must reflect changes")
    twice = sample_entries(2, seed=5, prefix="b")
    index.add([*twice, make_entry("b/0000", unit(np.eye(8)[:1]))])
    expect_near(index.vectors("b/0000"), unit(np.eye(8)[:1]), "the last of two equal ids in a call")
    expect(index.verify() == [], f"verify finds problems: {index.verify()}")


def _check_details_and_marks(index: Index) -> None:
    index.add(sample_entries(4, metadata={"old": 1}))
    given = frozenset(["label", "new"])
    index.set_details(
        {"a/0001": Detail("bird", {"new": "x", "taken": "2024"}, given), "a/0002": Detail(None, {})}
    )
    index.mark_missing(["a/0001", "a/0003"])
    index.touch({"a/0003": FileState(77, 88, "new", 2)})
    index.refresh()
    records = index.records(["a/0000", "a/0001", "a/0002"])
    expect(
        [(record.label, dict(record.metadata), record.given) for record in records]
        == [
            ("cat", {"old": 1}, frozenset()),
            ("bird", {"new": "x", "taken": "2024"}, given),
            (None, {}, frozenset()),
        ],
        "set_details must replace label, metadata and `given` of the named records only",
    )
    expect(index.stamps("a")["a/0001"].given == given, "stamps must return what was given")
    marks = {record_id: stamp.missing for record_id, stamp in index.stamps("a").items()}
    expect(
        marks == {"a/0000": False, "a/0001": True, "a/0002": False, "a/0003": False},
        "mark_missing must set, and touch clear, `missing` of the given records only",
    )
    stamp = index.stamps("a")["a/0003"]
    expect(stamp.file == (77, 88, "new", 2), "touch must set the state of the file")


def _check_sources_and_failures(index: Index) -> None:
    expect(bool(index.identity), "an index must have an identity")
    expect(
        index.register_source("photos", "/one") == "photos", "an unused name must be used as it is"
    )
    expect(
        index.register_source("photos", "/two") == "photos-2", "a name conflict must give NAME-2"
    )
    expect(index.register_source("other", "/one") == "photos", "a known URI must keep its name")
    expect(
        index.sources() == {"photos": "/one", "photos-2": "/two"},
        "sources must return every URI",
    )
    index.move_source("photos", "/three")
    expect(index.sources()["photos"] == "/three", "move_source must update the URI")
    for name, uri in (("nobody", "/four"), ("photos", "/two")):
        expect_raises(QueryError, partial(index.move_source, name, uri), "an impossible move")
    bad = Failure("photos", "x.jpg", "cut off")
    index.set_failures("photos", [bad])
    index.set_failures("photos-2", [Failure("photos-2", "y.jpg", "no image")])
    index.set_failures("photos-2", [])
    expect(index.failures() == [bad], "set_failures must replace the failures of its source only")
    expect(index.runs() == {}, "a source that was never run has no run")
    index.set_run("photos", SourceRun(1_700_000_000, finished=False))
    index.move_source("photos", "/five")
    expect(
        index.runs() == {"photos": SourceRun(1_700_000_000, finished=False)},
        "runs must return what set_run stored, also after a move",
    )
    index.add([*sample_entries(3, prefix="photos"), *sample_entries(2, prefix="photos-2")])
    index.bury([_tombstone("photos/9999")])
    gone = ["photos/0000", "photos/0001", "photos/0002"]
    expect(index.remove_source("photos") == gone, "remove_source must return the ids of records")
    expect(
        (list(index.sources()), index.failures(), index.runs(), index.tombstones())
        == (["photos-2"], [], {}, {}),
        "remove_source must drop its failures, run and tombstones",
    )
    expect(index.count() == 2, "remove_source must keep the records of other sources")
    index.mark_missing(["photos-2/0001"])
    expect(index.source_counts() == {"photos-2": (2, 1)}, "source_counts must count by source")
    expect_raises(QueryError, lambda: index.remove_source("photos"), "removing an unknown source")


def _check_renaming(index: Index) -> None:
    entries = {e.record.id: e for e in sample_entries(6, parts=2, metadata={"year": 1999})}
    index.add(list(entries.values()))
    index.refresh()
    new = replace(
        entries["a/0001"].record,
        id="b/new",
        source="b",
        location="new",
        metadata={"x": "y", "lens": "z"},
        given=frozenset(["label", "lens"]),
    )
    over = replace(entries["a/0002"].record, id="a/0003", location="0003")
    index.rename({"a/0001": new, "a/0002": over, "a/none": replace(new, id="b/none")})
    moved = {
        "b/new": replace(entries.pop("a/0001"), record=new),
        "a/0003": replace(entries.pop("a/0002"), record=over),
    }
    entries.update(moved)
    _expect_entries(index, entries)
    for record_id in ("a/0001", "a/0002", "b/none"):
        _expect_gone(index, record_id)
    expect(list(index.stamps("b")) == ["b/new"], "rename must change the source")
    ids = sorted(entries)
    expect(index.contents(2) == {"0" * 64: ids}, "contents must list ids by content hash")
    expect(index.contents(1) == {}, "contents must list records of as many parts only")


def _check_swapping_ids(index: Index) -> None:
    entries = {entry.record.id: entry for entry in sample_entries(8)}
    index.add(list(entries.values()))
    index.refresh()
    # Two swap, three take turns, and each of a row follows the next one.
    targets = {0: 1, 1: 0, 2: 3, 3: 4, 4: 2, 5: 6, 6: 7, 7: 8}
    named = {f"a/{old:04d}": f"a/{new:04d}" for old, new in targets.items()}
    index.rename({old: replace(entries[old].record, id=new) for old, new in named.items()})
    _expect_entries(
        index,
        {
            new: replace(entries[old], record=replace(entries[old].record, id=new))
            for old, new in named.items()
        },
    )


def _check_renaming_sources(index: Index) -> None:
    for name, uri in (("a", "/one"), ("b", "/one/b"), ("c", "/three")):
        index.register_source(name, uri)
        index.set_failures(name, [Failure(name, "bad.jpg", "cut off")])
        index.set_run(name, SourceRun(17, finished=True))
        index.bury([_tombstone(f"{name}/gone")])
    entries = {e.record.id: e for name in "abc" for e in sample_entries(2, prefix=name)}
    index.add(list(entries.values()))
    new = {"b/0000": "a/b/0000", "b/0001": "a/b/0001", "c/0000": "d/0000", "c/0001": "d/0001"}
    renamed = {
        old: replace(entries[old].record, id=name, source=name[0], location=name.partition("/")[2])
        for old, name in new.items()
    }
    index.rename(renamed, {"b": "a", "c": "d"}, [_tombstone("d/gone")])
    for old, record in renamed.items():
        entries[record.id] = replace(entries.pop(old), record=record)
    _expect_entries(index, entries)
    expect(index.sources() == {"a": "/one", "d": "/three"}, "a source must be renamed or dropped")
    expect(
        [failure.source for failure in index.failures()] == ["a", "d"],
        "failures must follow a renamed source, and go with a dropped one",
    )
    expect(list(index.runs()) == ["a", "d"], "the last run must follow a renamed source")
    expect(
        list(index.tombstones()) == ["a/gone", "d/gone"],
        "rename must replace the tombstones of renamed sources",
    )


def _check_tombstones(index: Index) -> None:
    entries = sample_entries(5)
    index.add(entries)
    index.refresh()
    buried = [_tombstone(name) for name in ("a/0001", "a/0003", "a/none")]
    expect(index.bury(buried) == ["a/0001", "a/0003"], "bury must return the ids of its records")
    expect(
        index.tombstones() == {tombstone.id: tombstone for tombstone in buried},
        "tombstones must be returned unchanged",
    )
    _expect_entries(index, {e.record.id: e for e in (entries[0], entries[2], entries[4])})
    index.add(entries[1:2])
    expect(
        list(index.tombstones()) == ["a/0003", "a/none"], "adding a record must end its tombstone"
    )
    index.unbury(["a/0003", "a/0004"])
    expect(list(index.tombstones()) == ["a/none"], "unbury must end the tombstones of its ids")
    index.remove(["a/0000"])
    expect("a/0000" not in index.tombstones(), "remove must leave no tombstone")


def _tombstone(record_id: str) -> Tombstone:
    source, _, location = record_id.partition("/")
    return Tombstone(record_id, source, location, "0" * 64, 1000, None, "7-1", 1_700_000_000)


def _expect_entries(index: Index, entries: Mapping[str, Entry]) -> None:
    """The index must hold these entries and no others, and find them, refreshed or not."""
    for refreshed in (False, True):
        if refreshed:
            index.refresh()
        expect(list(index.ids()) == sorted(entries), f"ids are {list(index.ids())}")
        for listed in index.entries():
            entry = entries[listed.record.id]
            expect(listed.record == entry.record, f"{listed.record} is not {entry.record}")
            expect(listed.thumbnail == entry.thumbnail, "a record must keep its thumbnail")
            expect_near(listed.vectors, entry.vectors, f"vectors of {listed.record.id}")
        _expect_answers(index, entries.values(), unit(np.eye(8)), k=4)
        expect(index.matrix()[0] == sorted(entries), "matrix must list the same ids")
    expect(index.verify() == [], f"verify finds problems: {index.verify()}")


def _check_search(index: Index) -> None:
    entries = sample_entries(300)
    index.add(entries[:200])
    index.add(entries[200:])
    index.refresh()
    queries = unit(np.random.default_rng(9).normal(size=(40, 8)))
    for k in (1, 7, 300, 1000):
        _expect_answers(index, entries, queries, k)
    batch = index.search(queries, 10)
    for number in range(len(queries)):
        alone = index.search(queries[number : number + 1], 10)[0]
        _expect_same_answer(alone, batch[number], "one query alone and in a batch")
    exclude = [matches.ids[0] if number % 2 else None for number, matches in enumerate(batch)]
    _expect_answers(index, entries, queries, 10, exclude=exclude)
    itself = index.search(entries[5].vectors, 1)[0]
    expect(itself.ids == ["a/0005"], "a record must be its own nearest neighbour")
    expect(
        abs(float(itself.scores[0]) - 1) <= SCORE_TOLERANCE, "the score of equal vectors must be 1"
    )
    expect(itself.scores.dtype == np.float32, "scores must be float32")


def _check_ties(index: Index) -> None:
    same = unit(np.ones((1, 8)))
    names = [f"t/{number}" for number in (10, 2, 33, 4, 1)] + ["t/Z", "t/a", "t/é", "t/~"]
    index.add([make_entry(name, same) for name in names])
    index.add(sample_entries(20, prefix="u"))
    index.refresh()
    expected = sorted(names, key=lambda name: name.encode())
    for k in range(1, len(names) + 1):
        found = index.search(same, k)[0].ids
        expect(found == expected[:k], f"equal scores must be in id order at k={k}: {found}")
    index.remove([expected[0]])
    index.refresh()
    expect(index.search(same, 2)[0].ids == expected[1:3], "ties after a removal")


def _check_parts(index: Index) -> None:
    entries = sample_entries(60, parts=3)
    index.add(entries)
    index.refresh()
    queries = unit(np.random.default_rng(4).normal(size=(20, 8)))
    for k in (1, 10, 60, 100):
        _expect_answers(index, entries, queries, k)
    half = index.search(entries[7].vectors[2:3], 1)[0]
    expect(half.ids == ["a/0007"], "a part must find its record")
    expect(half.boxes == [RIGHT_HALF], f"a hit must have its part's box, not {half.boxes}")
    whole = index.search(entries[7].vectors[:1], 1)[0]
    expect(whole.boxes == [None], "the box of the whole image must be None")
    doubled = np.repeat(entries[0].vectors[:1], 3, axis=0)
    index.add([make_entry("z", doubled, boxes=[WHOLE, LEFT_HALF, RIGHT_HALF])])
    index.refresh()
    found = dict(zip(*_ids_and_boxes(index.search(doubled[:1], 3)[0]), strict=True))
    expect(found.get("z", LEFT_HALF) is None, "among equal parts the first one must match")
    expect(len(found) == 3, "k must count records, not parts")


def _check_filters(index: Index) -> None:
    entries = [
        make_entry(
            f"a/{number:04d}" if number < 50 else f"a/deep/{number % 3}/{number}",
            unit(np.random.default_rng(number).normal(size=(1, 8))),
            label=("cat", "dog", None)[number % 3],
            width=100 + number,
            metadata=_facts(number) if number % 2 else {},
        )
        for number in range(60)
    ]
    index.add(entries)
    index.refresh()
    query = unit(np.ones((1, 8)))
    for where, holds in _FILTERS:
        kept = [entry for entry in entries if holds(entry.record)]
        _expect_answers(index, kept, query, 100, where=where)
        _expect_answers(index, kept, query, 3, where=where)
        ids = sorted(entry.record.id for entry in kept)
        expect(list(index.ids(where)) == ids, f"ids must filter by {where}")
    expect(index.metadata_fields() == ["price", "shop", "taken"], "metadata_fields")
    shops = index.values("shop", 2)
    expect(sorted(shops) == ["s1", "s3"], f"values must be those of the field, not {shops}")
    expect(index.values("label", 1) == ["cat"], "values must begin with the most frequent")
    expect(len(index.values("width", 100)) == 60, "values of a number")
    expect(index.values("none", 9) == [], "an unknown field has no values")
    first = index.search(query, 1, where=["label=cat"])[0].ids
    second = index.search(query, 2, where=["label=cat"], exclude=first)[0].ids
    expect(len(second) == 2 and first[0] not in second, "exclude must work together with a filter")


def _facts(number: int) -> dict[str, MetadataValue]:
    taken = f"2024-{number % 6 + 1:02d}-28T12:00:00"
    return {"price": number / 2, "shop": f"s{number % 4}", "taken": taken}


def _month(record: ImageRecord) -> str:
    return str(record.metadata.get("taken", ""))[:7]


def _price(record: ImageRecord) -> float:
    return float(record.metadata.get("price", float("nan")))


_FILTERS: list[tuple[list[str], Callable[[ImageRecord], bool]]] = [
    (["label=cat"], lambda r: r.label == "cat"),
    (["label = cat,dog"], lambda r: r.label in ("cat", "dog")),
    (["label!=cat"], lambda r: r.label == "dog"),
    (["label=horse"], lambda r: r.label == "horse"),
    (["width>=130", "width<140"], lambda r: 130 <= r.width < 140),
    (["width=101,105.0"], lambda r: r.width in (101, 105)),
    (["price<9"], lambda r: _price(r) < 9),  # as text, "10.5" would sort before "9"
    (["price!=0.5"], lambda r: _price(r) > 0.5),
    (["shop=s1", "label=cat"], lambda r: r.metadata.get("shop") == "s1" and r.label == "cat"),
    (["shop>s1"], lambda r: str(r.metadata.get("shop", "")) > "s1"),
    (["id=a/0003"], lambda r: r.id == "a/0003"),
    (["location=0004,0005"], lambda r: r.location in ("0004", "0005")),
    (["path=0004"], lambda r: r.location == "0004"),
    (["source!=b"], lambda r: r.source != "b"),
    (["missing=false"], lambda r: not r.missing),
    (['shop="s1",s2'], lambda r: r.metadata.get("shop") in ("s1", "s2")),
    (["label~O"], lambda r: r.label == "dog"),
    (["shop~3"], lambda r: r.metadata.get("shop") == "s3"),
    (["folder=d??p/*"], lambda r: r.location.startswith("deep/")),
    (['folder!=""'], lambda r: "/" in r.location),
    (["folder=deep/1"], lambda r: r.location.startswith("deep/1/")),
    (["taken=2024-02"], lambda r: _month(r) == "2024-02"),
    (["taken>2024-02", "taken<=2024-04"], lambda r: _month(r) in ("2024-03", "2024-04")),
]


def _check_bad_questions(index: Index) -> None:
    index.add(sample_entries(3, metadata={"price": 1}))
    index.refresh()
    query = unit(np.ones((1, 8)))
    for what, ask in (
        ("k of 0", lambda: index.search(query, 0)),
        ("another dimension", lambda: index.search(unit(np.ones((1, 9))), 1)),
        ("a vector of zeros", lambda: index.search(np.zeros((1, 8), dtype=np.float32), 1)),
        ("a vector with NaN", lambda: index.search(np.full((1, 8), np.nan, np.float32), 1)),
        ("a filter without an operator", lambda: index.search(query, 1, where=["label"])),
        ("an unknown field", lambda: index.search(query, 1, where=["lable=cat"])),
        ("a word for a number", lambda: index.search(query, 1, where=["width>wide"])),
        ("exclude of another length", lambda: index.search(query, 1, exclude=[])),
    ):
        error = expect_raises(QueryError, ask, what)
        expect(not isinstance(error, RecordGoneError), f"{what} must not raise RecordGoneError")
    for what, vectors in (
        ("a vector that is not of unit norm", np.full((1, 8), 0.5, np.float32)),
        ("a vector with NaN", np.full((1, 8), np.nan, np.float32)),
        ("a vector of another dimension", unit(np.ones((1, 7)))),
        ("a record without vectors", np.empty((0, 8), np.float32)),
    ):
        bad = make_entry("a/bad", vectors)
        expect_raises(CbirError, partial(index.add, [sample_entries(5)[4], bad]), what)
        expect(index.count() == 3, f"{what}: a refused call must not change the index")
    _expect_gone(index, "none")


def _expect_gone(index: Index, record_id: str) -> None:
    """`records`, `vectors` and `thumbnail` must all raise `RecordGoneError`."""
    there = list(index.ids())[:1]
    for what, ask in (
        ("the record", lambda: index.records([record_id])),
        ("a list of records with one", lambda: index.records([*there, record_id])),
        ("the vectors", lambda: index.vectors(record_id)),
        ("the thumbnail", lambda: index.thumbnail(record_id)),
    ):
        expect_raises(RecordGoneError, ask, f"{what} of an id that is not in the index")


def _expect_answers(
    index: Index,
    entries: Iterable[Entry],
    queries: Vectors,
    k: int,
    *,
    where: Sequence[str] = (),
    exclude: Sequence[str | None] | None = None,
) -> None:
    """Compare with NumPy: scores, order, and the cutoff."""
    listed = list(entries)
    answers = index.search(queries, k, where=where, exclude=exclude)
    expect(len(answers) == len(queries), "search must return one result per query")
    for number, matches in enumerate(answers):
        asked = f"k={k}, where={list(where)}, query {number}"
        best = {
            entry.record.id: float(np.max(entry.vectors.astype(np.float64) @ queries[number]))
            for entry in listed
            if exclude is None or entry.record.id != exclude[number]
        }
        found = dict(zip(matches.ids, matches.scores.tolist(), strict=True))
        expect(len(found) == min(k, len(best)), f"{len(found)} distinct hits for {asked}")
        for record_id, score in found.items():
            expect(record_id in best, f"{record_id} must not be a hit for {asked}")
            expect(
                abs(score - best[record_id]) <= SCORE_TOLERANCE,
                f"{record_id} has score {score}, NumPy says {best[record_id]} for {asked}",
            )
        ordered = sorted(found, key=lambda name: (-found[name], name.encode()))
        expect(ordered == matches.ids, f"hits must be ordered by score, then id, for {asked}")
        left = max((score for name, score in best.items() if name not in found), default=-2.0)
        worst = min(found.values(), default=2.0)
        expect(left <= worst + SCORE_TOLERANCE, f"a better record is missing for {asked}")


def _expect_same_answer(one: Matches, other: Matches, what: str) -> None:
    expect(one.ids == other.ids, f"different ids for {what}")
    gap = float(np.max(np.abs(one.scores - other.scores), initial=0.0))
    expect(gap <= SCORE_TOLERANCE, f"scores differ by {gap} for {what}")


def _ids_and_boxes(matches: Matches) -> tuple[list[str], list[Box | None]]:
    return matches.ids, matches.boxes


def _spec() -> DescriptorSpec:
    return DescriptorSpec("made-up", 8, "5" * 64, {"decoder": "none"}, "nothing", "MIT")
