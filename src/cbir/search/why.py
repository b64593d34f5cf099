"""Says why a picture is, or is not, among the hits of a search."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Unpack

from cbir.errors import CbirError, ImageError, QueryError, RecordGoneError
from cbir.images.excludes import ArchiveMembers, Exclusion, steps
from cbir.images.folders import FolderSource
from cbir.images.ids import encode_path, make_id
from cbir.images.members import is_hidden_key
from cbir.images.sources import file_path, is_away
from cbir.index import filters
from cbir.index.base import Index, Matches
from cbir.search.originals import LinkRefusedError, OriginalError, Originals, OriginalState
from cbir.search.query import MAX_K, IndexedId, OptionChanges, Picture, Query, SearchOptions
from cbir.search.query import pixels_of as query_pixels
from cbir.search.searcher import Searcher
from cbir.types import Box, Failure, Hit, ImageRecord
from cbir.wording import counted, most_similar

_AT_ONCE = 10_000
"""Records that one search ranks; every engine can."""
_COMPARED = 2_000
_NEAR = 3

State = Literal["hit", "no hit", "failed", "removed", "excluded", "unknown"]
FileState = Literal["unchanged"] | OriginalState

_STEPS: tuple[tuple[str, Any, str], ...] = (
    ("verify", False, "without verification"),
    ("expand", 0, "without expansion"),
    ("any_orientation", False, "in one orientation"),
    ("exact", True, "without approximation"),
)
"""Options that change the order of hits, their value for "off", and how to say it."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What the index keeps of a picture, and its original now.

    `path` is None if it has no file of its own; `reason` says why the original is gone, or is not
    opened ("unconfirmed": nobody gave its source on this machine). `parts` and
    `dim` describe its vectors.
    """

    record: ImageRecord
    path: str | None
    state: FileState
    reason: str
    parts: int
    dim: int

    def to_json(self) -> dict[str, Any]:
        """The values as JSON; the content hash is shortened."""
        record = self.record
        return {
            "path": self.path,
            "location": record.location,
            "file": self.state,
            "reason": self.reason or None,
            "missing": record.missing,
            "label": record.label,
            "width": record.width,
            "height": record.height,
            "file_size": record.file_size,
            "content_hash": record.content_hash[:12],
            "parts": self.parts,
            "dim": self.dim,
        }


@dataclass(frozen=True, slots=True)
class Place:
    """Where a picture comes in a search.

    `score`: the cosine of its best part, whose box is `box`, and the `orientation` of the query
    that gave it. `rank`: in the order of this search, with its filters and steps; None if it is
    filtered out, or is the query. `rank_of_all`: by score among all `count` records. `last`: the
    score of the last hit, None without hits.
    """

    score: float
    box: Box | None
    orientation: str | None
    rank: int | None
    rank_of_all: int
    count: int
    k: int
    last: float | None

    def to_json(self) -> dict[str, Any]:
        """The values as JSON."""
        return {
            "rank": self.rank,
            "score": self.score,
            "box": list(self.box) if self.box else None,
            "orientation": self.orientation,
            "rank_of_all": self.rank_of_all,
            "count": self.count,
            "k": self.k,
            "last_score": self.last,
        }


@dataclass(frozen=True, slots=True)
class Why:
    """Why a picture is, or is not, among the hits.

    `sentences` explain it without paths; `hidden_by` names what hid it: "where", "query", "k", or
    an option of the search. `place` and `kept` are None if the picture is not in the index.
    `reason`: why it, its folder or the rest of its source could not be read. `excluded_by`: what
    leaves it out, as its source is now.
    `near`: similar ids, if it was never indexed.
    """

    id: str
    state: State
    sentences: list[str]
    hidden_by: list[str] = field(default_factory=list)
    place: Place | None = None
    kept: Kept | None = None
    reason: str = ""
    near: list[str] = field(default_factory=list)
    excluded_by: Exclusion | None = None

    def to_json(self) -> dict[str, Any]:
        """The explanation as JSON, for `--json` and HTTP responses."""
        return {
            "id": self.id,
            "state": self.state,
            "sentences": self.sentences,
            "hidden_by": self.hidden_by,
            **(self.place.to_json() if self.place else {}),
            "picture": self.kept.to_json() if self.kept else None,
            "reason": self.reason or None,
            "excluded_by": asdict(self.excluded_by) if self.excluded_by else None,
            "near": self.near,
        }


def why(
    searcher: Searcher,
    query: Query | Picture | IndexedId,
    record_id: str,
    *,
    options: SearchOptions | None = None,
    go_on: Callable[[], bool] = lambda: True,
    look: bool = True,
    **changes: Unpack[OptionChanges],
) -> Why:
    """Why the picture with this id is or is not among the hits; `id_of` finds the id of a file.

    The query, the options and `go_on` are those of `Searcher.search`. The ranks are exact; they
    cost one search for each 10,000 records. Raises what `search` raises, but an id that the index
    does not contain is an answer, not an error. `look`: whether to look for such a picture, and for
    what excludes it, in its source.
    """
    try:
        (record,) = searcher.index.records([record_id])
    except RecordGoneError:
        return _absent(searcher.index, record_id, look)
    options = replace(options or SearchOptions(), **changes)
    asked = query if isinstance(query, Query) else Query(query)
    if asked.of is not None and not isinstance(asked.of, IndexedId):
        asked = replace(asked, of=query_pixels(asked.of))  # it is searched with several times
    return _explained(_Search(searcher, asked, options, record, go_on))


def id_of(index: Index, text: str) -> str:
    """The id `text` or, if there is none, that of the indexed file with this path.

    Names match as in filters: white space need not be encoded. Without a record, it is the id of an
    image that failed or was removed. Returns `text` itself if nothing matches.
    """
    ids = list(_ids_of_path(index, text))
    spelled = [*filters.spellings(text), *ids]
    for record_id in spelled:
        with suppress(RecordGoneError):
            return index.records([record_id])[0].id
    known = {make_id(failure.source, failure.location) for failure in index.failures()}
    known.update(index.tombstones(spelled))
    return next((name for name in spelled if name in known), ids[0] if ids else text)


class _Search:
    """A search, and the record in question."""

    def __init__(
        self,
        searcher: Searcher,
        query: Query,
        options: SearchOptions,
        record: ImageRecord,
        go_on: Callable[[], bool],
    ) -> None:
        self.searcher, self.query, self.options, self.record = searcher, query, options, record
        self._go_on = go_on
        self.index = searcher.index
        asking, self._views = searcher.first_query(query, options)
        self._exclude = asking.exclude

    @property
    def is_query(self) -> bool:
        return isinstance(self.query.of, IndexedId) and self.query.of.id == self.record.id

    def hits(self, k: int, **changes: Any) -> list[Hit]:
        """The first `k` hits, with some options changed."""
        options = replace(self.options, k=k, **changes)
        return self.searcher.search(self.query, options=options, go_on=self._go_on, warn=False)

    def matches(self, k: int, where: Sequence[str]) -> tuple[Matches, Sequence[str]]:
        """The k best records for the query as the first search sees it, the query itself too."""
        answers = self.index.search(self._views.vectors, k, where=where, exclude=None, exact=True)
        return self._views.merge(answers, k)

    def own(self) -> tuple[float, Box | None, str | None]:
        """Score and part of the record, and the orientation of the query."""
        found, names = self.matches(1, [f"id={filters.in_quotes(self.record.id)}"])
        if not found.ids:
            raise RecordGoneError(self.record.id)  # a writer has just removed it
        return float(found.scores[0]), found.boxes[0], names[0] if names else None

    def hiding_filters(self) -> list[str]:
        """The filters that the record does not pass."""
        return [
            text
            for text in self.options.where
            if not self.matches(1, [text, f"id={filters.in_quotes(self.record.id)}"])[0].ids
        ]

    def rank(self, score: float, where: Sequence[str]) -> int:
        """The exact rank of the record, by score and id, among those that pass `where`.

        The query itself is not counted, as it is no hit.
        """
        first, _ = self.matches(_AT_ONCE, where)
        if self.record.id in first.ids or len(first.ids) < _AT_ONCE:
            return 1 + self._better(first, score)
        return 1 + sum(
            self._better(self.matches(_AT_ONCE, [*where, *ids])[0], score)
            for ids in _id_ranges(self.index)
        )

    def _better(self, found: Matches, score: float) -> int:
        mine = (-score, self.record.id.encode())
        return sum(
            (-float(other), name.encode()) < mine and name != self._exclude
            for name, other in zip(found.ids, found.scores, strict=True)
        )


def _explained(search: _Search) -> Why:
    options, record = search.options, search.record
    score, box, orientation = search.own()
    reach = search.searcher.looked_at(options)
    hits = search.hits(reach)
    hit = next((hit for hit in hits if hit.id == record.id), None)
    hiding = search.hiding_filters()
    shown = hits[: options.k]
    rank = hit.rank if hit else None
    if hit is None and not hiding and not search.is_query:
        rank = search.rank(score, options.where)
    place = Place(
        score, box, orientation, rank, search.rank(score, ()), search.index.count(), options.k,
        shown[-1].score if shown else None,
    )  # fmt: skip
    kept = _kept(search.index, record)
    if hit is not None and hit.rank <= options.k:
        state: State = "hit"
        reasons: dict[str, str] = {}
        sentences = [f"{record.id} is hit {hit.rank}, with the score {score:.4f}."]
    else:
        state = "no hit"
        reasons = _reasons(search, hiding, place, reach, hit)
        sentences = [f"{record.id} is not among the hits.", *reasons.values()]
    return Why(record.id, state, [*sentences, *_about_file(kept)], list(reasons), place, kept)


def _reasons(
    search: _Search, hiding: Sequence[str], place: Place, reach: int, hit: Hit | None
) -> dict[str, str]:
    """What hid the record -> a sentence."""
    if search.is_query:
        return {"query": "It is the query itself, which a search leaves out."}
    if hiding:
        values = [(text, _its_value(text, search.record)) for text in hiding]
        return {"where": " ".join(f"The filter {text} hides it{value}." for text, value in values)}
    options, k, rank = search.options, place.k, place.rank
    assert rank is not None  # it passes all filters
    reasons = {}
    for name, off, words in _STEPS:
        if getattr(options, name) == off:
            continue
        hits = search.hits(k, **{name: off})
        without = next((one.rank for one in hits if one.id == search.record.id), None)
        if without is not None:
            reasons[name] = f"It would be hit {without} {words}."
    if options.verify and hit is None:
        reasons.setdefault(
            "verify", f"Verification compares only the first {reach} hits, and it comes after them."
        )
    elif options.verify and hit is not None and hit.inliers is None:
        before = reasons.get("verify", "")
        late = "Verification did not reach it in time."
        gone = "Its original is gone, changed or not confirmed, so it is not verified."
        reasons["verify"] = f"{before} {late if hit.verified is None else gone}".strip()
    if "exact" in reasons and rank <= k:
        return reasons  # it is good enough; only the approximation missed it
    cure = f"-k {rank} shows it" if rank <= MAX_K else "that is more than a search returns"
    last = "" if place.last is None else f"; the last hit has {place.last:.4f}"
    reasons["k"] = (
        f"Its score is {place.score:.4f}{last}. It ranks {rank:,} in this search, "
        f"which returns {counted(k, 'hit')}: {cure}."
    )
    return reasons


def _its_value(text: str, record: ImageRecord) -> str:
    """What the record has in the field of a filter."""
    try:
        (condition,) = filters.parse([text], record.metadata)
    except QueryError:  # the filter has been searched with, so other records have the field
        return ": it has no such field"
    name = condition.field
    value = record.metadata.get(name, getattr(record, name, None))
    return f": it has no {name}" if value is None else f": its {name} is {value}"


def _about_file(kept: Kept) -> list[str]:
    if kept.state == "changed" and kept.reason:
        return [
            "Its original is not opened: a link out of its source leads to a file that the "
            "index does not know. Index its source again."
        ]
    if kept.state == "changed":
        return ["Its file has changed since it was indexed; the index still has the old picture."]
    if kept.state == "gone":
        return ["Its original is gone; the index still finds it."]
    if kept.state == "unconfirmed":
        return ["Its original is not opened, because its source is not confirmed on this machine."]
    return []


def _kept(index: Index, record: ImageRecord) -> Kept:
    uri = index.sources()[record.source]
    state: FileState = "unchanged"
    reason = ""
    try:
        Originals(index).read(record)
    except OriginalError as error:
        state = error.state
        plain = state == "changed" and not isinstance(error, LinkRefusedError)
        reason = "" if plain else error.message
    parts, dim = index.vectors(record.id).shape
    return Kept(record, file_path(uri, record.location), state, reason, parts, dim)


def _ids_of_path(index: Index, text: str) -> Iterator[str]:
    """The ids that a file has in the sources whose folder or archive contains it."""
    path = Path(text).parent.resolve() / Path(text).name  # a link to a file keeps its own name
    for name, uri in index.sources().items():
        if Path(uri).is_absolute() and path != Path(uri) and path.is_relative_to(uri):
            inner = os.fsencode(path.relative_to(uri).as_posix())
            yield make_id(name, encode_path(inner))


def _absent(index: Index, record_id: str, look: bool) -> Why:
    """Why a picture that has no record has none."""
    failures = {make_id(one.source, one.location): one for one in index.failures()}
    if failure := failures.get(record_id):
        sentence = f"{record_id} could not be read when its source was last indexed."
        return Why(record_id, "failed", [sentence], reason=failure.reason)
    if tombstone := index.tombstones([record_id]).get(record_id):
        day = datetime.fromtimestamp(tombstone.at, UTC).date()
        sentence = f"{record_id} was removed from the index on {day}."
        cure = "To have it back, index its source with --again."
        return Why(record_id, "removed", [sentence, cure])
    name, _, key = record_id.partition("/")
    source = _readable(index, name) if look else None
    if source and (found := _exclusion(source, key)):
        sentences = _about_exclusion(record_id, found, source)
        return Why(record_id, "excluded", sentences, excluded_by=found)
    state, absence, reason = _failure_above(failures, record_id)
    absence = absence or _absence(index, name, source, key)
    sentences = [f"{record_id} is not in the index: {absence}"]
    near = _near(index, record_id)
    if near:
        sentences.append(f"Similar ids: {', '.join(near)}.")
    return Why(record_id, state, sentences, reason=reason, near=near)


def _failure_above(failures: Mapping[str, Failure], record_id: str) -> tuple[State, str, str]:
    """What may have failed with its source or a folder above it: state, sentence and reason.

    `failures`: by id. A picture of a source that was read in part need not have failed, nor exist.
    """
    source, *inside = (path.rstrip("/") for path in steps(record_id))
    for folder in reversed(inside):
        if failure := failures.get(folder):
            said = f"its folder {folder} could not be read when its source was last indexed."
            return "failed", said, failure.reason
    if failure := failures.get(f"{source}/."):
        said = "its source could not be read completely when it was last indexed."
        return "unknown", said, failure.reason
    return "unknown", "", ""


def _readable(index: Index, name: str) -> FolderSource | ArchiveMembers | None:
    """A source whose files can, and may, be looked at."""
    try:
        source = Originals(index).source(name)
    except CbirError:
        return None
    if isinstance(source, FolderSource | ArchiveMembers) and not is_away(source.uri):
        return source
    return None


def _exclusion(source: FolderSource | ArchiveMembers, key: str) -> Exclusion | None:
    try:
        return source.excluded_by(key)
    except ImageError:  # a `.cbirignore` that cannot be read, or no path
        return None


def _about_exclusion(
    record_id: str, found: Exclusion, source: FolderSource | ArchiveMembers
) -> list[str]:
    name, _, key = record_id.partition("/")
    what = "it" if found.path == key else f"its folder {name}/{found.path}"
    whose = f"default pattern '{found.pattern}'"
    if found.file:
        whose = f"pattern '{found.pattern}' in {name}/{found.file}"
    sentences = [f"{record_id} is not in the index: the {whose} excludes {what}."]
    if not found.file and (isinstance(source, FolderSource) or not is_hidden_key(key)):
        sentences.append("To have it indexed, index its source with --no-default-excludes.")
    return sentences


def _absence(
    index: Index, name: str, source: FolderSource | ArchiveMembers | None, key: str
) -> str:
    """Why a picture may not be in the index, if no pattern is known to exclude it."""
    if name not in index.sources():
        return "it was never indexed; it is in no source of the index."
    if not isinstance(source, FolderSource):
        return "it was never indexed, was excluded (--exclude, .cbirignore), or was pruned."
    if source.has(key):
        cure = "Its file is there: index its source again."
        return f"it was never indexed, or was excluded with --exclude. {cure}"
    return "it was never indexed, or was pruned; its source has no picture of this name."


def _near(index: Index, record_id: str) -> list[str]:
    """Ids with the same file name, else similar ones in the same folder, else of the first ids."""
    folder, _, name = record_id.rpartition("/")
    same_name: list[str] = []
    same_folder: list[str] = []
    first: list[str] = []
    for other in index.ids():
        parent, _, other_name = other.rpartition("/")
        if other_name.casefold() == name.casefold():
            same_name.append(other)
            if len(same_name) == _NEAR:
                break
        if parent == folder and len(same_folder) < _COMPARED:
            same_folder.append(other)
        if len(first) < _COMPARED:
            first.append(other)
    return same_name or most_similar(record_id, same_folder or first, _NEAR)


def _id_ranges(index: Index) -> Iterator[list[str]]:
    """Filters that split the index into ranges of ids that one search can rank."""
    ids = index.ids()
    while some := list(islice(ids, _AT_ONCE)):
        yield [f"id>={filters.in_quotes(some[0])}", f"id<={filters.in_quotes(some[-1])}"]
