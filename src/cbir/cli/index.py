"""`cbir index`: add images to an index."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, fields
from pathlib import Path
from time import strftime
from typing import TYPE_CHECKING, Any

import click

from cbir.cli.options import INDEX
from cbir.cli.output import (
    print_failures,
    print_json,
    print_notes,
    progress_bar,
    say,
    show,
    warn_of_rows,
)
from cbir.wording import counted, listed

if TYPE_CHECKING:
    from cbir.types import AddReport


@click.command(short_help="Add images to an index; unchanged ones are skipped.")
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@click.option(
    "--into", required=True, type=INDEX, metavar="INDEX", help="The index to add to or create."
)
@click.option(
    "--descriptor", metavar="NAME", help="The descriptor, which turns images into vectors."
)
@click.option("--label-from-folder", is_flag=True, help="Label each image with its folder's name.")
@click.option(
    "--exclude",
    multiple=True,
    metavar="PATTERN",
    help="Leave out files or folders (gitignore syntax); may be repeated. See also .cbirignore.",
)
@click.option(
    "--no-default-excludes",
    "default_excludes",
    flag_value=False,
    default=True,
    help="Also index hidden files, recycle bins and the thumbnails of other programs.",
)
@click.option(
    "--metadata",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV or JSONL file with an id or path column, and fields to filter by; may repeat.",
)
@click.option(
    "--exif/--no-exif",
    default=True,
    help="Keep date taken, camera, lens and position as fields to filter by.  [default: exif]",
)
@click.option(
    "--regions",
    type=click.Choice(["1", "5", "14"]),
    help="Searchable parts of each image: whole, + 2x2, + 3x3. [default: those of the index, or 1]",
)
@click.option(
    "--watch", is_flag=True, help="Go on: index again whenever the sources change, until Ctrl-C."
)
@click.option("--prune", is_flag=True, help="Remove the records of files that no longer exist.")
@click.option(
    "--force-prune", is_flag=True, help="Prune even if most files of a source no longer exist."
)
@click.option(
    "--rehash", is_flag=True, help="Read every file again, also those that seem unchanged."
)
@click.option("--again", is_flag=True, help="Add images again that cbir remove has removed.")
@click.option(
    "--max-pixels",
    type=click.IntRange(min=1),
    metavar="N",
    help="Refuse larger pictures. [default: 100,000,000; JPEG: 250,000,000]",
)
@click.option(
    "--max-seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=20,
    show_default=True,
    metavar="N",
    help="Give up a picture that takes longer to decode.",
)
@click.option(
    "--rebuild", is_flag=True, help="Elasticsearch: build a new index, then replace the old one."
)
@click.option("--fast-load", is_flag=True, help="Elasticsearch: add replicas only after loading.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(
    sources: tuple[str, ...],
    into: str,
    regions: str | None,
    watch: bool,
    prune: bool,
    force_prune: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Add the images of each SOURCE to an index; unchanged ones are skipped.

    SOURCE: a folder, a zip or tar file, cifar10:train, cifar10:test, digits:train, digits:test.
    """
    from cbir.cli.main import INTERRUPTED
    from cbir.ingest.indexing import index_images
    from cbir.ingest.run import PruneRefusedError

    options |= {
        "regions": int(regions) if regions else None,
        "prune": "force" if force_prune else prune,
    }
    if watch:
        _watch(sources, into, as_json, options)
        return
    refused = None
    try:
        with progress_bar("indexing") as update:
            report = index_images(
                sources,
                into,
                on_progress=lambda progress: update(progress.done, progress.total),
                **options,
            )
    except PruneRefusedError as error:
        report, refused = error.report, error
    if as_json:
        print_json(asdict(report))
    else:
        _print_report(report, into, prune)
    warn_of_rows(report.unused_metadata)
    if report.interrupted:
        say("interrupted: added images are kept; the same command resumes")
        click.get_current_context().exit(INTERRUPTED)
    if refused:
        raise refused
    _require_images(report, sources)


def _watch(sources: tuple[str, ...], into: str, as_json: bool, options: dict[str, Any]) -> None:
    """Print the report of the first pass, then a line for each pass that changed something."""
    from cbir.ingest.watching import watch_images

    if options.pop("rebuild"):
        raise click.UsageError("--watch goes on adding to an index; --rebuild replaces it")
    prune = bool(options["prune"])

    with ExitStack() as first:
        update = first.enter_context(progress_bar("indexing"))

        def on_pass(report: AddReport, before: AddReport | None) -> None:
            first.close()
            if before is None:
                warn_of_rows(report.unused_metadata)
            news = _news(report, before or report)
            if as_json and (before is None or news):
                click.echo(json.dumps({"at": strftime("%FT%T%z"), **asdict(report)}))
            elif before is None:
                _print_report(report, into, prune)
                kept = "interrupted: added images are kept; the same command resumes"
                watching = f"watching {listed(sources, 3)}  (Ctrl-C stops)"
                say(kept if report.interrupted else watching)
            elif news:
                show(f"{strftime('%T')} {', '.join(news)}")
                known = set(before.failures)
                failures = [f for f in report.failures if f not in known]
                if report.notes or failures:
                    places = _sources_of(into)
                    print_notes(report.notes, places)
                    print_failures(failures, places, into)

        def on_message(message: str) -> None:
            first.close()
            say(f"{strftime('%T')} {message}")

        watch_images(
            sources,
            into,
            on_pass=on_pass,
            on_message=on_message,
            on_progress=lambda progress: update(progress.done, progress.total),
            **options,
        )


