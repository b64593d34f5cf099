"""Several runs beside each other: tables, sentences, and a CSV file of every query's values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import click

from cbir.cli.output import print_table, say

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cbir.experiment import Evaluation

CLASSES_SHOWN = 20


def compare_indexes(names: Sequence[str], evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """Figures of several indexes asked the same queries, and their comparisons, for `--json`.

    `names` are what the indexes are called in the answer. Queries are the same where their ids
    are but for the source's name, which each index gives. One that some index could not describe
    is left out of the comparisons, which is said.
    """
    from cbir.errors import QueryError
    from cbir.evaluation.compare import compare_runs

    rows = [
        {query.partition("/")[2]: row for row, query in enumerate(one.queries.ids)}
        for one in evaluations
    ]
    common = [key for key in rows[0] if all(key in others for others in rows[1:])]
    if not common:
        raise QueryError("there is no query that every index could describe")
    for name, of_index in zip(names, rows, strict=True):
        if len(of_index) > len(common):
            lacking = len(of_index) - len(common)
            say(f"{name}: queries that another index lacks are not compared: {lacking:,}")
    chosen_rows = [[of_index[key] for key in common] for of_index in rows]
    labels = [evaluations[0].queries.labels[row] for row in chosen_rows[0]]
    runs = [
        (name, {measure: values[chosen] for measure, values in one.per_query.items()})
        for name, one, chosen in zip(names, evaluations, chosen_rows, strict=True)
    ]
    return {
        "runs": [
            {"name": name, **with_intervals(one)}
            for name, one in zip(names, evaluations, strict=True)
        ],
        "comparisons": compare_runs(runs, labels),
    }


def with_intervals(evaluation: Evaluation) -> dict[str, Any]:
    """The figures of one index, with the intervals of its means, for `--json`."""
    from cbir.evaluation.compare import mean_intervals

    return {**evaluation.to_json(), "intervals": mean_intervals(evaluation.per_query)}


def print_indexes(answer: dict[str, Any]) -> None:
    """What `compare_indexes` found, as tables and sentences on standard output."""
    runs = answer["runs"]
    for one in runs:
        memory = " (index = training images)" if one["training_images_indexed"] else ""
        click.echo(
            f"{one['name']}: {one['descriptor']}, {one['n_queries']:,} queries, "
            f"{one['n_indexed']:,} indexed{memory}"
        )
    click.echo()
    main = "unseen index" if runs[0]["protocol"] == "unseen" else "usual protocol"
    print_means(main, [(one["name"], one["measures"]) for one in runs])
    if all(one["unseen_index"] for one in runs):
        click.echo()
        print_means("unseen index", [(one["name"], one["unseen_index"]) for one in runs])
    print_comparisons([one["name"] for one in runs], answer["comparisons"])
    for one in runs:
        if one["failed"]:
            say(f"{one['name']}: {one['failed']} queries could not be read and are left out")


def short_names(places: Iterable[str]) -> list[str]:
    """The last part of each place, or all of it where last parts would not tell them apart."""
    whole = list(places)
    last = [PurePath(place).name for place in whole]
    return last if len(set(last)) == len(set(whole)) else whole


def print_means(title: str, runs: Sequence[tuple[str, Mapping[str, float]]]) -> None:
    """A row a measure, a column a run."""
    print_table(
        [title, *(name for name, _ in runs)],
        [[measure, *(f"{of[measure]:.4f}" for _, of in runs)] for measure in runs[0][1]],
    )


def print_comparisons(names: Sequence[str], comparisons: Sequence[Mapping[str, Any]]) -> None:
    """Every comparison as a row, what it means as a sentence, and one measure class by class.

    `names` are the runs', `comparisons` what `compare_runs` says of them. Of more than one pair
    of runs, only the sentences about that one measure.
    """
    corrected = any(one["p"] != one["p_adjusted"] for one in comparisons)
    click.echo()
    print_table(
        [
            *("measure", "a", "b", "b - a", "95% interval", "p", "b wins", "ties", "losses"),
            *(["p corrected"] if corrected else []),
        ],
        [
            [
                one["measure"],
                one["a"],
                one["b"],
                f"{one['difference']:+.4f}",
                f"{one['interval'][0]:+.4f} to {one['interval'][1]:+.4f}",
                f"{one['p']:.4f}",
                *(f"{one[count]:,}" for count in ("wins", "ties", "losses")),
                *([f"{one['p_adjusted']:.4f}"] if corrected else []),
            ]
            for one in comparisons
        ],
    )
    main = _main_measure(one["measure"] for one in comparisons)
    click.echo()
    for one in comparisons:
        if len(names) == 2 or one["measure"] == main:
            click.echo(one["in_words"])
    _print_class_differences(names, [one for one in comparisons if one["measure"] == main])


def print_classes(classes: Mapping[str, Mapping[str, Any]]) -> None:
    """A row a class, a column a measure: what `class_means` gives."""
    measures = list(next(iter(classes.values()))["measures"])
    click.echo()
    print_table(
        ["class", "queries", *measures],
        [
            [label, f"{of['n_queries']:,}", *(f"{of['measures'][name]:.4f}" for name in measures)]
            for label, of in classes.items()
        ],
    )


def write_per_query(
    target: Path,
    runs: Sequence[tuple[str, Sequence[str], Mapping[str, NDArray[np.float64]]]],
) -> None:
    """A CSV file with a row a query and a column a measure; several runs: the run's name first.

    A run is its name, query ids, and measure -> values, float64 (q,).
    """
    import csv

    from cbir.errors import CbirError

    measures = list(runs[0][2])
    named = len(runs) > 1
    try:
        with target.open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow([*(["run"] if named else []), "query", *measures])
            for name, queries, per_query in runs:
                columns = [per_query[measure].tolist() for measure in measures]
                for query, *values in zip(queries, *columns, strict=True):
                    rows.writerow([*([name] if named else []), query, *values])
    except OSError as error:
        raise CbirError(
            f"cannot write {target}: {error.strerror or error}", "choose another place"
        ) from error


def _print_class_differences(
    names: Sequence[str], comparisons: Sequence[Mapping[str, Any]]
) -> None:
    """One measure class by class: a column a run; for two runs the difference too."""
    with_first = comparisons[: len(names) - 1]
    means = {
        label: [of_first["mean_a"], *(one["classes"][label]["mean_b"] for one in with_first)]
        for label, of_first in with_first[0]["classes"].items()
    }
    if not means:
        return
    spread = {label: max(of) - min(of) for label, of in means.items()}
    shown = sorted(sorted(spread, key=spread.__getitem__, reverse=True)[:CLASSES_SHOWN])
    click.echo()
    print_table(
        [
            f"class, {with_first[0]['measure']}",
            "queries",
            *names,
            *(["b - a"] if len(names) == 2 else []),
        ],
        [
            [
                label,
                f"{with_first[0]['classes'][label]['n_queries']:,}",
                *(f"{mean:.4f}" for mean in means[label]),
                *([f"{means[label][1] - means[label][0]:+.4f}"] if len(names) == 2 else []),
            ]
            for label in shown
        ],
    )
    if len(shown) < len(means):
        click.echo(f"the {len(shown)} of {len(means)} classes that differ most; --json has all")


def _main_measure(names: Iterable[str]) -> str:
    """The measure that sentences and classes are shown for: nAP@k where it is among them."""
    known = list(names)
    return next((name for name in known if name.startswith("nAP")), known[0])
