"""What `cbir evaluate` can be asked about protocols, and how their figures are shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from cbir.cli.output import counted, listed, print_table, say

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
    columns = {title: means for _, title, (means,) in _cosine_by_protocol([figures])}
    _print_means(columns)
    if figures["sample"] is not None and figures["protocol"] == "both":
        say("a sample has no unseen index: too few images would be relevant to a query")
    if figures["hamming"]:
        click.echo(f"{_codes(figures['hamming'])}:")
        _print_means({title: means for _, title, (means,) in _codes_by_protocol([figures])})
    say_order(figures)
    say_left_out(figures)


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


def say_order(figures: Mapping[str, Any]) -> None:
    """How equal scores were ordered, where it was not by id."""
    if figures["shuffle_ids"] is not None:
        say(f"equal scores are ordered by the seed {figures['shuffle_ids']}, not by id")


def say_left_out(figures: Mapping[str, Any], name: str = "") -> None:
    """How many queries have a near-duplicate in the index, where they were looked for."""
    found = figures["near_duplicates"]
    if not found:
        return
    asked = figures["n_queries"] + found["left_out"]
    share = found["left_out"] / asked
    say(
        f"{name}left out: {found['left_out']:,} of {counted(asked, 'query')} ({share:.2%}) are "
        "nearly the same as an indexed picture"
    )
    if found["doubtful"]:
        say(
            "so many are rarely copies: pictures without much detail (digits, logos, scans) are "
            "taken for each other"
        )


def say_irrelevant(figures: Mapping[str, Any], name: str = "") -> None:
    """Which queries have no label, and which labels are not in the index."""
    absent, unlabelled = figures["absent_labels"], figures["unlabelled_queries"]
    if absent:
        labels = counted(len(absent), "label")
        say(f"{name}{labels} of the queries not in the index, which count as 0: {listed(absent)}")
    if unlabelled:
        queries = counted(len(unlabelled), "query")
        say(f"{name}left out: {queries} without a label: {listed(unlabelled, 3)}")


def say_failed(figures: Mapping[str, Any], name: str = "") -> None:
    """Which queries could not be read."""
    failures = figures["failures"]
    if failures:
        first = failures[0]
        said = "could not be read and are" if len(failures) > 1 else "could not be read and is"
        say(
            f"{name}{counted(len(failures), 'query')} {said} left out: {first['location']} "
            f"({first['reason']}){' ...' if len(failures) > 1 else ''}"
        )


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


def _print_means(columns: Mapping[str, Means]) -> None:
    names = next(iter(columns.values()))
    print_table(
        ["measure", *columns],
        [[name, *(f"{means[name]:.4f}" for means in columns.values())] for name in names],
    )
