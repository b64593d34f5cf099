"""`cbir models show --pictures`: draws a model into files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cbir.cli.output import say
from cbir.descriptors.bovw import BovwDescriptor
from cbir.descriptors.contract import Descriptor
from cbir.errors import CbirError, ImageError
from cbir.files import read_regular, write_files
from cbir.images.decode import decode
from cbir.images.sources import open_source
from cbir.report.model import SWEEP_HINT, sweep_rows
from cbir.report.model_pictures import (
    Pictures,
    filter_pictures,
    has_words,
    image_pictures,
    require_drawable,
    word_pictures,
)
from cbir.report.pictures import file_bytes
from cbir.report.plot_style import png, require_matplotlib
from cbir.report.plots import sweep_plot
from cbir.training.labelled import read_labelled
from cbir.types import RgbImage


def draw_model(
    descriptor: Descriptor,
    folder: Path,
    images: Sequence[Path],
    words: str | None,
    limit: int,
    sweep: Path | None,
) -> list[Path]:
    """Draw the model into PNG files in `folder`; returns their paths.

    Messages name the options that would draw more. Raises `CbirError` if there is nothing to draw,
    or an argument cannot be used.
    """
    if folder.exists() and not folder.is_dir():
        raise CbirError(f"{folder} is a file", "--pictures takes a folder")
    model = require_drawable(descriptor)
    if words and not has_words(model):
        raise CbirError(
            f"{descriptor.spec.name} has no visual words to draw",
            "use a model with SIFT, such as one of the recipes seed, dense and vlad",
        )
    pictures = _of_images(model, images)
    if words:
        source = open_source(words)
        found = read_labelled(source, model.prepare, need_labels=False, limit=limit, say=say)
        pictures |= word_pictures(model, found.images, words)
    pictures |= filter_pictures(model)
    files = {f"{name}.png": file_bytes(picture, "PNG") for name, picture in pictures.items()}
    files |= _of_sweep(model, sweep)
    if not files and not images:
        drawn = image_pictures(model, _test_picture(), "a test picture")
        files |= {f"test-{kind}.png": file_bytes(one, "PNG") for kind, one in drawn.items()}
    if not images:
        say("not drawn: what the model sees in an image of yours; give --image FILE")
    if has_words(model) and not words:
        say("not drawn: patches of visual words; give images: --words SOURCE")
    if has_words(model) and "sweep.png" not in files:
        say(f"not drawn: vocabulary sizes; {SWEEP_HINT}, and give --sweep sweep/sweep.json")
    if not files:
        raise CbirError(
            f"these options draw nothing of {descriptor.spec.name}",
            "give --image FILE, or --words SOURCE if the model has visual words",
        )
    write_files(files, folder)
    return [folder / name for name in files]


def _of_images(model: BovwDescriptor, paths: Sequence[Path]) -> Pictures:
    pictures: Pictures = {}
    stems: Counter[str] = Counter()
    for path in paths:
        drawn = image_pictures(model, _pixels(path), path.name)
        if not drawn:
            raise CbirError(
                f"{model.spec.name} has no keypoints, HOG, words or filters to draw on an image",
                "it uses only colours",
            )
        stems[path.stem] += 1
        stem = path.stem if stems[path.stem] == 1 else f"{path.stem}-{stems[path.stem]}"
        pictures |= {f"{stem}-{kind}": picture for kind, picture in drawn.items()}
    return pictures


def _test_picture() -> RgbImage:
    """A gradient with a disc, stripes, a chessboard and a corner: edges of many directions."""
    rows, columns = np.mgrid[:256, :256]
    image = np.stack([rows, columns, 255 - rows], axis=2) // 2
    image[(rows - 70) ** 2 + (columns - 70) ** 2 < 45**2] = (225, 60, 40)
    image[(rows > 140) & (columns < 116) & ((rows + columns) // 10 % 2 == 0)] = (240, 220, 60)
    chess = (rows // 16 + columns // 16) % 2 == 0
    image[(rows > 140) & (columns > 140) & chess] = (250, 250, 250)
    image[(rows < 110) & (columns > 140) & (rows + columns > 250)] = (40, 160, 90)
    return image.astype(np.uint8)


def _pixels(path: Path) -> RgbImage:
    try:
        return decode(read_regular(path))
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}", "give the path of an image file") from error
    except ImageError as error:
        raise ImageError(f"{path}: {error.message}", error.hint) from error


def _of_sweep(model: BovwDescriptor, path: Path | None) -> dict[str, bytes]:
    """The curve of the sweep in the file, else of the sweep in the model's card."""
    sweep, where = model.card.training.get("sweep"), "the model's card"
    if path is not None:
        where = str(path)
        try:
            sweep = json.loads(read_regular(path))
        except OSError as error:
            raise CbirError(f"{path}: {error.strerror}", SWEEP_HINT) from error
        except ValueError as error:
            raise CbirError(f"{path} is not JSON: {error}", SWEEP_HINT) from error
    if sweep is None:
        return {}
    words, index = sweep_rows(sweep, where)
    require_matplotlib("the curve of a sweep", "bovw")
    title = f"{sweep.get('feature', 'local features')}: vocabulary size"
    return {"sweep.png": png(sweep_plot(words, index, title))}
