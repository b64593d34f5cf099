"""Real architectures with random weights, exported as the hub's exports are.

`onnx/model.onnx` or `onnx/vision_model.onnx`, every side of its input dynamic, and beside it the
files that the reference libraries write.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.reference import texts
from cbir.descriptors.text import Ids
from cbir.types import Floats, RgbImage

SIDE = 64
SQUARE = {"height": SIDE, "width": SIDE}
IMAGE_AXES = dict(enumerate(("batch_size", "num_channels", "height", "width")))
TEXT_AXES = {0: "batch_size", 1: "sequence_length"}
TEXT = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "attn_implementation": "eager",
}
SMALL = {**TEXT, "image_size": SIDE, "patch_size": 16}

Tokens = Mapping[str, Ids]


@dataclass(frozen=True)
class Export:
    """A folder with the layout of the hub, and what the reference library makes of the same.

    `pixels` gives the network's input (3, height, width) of an image, and `images` the rows
    (n, dim) of such inputs (n, ...). With a text tower, `tokens` gives its inputs (1, tokens) of a
    text by name, and `texts` the row (1, dim) of these.
    """

    folder: Path
    pixels: Callable[[RgbImage], Floats]
    images: Callable[[Floats], Floats]
    tokens: Callable[[str], Tokens] | None = None
    texts: Callable[[Tokens], Floats] | None = None


def dinov2(folder: Path) -> Export:
    """A vision transformer with a CLS token; resizes the shorter side, and crops."""
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
    """A vision transformer whose pooler is untrained; stretches."""
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    return _exported(
        folder,
        _random(ViTModel, ViTConfig(**SMALL)),
        ViTImageProcessor(size=SQUARE),
        ["last_hidden_state", "pooler_output"],
        lambda made: made.last_hidden_state[:, 0],
    )


def resnet(folder: Path) -> Export:
    """A convolutional network; its crop is given as a share."""
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
    """Two towers with projections; texts are padded to the longest, and masked."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    tokenizer = texts.clip(folder)
    text = {**TEXT, "vocab_size": len(tokenizer), "max_position_embeddings": 77}
    ends = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    config = CLIPConfig(vision_config=SMALL, text_config=text | ends, projection_dim=32)
    model = _random(CLIPModel, config)
    made = _exported(
        folder,
        model,
        CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=SQUARE),
        ["last_hidden_state", "image_embeds"],
        lambda made: made.image_embeds,
        lambda pixel_values: _clip_outputs(model, model.vision_model, "visual", pixel_values),
    )

    def tower(input_ids: Any, attention_mask: Any) -> Any:
        return _clip_outputs(model, model.text_model, "text", input_ids, attention_mask)

    def tokens(text: str) -> Tokens:
        return dict(tokenizer([text], truncation=True, padding=True, return_tensors="np"))

    return _with_text(made, tokens, tower, "text_embeds")


def siglip(folder: Path) -> Export:
    """Two towers without projections; stretches, and reads its padding."""
    from transformers import SiglipImageProcessor

    processor = SiglipImageProcessor(size=SQUARE)
    return _siglip(folder, texts.siglip(folder), processor, SMALL)


def siglip_multilingual(folder: Path) -> Export:
    """The same with byte fallback for scripts that its vocabulary lacks, and 256 px."""
    from transformers import SiglipImageProcessor

    processor = SiglipImageProcessor(size=dict.fromkeys(SQUARE, 256))
    vision = {**SMALL, "image_size": 256, "patch_size": 32}
    return _siglip(folder, texts.siglip_multilingual(folder), processor, vision)


def siglip2(folder: Path) -> Export:
    """SigLIP 2 of fixed resolution: Gemma's tokenizer, 256,000 tokens, bilinear at 256 px."""
    from transformers import SiglipImageProcessor

    processor = SiglipImageProcessor(size=dict.fromkeys(SQUARE, 256), resample=2)
    vision = {**SMALL, "image_size": 256, "patch_size": 32}
    return _siglip(folder, texts.siglip2(folder), processor, vision, vocabulary=256_000)


def open_clip(folder: Path) -> Export:
    """A CLIP of open_clip with CLIP's real vocabulary; fits and pads images."""
    import open_clip as library
    import torch
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from PIL import Image

    tokenizer = library.SimpleTokenizer()
    texts.clip_of_open_clip(folder, tokenizer)
    towers = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": SIDE, "layers": 2, "width": 48, "head_width": 12,
                       "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49_408, "width": 48, "heads": 4,
                     "layers": 2},
    }  # fmt: skip
    torch.backends.mha.set_fastpath_enabled(False)  # which cannot be exported
    torch.manual_seed(0)
    model = library.model.CLIP(**towers).eval().requires_grad_(False)
    settings = PreprocessCfg(size=(SIDE, SIDE), resize_mode="longest", fill_color=119)
    texts.write(folder, open_clip_config={"model_cfg": towers, "preprocess_cfg": asdict(settings)})
    transform = image_transform_v2(settings, is_train=False)

    def image_tower(pixel_values: Any) -> Any:
        return SimpleNamespace(image_features=model.encode_image(pixel_values))

    def text_tower(text: Any) -> Any:
        return SimpleNamespace(text_features=model.encode_text(text))

    def pixels(image: RgbImage) -> Floats:
        return np.asarray(transform(Image.fromarray(image)))

    images = _image_tower(
        folder / "onnx/vision_model.onnx", image_tower, ["image_features"], SIDE,
        lambda made: made.image_features,
    )  # fmt: skip
    made = Export(folder, pixels, images)
    return _with_text(
        made, lambda text: {"text": tokenizer([text]).numpy()}, text_tower, "text_features"
    )


