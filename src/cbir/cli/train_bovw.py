"""`cbir train bovw`: fits vocabularies, projections and heads, without a neural network."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cbir.cli.trained import labelled_sources, require_place, training_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cbir.training.bovw.heads import HeadResult
    from cbir.training.bovw.recipes import Recipe
    from cbir.training.bovw.sweep import Sweep

DEFAULT_RECIPE = "seed"
SIZES = "100,200,300,400,500,600,700,800,900,1000"
SWEEP_JSON, SWEEP_PLOT = "sweep.json", "sweep.png"


@click.command(short_help="Bag of Visual Words: classic features, words, a linear head.")
@click.option(
    "--recipe", metavar="NAME", help="Name of the recipe; an unknown name lists them all."
)
@click.option("--name", help="Name of the model.")
@click.option(
    "--head",
    metavar="KIND",
    help="ridge, lda, logistic, svm or none, instead of the recipe's head.",
)
@training_options
@click.option(
    "--sample",
    type=click.IntRange(1),
    metavar="N",
    help="Fit words on at most N local descriptors.",
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Take N images at random.")
@click.option(
    "--trained-on", metavar="TEXT", help="Text in the card instead of the name of SOURCE."
)
@click.option("--sweep", "sweeping", is_flag=True, help="Compare vocabulary sizes instead.")
@click.option("--sizes", default=SIZES, metavar="N,N,...", help="Sizes for --sweep.")
@click.option("--compare-heads", "comparing", is_flag=True, help="Compare classifiers instead.")
@click.option("--json", "as_json", is_flag=True, help="Print a comparison as JSON.")
def bovw(
    source: str,
    recipe: str | None,
    name: str | None,
    head: str | None,
    test: str | None,
    label_from_folder: bool,
    metadata: tuple[Path, ...],
    seed: int,
    licence: str | None,
    out: Path | None,
    sample: int | None,
    limit: int | None,
    trained_on: str | None,
    sweeping: bool,
    sizes: str,
    comparing: bool,
    as_json: bool,
) -> None:
    """Fit a Bag of Visual Words to SOURCE; use it with `cbir index --descriptor NAME`.

    A recipe with a head needs labels; a tenth of the images is a held-out split. --sweep fits
    vocabularies of several sizes and compares them by the Davies-Bouldin index (lower is better):
    it prints a table, and writes a plot and JSON to --out. --compare-heads compares seven
    classifiers on the recipe's features by cross-validation.
    """
    from cbir.cli.output import say
    from cbir.cli.trained import keep
    from cbir.descriptors.models import check_name
    from cbir.registry import require_extra
    from cbir.training.bovw.recipes import recipe_called
    from cbir.training.bovw.rows import preparing
    from cbir.training.labelled import read_labelled

    _require_consistent(sweeping, comparing, recipe, name, out, as_json)
    draws = [] if comparing else ["matplotlib"]
    require_extra("cbir train bovw", "bovw", "sklearn", *draws)
    chosen = _with_head(recipe_called(recipe or DEFAULT_RECIPE), head)
    measured = None if sweeping or comparing else test
    opened, tested = labelled_sources(source, measured, label_from_folder, metadata)
    prepare = preparing(chosen.size)
    read = partial(read_labelled, opened, prepare, limit=limit, seed=seed, say=say)
    if sweeping:
        from cbir.training.bovw.sweep import sweep, words_plan

        plan, counts = words_plan(chosen), _numbers(sizes)
        images = read(need_labels=False).images
        result = sweep(plan, images, counts, seed=seed, sample=sample, say=say)
        assert out is not None
        _write_sweep(result, out, as_json)
    elif comparing:
        from cbir.training.bovw.heads import compare_heads, reduced_rows

        labelled = read()
        rows = reduced_rows(chosen, labelled, seed, sample, say)
        results = compare_heads(rows, labelled.labels, seed=seed, say=say)
        if as_json:
            _print_json(results, chosen.name, rows.shape, labelled.classes)
        else:
            _print_heads(results, labelled.classes)
    else:
        from cbir.descriptors.about import NOT_STATED
        from cbir.training.bovw.fit import train_bovw

        assert name is not None
        check_name(name, stored=out is None)
        require_place(out, source)
        files = train_bovw(
            opened,
            name,
            chosen,
            seed=seed,
            test=tested,
            sample=sample,
            limit=limit,
            trained_on=trained_on,
            licence=licence or NOT_STATED,
            say=say,
        )
        keep(files, out, metadata)


def _require_consistent(
    sweeping: bool,
    comparing: bool,
    recipe: str | None,
    name: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    if sweeping and comparing:
        raise click.UsageError("--sweep and --compare-heads cannot be combined")
    if sweeping and out is None:
        raise click.UsageError("--sweep writes a plot and JSON: give a folder, as in --out sweep")
    if sweeping or comparing:
        return
    if name is None:
        raise click.UsageError("Missing option '--name'.")
    if recipe is None:
        from cbir.training.bovw.recipes import RECIPES

        raise click.UsageError(f"Missing option '--recipe': one of {', '.join(RECIPES)}.")
    if as_json:
        raise click.UsageError("--json needs --sweep or --compare-heads")


def _with_head(recipe: Recipe, kind: str | None) -> Recipe:
    """The recipe with the head that --head names, or without one."""
    from cbir.training.bovw.linear import STRENGTHS, require_kind
    from cbir.training.bovw.recipes import HeadPlan

    if kind is None or (recipe.head is not None and recipe.head.kind == kind):
        return recipe
    if kind == "none":
        return replace(recipe, head=None)
    return replace(recipe, head=HeadPlan(require_kind(kind), STRENGTHS[kind]))


def _write_sweep(result: Sweep, out: Path, as_json: bool) -> None:
    from cbir.cli.output import print_json, print_table, say
    from cbir.files import write_files
    from cbir.report.plot_style import png
    from cbir.report.plots import sweep_plot

    data = json.dumps(result.to_json(), indent=1).encode()
    title = (
        f"{result.feature}: fitted on {result.fitted_on:,} local descriptors, "
        f"measured on {result.measured_on:,} others"
    )
    words = [row.words for row in result.rows]
    curve = sweep_plot(words, [row.davies_bouldin for row in result.rows], title)
    write_files({SWEEP_JSON: data, SWEEP_PLOT: png(curve)}, out)
    if as_json:
        print_json(result.to_json())
    else:
        rows = [
            [
                f"{row.words:,}",
                f"{row.davies_bouldin:.4f}" + (" *" if row == result.best else ""),
                str(row.unused_words),
                f"{row.seconds:.1f}",
            ]
            for row in result.rows
        ]
        print_table(["words", "Davies-Bouldin", "unused words", "seconds"], rows)
        click.echo(f"best: {result.best.words:,} words (lower is better)")
    say(f"plot and data: {out / SWEEP_PLOT}, {out / SWEEP_JSON}")


def _print_json(
    results: Sequence[HeadResult], recipe: str, shape: tuple[int, ...], classes: Sequence[str]
) -> None:
    from dataclasses import asdict

    from cbir.cli.output import print_json

    print_json(
        {
            "recipe": recipe,
            "images": shape[0],
            "dims": shape[1],
            "classes": list(classes),
            "heads": [asdict(result) for result in results],
        }
    )


def _print_heads(results: Sequence[HeadResult], classes: Sequence[str]) -> None:
    from cbir.cli.output import print_table

    print_table(
        ["classifier", "accuracy", "precision", "recall", "seconds", "in a vector", "parameters"],
        [
            [
                result.name,
                f"{result.accuracy:.4f}",
                f"{result.precision:.4f}",
                f"{result.recall:.4f}",
                f"{result.seconds:.1f}",
                "yes" if result.may_be_head else "no",
                result.settings(),
            ]
            for result in results
        ],
    )
    click.echo(f"\nconfusion matrix of {results[0].name} (rows: true, columns: predicted)")
    pairs = zip(classes, results[0].confusion, strict=True)
    print_table(["", *classes], [[label, *map(str, counts)] for label, counts in pairs])


def _numbers(text: str) -> list[int]:
    """The distinct sizes in `100,200,...`, ascending."""
    try:
        sizes = sorted({int(part) for part in text.split(",")})
    except ValueError as error:
        raise click.BadParameter(
            f"'{text}' is not a list of numbers", param_hint="--sizes"
        ) from error
    if sizes[0] < 2:
        raise click.BadParameter("a vocabulary has two words or more", param_hint="--sizes")
    return sizes
