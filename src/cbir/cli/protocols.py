"""What `cbir evaluate` can be asked about protocols, and how their figures are shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from cbir.cli.options import metadata_option
from cbir.cli.output import print_table, say

_Command = Callable[..., None]

Means = Mapping[str, float]
USUAL, UNSEEN = "usual protocol", "unseen index"


def protocol_options(command: _Command) -> _Command:
    """Options that go to `experiment.evaluate` under the names that they have there."""
    options = (
        click.option(
            "--sample", type=click.IntRange(1), help="Only so many of the queries, at random."
        ),
        click.option(
            "--expand",
            type=click.IntRange(0),
            default=0,
            metavar="M",
            help="Average the query with its first M hits.",
        ),
        metadata_option,
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
    """One index: means of measures under each protocol as a table, and what stands beside them."""
    columns: dict[str, Mapping[str, str]] = {}
    for protocol, title, (means,) in _cosine_by_protocol([figures]):
        columns[title] = {name: f"{mean:.4f}" for name, mean in means.items()}
        main = protocol == "usual" or figures["protocol"] == "unseen"
        intervals = figures.get("intervals" if main else "unseen_intervals")
        if intervals:
            columns[f"95% interval{'' if main else ' '}"] = {
                name: "{:.4f} to {:.4f}".format(*ends) for name, ends in intervals.items()
            }
    _print_columns(columns)
    if figures["hamming"]:
        click.echo(f"{_codes(figures['hamming'])}:")
        _print_columns(
            {
                title: {name: f"{mean:.4f}" for name, mean in means.items()}
                for _, title, (means,) in _codes_by_protocol([figures])
            }
        )
    say_notes([figures])


def means_by_protocol(runs: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, list[Means]]]:
    """Protocol, title, and the means of every run under it; those by binary codes after them.

    Only what all runs have. The protocol of binary codes, which are not compared, is "".
    """
    coded = [
        ("", f"{title}, {_codes(runs[0]['hamming'])}", means)
        for _, title, means in _codes_by_protocol(runs)
    ]
    return _cosine_by_protocol(runs) + coded


def print_accuracy(accuracy: Mapping[str, float | None] | None) -> None:
    """How often the descriptor's own classifier is right, where it has one."""
    known = (accuracy or {}).items()
    shares = [f"{kind.replace('_', ' ')} {share:.4f}" for kind, share in known if share is not None]
    if shares:
        click.echo(f"accuracy of its own classifier: {', '.join(shares)}")


def say_notes(runs: Sequence[Mapping[str, Any]]) -> None:
    """What must be known to read the figures of each run; once where it is true of all."""
    of_all = [note for note in runs[0]["notes"] if all(note in one["notes"] for one in runs)]
    for note in of_all:
        say(note)
    for one in runs:
        for note in one["notes"]:
            if note not in of_all:
                say(f"{one['name']}: {note}")


def _cosine_by_protocol(runs: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, list[Means]]]:
    alone = runs[0]["protocol"] == "unseen"
    main = ("unseen", UNSEEN) if alone else ("usual", USUAL)
    found = [(*main, [one["measures"] for one in runs])]
    if not alone and all(one["unseen_index"] for one in runs):
        found.append(("unseen", UNSEEN, [one["unseen_index"] for one in runs]))
    return found


def _codes_by_protocol(runs: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, list[Means]]]:
    coded = [one["hamming"] for one in runs if one["hamming"]]
    return [
        (protocol, title, [one[key] for one in coded])
        for protocol, title, key in (
            ("usual", USUAL, "measures"),
            ("unseen", UNSEEN, "unseen_index"),
        )
        if coded and all(one[key] for one in coded)
    ]


def _codes(coded: Mapping[str, Any]) -> str:
    return f"by codes of {coded['bits']} bits (seed {coded['seed']})"


def _print_columns(columns: Mapping[str, Mapping[str, str]]) -> None:
    print_table(
        ["measure", *columns],
        [[name, *(of[name] for of in columns.values())] for name in next(iter(columns.values()))],
    )
