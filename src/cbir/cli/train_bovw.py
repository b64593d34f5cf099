"""`cbir train bovw`: vocabularies, projections and heads, from images; no neural network."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cbir.images.items import ImageSource
    from cbir.training.bovw.heads import HeadResult
    from cbir.training.bovw.recipes import Recipe
    from cbir.training.bovw.sweep import Sweep

DEFAULT_RECIPE = "seed"
SIZES = "100,200,300,400,500,600,700,800,900,1000"
SWEEP_JSON, SWEEP_PLOT = "sweep.json", "sweep.png"


@click.command(short_help="Bag of Visual Words: classic features, words, a linear head.")
@click.argument("source", metavar="SOURCE")
@click.option("--recipe", metavar="NAME", help="What it is made of; a wrong name lists all.")
@click.option("--name", help="What the model will be called.")
@click.option(
    "--head", metavar="KIND", help="ridge, lda, logistic, svm or none; else the recipe's."
)
@click.option("--test", metavar="SOURCE", help="Labelled images to measure on, at the end.")
@click.option("--label-from-folder", is_flag=True, help="Label each image with its folder's name.")
@click.option("--seed", default=0, show_default=True, help="Seed of everything that is random.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write here instead of to the model store.",
)
@click.option(
    "--sample", type=click.IntRange(1), metavar="N", help="Local descriptors to fit words on."
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Take N images at random.")
@click.option("--trained-on", metavar="TEXT", help="What the card says of SOURCE, else its name.")
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
    seed: int,
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

    A recipe with a head needs labels; a tenth of the images is held out to choose by. --sweep
    fits vocabularies of several sizes and judges them by the Davies-Bouldin index (lower is
    better): a table, and a plot and JSON in --out. --compare-heads compares seven classifiers on
    the recipe's features by cross-validation.
    """
    from cbir.images.sources import open_source
    from cbir.training.bovw.extra import require_extra
    from cbir.training.bovw.recipes import recipe_called

    _require_consistent(sweeping, comparing, recipe, name, out, as_json)
    require_extra(*(["matplotlib"] if sweeping else []))
    chosen = _with_head(recipe_called(recipe or DEFAULT_RECIPE), head)
    opened = open_source(source, label_from_folder)
    if sweeping:
        assert out is not None
        _sweep(opened, chosen, _numbers(sizes), out, seed, sample, limit, as_json)
    elif comparing:
        _compare(opened, chosen, seed, sample, limit, as_json)
    else:
        assert name is not None
        tested = open_source(test, label_from_folder) if test else None
        _train(opened, name, chosen, tested, out, seed, sample, limit, trained_on)


