"""Real architectures with random weights, exported as the hub's exports are.

`onnx/model.onnx` or `onnx/vision_model.onnx`, every side of its input dynamic, and beside it the
files that transformers writes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from cbir.types import Floats, RgbImage
from tests.descriptors import support_texts

SIDE = 64
SQUARE = {"height": SIDE, "width": SIDE}
IMAGE_AXES = dict(enumerate(("batch_size", "num_channels", "height", "width")))
TEXT_INPUTS = ("input_ids", "attention_mask")
TEXT_AXES = {0: "batch_size", 1: "sequence_length"}
TEXT = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "attn_implementation": "eager",
}
SMALL = {**TEXT, "image_size": SIDE, "patch_size": 16}


@dataclass(frozen=True)
class Export:
    """A folder with the layout of the hub, and its references: images or texts to rows (n, dim)."""

    folder: Path
    images: Callable[[Sequence[RgbImage]], Floats]
    texts: Callable[[Sequence[str]], Floats] | None = None


def dinov2(folder: Path) -> Export:
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    return _exported(
        folder,
        _random(Dinov2Model, Dinov2Config(**SMALL)),
        BitImageProcessor(
            size={"shortest_edge": 73},
            crop_size=SQUARE,
            image_mean=[0.485, 0.456, 0.406],
            image_std=[0.229, 0.224, 0.225],
        ),
        ["last_hidden_state", "pooler_output"],
        lambda made: made.last_hidden_state[:, 0],
    )


def vit(folder: Path) -> Export:
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    return _exported(
        folder,
        _random(ViTModel, ViTConfig(**SMALL)),
        ViTImageProcessor(size=SQUARE),
        ["last_hidden_state", "pooler_output"],
        lambda made: made.last_hidden_state[:, 0],
    )


def resnet(folder: Path) -> Export:
    from transformers import ConvNextImageProcessor, ResNetConfig, ResNetModel

    config = ResNetConfig(embedding_size=16, hidden_sizes=[16, 24, 32, 48], depths=[1] * 4)
    return _exported(
        folder,
        _random(ResNetModel, config),
        ConvNextImageProcessor(size={"shortest_edge": SIDE}, crop_pct=0.875),
        ["last_hidden_state", "pooler_output"],
        lambda made: made.pooler_output[:, :, 0, 0],
    )


def clip(folder: Path) -> Export:
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    tokenizer = support_texts.clip(folder)
    text = {**TEXT, "vocab_size": len(tokenizer), "max_position_embeddings": 77}
    ends = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    config = CLIPConfig(vision_config=SMALL, text_config=text | ends, projection_dim=32)
    model = _random(CLIPModel, config)
    processor = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=SQUARE)
    made = _exported(
        folder,
        model,
        processor,
        ["last_hidden_state", "image_embeds"],
        lambda made: made.image_embeds,
        lambda pixel_values: _clip_outputs(model, model.vision_model, "visual", pixel_values),
    )

    def texts(input_ids: Any, attention_mask: Any) -> Any:
        return _clip_outputs(model, model.text_model, "text", input_ids, attention_mask)

    return _with_text(made, tokenizer, texts, "text_embeds", {"padding": True})


def siglip(folder: Path) -> Export:
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel

    tokenizer = support_texts.siglip(folder)
    text = {**TEXT, "vocab_size": len(tokenizer), "max_position_embeddings": 64}
    config = SiglipConfig(vision_config=SMALL, text_config=text | {"projection_size": 48})
    model = _random(SiglipModel, config)
    made = _exported(
        folder,
        model,
        SiglipImageProcessor(size=SQUARE),
        ["last_hidden_state", "pooler_output"],
        lambda made: made.pooler_output,
        model.vision_model,
    )
    padding = {"padding": "max_length", "max_length": 64}
    return _with_text(made, tokenizer, model.text_model, "pooler_output", padding)


FAMILIES: Mapping[str, Callable[[Path], Export]] = {
    made.__name__: made for made in (dinov2, vit, resnet, clip, siglip)
}


def export(
    call: Callable[..., Any],
    file: Path,
    inputs: Mapping[str, tuple[Any, Any]],
    outputs: Sequence[str],
) -> None:
    """Write what `call` makes to `file`; `inputs` are examples and names of dynamic sides."""
    import torch

    class Named(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.call = call

        def forward(self, *values: Any) -> Any:
            made = self.call(**dict(zip(inputs, values, strict=True)))
            return tuple(getattr(made, name) for name in outputs)

    file.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter that the hub's exports were made with
        torch.onnx.export(
            Named().eval(),
            tuple(example for example, _ in inputs.values()),
            file,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={name: axes for name, (_, axes) in inputs.items()},
            opset_version=17,
            dynamo=False,
        )


def _random(kind: Any, config: Any) -> Any:
    import torch

    torch.manual_seed(0)
    return kind(config).eval().requires_grad_(False)


def _clip_outputs(model: Any, tower: Any, name: str, *values: Any) -> Any:
    """What a CLIP tower and its projection make, under the names of the exports."""
    made = tower(*values)
    rows = getattr(model, f"{name}_projection")(made.pooler_output)
    return SimpleNamespace(
        last_hidden_state=made.last_hidden_state, image_embeds=rows, text_embeds=rows
    )


def _exported(
    folder: Path,
    model: Any,
    processor: Any,
    outputs: Sequence[str],
    embedding: Callable[[Any], Any],
    tower: Callable[..., Any] | None = None,
) -> Export:
    import torch
    from transformers import AutoImageProcessor

    file = folder / f"onnx/{'vision_model' if tower else 'model'}.onnx"
    call = tower or model
    export(call, file, {"pixel_values": (torch.zeros((2, 3, SIDE, SIDE)), IMAGE_AXES)}, outputs)
    model.config.save_pretrained(folder)
    processor.save_pretrained(folder)
    prepared = AutoImageProcessor.from_pretrained(folder, backend="pil")

    def images(images: Sequence[RgbImage]) -> Floats:
        how = {"return_tensors": "pt", "input_data_format": "channels_last"}
        tensors = [prepared(images=image, **how)["pixel_values"] for image in images]
        with torch.no_grad():
            rows = [embedding(call(pixel_values=tensor)) for tensor in tensors]
        return np.concatenate([row.numpy() for row in rows])

    return Export(folder, images)


def _with_text(
    made: Export, tokenizer: Any, tower: Callable[..., Any], output: str, padding: Mapping[str, Any]
) -> Export:
    import torch

    def tokens(texts: Sequence[str]) -> Any:
        found = tokenizer(list(texts), truncation=True, return_tensors="pt", **padding)
        # SigLIP's text tower gets no mask: it was trained to read the padding.
        names = ["input_ids"] if padding["padding"] == "max_length" else [*TEXT_INPUTS]
        return {name: found[name] for name in names}

    example = tokens(["a dog", "on the beach"])
    export(
        tower,
        made.folder / "onnx/text_model.onnx",
        {name: (value, TEXT_AXES) for name, value in example.items()},
        [output],
    )

    def texts(texts: Sequence[str]) -> Floats:
        with torch.no_grad():
            rows = [getattr(tower(**tokens([text])), output) for text in texts]
        return np.concatenate([row.numpy() for row in rows])

    return replace(made, texts=texts)
