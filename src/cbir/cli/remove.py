"""`cbir remove`: remove records from an index."""

from __future__ import annotations

import click


@click.command()
@click.argument("index", metavar="INDEX")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print the removed ids as JSON.")
def command(index: str, ids: tuple[str, ...], as_json: bool) -> None:
    """Remove the records with these ids. The image files are kept."""
    from contextlib import closing

    from cbir.cli.output import print_json
    from cbir.errors import QueryError
    from cbir.index.open import open_index

    with closing(open_index(index, write=True)) as opened:
        removed = opened.remove(ids)
        opened.refresh()
    if as_json:
        print_json({"removed": removed})
    else:
        click.echo(f"{len(removed)} removed")
    absent = [record_id for record_id in ids if record_id not in removed]
    if absent:
        raise QueryError(
            f"not in {index}: {', '.join(absent)}", "use the ids that cbir search prints"
        )
