"""`cbir index`: add images to an index."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cbir.cli.options import INDEX
from cbir.cli.output import print_json, progress_bar, say
from cbir.wording import counted

if TYPE_CHECKING:
    from cbir.types import AddReport

SHOWN_FAILURES = 10
INTERRUPTED = 130


@click.command(short_help="Add images to an index; unchanged ones are skipped.")
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@click.option(
    "--into", required=True, type=INDEX, metavar="INDEX", help="Where the index is, or will be."
)
@click.option("--descriptor", metavar="NAME", help="What turns images into vectors.")
@click.option("--label-from-folder", is_flag=True, help="Label each image with its folder's name.")
@click.option(
    "--metadata",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV or JSONL file with an id or path column, and fields to filter by.",
)
@click.option(
    "--regions",
    type=click.Choice(["1", "5", "14"]),
    help="Parts of each picture that can be found: whole, + 2x2, + 3x3. [default: 1, or as it is]",
)
@click.option("--prune", is_flag=True, help="Drop the records of files that are gone.")
@click.option("--force-prune", is_flag=True, help="The same, even if most files are gone.")
@click.option(
    "--moved", metavar="NAME", help="SOURCE is where the indexed source NAME lies now (see info)."
)
@click.option(
    "--rebuild", is_flag=True, help="Elasticsearch: fill a new index, then put it in place."
)
@click.option("--fast-load", is_flag=True, help="Elasticsearch: no copies until it is loaded.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.pass_context
def command(
    ctx: click.Context,
    sources: tuple[str, ...],
    into: str,
    descriptor: str | None,
    label_from_folder: bool,
    metadata: Path | None,
    regions: str | None,
    prune: bool,
    force_prune: bool,
    moved: str | None,
    rebuild: bool,
    fast_load: bool,
    as_json: bool,
) -> None:
    """Add the images of each SOURCE to an index; unchanged ones are skipped.

    SOURCE: a folder, a zip or tar file, cifar10:train, cifar10:test, digits:train, digits:test.
    """
    from cbir.images.sources import open_source
    from cbir.ingest.indexing import index_images
    from cbir.ingest.run import PruneRefusedError

    opened = [open_source(source, label_from_folder) for source in sources]
    refused = None
    try:
        with progress_bar("indexing") as update:
            report = index_images(
                opened,
                into,
                descriptor=descriptor,
                metadata=metadata,
                regions=int(regions) if regions else None,
                prune="force" if force_prune else prune,
                moved=moved,
                rebuild=rebuild,
                fast_load=fast_load,
                on_progress=lambda progress: update(progress.done, progress.total),
            )
    except PruneRefusedError as error:
        report, refused = error.report, error
    if as_json:
        print_json(asdict(report))
    else:
        _print_report(report, into)
    if report.interrupted:
        say("interrupted: what was added is kept; the same command goes on from here")
        ctx.exit(INTERRUPTED)
    if refused:
        raise refused
    _require_images(report, sources)


def _print_report(report: AddReport, into: str) -> None:
    described = report.added + report.updated
    counts = {"added": report.added, "updated": report.updated, "unchanged": report.unchanged}
    done = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    rate = f", {described / report.seconds:,.0f} a second" if described else ""
    click.echo(f"{into}: {done or 'nothing added'} in {report.seconds:.1f} s{rate}")
    if report.missing:
        click.echo(f"{counted(report.missing, 'file')} gone; --prune drops the records")
    if report.removed:
        click.echo(f"{counted(report.removed, 'record')} dropped, because the files are gone")
    if report.ignored:
        click.echo(f"{counted(report.ignored, 'file')} passed over: no image")
    if report.unused_metadata:
        click.echo(
            f"{counted(len(report.unused_metadata), 'metadata row')} matched no image, "
            f"{report.unused_metadata[0]!r} among them"
        )
    if report.failures:
        click.echo(f"{len(report.failures):,} failed:")
        for failure in report.failures[:SHOWN_FAILURES]:
            click.echo(f"  {failure.source}/{failure.location}: {failure.reason}")
        if len(report.failures) > SHOWN_FAILURES:
            click.echo(f"  ... all of them: cbir info {into} --json")


def _require_images(report: AddReport, sources: tuple[str, ...]) -> None:
    """A run that ends without a single image of its sources in the index has failed."""
    if report.added + report.updated + report.unchanged + report.missing + report.removed:
        return
    from cbir.errors import CbirError

    named = ", ".join(sources)
    if report.failures:
        raise CbirError(f"no image of {named} could be read", "the reason of each stands above")
    raise CbirError(f"no images in {named}", "name the folder, or the archive, that holds them")
