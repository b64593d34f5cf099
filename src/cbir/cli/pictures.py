"""What `cbir models show --pictures` draws, and where it writes it."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbir.errors import CbirError, ImageError

if TYPE_CHECKING:
    from cbir.descriptors.bovw import BovwDescriptor
    from cbir.descriptors.contract import Descriptor
    from cbir.types import RgbImage

SWEEP_COMMAND = "cbir train bovw SOURCE --recipe seed --sweep --out sweep"


def draw_model(
    descriptor: Descriptor,
    folder: Path,
    images: Sequence[Path],
    words: str | None,
    limit: int,
    sweep: Path | None,
) -> list[Path]:
    """Write the pictures that there are to draw into `folder`; returns their paths.

    What could be drawn with more is said in a line. Raises `CbirError` where there is nothing to
    draw, or what was given cannot be used.
    """
    from cbir.descriptors.bovw import BovwDescriptor
    from cbir.report.model_pictures import filter_pictures, has_words

    if folder.exists() and not folder.is_dir():
        raise CbirError(f"{folder} is a file", "--pictures takes a folder")
    if not isinstance(descriptor, BovwDescriptor):
        raise CbirError(
            f"{descriptor.spec.name} has no local features, words or filters to draw",
            "models of `cbir train bovw` have",
        )
    if words and not has_words(descriptor):
        raise CbirError(
            f"{descriptor.spec.name} has no visual words to draw",
            "models with SIFT have, such as those of the recipes seed, dense and vlad",
        )
    pictures = {
        **_of_images(descriptor, images),
        **(_of_words(descriptor, words, limit) if words else {}),
        **filter_pictures(descriptor),
        **_of_sweep(descriptor, sweep),
    }
    _say_what_is_missing(descriptor, images, words, pictures)
    if not pictures:
        raise CbirError(
            f"there is nothing to draw of {descriptor.spec.name} as asked",
            "give --image FILE, or --words SOURCE where the model has visual words",
        )
    return _write(pictures, folder)


def _of_images(model: BovwDescriptor, paths: Sequence[Path]) -> dict[str, RgbImage]:
    from cbir.report.model_pictures import image_pictures

    pictures: dict[str, RgbImage] = {}
    stems: dict[str, int] = {}
    for path in paths:
        image = _pixels(path)
        stems[path.stem] = stems.get(path.stem, 0) + 1
        stem = path.stem if stems[path.stem] == 1 else f"{path.stem}-{stems[path.stem]}"
        drawn = image_pictures(model, image, path.name)
        if not drawn:
            raise CbirError(
                f"{model.spec.name} has no keypoints, HOG, words or filters to draw on an image",
                "it is made of colours alone",
            )
        pictures |= {f"{stem}-{kind}": picture for kind, picture in drawn.items()}
    return pictures


def _of_words(model: BovwDescriptor, uri: str, limit: int) -> dict[str, RgbImage]:
    from cbir.cli.output import say
    from cbir.images.sources import open_source
    from cbir.report.model_pictures import word_pictures
    from cbir.training.labelled import read_labelled

    found = read_labelled(
        open_source(uri), model.prepare, need_labels=False, limit=limit, say=say
    ).images
    return word_pictures(model, found, uri)


def _of_sweep(model: BovwDescriptor, path: Path | None) -> dict[str, RgbImage]:
    """The curve of the sweep in the file, or else of the one that the model's card holds."""
    from cbir.report.model_pictures import sweep_picture

    sweep, where = model.card.training.get("sweep"), "the model's card"
    if path is not None:
        where = str(path)
        try:
            sweep = json.loads(path.read_bytes())
        except OSError as error:
            raise CbirError(f"{path}: {error.strerror}", f"make one: {SWEEP_COMMAND}") from error
        except ValueError as error:
            raise CbirError(f"{path} is not JSON: {error}", f"make one: {SWEEP_COMMAND}") from error
    if sweep is None:
        return {}
    rows, feature = _sweep_rows(sweep, where)
    return {"sweep": sweep_picture(rows, f"{feature}: how many words?")}


def _sweep_rows(sweep: Any, where: str) -> tuple[list[tuple[int, float]], str]:
    try:
        rows = [(int(row["words"]), float(row["davies_bouldin"])) for row in sweep["rows"]]
        feature = str(sweep["feature"])
    except (KeyError, TypeError, ValueError) as error:
        raise CbirError(
            f"{where} holds no sweep of vocabulary sizes", f"make one: {SWEEP_COMMAND}"
        ) from error
    if not rows:
        raise CbirError(f"{where} holds a sweep of no sizes", f"make one: {SWEEP_COMMAND}")
    return rows, feature


def _say_what_is_missing(
    model: BovwDescriptor, images: Sequence[Path], words: str | None, pictures: Mapping[str, object]
) -> None:
    from cbir.cli.output import say
    from cbir.report.model_pictures import has_words

    if not images:
        say("not drawn: what the model sees in an image; give --image FILE")
    if has_words(model) and not words:
        say("not drawn: patches of visual words; say of which images: --words SOURCE")
    if has_words(model) and "sweep" not in pictures:
        say(f"not drawn: how many words; give --sweep sweep/sweep.json ({SWEEP_COMMAND})")


def _pixels(path: Path) -> RgbImage:
    from cbir.images.decode import decode

    try:
        return decode(path.read_bytes())
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}", "give the path of an image file") from error
    except ImageError as error:
        raise ImageError(f"{path}: {error.message}", error.hint) from error


def _write(pictures: Mapping[str, RgbImage], folder: Path) -> list[Path]:
    from cbir.files import write_files

    files = {f"{name}.png": _png(picture) for name, picture in pictures.items()}
    write_files(files, folder)
    return [folder / name for name in files]


def _png(picture: RgbImage) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG")
    return stream.getvalue()
