"""`cbir copy`: an index into another, without describing a picture again."""

from __future__ import annotations

import click


@click.command(short_help="Copy an index, also between engines.")
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.option("--fast-load", is_flag=True, help="Elasticsearch: no copies until it is loaded.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(source: str, target: str, fast_load: bool, as_json: bool) -> None:
    """Copy the index FROM into TO: records, vectors, thumbnails, sources, model.

    TO is made if need be. What it has already is not copied again. In the end the numbers of
    records and the answers to some queries are compared.
    """
    from dataclasses import asdict

    from cbir.cli.output import print_json, progress_bar, say
    from cbir.ingest.copy import copy_index
    from cbir.wording import counted

    try:
        with progress_bar("copying") as update:
            report = copy_index(source, target, fast_load=fast_load, on_done=update)
    except KeyboardInterrupt:
        say("what was copied is kept; the same command goes on from there")
        raise
    if as_json:
        print_json(asdict(report))
        return
    rate = f", {report.copied / report.seconds:,.0f} a second" if report.copied else ""
    click.echo(
        f"{target}: {counted(report.copied, 'image')} copied, {report.unchanged:,} there before, "
        f"in {report.seconds:.1f} s{rate}"
    )
    how = "the same answers to" if report.exact else "the same vectors for"
    click.echo(f"compared: {how} {counted(report.compared, 'query')}")
