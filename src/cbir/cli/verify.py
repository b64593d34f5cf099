"""`cbir verify`: checks an index, and repairs what can be rebuilt."""

from __future__ import annotations

import click


@click.command(short_help="Check an index, and repair it if possible.")
@click.argument("index", metavar="INDEX")
@click.option("--repair", is_flag=True, help="Rebuild what can be rebuilt.")
@click.option("--json", "as_json", is_flag=True, help="Print the problems as JSON.")
@click.pass_context
def command(ctx: click.Context, index: str, repair: bool, as_json: bool) -> None:
    """Check every record, vector, thumbnail and cache of an index. Exits with 1 on a problem."""
    from contextlib import closing

    from cbir.cli.confirming import ask_to_confirm
    from cbir.cli.output import print_json, say, show
    from cbir.index.open import mend, open_index
    from cbir.search.spares import spares_for
    from cbir.wording import counted, shell_word

    told = mend(index) if repair else []
    with closing(open_index(index, write=repair)) as opened:
        if repair:  # thumbnails are drawn again from the originals
            ask_to_confirm(opened, ask=not as_json)
        found = told + opened.verify(repair=repair, spares=spares_for(opened))
        left = opened.verify() if repair and found else found
        count = opened.count()
    if as_json:
        print_json({"count": count, "problems": found, "left": left})
    else:
        for problem in found:
            show(problem)
        problems = counted(len(left), "problem") + (" left" if repair and found else "")
        show(f"{index}: {counted(count, 'image')}, {problems}")
    if left and not repair:
        say(f"cbir verify {shell_word(index)} --repair repairs what can be rebuilt")
    if left:
        ctx.exit(1)
