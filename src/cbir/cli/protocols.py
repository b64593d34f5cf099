"""What `cbir evaluate` can be asked about protocols, and how their figures are shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from cbir.cli.output import print_table, say

_Command = Callable[..., None]


def protocol_options(command: _Command) -> _Command:
    """Options that go to `experiment.evaluate` under the names that they have there."""
    options = (
        click.option(
            "--protocol",
            type=click.Choice(["usual", "unseen", "both"]),
            default="both",
            show_default=True,
            help="Search the index, or the queries among each other.",
        ),
        click.option(
            "--hamming",
            "bits",
            type=click.IntRange(1),
            metavar="BITS",
            help="Also by binary codes of so many bits.",
        ),
        click.option(
            "--shuffle-ids",
            "shuffle",
            type=click.IntRange(0),
            metavar="SEED",
            help="Order equal scores by this seed, not by id.",
        ),
        click.option(
            "--without-near-duplicates",
            is_flag=True,
            help="Leave out queries that are nearly the same as an indexed picture.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def print_protocols(figures: dict[str, Any]) -> None:
    """Means of measures under each protocol as a table on standard output."""
    main = "unseen index" if figures["protocol"] == "unseen" else "usual protocol"
    columns = {main: figures["measures"], "unseen index": figures["unseen_index"]}
    _print_means(columns)
    if figures["hamming"]:
        coded = figures["hamming"]
        click.echo(f"by codes of {coded['bits']} bits (seed {coded['seed']}):")
        _print_means({"usual protocol": coded["measures"], "unseen index": coded["unseen_index"]})
    if figures["shuffle_ids"] is not None:
        say(f"equal scores are ordered by the seed {figures['shuffle_ids']}, not by id")
    say_left_out(figures)


def say_left_out(figures: dict[str, Any]) -> None:
    """How many queries have a near-duplicate in the index, where they were looked for."""
    found = figures["near_duplicates"]
    if found:
        asked = figures["n_queries"] + found["left_out"]
        share = found["left_out"] / asked
        say(
            f"left out: {found['left_out']:,} of {asked:,} queries ({share:.2%}) are nearly the "
            "same as an indexed picture"
        )


def _print_means(columns: dict[str, dict[str, float] | None]) -> None:
    known = {title: means for title, means in columns.items() if means}
    names = next(iter(known.values()))
    print_table(
        ["measure", *known],
        [[name, *(f"{means[name]:.4f}" for means in known.values())] for name in names],
    )
