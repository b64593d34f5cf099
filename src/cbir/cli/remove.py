"""`cbir remove`: remove images from an index."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click


@click.command()
@click.argument("index", metavar="INDEX")
@click.argument("names", metavar="[ID|PATH|PATTERN]...", nargs=-1)
@click.option(
    "--where", multiple=True, metavar="'FIELD OP VALUE'", help="Only what passes; may repeat."
)
@click.option("--json", "as_json", is_flag=True, help="Print the removed ids as JSON.")
def command(index: str, names: tuple[str, ...], where: tuple[str, ...], as_json: bool) -> None:
    """Remove images from an index and keep them out. Their files stay.

    Names are ids, paths of files, or patterns of ids such as 'photos/2019/*'. cbir index --again
    adds removed images again.
    """
    if not names and not where:
        raise click.UsageError("Name the images to remove by ids, paths, patterns or --where.")
    from cbir.cli.output import print_json
    from cbir.errors import QueryError
    from cbir.index.open import open_index
    from cbir.ingest.record_removal import is_pattern, remove_images
    from cbir.search.near_misses import warn_of_near_misses
    from cbir.search.why import id_of

    with closing(open_index(index)) as opened:
        ids = {id_of(opened, n) if Path(n).exists() or not is_pattern(n) else n: n for n in names}
    report = remove_images(index, list(ids), where=where)
    if not report.removed:
        with closing(open_index(index)) as opened:
            warn_of_near_misses(opened, where)
    if as_json:
        print_json({"removed": report.removed})
    else:
        click.echo(f"{len(report.removed):,} removed")
    if report.absent:
        raise QueryError(
            f"not in {index}: {', '.join(ids[name] for name in report.absent)}",
            "cbir search --ids shows ids",
        )
