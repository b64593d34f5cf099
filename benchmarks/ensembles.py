"""Compares compositions of the shipped CIFAR-10 networks on the held-out training images.

Half of the 5,000 images are the index, half the queries, as in training; test images are not read.
All networks were trained with the same split. Every composition has equal shares.

    python -m benchmarks ensembles
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from benchmarks.setting import heading, row
from cbir.descriptors.contract import describe
from cbir.descriptors.models import SHIPPED, load_descriptor
from cbir.descriptors.onnx import square_input
from cbir.images.sources import open_source
from cbir.training.choose import MEASURE, cosines, score
from cbir.training.labelled import read_labelled, split

NETWORKS = tuple(name for name in SHIPPED if name.startswith("cifar10-cnn"))
SIDE, SEED = 32, 0


def main() -> None:
    """Print the nAP@100 of each network and composition, best first."""
    everything = read_labelled(open_source("cifar10:train"), square_input(SIDE).prepare)
    held_out, _ = split(everything, SEED)
    likeness = {
        name: cosines(describe(load_descriptor(name), held_out.images)) for name in NETWORKS
    }
    scores = {
        names: score(np.mean([likeness[name] for name in names], axis=0), held_out.labels)
        for count in range(1, len(NETWORKS) + 1)
        for names in combinations(NETWORKS, count)
    }
    print(heading(["composition", f"held-out {MEASURE}"]))
    for names in sorted(scores, key=lambda names: -scores[names]):
        print(row(["+".join(names), f"{scores[names]:.4f}"]))
