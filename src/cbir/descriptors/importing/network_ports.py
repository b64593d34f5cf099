"""What goes into a network and what comes out: is it one of images, and which output to take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isqrt

import numpy as np

from cbir.descriptors.configs import OpenQuestionError
from cbir.descriptors.runtime import Port
from cbir.errors import CbirError
from cbir.types import Floats
from cbir.wording import did_you_mean, listed

CHANNELS = 3
DTYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}

EMBEDDINGS = ("image_embeds", "image_features", "embedding", "pooler_output", "last_hidden_state")
"""Names of outputs that are embeddings, the first one first."""

TEXT_EMBEDDINGS = ("text_embeds", "text_features", "embedding", "pooler_output")
"""The same of text networks."""

UNTRAINED_POOLER = ("deit", "vit", "vit_mae", "vit_msn")
"""By `model_type`: transformers adds a layer for `pooler_output` that may be untrained."""

SCORES = ("logits", "prob", "score", "class")
CLASS_COUNTS = (1000, 1001, 21841, 21843)
"""Of the usual classifiers of ImageNet."""


@dataclass(frozen=True)
class ImageInput:
    """A network's input of images. Sides that may vary are None."""

    layout: str
    dtype: str
    height: int | None
    width: int | None
    batch: int | None
    assumption: str | None


def image_input(inputs: Sequence[Port], layout: str | None) -> ImageInput:
    """The one input of a network of images; `layout` is what a person says of it.

    Raises `CbirError` if the network is no such network.
    """
    if len(inputs) != 1:
        names = listed([port.name for port in inputs])
        raise CbirError(
            f"the network has {len(inputs)} inputs ({names}); one image input is expected",
            "give the network of the images alone, such as vision_model.onnx",
        )
    (port,) = inputs
    stated = f"'{port.name}' of type {port.type} and shape ({_shape(port)})"
    if port.shape and len(port.shape) != 4:
        raise CbirError(
            f"the network's input {stated} takes no images",
            "images need four sides: the batch, three channels, height and width",
        )
    if port.type not in DTYPES:
        raise CbirError(
            f"the network's input is {stated}", f"export it with {' or '.join(DTYPES.values())}"
        )
    sides = port.shape or (None,) * 4
    fitting = [
        name
        for name, channels in (("NCHW", sides[1]), ("NHWC", sides[3]))
        if channels == CHANNELS or not isinstance(channels, int)
    ]
    certain = [name for name, at in (("NCHW", 1), ("NHWC", 3)) if _is_channels(sides[at])]
    if not fitting:
        raise CbirError(
            f"the network's input {stated} has no three channels",
            "images are RGB: export the network with an input (batch, 3, height, width)",
        )
    exact = [name for name, at in (("NCHW", 1), ("NHWC", 3)) if sides[at] == CHANNELS]
    if layout and layout not in (exact or fitting):
        raise CbirError(
            f"the network's input {stated} is not in the layout {layout}", "omit --layout"
        )
    likely = certain or fitting
    chosen = layout or likely[0]
    batch, height, width = (
        side if isinstance(side, int) else None
        for side in ((sides[0], sides[2], sides[3]) if chosen == "NCHW" else sides[:3])
    )
    if batch not in (None, 1):
        raise CbirError(
            f"the network's input {stated} takes exactly {batch} images at once",
            "export it with a batch of 1, or with one that may vary",
        )
    guess = f"layout {chosen}; --layout says otherwise" if not layout and len(likely) > 1 else None
    return ImageInput(chosen, DTYPES[port.type], height, width, batch, guess)


@dataclass(frozen=True)
class Embedding:
    """The output that is the embedding, how it is pooled, and what was assumed."""

    output: str
    pooling: str
    assumptions: tuple[str, ...]


