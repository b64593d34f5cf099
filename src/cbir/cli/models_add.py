"""`cbir models add`: makes a model of a person's ONNX network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from cbir.descriptors.importing.model_import import Imported


class _Numbers(click.ParamType[tuple[float, ...]]):
    """`count` numbers, with commas between them or, if `whole`, an x; one stands for all."""

    def __init__(self, name: str, count: int, whole: bool = False) -> None:
        self.name, self.count, self.whole = name, count, whole

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        words = value.split("x" if self.whole else ",")
        try:
            numbers = [int(word) if self.whole else _quotient(word) for word in words]
        except (ValueError, ZeroDivisionError):
            numbers = []
        if len(numbers) not in (1, self.count) or (self.whole and min(numbers) < 1):
            self.fail(f"'{value}' is not {self.name}", param, ctx)
        return tuple(numbers * (self.count // len(numbers)))


COLOURS = _Numbers("three numbers such as 0.5,0.5,0.5", 3)


@click.command(short_help="Make a model of an ONNX file, or of a folder with one.")
@click.argument("path", metavar="PATH", type=click.Path(path_type=Path))
@click.option("--name", help="Name of the model.  [default: of the file or folder]")
@click.option("--licence", metavar="TEXT", help="The licence of its weights.")
@click.option("--trained-on", metavar="TEXT", help="What it was trained on.")
@click.option(
    "--size",
    type=_Numbers("a size such as 224 or 320x240", 2, whole=True),
    metavar="N|WxH",
    help="Width and height of its input, in pixels.",
)
@click.option(
    "--resize",
    type=click.Choice(["shortest", "stretch", "fit"]),
    metavar="HOW",
    help="shortest (crops), stretch, or fit (pads).",
)
@click.option(
    "--side",
    type=click.IntRange(1),
    metavar="N",
    help="The side to resize to before a crop, in pixels.",
)
@click.option(
    "--interpolation",
    type=click.Choice(["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]),
    metavar="HOW",
    help="nearest, bilinear, bicubic, lanczos, box or hamming.",
)
@click.option(
    "--scale",
    type=_Numbers("a number", 1),
    metavar="X",
    help="What multiplies pixels: 1/255, or 1.",
)
@click.option(
    "--mean",
    type=COLOURS,
    metavar="R,G,B",
    help="Subtracted from the scaled pixels.",
)
@click.option(
    "--std",
    type=COLOURS,
    metavar="R,G,B",
    help="What the result is divided by.",
)
@click.option("--layout", type=click.Choice(["NCHW", "NHWC"]), metavar="HOW", help="NCHW or NHWC.")
@click.option("--output", metavar="NAME", help="The output that is the embedding.")
@click.option(
    "--pooling",
    type=click.Choice(["cls", "mean", "gem"]),
    metavar="HOW",
    help="cls, mean or gem, of tokens or a map.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def add(
    path: Path,
    name: str | None,
    licence: str | None,
    trained_on: str | None,
    as_json: bool,
    scale: tuple[float] | None,
    size: tuple[int, int] | None,
    **changes: Any,
) -> None:
    """Make a model of PATH, an ONNX file or a folder with one, and keep it in the model store.

    What the network and a preprocessor_config.json, open_clip_config.json, preprocess_cfg.json or
    config.json beside it say is read. Options come first, and answer what stays open. The model is
    tried on pictures; nothing but the network is run.

    A folder with a model.json is a model already, and is kept as it is.
    """
    from cbir.cli.output import say
    from cbir.descriptors.about import NOT_STATED, About
    from cbir.descriptors.importing.input_settings import Changes, OpenQuestionsError
    from cbir.descriptors.importing.model_import import import_folder, import_model
    from cbir.errors import CbirError

    if (path / "model.json").is_file():
        if any(
            value is not None for value in (licence, trained_on, scale, size, *changes.values())
        ):
            raise click.UsageError(f"{path} has a model.json, which only --name can change")
        print_imported(import_folder(path, name), as_json)
        return
    about = About(licence or NOT_STATED, trained_on or NOT_STATED, path.name)
    said = Changes(scale=scale and scale[0], size=size and (size[1], size[0]), **changes)
    try:
        imported = import_model(path, _name_of(path) if name is None else name, about, said)
    except OpenQuestionsError as open_:
        for question in open_.questions:
            say(question)
        raise CbirError(open_.message, "answer each with its option") from open_
    print_imported(imported, as_json)


def print_imported(imported: Imported, as_json: bool) -> None:
    """Print what a new model is, what was assumed, and the next command."""
    from cbir.cli.output import print_json, say, show
    from cbir.wording import shown_size

    spec, speed = imported.spec, imported.images_per_second
    if as_json:
        print_json(
            {
                "name": spec.name,
                "fingerprint": spec.fingerprint,
                "dim": spec.dim,
                "bytes": imported.size,
                "has_text": imported.has_text,
                "images_per_second": speed and round(speed, 2),
                "trained_on": spec.trained_on,
                "licence": spec.licence,
                "assumptions": list(imported.assumptions),
                "place": str(imported.folder),
            }
        )
        return
    facts = [
        f"{spec.dim:,} dimensions",
        *([f"{speed:,.1f} images/s on one core"] if speed else []),
        shown_size(imported.size),
    ]
    show(f"{spec.short}: {', '.join(facts)}")
    if imported.has_text:
        show("  words can be searched: cbir search --text")
    for line in imported.assumptions:
        show(f"  {line}")
    say(f"next: cbir index FOLDER --into INDEX --descriptor {spec.name}")


def _quotient(text: str) -> float:
    """A number such as 0.5 or 1/255."""
    above, _, below = text.partition("/")
    return float(above) / float(below or 1)


def _name_of(path: Path) -> str:
    """The name of the file, or of the folder if all such files are called the same."""
    from cbir.descriptors.importing.network_files import IMAGE_NETWORKS, INNER

    place = path.resolve()
    if place.is_dir() or place.name in IMAGE_NETWORKS:
        folders = [place, *place.parents] if place.is_dir() else place.parents
        return next(folder.name for folder in folders if folder.name != INNER)
    return place.stem
