"""How a network wants its images: what files, network and person say, and what stays open."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

from cbir.descriptors.configs import Read
from cbir.descriptors.importing.network_ports import ImageInput
from cbir.descriptors.preprocessing import Preprocessing
from cbir.errors import CbirError
from cbir.wording import counted

IMAGENET = "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225"


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What a person says of a network; None leaves it to the network and the files beside it.

    `size` is height and width of the input. The others are fields of `Preprocessing` and of
    `OnnxCard`.
    """

    size: tuple[int, int] | None = None
    resize: str | None = None
    side: int | None = None
    interpolation: str | None = None
    scale: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    layout: str | None = None
    output: str | None = None
    pooling: str | None = None


_FIELDS = ("resize", "side", "interpolation", "scale", "mean", "std")


class OpenQuestionsError(CbirError):
    """What nothing says of a model: `questions`, one line each, with the option that answers it."""

    def __init__(self, questions: Sequence[str]) -> None:
        stay = "stays" if len(questions) == 1 else "stay"
        super().__init__(
            f"{counted(len(questions), 'question')} about the network {stay} open",
            "; ".join(questions),
        )
        self.questions = tuple(questions)


def decided(
    read: Read[Preprocessing], taken: ImageInput, changes: Changes
) -> tuple[Preprocessing, list[str]]:
    """The preprocessing of a network, and what was assumed.

    A person's `changes` come first, then what the configuration files say (`read`); sides that the
    network fixes cannot be changed. Raises `OpenQuestionsError` for all that stays open, and
    `CbirError` for values that do not fit.
    """
    base = read.value
    said = {name: getattr(changes, name) for name in _FIELDS}
    values: dict[str, Any] = {} if base is None else _values(base)
    if base and changes.resize not in (None, base.resize):
        del values["side"]  # it belongs to the other way to resize
    values |= {name: value for name, value in said.items() if value is not None}
    values |= {"layout": taken.layout, "dtype": taken.dtype}
    if changes.size:
        values["height"], values["width"] = changes.size
    assumed = [*read.assumptions, *([taken.assumption] if taken.assumption else [])]
    questions = [*_size(values, taken), *_levels(values, assumed), *_resize(values, assumed)]
    if questions:
        raise OpenQuestionsError([*read.questions, *questions])
    assumed += [f"{question}; the options decide" for question in read.questions]
    return Preprocessing(**values), assumed


def _values(made: Preprocessing) -> dict[str, Any]:
    return {field.name: getattr(made, field.name) for field in fields(made)}


def _size(values: dict[str, Any], taken: ImageInput) -> Iterator[str]:
    """Set height and width, or ask for them."""
    fixed = {"height": taken.height, "width": taken.width}
    fixed = {name: length for name, length in fixed.items() if length}
    if any(values.get(name) not in (None, length) for name, length in fixed.items()):
        given = f"{values['width']}x{values['height']}"
        shown = "x".join(str(fixed.get(name, "any")) for name in ("width", "height"))
        size = _shown(taken)
        yield f"the network takes images of {shown} pixels, not {given}: give --size {size}"
    values |= fixed
    if not {"height", "width"} <= values.keys():
        yield "the size of the input is not stated: give --size, for example --size 224"


def _levels(values: dict[str, Any], assumed: list[str]) -> Iterator[str]:
    """Check mean, standard deviation and scale of a network that takes float32."""
    if values["dtype"] == "uint8":
        assumed.append("the network takes pixels of 0..255 as they are, without mean and std")
        return
    lacking = [name for name in ("mean", "std") if name not in values]
    if lacking:
        options = " and ".join(f"--{name}" for name in lacking)
        stated = " and ".join(lacking) + (" are" if len(lacking) > 1 else " is")
        yield f"{stated} not stated: give {options} (ImageNet's: {IMAGENET})"
    if "scale" not in values:
        if max(values.get("mean", (0,))) > 1:
            yield "the mean is above 1, but pixels of 0..1 are usual: give --scale 1 for 0..255"
        assumed.append("pixels are scaled to 0..1 before mean and std; --scale says otherwise")


def _resize(values: dict[str, Any], assumed: list[str]) -> Iterator[str]:
    """Set the side and check that the input fits into it."""
    if "resize" not in values:
        yield (
            "how images get the size of the input is not stated: give --resize shortest (and crop "
            "the centre), --resize stretch, or --resize fit (and pad)"
        )
    if "interpolation" not in values:
        assumed.append("interpolation bicubic; --interpolation says otherwise")
    longer = max(values.get("height", 0), values.get("width", 0))
    if values.get("resize") == "shortest" and values.get("side") is None and longer:
        values["side"] = longer
        assumed.append(
            f"images are resized to a shorter side of {longer}, so that the crop is as large as it "
            "can be; --side says otherwise"
        )
    side = values.get("side")
    if isinstance(side, int) and side < longer:
        yield f"{longer} pixels of input do not fit into a side of {side}: give --side {longer}"


def _shown(taken: ImageInput) -> str:
    if taken.height == taken.width or not (taken.height and taken.width):
        return str(taken.height or taken.width)
    return f"{taken.width}x{taken.height}"
