"""`cbir models show`: shows a model, and draws it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from cbir.descriptors.cards import ModelCard

SHOWN_CLASSES = 3


@click.command(short_help="Show the card of a model, or draw it.")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print the whole card as JSON.")
@click.option(
    "--pictures",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Draw the model: PNG files in DIR.",
)
@click.option(
    "--image",
    "images",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Draw what the model finds in this image; may repeat.",
)
@click.option("--words", metavar="SOURCE", help="Draw visual words with patches of these images.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=500,
    show_default=True,
    metavar="N",
    help="Take N images of SOURCE at random.",
)
@click.option(
    "--sweep",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Draw this sweep.json of `cbir train bovw --sweep`.",
)
def show(
    name: str,
    as_json: bool,
    pictures: Path | None,
    images: tuple[Path, ...],
    words: str | None,
    limit: int,
    sweep: Path | None,
) -> None:
    """Show a model's card: preprocessing, training, measured quality, licence.

    --pictures DIR draws a model of local features instead: keypoints, HOG and words of each
    --image, patches of its visual words, its filters, and the curve of a sweep. It prints the
    names of the files.
    """
    from dataclasses import asdict

    from cbir.cli.output import print_json, print_table
    from cbir.descriptors.models import card_of, files_of, load_descriptor
    from cbir.descriptors.pulled import hub_source
    from cbir.files import size_of

    if pictures is None and (images or words or sweep):
        raise click.UsageError("give a folder for the pictures: --pictures DIR")
    descriptor = load_descriptor(name)
    spec, card = descriptor.spec, card_of(descriptor)
    sizes = {file_name: size_of(file) for file_name, file in files_of(descriptor).items()}
    shown: dict[str, Any] = {
        "spec": asdict(spec),
        "card": asdict(card) if card else None,
        "files": sizes,
    }
    if pictures is not None:
        from cbir.cli.models_pictures import draw_model

        drawn = draw_model(descriptor, pictures, images, words, limit, sweep)
        shown["pictures"] = [str(path) for path in drawn]
    if as_json:
        print_json(shown)
        return
    if pictures is not None:
        click.echo("\n".join(shown["pictures"]))
        return
    source = hub_source(card) if card else None
    rows = [
        ["fingerprint", spec.fingerprint],
        ["dim", str(spec.dim)],
        ["trained on", spec.trained_on],
        ["licence", spec.licence],
        *([["source", source]] if source else []),
        *([key, str(value)] for key, value in spec.preprocessing.items()),
    ]
    rows += [["kind", card.kind]] if card else []
    rows += [[file_name, f"{size:,} bytes"] for file_name, size in sizes.items()]
    if card:
        rows += [["classes", ", ".join(card.classes) or "none"]]
        rows += [[key.replace("_", " "), str(value)] for key, value in card.quality.items()]
        rows += _classification(card)
    print_table(["name", spec.name], rows)


def _classification(card: ModelCard) -> list[list[str]]:
    """Rows on the classes of the held-out images, if the card knows them."""
    from cbir.training.classification import classification_of
    from cbir.wording import percent

    found = classification_of(card)
    if found is None:
        return []
    worst = [f"{label} ({found.by_class[label].f1:.3f})" for label in found.best_first()[::-1]]
    confused = [
        f"{label} as {predicted} ({percent(share)})"
        for label, predicted, share in found.most_confused(SHOWN_CLASSES)
    ]
    return [
        ["held-out images", f"{found.images:,}"],
        ["mean F1", f"{found.mean_f1:.3f}, lowest: {', '.join(worst[:SHOWN_CLASSES])}"],
        ["most confused", ", ".join(confused) or "none"],
    ]
