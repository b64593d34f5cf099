"""Several runs beside each other: tables, sentences, and a CSV file of every query's values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import click

from cbir.cli.output import print_table, say
from cbir.cli.protocols import means_by_protocol, print_accuracy, say_notes
from cbir.wording import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cbir.evaluation import Compared, Evaluation

    PerQuery = tuple[Mapping[str, str], Sequence[str], Mapping[str, NDArray[np.float64]]]

CLASSES_SHOWN = 20


def compare_indexes(compared: Compared) -> dict[str, Any]:
    """Figures of several indexes asked the same queries, and their comparisons, for `--json`."""
    for name, one in zip(compared.names, compared.evaluations, strict=True):
        lacking = one.n_queries - len(compared.rows[0])
        if lacking:
            said = counted(lacking, "query")
            say(f"{name}: {said} that another index lacks, not compared")
    return {
        "runs": [
            {"name": name, **with_intervals(one)}
            for name, one in zip(compared.names, compared.evaluations, strict=True)
        ],
        "comparisons": compared.comparisons,
    }


def with_intervals(evaluation: Evaluation) -> dict[str, Any]:
    """The figures of one index, with intervals of its means and its classes, for `--json`."""
    from cbir.measures.significance import class_means, mean_intervals

    unseen = evaluation.unseen_per_query
    return {
        **evaluation.to_json(),
        "intervals": mean_intervals(evaluation.per_query),
        "unseen_intervals": mean_intervals(unseen) if unseen else None,
        "classes": class_means(evaluation.per_query, evaluation.queries.labels),
    }


def print_indexes(answer: dict[str, Any]) -> None:
    """What `compare_indexes` found, as tables and sentences on standard output."""
    runs = answer["runs"]
    names = [one["name"] for one in runs]
    for one in runs:
        memory = " (index = training images)" if one["training_images_indexed"] else ""
        click.echo(
            f"{one['name']}: {one['descriptor']}, {counted(one['n_queries'], 'query')}, "
            f"{one['n_indexed']:,} indexed{memory}"
        )
        print_accuracy(one["accuracy"])
    click.echo()
    for protocol, title, of_protocol in means_by_protocol(runs):
        print_means(title, list(zip(names, of_protocol, strict=True)))
        found = [one for one in answer["comparisons"] if one["protocol"] == protocol]
        if found:
            print_comparisons(names, found)
        click.echo()
    say_notes(runs)
    if len({one["n_indexed"] for one in runs}) > 1:
        say("the indexes do not hold as many images: that alone makes figures differ")


def short_names(places: Iterable[str]) -> list[str]:
    """The last part of each place, or all of it where last parts would not tell them apart.

    Raises `click.UsageError` where a place comes twice: a name is all that tells them apart.
    """
    whole = list(places)
    twice = next((place for place in whole if whole.count(place) > 1), None)
    if twice is not None:
        raise click.UsageError(f"{twice} is given twice")
    last = [PurePath(place).name for place in whole]
    return last if len(set(last)) == len(whole) else whole


def print_means(title: str, runs: Sequence[tuple[str, Mapping[str, float]]]) -> None:
    """A row a measure, a column a run."""
    print_table(
        [title, *(name for name, _ in runs)],
        [[measure, *(f"{of[measure]:.4f}" for _, of in runs)] for measure in runs[0][1]],
    )


def print_comparisons(names: Sequence[str], comparisons: Sequence[Mapping[str, Any]]) -> None:
    """Every comparison as a row, what it means as a sentence, and one measure class by class.

    `names` are the runs', `comparisons` what `compare_runs` says of them. The sentences are about
    that one measure.
    """
    corrected = any(one["p"] != one["p_adjusted"] for one in comparisons)
    click.echo()
    print_table(
        [
            *("measure", "a", "b", "b - a", "significant", "p"),
            *(["p corrected"] if corrected else []),
            *("95% interval", "b wins", "ties", "losses"),
        ],
        [
            [
                one["measure"],
                one["a"],
                one["b"],
                f"{one['difference']:+.4f}",
                "yes" if one["significant"] else "no",
                f"{one['p']:.4f}",
                *([f"{one['p_adjusted']:.4f}"] if corrected else []),
                f"{one['interval'][0]:+.4f} to {one['interval'][1]:+.4f}",
                *(f"{one[count]:,}" for count in ("wins", "ties", "losses")),
            ]
            for one in comparisons
        ],
    )
    main = _main_measure(one["measure"] for one in comparisons)
    click.echo()
    for one in comparisons:
        if one["measure"] == main:
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


def write_per_query(target: Path, runs: Sequence[PerQuery]) -> None:
    """A CSV file with a row a query and a column a measure.

    A run is what tells it from the others (column -> value: its name, the protocol), query ids,
    and measure -> values, float64 (q,). The file is written whole or not at all.
    """
    import csv
    import io

    from cbir.errors import CbirError
    from cbir.files import write_whole

    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow([*runs[0][0], "query", *runs[0][2]])
    for named, queries, per_query in runs:
        columns = [per_query[measure].tolist() for measure in runs[0][2]]
        for query, *values in zip(queries, *columns, strict=True):
            rows.writerow([*named.values(), query, *values])
    try:
        write_whole(target, text.getvalue().encode())
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
