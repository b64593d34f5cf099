"""Fits again what follows the networks of model folders; their weights stay.

    python -m tools.refit FOLDER ... [--source cifar10:train] [--seed 0]

For models whose vectors an older version of `cbir train` made, in folders outside the model store
(a folder of the store has the fingerprint in its name). Images and seed must be those of the
training, so that the held-out images are the same; test images are not read.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from cbir.descriptors.cards import CARD_FILE
from cbir.descriptors.models import model_of, read_files
from cbir.descriptors.onnx import NETWORK_FILE
from cbir.files import write_whole
from cbir.images.sources import open_source
from cbir.training.choose import MEASURE
from cbir.training.labelled import Labelled, read_labelled, split
from cbir.training.network.parity import outputs
from cbir.training.projections import fit_after_network

OF_VECTORS = ("mean", "dim", "files", "temperature", "posterior_weight", "posterior_power")


def main() -> None:
    """Write the files of each folder anew."""
    parser = argparse.ArgumentParser(prog="python -m tools.refit")
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--source", default="cifar10:train")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    for folder in asked.folders:
        model = model_of(read_files(folder))
        images = read_labelled(open_source(asked.source), model.prepare, seed=asked.seed)
        held_out, training = split(images, asked.seed)
        print(folder)  # noqa: T201
        for name, data in _fitted(folder, held_out, training).items():
            write_whole(folder / name, data)  # the card is the last


def _fitted(folder: Path, held_out: Labelled, training: Labelled) -> dict[str, bytes]:
    model = (folder / NETWORK_FILE).read_bytes()
    embeddings, logits = outputs(model, held_out.stacked())
    fitted_to, _ = outputs(model, training.stacked())
    after = fit_after_network(fitted_to, embeddings, logits, held_out.labels, print)
    files = after.files(model)
    card: dict[str, Any] = json.loads((folder / CARD_FILE).read_text())
    kept = {key: value for key, value in card.items() if key not in OF_VECTORS}
    kept["training"]["vectors"] = after.recorded()
    kept["quality"][f"held_out_{MEASURE}"] = round(after.score, 5)
    card = {**kept, **after.card_fields(files)}
    return {**files, CARD_FILE: json.dumps(card, indent=1).encode()}


if __name__ == "__main__":
    main()
