"""`cbir copy`: copy an index without describing its images again."""

from __future__ import annotations

import click


@click.command(short_help="Copy an index, within or between engines.")
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.option("--overwrite", is_flag=True, help="If values differ, use those of FROM.")
@click.option("--keep", is_flag=True, help="If values differ, keep those of TO.")
@click.option("--fast-load", is_flag=True, help="Elasticsearch: add replicas only after loading.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(
    source: str, target: str, overwrite: bool, keep: bool, fast_load: bool, as_json: bool
) -> None:
    """Copy the index FROM to TO: records, vectors, thumbnails, sources, model.

    TO is created if it does not exist. Records that it already has are not copied again. Labels
    and metadata of both are merged. If values differ, nothing is copied until you choose
    --overwrite or --keep. At the end the command compares the record counts and the results of
    some queries.
    """
    from dataclasses import asdict

    from cbir.cli.output import print_json, progress_bar, say, show
    from cbir.ingest.copy import Conflicts, copy_index
    from cbir.wording import counted

    if overwrite and keep:
        raise click.UsageError("--overwrite and --keep cannot be combined")
    conflicts: Conflicts = "overwrite" if overwrite else "keep" if keep else "refuse"
    try:
        with progress_bar("copying") as update:
            report = copy_index(
                source, target, conflicts=conflicts, fast_load=fast_load, on_done=update
            )
    except KeyboardInterrupt:
        say("copied records are kept; the same command resumes")
        raise
    if as_json:
        print_json(asdict(report))
        return
    rate = f", {report.copied / report.seconds:,.0f} per second" if report.copied else ""
    show(
        f"{target}: {counted(report.copied, 'image')} copied, {report.unchanged:,} already there, "
        f"in {report.seconds:.1f} s{rate}"
    )
    if report.conflicts:
        winner = source if overwrite else target
        show(f"{counted(report.conflicts, 'conflict')}: {target} has the values of {winner}")
    compared = "the same results for" if report.exact else "the same vectors for"
    show(f"compared: {compared} {counted(report.compared, 'query')}")
