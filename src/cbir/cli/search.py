"""`cbir search`: finds the most similar images of an index."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from cbir.cli.options import INDEX, descriptor_option
from cbir.cli.output import print_json, print_table, progress_bar, say

if TYPE_CHECKING:
    from cbir.types import Box, Hit


def _region(ctx: click.Context, param: click.Parameter, value: str | None) -> Box | None:
    if value is None:
        return None
    try:
        left, top, right, bottom = (float(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is not four numbers such as 0,0,0.5,0.5", ctx, param
        ) from None
    return (left, top, right, bottom)


@click.command(short_help="Find the images most similar to a picture or to words.")
@click.argument("images", metavar="[IMAGE]...", nargs=-1)
@click.option(
    "--in", "index", required=True, type=INDEX, metavar="INDEX", help="The index to search."
)
@click.option("--id", "ids", multiple=True, metavar="ID", help="Search with an indexed image.")
@click.option("--text", metavar="WORDS", help="Search by words, or add them to each picture.")
@click.option(
    "--text-weight",
    type=float,
    metavar="W",
    help="The share of the words beside a picture, from 0 to 1.  [default: 0.5]",
)
@click.option("-k", default=10, show_default=True, help="Number of hits.")
@click.option("--where", multiple=True, metavar="'FIELD OP VALUE'", help="Filter; may repeat.")
@click.option(
    "--region",
    callback=_region,
    metavar="L,T,R,B",
    help="Search with this part of the picture, as fractions.",
)
@click.option("--expand", default=0, metavar="M", help="Average the query with its first M hits.")
@click.option(
    "--any-orientation", is_flag=True, help="Also search with the picture rotated and mirrored."
)
@click.option("--verify", is_flag=True, help="Re-rank the first 200 hits by matching keypoints.")
@click.option("--exact", is_flag=True, help="Search without approximation.")
@click.option("--json", "as_json", is_flag=True, help="Print the hits as JSON.")
@descriptor_option
def command(
    images: tuple[str, ...],
    index: str,
    ids: tuple[str, ...],
    text: str | None,
    text_weight: float | None,
    k: int,
    where: tuple[str, ...],
    region: Box | None,
    expand: int,
    any_orientation: bool,
    verify: bool,
    exact: bool,
    as_json: bool,
    descriptor: str | None,
) -> None:
    """Find the images most similar to each IMAGE ("-": standard input), or to words."""
    if not images and not ids and text is None:
        raise click.UsageError("give at least one IMAGE, --id ID or --text WORDS")
    if text_weight is not None and (text is None or not (images or ids)):
        raise click.UsageError("--text-weight is for --text WORDS beside an IMAGE or --id ID")
    from cbir.search.query import IndexedId, Query, SearchOptions
    from cbir.search.searcher import Searcher

    options = SearchOptions(k, where, exact, expand, any_orientation, verify)
    if text_weight is not None:
        options = replace(options, text_weight=text_weight)
    queries = [
        (image, Query(sys.stdin.buffer.read() if image == "-" else image, region, text))
        for image in images
    ]
    queries += [(record_id, Query(IndexedId(record_id), region, text)) for record_id in ids]
    if not queries:
        words = Query(None, region, text)
        queries = [(words.text or "", words)]
    answers = []
    with closing(Searcher.open(index, descriptor)) as searcher:
        for name, query in queries:
            started = time.perf_counter()
            with _named(name), _progress(verify) as on_done:
                hits = searcher.search(query, options=options, on_done=on_done)
            answers.append((hits, (time.perf_counter() - started) * 1000))
        indexed = searcher.index.count()
    if as_json:
        print_json(
            [
                {
                    "query": name,
                    **({} if query.text is None else {"text": query.text}),
                    "hits": [hit.to_json() for hit in hits],
                    "took_ms": round(ms, 3),
                }
                for (name, query), (hits, ms) in zip(queries, answers, strict=True)
            ]
        )
        return
    for (name, _), (hits, _) in zip(queries, answers, strict=True):
        if len(answers) > 1:
            click.echo(f"{name}:")
        if hits:
            _print_hits(hits)
        else:
            say(f"no hits: {_why_none(index, indexed, where)}")


@contextmanager
def _progress(verify: bool) -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar during verification, the only slow part of a search."""
    if not verify:
        yield lambda done, total: None  # noqa: ARG005
        return
    with progress_bar("verifying") as on_done:
        yield on_done


@contextmanager
def _named(query: str) -> Iterator[None]:
    """Name standard input in errors about a picture read from it."""
    from cbir.errors import ImageError

    try:
        yield
    except ImageError as error:
        if query != "-":
            raise
        raise ImageError(f"standard input: {error.message}", error.hint) from error


def _why_none(index: str, indexed: int, where: tuple[str, ...]) -> str:
    if not indexed:
        return f"{index} is empty; cbir index FOLDER --into {index}"
    if where:
        return f"no other image of {index} matches --where {' --where '.join(map(repr, where))}"
    return f"{index} contains no other image"


def _print_hits(hits: list[Hit]) -> None:
    header = ["rank", "score", "label", "id"]
    rows = [[str(h.rank), f"{h.score:.4f}", h.record.label or "-", h.id] for h in hits]
    if any(hit.box for hit in hits):
        header.append("part of it")
        for row, hit in zip(rows, hits, strict=True):
            row.append(",".join(f"{edge:g}" for edge in hit.box) if hit.box else "whole")
    if any(hit.orientation for hit in hits):
        header.append("query")
        for row, hit in zip(rows, hits, strict=True):
            row.append(hit.orientation or "-")
    if any(hit.verified is not None for hit in hits):
        header.append("inliers")
        for row, hit in zip(rows, hits, strict=True):
            row.append(_inliers(hit))
    print_table(header, rows)


def _inliers(hit: Hit) -> str:
    if hit.inliers is None:
        return "original is gone"
    return f"{hit.inliers} mirrored" if hit.mirrored else str(hit.inliers)
