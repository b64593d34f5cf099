"""`cbir sources`: list and manage the sources of an index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from cbir.index.base import Index, SourceRun


@click.command(short_help="List the sources of an index; rename, relocate, remove them.")
@click.argument("index", metavar="INDEX")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option(
    "--rename",
    nargs=2,
    metavar="OLD NEW",
    help="Rename a source; the ids of its images change.",
)
@click.option(
    "--relocate", nargs=2, metavar="OLD NEW", help="Say where a source (name or old path) is now."
)
@click.option(
    "--confirm",
    is_flag=True,
    help="Let the originals of an index from elsewhere be opened on this machine.",
)
@click.option("--remove", metavar="NAME", help="Remove a source with all its images.")
@click.option("--json", "as_json", is_flag=True, help="Print the sources as JSON.")
def command(
    index: str,
    names: tuple[str, ...],
    rename: tuple[str, str] | None,
    relocate: tuple[str, str] | None,
    confirm: bool,
    remove: str | None,
    as_json: bool,
) -> None:
    """List the sources of an index: where they are, their images, and their last run.

    The files of a source are never changed. Originals of an index from elsewhere are opened only
    after --confirm (all sources, or those called NAME) or --relocate.
    """
    if names and not confirm:
        raise click.UsageError("NAME is for --confirm")
    from contextlib import closing

    from cbir.cli.output import print_json, say
    from cbir.index.open import open_index
    from cbir.ingest.places import confirm_sources, relocate_source, rename_source
    from cbir.wording import counted, shell_word

    with closing(open_index(index, write=bool(rename or relocate or remove))) as opened:
        if rename:
            rename = (_stored(opened, rename[0]), rename[1])
            count = rename_source(opened, *rename)
            say(f"{rename[0]} is now {rename[1]}: {counted(count, 'image')} renamed")
        if relocate:
            moved = relocate_source(opened, _stored(opened, relocate[0]), relocate[1])
            for name, uri in moved.items():
                say(f"{name} is at {uri}")
        if confirm:
            found = confirm_sources(opened, [_stored(opened, name) for name in names])
            for name, uri in found.items():
                say(f"{name} is confirmed: originals in {uri} are opened")
        if remove:
            remove = _stored(opened, remove)
            say(f"{remove} removed: {counted(len(opened.remove_source(remove)), 'image')}")
        if rename or remove:
            opened.refresh()
        rows = _rows(opened)
    if as_json:
        print_json(rows)
    elif rows:
        _print(rows)
    else:
        say(f"{index} has no sources; cbir index FOLDER --into {shell_word(index)}")


def _stored(index: Index, name: str) -> str:
    """The name of a source whose white space may not be encoded yet, as it is stored."""
    from cbir.index.filters import spellings

    known = index.sources()
    return next((form for form in spellings(name) if form in known), name)


def _rows(index: Index) -> list[dict[str, Any]]:
    from collections import Counter

    from cbir.images.sources import is_away
    from cbir.search.originals import unconfirmed

    strange = unconfirmed(index)
    counts, runs = index.source_counts(), index.runs()
    failed = Counter(failure.source for failure in index.failures())
    return [
        {
            "name": name,
            "uri": uri,
            "found": not is_away(uri),
            "confirmed": name not in strange,
            "images": counts.get(name, (0, 0))[0],
            "missing": counts.get(name, (0, 0))[1],
            "failed": failed[name],
            **_last_run(runs.get(name)),
        }
        for name, uri in index.sources().items()
    ]


def _last_run(run: SourceRun | None) -> dict[str, Any]:
    from datetime import UTC, datetime

    at = None if run is None else datetime.fromtimestamp(run.at, UTC).isoformat()
    return {"last_run": at, "finished": run is not None and run.finished}


def _print(rows: list[dict[str, Any]]) -> None:
    from datetime import datetime

    from cbir.cli.output import print_table

    def when(row: dict[str, Any]) -> str:
        if row["last_run"] is None:
            return "unknown"
        at = datetime.fromisoformat(row["last_run"]).astimezone()
        return f"{at:%Y-%m-%d %H:%M}{'' if row['finished'] else ', unfinished'}"

    def place(row: dict[str, Any]) -> str:
        said = ["not there"] * (not row["found"]) + ["not confirmed"] * (not row["confirmed"])
        return f" ({', '.join(said)})" if said else ""

    print_table(
        ["source", "images", "missing", "failed", "last run", "where"],
        [
            [
                *(row["name"], f"{row['images']:,}", f"{row['missing']:,}", f"{row['failed']:,}"),
                *(when(row), row["uri"] + place(row)),
            ]
            for row in rows
        ],
    )
