"""`cbir why`: says why a picture is, or is not, among the hits of a search."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cbir.cli.search import command as search
from cbir.wording import counted, shell_word, shown_size

if TYPE_CHECKING:
    from cbir.search.why import Why

_SHARED = (
    *("index", "ids", "text", "text_weight", "k", "where", "region", "expand", "any_orientation"),
    *("verify", "exact", "descriptor"),
)
"""The options of `cbir search` that this command takes, so that its arguments can be pasted."""


@click.command(
    short_help="Say why a picture is, or is not, among the hits.",
    params=[option for option in search.params if option.name in _SHARED],
)
@click.option("--json", "as_json", is_flag=True, help="Print the explanation as JSON.")
@click.argument("arguments", metavar="[QUERY] ID", nargs=-1, required=True)
def command(
    arguments: tuple[str, ...],
    index: str,
    ids: tuple[str, ...],
    text: str | None,
    text_weight: float | None,
    as_json: bool,
    descriptor: str | None,
    region: Any,
    **options: Any,
) -> None:
    """Say why the picture ID (an id, or the path of an indexed file) is or is not among the hits.

    QUERY and the options are those of a search. With --id or --text, QUERY may be left out.
    """
    *images, target = arguments
    if len(images) + len(ids) > 1 or not (images or ids or text is not None):
        raise click.UsageError("give a query (a picture, --id ID or --text WORDS), then an ID")
    from contextlib import closing

    from cbir.cli.output import print_json, print_table, show
    from cbir.search.query import IndexedId, Query, SearchOptions
    from cbir.search.searcher import Searcher
    from cbir.search.why import id_of, why

    of: list[bytes | str | IndexedId] = [
        sys.stdin.buffer.read() if image == "-" else image for image in images
    ]
    if text_weight is not None:
        options["text_weight"] = text_weight
    with closing(Searcher.open(index, descriptor)) as searcher:
        of += [IndexedId(id_of(searcher.index, name)) for name in ids]
        query = Query(next(iter(of), None), region, text)
        record_id = id_of(searcher.index, target)
        answer = why(searcher, query, record_id, options=SearchOptions(**options))
        in_source = record_id.partition("/")[0] in searcher.index.sources()
    if as_json:
        name = next(iter([*images, *ids]), query.text)
        print_json({"query": name, **answer.to_json()})
        return
    for sentence in answer.sentences:
        show(sentence)
    if not in_source and Path(target).is_file():
        show(f"Its file is there: index its folder with --into {shell_word(index)}.")
    if rows := list(_rows(answer)):
        print_table(rows[0], rows[1:])


def _rows(answer: Why) -> Iterator[tuple[str, str]]:
    """The facts behind the sentences: names and values."""
    from cbir.types import WHOLE

    if answer.reason:
        yield "reason", answer.reason
    if place := answer.place:
        among = f"{place.rank_of_all:,} of {place.count:,} by score alone"
        yield "rank", among if place.rank is None else f"{place.rank:,} in this search; {among}"
        last = "" if place.last is None else f"; the last hit has {place.last:.4f}"
        yield "score", f"{place.score:.4f}{last}"
        if place.orientation:
            yield "query", place.orientation
    if kept := answer.kept:
        record = kept.record
        if kept.parts > 1 and place:
            box = ",".join(f"{edge:g}" for edge in place.box or WHOLE)
            yield "best part", f"{box} (of {kept.parts} parts)"
        yield "label", record.label or "-"
        yield "file", f"{kept.path or record.location} ({kept.reason or kept.state})"
        if record.missing:
            yield "missing", "its file was gone when its source was last indexed"
        size = "" if record.file_size is None else f", {shown_size(record.file_size)}"
        yield "picture", f"{record.width} x {record.height} px{size}"
        yield "content", record.content_hash[:12]
        yield "vectors", f"{counted(kept.parts, 'vector')} of {kept.dim} numbers"