def _require_consistent(
    sweeping: bool,
    comparing: bool,
    recipe: str | None,
    name: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    if sweeping and comparing:
        raise click.UsageError("--sweep and --compare-heads are two commands: give one of them")
    if sweeping and out is None:
        raise click.UsageError("--sweep writes a plot and JSON: say where, as in --out sweep")
    if sweeping or comparing:
        return
    if name is None:
        raise click.UsageError("Missing option '--name'.")
    if recipe is None:
        from cbir.training.bovw.recipes import RECIPES

        raise click.UsageError(f"Missing option '--recipe': one of {', '.join(RECIPES)}.")
    if as_json:
        raise click.UsageError("--json goes with --sweep or --compare-heads")


def _with_head(recipe: Recipe, kind: str | None) -> Recipe:
    """The recipe with another head, or none, where one is asked for."""
    from cbir.training.bovw.linear import STRENGTHS, require_kind
    from cbir.training.bovw.recipes import HeadPlan

    if kind is None or (recipe.head is not None and recipe.head.kind == kind):
        return recipe
    if kind == "none":
        return replace(recipe, head=None)
    mirror = recipe.head is not None and recipe.head.mirror
    return replace(recipe, head=HeadPlan(require_kind(kind), STRENGTHS[kind], mirror))


def _train(
    source: ImageSource,
    name: str,
    recipe: Recipe,
    test: ImageSource | None,
    out: Path | None,
    seed: int,
    sample: int | None,
    limit: int | None,
    trained_on: str | None,
) -> None:
    from cbir.cli.output import say
    from cbir.cli.trained import check_name, keep
    from cbir.training.bovw.fit import train_bovw

    check_name(name, stored=out is None)
    files = train_bovw(
        source,
        name,
        recipe,
        seed=seed,
        test=test,
        sample=sample,
        limit=limit,
        trained_on=trained_on,
        say=say,
    )
    click.echo(str(keep(files, out)))


def _sweep(
    source: ImageSource,
    recipe: Recipe,
    sizes: Sequence[int],
    out: Path,
    seed: int,
    sample: int | None,
    limit: int | None,
    as_json: bool,
) -> None:
    from cbir.cli.output import print_json, print_table, say
    from cbir.cli.trained import write_files
    from cbir.report.plot_style import png
    from cbir.report.plots import sweep_plot
    from cbir.training.bovw.rows import preparing
    from cbir.training.bovw.sweep import sweep, words_plan
    from cbir.training.labelled import read_labelled

    plan = words_plan(recipe)
    images = read_labelled(
        source, preparing(recipe.size), need_labels=False, limit=limit, seed=seed, say=say
    )
    result = sweep(plan, images.images, sizes, seed=seed, sample=sample, say=say)
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
        print_table(["words", "Davies-Bouldin", "unused words", "seconds"], _sweep_rows(result))
        click.echo(f"best: {result.best.words:,} words (lower is better)")
    say(f"plot and numbers: {out / SWEEP_PLOT}, {out / SWEEP_JSON}")


def _sweep_rows(result: Sweep) -> list[list[str]]:
    return [
        [
            f"{row.words:,}",
            f"{row.davies_bouldin:.4f}" + (" *" if row == result.best else ""),
            str(row.unused_words),
            f"{row.seconds:.1f}",
        ]
        for row in result.rows
    ]


def _compare(
    source: ImageSource,
    recipe: Recipe,
    seed: int,
    sample: int | None,
    limit: int | None,
    as_json: bool,
) -> None:
    from dataclasses import asdict

    from cbir.cli.output import print_json, print_table, say
    from cbir.training.bovw.heads import compare_heads, reduced_rows
    from cbir.training.bovw.rows import preparing
    from cbir.training.labelled import read_labelled

    images = read_labelled(source, preparing(recipe.size), limit=limit, seed=seed, say=say)
    rows = reduced_rows(recipe, images, seed, sample, say)
    results = compare_heads(rows, images.labels, seed=seed, say=say)
    if as_json:
        print_json(
            {
                "recipe": recipe.name,
                "images": len(rows),
                "dims": rows.shape[1],
                "classes": list(images.classes),
                "heads": [asdict(result) for result in results],
            }
        )
        return
    print_table(
        ["classifier", "accuracy", "precision", "recall", "seconds", "in a vector", "parameters"],
        [_told(result) for result in results],
    )
    click.echo(f"\nconfusion matrix of {results[0].name} (rows: true, columns: predicted)")
    numbers = [[str(count) for count in row] for row in results[0].confusion]
    pairs = zip(images.classes, numbers, strict=True)
    print_table(["", *images.classes], [[label, *row] for label, row in pairs])


def _told(result: HeadResult) -> list[str]:
    return [
        result.name,
        f"{result.accuracy:.4f}",
        f"{result.precision:.4f}",
        f"{result.recall:.4f}",
        f"{result.seconds:.1f}",
        "yes" if result.may_be_head else "no",
        result.told(),
    ]


def _numbers(text: str) -> list[int]:
    """The sizes in `100,200,...`, each once, rising."""
    try:
        sizes = sorted({int(part) for part in text.split(",")})
    except ValueError as error:
        raise click.BadParameter(
            f"'{text}' is not a list of numbers", param_hint="--sizes"
        ) from error
    if sizes[0] < 2:
        raise click.BadParameter("a vocabulary has two words or more", param_hint="--sizes")
    return sizes