def chosen_embedding(
    outputs: Mapping[str, Floats], model_type: str, output: str | None, pooling: str | None
) -> Embedding:
    """The embedding among the `outputs` (by name) of a network for one image.

    `output` and `pooling` are what a person says of it. Else an output called as in `EMBEDDINGS`
    is taken, or the only one that holds no class scores. Tokens are pooled to the CLS token if
    there is one, and to the mean if they are a square grid; a feature map to its mean. Raises
    `OpenQuestionError` if several outputs qualify, and `CbirError` if none can be used.
    """
    name = output or _likely(outputs, model_type)
    if name not in outputs:
        raise CbirError(f"the network has no output '{name}'", did_you_mean(name, list(outputs)))
    values = outputs[name]
    shape = "x".join(map(str, values.shape[1:]))
    if values.ndim not in (2, 3, 4) or len(values) != 1 or 0 in values.shape:
        raise CbirError(
            f"output '{name}' has shape {values.shape} for one image, which makes no vector",
            f"choose another: --output; the network has {listed(list(outputs))}",
        )
    if not np.isfinite(values).all():
        raise CbirError(
            f"output '{name}' has values that are no numbers (NaN) or infinite",
            "correct --mean, --std and --scale, or export the network in float32",
        )
    how, why = _pooling(values, name, pooling)
    lines = [f"embedding: output '{name}' ({shape}){why}"]
    counts = values.ndim == 2 and values.shape[1] in CLASS_COUNTS
    if counts or any(word in name.lower() for word in SCORES):
        lines.append(
            f"'{name}' ({shape}) looks like class scores, which find less than an embedding does: "
            "export the network without its classifier"
        )
    return Embedding(name, how, tuple(lines))


def text_embedding(names: Sequence[str]) -> str:
    """The output of a text network that is the embedding; raises `OpenQuestionError` if none is."""
    for name in TEXT_EMBEDDINGS:
        if name in names:
            return name
    raise OpenQuestionError(
        f"the text network has the outputs {listed(names)}, and none of "
        f"{', '.join(TEXT_EMBEDDINGS)}"
    )


def _is_channels(side: int | str | None) -> bool:
    """Whether a side is that of the colours, by its length or its name."""
    return side == CHANNELS or (isinstance(side, str) and "channel" in side.lower())


def _likely(outputs: Mapping[str, Floats], model_type: str) -> str:
    known = [name for name in EMBEDDINGS if name in outputs]
    if model_type in UNTRAINED_POOLER and len(known) > 1 and "pooler_output" in known:
        known.remove("pooler_output")
    if known:
        return known[0]
    names = [n for n in outputs if not any(word in n.lower() for word in SCORES)] or [*outputs]
    if len(names) != 1:
        shown = listed([f"{name} {outputs[name].shape[1:]}" for name in names])
        raise OpenQuestionError(f"which output is the embedding: give --output; it has {shown}")
    return names[0]


def _pooling(values: Floats, name: str, said: str | None) -> tuple[str, str]:
    """How to pool the output `name` (1, ...), and the reason for people."""
    if values.ndim == 2:
        if said not in (None, "none"):
            raise CbirError(
                f"output '{name}' is one row an image: there is nothing to pool", "omit --pooling"
            )
        return "none", ""
    if values.ndim == 4 and values.shape[1] == values.shape[2] != values.shape[3]:
        raise CbirError(
            f"output '{name}' has shape {values.shape}: a map with its channels last",
            "export the network with an output that is pooled, or with channels first",
        )
    fitting = ("mean", "gem") if values.ndim == 4 else ("cls", "mean", "gem")
    if said is not None:
        if said not in fitting:
            raise CbirError(
                f"output '{name}' has shape {values.shape}, which pooling '{said}' does not fit",
                f"give --pooling {' or '.join(fitting)}",
            )
        return said, f", pooled: {said}"
    if values.ndim == 4:
        return "mean", ", a map, pooled to its mean; --pooling gem is the other way"
    if isqrt(values.shape[1]) ** 2 == values.shape[1] > 1:
        return "mean", ", a square of tokens without a CLS token, pooled to their mean"
    return "cls", ", the first of its tokens (CLS); --pooling mean takes all of them"


def _shape(port: Port) -> str:
    return ", ".join(str(side) for side in port.shape)