def timm(folder: Path) -> Export:
    """A vision transformer of timm without its classifier."""
    import timm as library
    import torch
    from PIL import Image
    from timm.data import create_transform, resolve_model_data_config
    from timm.models._hub import save_config_for_hf

    torch.manual_seed(0)
    model = library.create_model("test_vit", num_classes=0).eval().requires_grad_(False)
    save_config_for_hf(model, str(folder / "config.json"))
    transform = create_transform(**resolve_model_data_config(model))
    side = model.pretrained_cfg["input_size"][-1]
    images = _image_tower(
        folder / "onnx/model.onnx",
        lambda pixel_values: SimpleNamespace(embedding=model(pixel_values)),
        ["embedding"],
        side,
        lambda made: made.embedding,
    )
    return Export(folder, lambda image: np.asarray(transform(Image.fromarray(image))), images)


FAMILIES: Mapping[str, Callable[[Path], Export]] = {
    made.__name__: made
    for made in (
        *(dinov2, vit, resnet, clip, siglip, siglip_multilingual, siglip2),
        *(open_clip, timm),
    )
}


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


def _siglip(
    folder: Path, tokenizer: Any, processor: Any, vision: Any, vocabulary: int | None = None
) -> Export:
    from transformers import SiglipConfig, SiglipModel

    ends = {"bos_token_id": 0, "eos_token_id": tokenizer.eos_token_id}
    size = vocabulary or len(tokenizer)
    text = {**TEXT, **ends, "vocab_size": size, "max_position_embeddings": 64}
    config = SiglipConfig(vision_config=vision, text_config=text | {"projection_size": 48})
    model = _random(SiglipModel, config)
    made = _exported(
        folder,
        model,
        processor,
        ["last_hidden_state", "pooler_output"],
        lambda made: made.pooler_output,
        model.vision_model,
    )

    def tokens(text: str) -> Tokens:
        how = {"padding": "max_length", "max_length": 64, "return_tensors": "np"}
        # Its text tower gets no mask: it was trained to read the padding.
        return {"input_ids": tokenizer([text], truncation=True, **how)["input_ids"]}

    return _with_text(made, tokens, model.text_model, "pooler_output")


def _exported(
    folder: Path,
    model: Any,
    processor: Any,
    outputs: Sequence[str],
    embedding: Callable[[Any], Any],
    tower: Callable[..., Any] | None = None,
) -> Export:
    """A model of transformers: its `tower` for images, or all of it."""
    from transformers import AutoImageProcessor

    model.config.save_pretrained(folder)
    processor.save_pretrained(folder)
    prepared = AutoImageProcessor.from_pretrained(folder, backend="pil")

    def pixels(image: RgbImage) -> Floats:
        how = {"return_tensors": "np", "input_data_format": "channels_last"}
        return np.asarray(prepared(images=image, **how)["pixel_values"][0])

    file = folder / f"onnx/{'vision_model' if tower else 'model'}.onnx"
    side = getattr(getattr(model.config, "vision_config", model.config), "image_size", SIDE)
    return Export(folder, pixels, _image_tower(file, tower or model, outputs, side, embedding))


def _image_tower(
    file: Path,
    call: Callable[..., Any],
    outputs: Sequence[str],
    side: int,
    embedding: Callable[[Any], Any],
) -> Callable[[Floats], Floats]:
    """Write the tower to `file`; returns what makes rows of inputs."""
    import torch

    _export(call, file, {"pixel_values": (torch.zeros((2, 3, side, side)), IMAGE_AXES)}, outputs)

    def images(inputs: Floats) -> Floats:
        with _quickly():
            made = embedding(call(pixel_values=torch.from_numpy(inputs)))
        return np.asarray(made.numpy())

    return images


def _with_text(
    made: Export, tokens: Callable[[str], Tokens], tower: Callable[..., Any], output: str
) -> Export:
    import torch

    example = {name: torch.from_numpy(ids) for name, ids in tokens("a dog on a beach").items()}
    _export(
        tower,
        made.folder / "onnx/text_model.onnx",
        {name: (torch.cat([ids, ids]), TEXT_AXES) for name, ids in example.items()},
        [output],
    )

    def rows(ids: Tokens) -> Floats:
        inputs = {name: torch.from_numpy(values) for name, values in ids.items()}
        with _quickly():
            return np.asarray(getattr(tower(**inputs), output).numpy())

    return replace(made, tokens=tokens, texts=rows)


@contextmanager
def _quickly() -> Iterator[None]:
    """Without gradients, and on one thread: layers this small lose time on several."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_num_threads(before)


def _export(
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
