"""`cbir train compose`: chooses the weights of a composed descriptor on labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cbir.cli.trained import label_options, labelled_sources

if TYPE_CHECKING:
    from cbir.training.part_weights import PartWeights, WeightsTried

SHOWN_ROWS = 21


@click.command(short_help="The weights of a composed descriptor, chosen on labelled images.")
@click.argument("source", metavar="SOURCE")
@click.option(
    "--of",
    "names",
    required=True,
    multiple=True,
    metavar="NAME",
    help="A descriptor to compose; give two or more.",
)
@click.option(
    "-m", "--measure", default="nAP@10", show_default=True, metavar="NAME", help="What to maximise."
)
@label_options
@click.option(
    "--limit",
    type=click.IntRange(2),
    default=2000,
    show_default=True,
    metavar="N",
    help="Take N images at random.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of the random choice.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def compose(
    source: str,
    names: tuple[str, ...],
    measure: str,
    label_from_folder: bool,
    metadata: tuple[Path, ...],
    limit: int,
    seed: int,
    as_json: bool,
) -> None:
    """Choose the weights of descriptors on a labelled SOURCE, and print the name to use.

    Each image is described once and searched among the others (leave-one-out). SOURCE is training
    data: if you evaluate the result later, use other images as queries.
    """
    from dataclasses import asdict

    from cbir.cli.output import print_json, progress_stages, say
    from cbir.training.part_weights import choose_part_weights

    opened, _ = labelled_sources(source, None, label_from_folder, metadata)
    with progress_stages() as update:
        chosen = choose_part_weights(
            opened, names, measure=measure, limit=limit, seed=seed, say=say, on_stage=update
        )
    if as_json:
        print_json({"source": source, "limit": limit, "seed": seed, **asdict(chosen)})
    else:
        _print(chosen)


def _print(chosen: PartWeights) -> None:
    from cbir.cli.output import print_table, show
    from cbir.wording import counted

    single, best = chosen.best_single, chosen.best
    show(
        f"leave-one-out among {counted(chosen.images, 'training image')}, "
        f"{counted(chosen.queries, 'query')}, {counted(chosen.classes, 'class')}"
    )
    measures = list(single.measures)
    rows = chosen.tried
    if len(rows) > SHOWN_ROWS:
        rows = sorted(rows, key=lambda row: -row.measures[chosen.measure])[:SHOWN_ROWS]
    print_table(
        [*chosen.parts, *measures, f"{chosen.measure} - {single.name}"],
        [_row(row, measures) for row in rows],
    )
    if len(rows) < len(chosen.tried):
        show(f"the best {len(rows)} of {len(chosen.tried)}; --json prints all")
    if best is single:
        show(f"no weights are better than {single.name} alone")
    elif best.interval[0] <= 0:
        show(f"the gain over {single.name} may be chance: its interval contains 0")
    show(f"use it: --descriptor {best.name}")


def _row(row: WeightsTried, measures: list[str]) -> list[str]:
    low, high = row.interval
    return [
        *(f"{weight:.2f}" for weight in row.weights),
        *(f"{row.measures[name]:.4f}" for name in measures),
        f"{row.difference:+.4f} ({low:+.4f} to {high:+.4f})",
    ]
