"""Shared by the commands that train: options, labelled sources, output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cbir.cli.options import metadata_option

if TYPE_CHECKING:
    from cbir.images.items import ImageSource
    from cbir.types import ModelFile

_LABELS = (
    click.option(
        "--label-from-folder", is_flag=True, help="Label each image with its folder's name."
    ),
    metadata_option("labels"),
)
_OPTIONS = (
    click.argument("source", metavar="SOURCE"),
    click.option("--test", metavar="SOURCE", help="Labelled images to measure accuracy on."),
    *_LABELS,
    click.option("--licence", metavar="TEXT", help="The licence of the weights, for the card."),
    click.option("--seed", default=0, show_default=True, help="Seed of all random choices."),
    click.option(
        "--out",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        help="Write here instead of to the model store.",
    ),
)


def training_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add SOURCE and the options that both commands share."""
    return _with(_OPTIONS, command)


def label_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that `labelled_sources` takes."""
    return _with(_LABELS, command)


def _with(options: tuple[Any, ...], command: Any) -> Callable[..., None]:
    for option in reversed(options):
        command = option(command)
    return command  # type: ignore[no-any-return]


def labelled_sources(
    source: str, test: str | None, label_from_folder: bool, metadata: Sequence[Path]
) -> tuple[ImageSource, ImageSource | None]:
    """SOURCE and the `--test` source with their labels, to be read in this order.

    Once the last is read, warns of the rows of `metadata` that match no image of either.
    """
    from cbir.cli.output import warn_of_rows
    from cbir.images.sources import open_source
    from cbir.ingest.metadata import read_metadata_files
    from cbir.ingest.metadata_labels import MetadataLabels

    opened = open_source(source, label_from_folder)
    tested = open_source(test, label_from_folder) if test else None
    files = read_metadata_files(metadata)

    def warn() -> None:
        warn_of_rows([name for file in files for name in file.unused()])

    if not files:
        return opened, tested
    if tested is None:
        return MetadataLabels(opened, files, warn), None
    return MetadataLabels(opened, files), MetadataLabels(tested, files, warn)


def label_words(label_from_folder: bool, metadata: Sequence[Path]) -> list[str]:
    """The options of `labelled_sources` for the next command."""
    folder = ["--label-from-folder"] if label_from_folder else []
    return [*folder, *(word for file in metadata for word in ("--metadata", str(file)))]


def require_place(out: Path | None, source: str) -> None:
    """Raise `CbirError`, before training, if the folder `out` is no place for the model.

    It must be possible to make it, hold nothing but a model, and lie outside the folder `source`,
    whose images it would join.
    """
    from cbir.descriptors.cards import CARD_FILE, card_fields
    from cbir.errors import CbirError, write_hint

    if out is None:
        return
    if Path(source).is_dir() and out.resolve().is_relative_to(Path(source).resolve()):
        raise CbirError(f"{out} lies in the folder of the training images", "choose another --out")
    if out.is_dir() and any(out.iterdir()):
        try:
            card_fields((out / CARD_FILE).read_bytes())
        except (OSError, CbirError) as error:
            raise CbirError(
                f"{out} holds files that are no model", "choose an empty or a new folder"
            ) from error
    missing = [each for each in (out, *out.parents) if not each.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        for each in missing:  # an interrupted training leaves nothing
            each.rmdir()
    except OSError as error:
        raise CbirError(
            f"cannot make the folder {out}: {error.strerror or error}",
            write_hint(error, "choose another --out"),
        ) from error


def keep(files: Mapping[str, ModelFile], out: Path | None, metadata: Sequence[Path] = ()) -> None:
    """Write a model's files to the folder `out`, or to the model store, and draw its training.

    Prints the folder, and the next command, with the `metadata`, on standard error.
    """
    from cbir.cli.output import say
    from cbir.descriptors.models import keep_model, model_of
    from cbir.files import write_files
    from cbir.report.training_plots import training_pictures
    from cbir.wording import shell_words

    model, stored = model_of(files), out is None
    if out is None:
        out = keep_model(files)
    else:
        write_files(files, out)
    write_files(pictures := training_pictures(model.card), out)
    click.echo(str(out))
    if pictures:
        say(f"pictures beside the model: {', '.join(pictures)}")
    named = model.spec.name if stored else str(out) if out.is_absolute() else f"./{out}"
    words = ["--descriptor", named, *label_words(False, metadata)]
    say(f"next: cbir index FOLDER --into INDEX {shell_words(words)}")