NO_NEWS = ("copies", "returned", "decoded_anew", "unchanged", "kept_out", "ignored", "interrupted")


def _news(report: AddReport, before: AddReport) -> list[str]:
    """What a pass did, and what is missing or failed that was not in the pass `before`."""
    counts = {
        field.name: value
        for field in fields(report)
        if isinstance(value := getattr(report, field.name), int)
        and field.name
        not in ("copies", "decoded_anew", "unchanged", "kept_out", "ignored", "interrupted")
    }
    counts["missing"] -= before.missing
    counts["failed"] = len(set(report.failures) - set(before.failures))
    counts["removed (excluded)"] = counts.pop("dropped")
    return [f"{name} {count:,}" for name, count in counts.items() if count > 0]


def _print_report(report: AddReport, into: str, prune: bool) -> None:
    from cbir.images.kept_tars import MOST_KEPT

    described = report.added + report.updated
    counts = {
        "added": report.added,
        "updated": report.updated,
        "moved": report.moved,
        "unchanged": report.unchanged,
    }
    done = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    rate = f", {described / report.seconds:,.0f} per second" if described else ""
    show(f"{into}: {done or 'nothing added'} in {report.seconds:.1f} s{rate}")
    for name, uri in report.relocated.items():
        show(f"source {name} was found at {uri}; its images keep their ids")
    for path, name in report.nested.items():
        show(f"{path} is part of source {name}; its images are indexed once")
    if report.copies:
        show(f"{counted(report.copies, 'added image')} already in the index under another name")
    if report.decoded_anew:
        again = counted(report.decoded_anew, "unchanged image")
        show(f"{again} described again, because this version of cbir reads them better")
    if report.kept_out:
        show(f"{counted(report.kept_out, 'removed image')} kept out; --again adds them")
    if report.returned:
        show(f"{counted(report.returned, 'removed image')} added again: the files have changed")
    if report.missing:
        hint = "" if prune else "; --prune removes their records"
        show(f"{counted(report.missing, 'file')} missing{hint}")
    if report.removed:
        show(f"{counted(report.removed, 'record')} removed (file missing)")
    if report.dropped:
        show(f"{counted(report.dropped, 'record')} removed (excluded)")
    if report.excluded:
        show(f"excluded: {_named(report.excluded)}")
    if report.passed_over:
        names = _named(report.passed_over)
        show(f"passed over: {names}; --no-default-excludes includes them")
    if report.unused_excludes:
        show(f"--exclude matched nothing: {listed(report.unused_excludes)}")
    if report.ignored:
        kinds = sorted(
            report.ignored_by_extension.items(), key=lambda kind: (-kind[1], not kind[0], kind[0])
        )
        named = listed([f"{count:,} {name or 'without extension'}" for name, count in kinds])
        show(f"{counted(report.ignored, 'file')} ignored (not an image): {named}")
    if report.skipped_indexes:
        skipped = counted(len(report.skipped_indexes), "index")
        show(f"{skipped} inside the sources skipped: {listed(report.skipped_indexes)}")
    for path in report.unopened:
        show(
            f"originals in {path} will not be opened: it expands to more than "
            f"{MOST_KEPT / 1e9:g} GB; to open them, unpack it and index the folder"
        )
    if not report.notes and not report.failures:
        return
    sources = _sources_of(into)
    if report.notes:
        show(f"{counted(len(report.notes), 'note')}:")
        print_notes(report.notes, sources)
    if report.failures:
        show(f"{len(report.failures):,} failed:")
        print_failures(report.failures, sources, into)


def _sources_of(into: str) -> dict[str, str]:
    from cbir.index.open import open_index

    with closing(open_index(into)) as index:
        return index.sources()


def _named(names: Mapping[str, int]) -> str:
    """Folders and files by name: `3 folders (@eaDir, .trash), 1 file (._a.jpg)`."""
    parts = []
    for what, of_kind in (("folder", True), ("file", False)):
        kind = {n.rstrip("/"): count for n, count in names.items() if n.endswith("/") == of_kind}
        if kind:
            parts.append(f"{counted(sum(kind.values()), what)} ({listed(list(kind), 3)})")
    return ", ".join(parts)


def _require_images(report: AddReport, sources: tuple[str, ...]) -> None:
    """Raise if the run left no image of its sources in the index."""
    kept = report.moved + report.unchanged + report.kept_out
    if report.added + report.updated + report.missing + report.removed + report.dropped + kept:
        return
    from cbir.errors import CbirError

    named = ", ".join(sources)
    if report.failures:
        raise CbirError(f"no image of {named} could be read", "see the reasons above")
    if report.passed_over or report.excluded:
        left = _named({**report.passed_over, **report.excluded})
        raise CbirError(f"no images in {named} but excluded ones: {left}", "see cbir index --help")
    raise CbirError(f"no images in {named}", "name the folder or archive that holds them")
