"""`cbir search`: finds the most similar images of an index."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from cbir.cli.options import INDEX, descriptor_option
from cbir.cli.output import print_json, print_table, progress_bar, say, show
from cbir.wording import counted, shell_word

if TYPE_CHECKING:
    from cbir.images.sources import Place
    from cbir.index.base import Index
    from cbir.search.query import Query, SearchOptions
    from cbir.search.searcher import Searcher
    from cbir.types import Box, Hit, Verification

    Placed = tuple[Hit, Place | None]


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
@click.option(
    "--id",
    "ids",
    multiple=True,
    metavar="ID",
    help="Search with an indexed image, named by id or path.",
)
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
@click.option("--ids", "with_ids", is_flag=True, help="Show ids instead of paths.")
@click.option("--paths", is_flag=True, help="Print only the paths of the hits, one a line.")
@click.option("-0", "null", is_flag=True, help="With --paths: end paths with NUL, for xargs -0.")
@click.option(
    "--open",
    "opened",
    type=click.IntRange(1),
    metavar="N",
    help="Also open hit N with the system's viewer.",
)
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
    with_ids: bool,
    paths: bool,
    null: bool,
    opened: int | None,
    as_json: bool,
    descriptor: str | None,
) -> None:
    """Find the images most similar to each IMAGE ("-": standard input), or to words.

    A hit is shown with its path, which can be pasted into a shell.
    """
    if not images and not ids and text is None:
        raise click.UsageError("give at least one IMAGE, --id ID or --text WORDS")
    if text_weight is not None and (text is None or not (images or ids)):
        raise click.UsageError("--text-weight is for --text WORDS beside an IMAGE or --id ID")
    if with_ids + paths + as_json > 1:
        raise click.UsageError("give only one of --ids, --paths and --json")
    if null and not paths:
        raise click.UsageError("-0 is for --paths")
    if opened is not None and len(images) + len(ids) > 1:
        raise click.UsageError("--open is for one IMAGE, --id ID or --text WORDS")
    from cbir.cli.confirming import ask_to_confirm
    from cbir.search.near_misses import without_warnings
    from cbir.search.query import IndexedId, Query, SearchOptions
    from cbir.search.searcher import Searcher
    from cbir.search.why import id_of

    options = SearchOptions(k, where, exact, expand, any_orientation, verify)
    if text_weight is not None:
        options = replace(options, text_weight=text_weight)
    queries = [
        (image, Query(sys.stdin.buffer.read() if image == "-" else image, region, text))
        for image in images
    ]
    answers = []
    verified: list[Verification] = []
    with closing(Searcher.open(index, descriptor)) as searcher:
        found_ids = [id_of(searcher.index, name) for name in ids]
        queries += [(found, Query(IndexedId(found), region, text)) for found in found_ids]
        if not queries:
            words = Query(None, region, text)
            queries = [(words.text or "", words)]
        if verify or opened is not None:
            ask_to_confirm(searcher.index, ask=not as_json)
        for name, query in queries:
            started = time.perf_counter()
            # `_why_none` explains a search without hits, in one line.
            quiet = nullcontext() if as_json else without_warnings()
            with _named(name), quiet:
                options.check_for(query)
                if verify and sys.stdout.isatty() and not (as_json or paths):
                    _show_first(searcher, name, query, options, with_ids)
                with _progress(verify) as on_done:
                    hits = searcher.search(
                        query, options=options, on_done=on_done, on_verified=verified.append
                    )
            answers.append((hits, (time.perf_counter() - started) * 1000))
        none = (
            "" if as_json or all(hits for hits, _ in answers) else _why_none(searcher.index, where)
        )
        folders = searcher.index.sources()
    placed = [_placed(hits, folders) for hits, _ in answers]
    if as_json:
        print_json(
            [
                {
                    "query": name,
                    **({} if query.text is None else {"text": query.text}),
                    "hits": [hit.to_json() for hit in hits],
                    "took_ms": round(ms, 3),
                    **({"verification": verified[number].to_json()} if verify else {}),
                }
                for number, ((name, query), (hits, ms)) in enumerate(
                    zip(queries, answers, strict=True)
                )
            ]
        )
    for number, found in enumerate([] if as_json else placed):
        if len(placed) > 1 and not paths:
            show(f"{queries[number][0]}:")
        elif verify and found and sys.stdout.isatty() and not paths:
            show("verified:")
        if not found:
            say(f"no hits: {none}")
        elif paths:
            _print_paths(found, b"\0" if null else b"\n")
        else:
            _print_hits(found, with_ids)
        if found and verify:
            say(verified[number].sentence())
    if opened is not None:
        _open(placed[0], opened, index)


def _show_first(
    searcher: Searcher, name: str, query: Query, options: SearchOptions, with_ids: bool
) -> None:
    """Show the hits by score, because verification may take seconds."""
    hits = searcher.search(query, options=replace(options, verify=False))
    if hits:
        show(f"{name}, before verification:")
        _print_hits(_placed(hits, searcher.index.sources()), with_ids)


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


def _why_none(index: Index, where: tuple[str, ...]) -> str:
    from cbir.search.near_misses import near_misses

    if not index.count():
        return f"{index.url} is empty; cbir index FOLDER --into {shell_word(index.url)}"
    if missed := near_misses(index, where):
        return "; ".join(miss.sentence(shell_word) for miss in missed)
    if where:
        filters = " ".join(f"--where {shell_word(one)}" for one in where)
        return f"no other image of {index.url} matches {filters}"
    return f"{index.url} contains no other image"


def _placed(hits: list[Hit], folders: Mapping[str, str]) -> list[Placed]:
    from cbir.images.sources import place_of

    return [(hit, place_of(folders[hit.record.source], hit.record.location)) for hit in hits]


def _print_hits(found: list[Placed], with_ids: bool) -> None:
    from cbir.cli.places import file_state, shown_place

    hits = [hit for hit, _ in found]
    header = ["rank", "score", "label", "id" if with_ids else "path"]
    rows = [
        [
            str(hit.rank),
            f"{hit.score:.4f}",
            hit.record.label or "-",
            hit.id if with_ids or place is None else shown_place(place),
        ]
        for hit, place in found
    ]
    states = [file_state(place, hit.record) for hit, place in found]
    if any(states):
        header.append("file")
        for row, state in zip(rows, states, strict=True):
            row.append(state or "-")
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


def _print_paths(found: list[Placed], end: bytes) -> None:
    """Print the paths as they are, unquoted; hits without a file are only counted.

    A terminal gets one escaped path a line.
    """
    from cbir.cli.places import from_here

    # Path raises if a drive fails.
    paths = [hit.path for hit, _ in found if hit.path and os.path.exists(hit.path)]  # noqa: PTH110
    for path in paths:
        if sys.stdout.isatty():
            show(from_here(path))
        else:
            click.echo(os.fsencode(from_here(path)) + end, nl=False)
    if left_out := len(found) - len(paths):
        say(f"{counted(left_out, 'hit')} left out: gone, or without a file of its own")


def _open(found: list[Placed], number: int, index: str) -> None:
    from cbir.cli.places import is_gone, open_in_viewer
    from cbir.errors import CbirError
    from cbir.index.open import open_index
    from cbir.search.originals import Originals

    if number > len(found):
        raise CbirError(f"there is no hit {number}, only {len(found)}", "ask for more with -k")
    hit, place = found[number - 1]
    serve = f"cbir serve {shell_word(index)}"
    if is_gone(place, hit.record.missing):
        raise CbirError(f"the file of hit {number} is gone", f"{serve} shows its thumbnail")
    if hit.path is None:
        raise CbirError(f"hit {number} has no file of its own", f"{serve} shows it")
    with closing(open_index(index)) as opened_index:
        Originals(opened_index).read(hit.record)  # nothing but the indexed picture is opened
    open_in_viewer(hit.path)


def _inliers(hit: Hit) -> str:
    if hit.inliers is None:
        return "not compared"  # the last line says why
    return f"{hit.inliers} mirrored" if hit.mirrored else str(hit.inliers)
