"""`cbir copy`: an index into another, without describing a picture again."""

from __future__ import annotations

import click


@click.command(short_help="Copy an index, also between engines.")
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.option("--overwrite", is_flag=True, help="Where values differ, take those of FROM.")
@click.option("--keep", is_flag=True, help="Where values differ, keep those of TO.")
@click.option("--fast-load", is_flag=True, help="Elasticsearch: no replicas until it is loaded.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(
    source: str, target: str, overwrite: bool, keep: bool, fast_load: bool, as_json: bool
) -> None:
    """Copy the index FROM into TO: records, vectors, thumbnails, sources, model.

    TO is created if it does not exist. Records that it has are not copied again. Labels and
    metadata of both are merged; if both have a value and they differ, nothing is copied until you
    choose --overwrite or --keep. At the end, record counts and the answers to some queries are
    compared.
    """
    from dataclasses import asdict

    from cbir.cli.output import print_json, progress_bar, say
    from cbir.ingest.copy import Conflicts, copy_index
    from cbir.wording import counted

    if overwrite and keep:
        raise click.UsageError("--overwrite and --keep exclude each other")
    conflicts: Conflicts = "overwrite" if overwrite else "keep" if keep else "refuse"
    try:
        with progress_bar("copying") as update:
            report = copy_index(
                source, target, conflicts=conflicts, fast_load=fast_load, on_done=update
            )
    except KeyboardInterrupt:
        say("what was copied is kept; the same command resumes")
        raise
    if as_json:
        print_json(asdict(report))
        return
    rate = f", {report.copied / report.seconds:,.0f} a second" if report.copied else ""
    click.echo(
        f"{target}: {counted(report.copied, 'image')} copied, {report.unchanged:,} there before, "
        f"in {report.seconds:.1f} s{rate}"
    )
    if report.conflicts:
        winner = source if overwrite else target
        click.echo(f"{counted(report.conflicts, 'conflict')}: {target} has the values of {winner}")
    how = "the same answers to" if report.exact else "the same vectors for"
    click.echo(f"compared: {how} {counted(report.compared, 'query')}")
