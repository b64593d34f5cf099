"""Pulled models against the reference libraries: inputs, token ids and vectors.

Each family is the real architecture with random weights, exported as the hub's exports are, served
on this machine and pulled. Needs the dependency group `reference`.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.reference.comparing import (
    SIZES,
    Difference,
    difference,
    drawn,
    ids_apart,
    inputs_apart,
    pulled,
    reference_of,
    vectors,
)
from benchmarks.reference.exports import FAMILIES
from benchmarks.reference.texts import TEXTS
from benchmarks.setting import heading, row
from cbir.descriptors.contract import describe_texts
from tools.hub_server import serve_hub

LIBRARIES = ("torch", "transformers", "open_clip_torch", "timm", "tokenizers")
COLUMNS = (
    *("family", "images", "inputs: largest difference", "smallest cosine"),
    *("worst error", "median error", "texts", "other token ids"),
    *("smallest cosine", "worst error", "median error"),
)


def main() -> None:
    """Print a row for each family: its images, then its texts."""
    print(", ".join(f"{name} {version(name)}" for name in LIBRARIES))
    print(heading(COLUMNS))
    for family in FAMILIES:
        with TemporaryDirectory() as folder:
            print(row([family, *figures(family, Path(folder))]), flush=True)


def figures(family: str, folder: Path) -> list[str]:
    """Export, serve, pull and compare one family."""
    images = drawn(SIZES)
    export = FAMILIES[family](folder)
    with serve_hub({f"reference/{family}": folder}) as hub, TemporaryDirectory() as home:
        model = pulled(f"hf:reference/{family}", hub.endpoint, Path(home))
        reference = reference_of(export, images, TEXTS)
        apart = inputs_apart(model, images, reference.pixels)
        cells = [f"{len(images)}", f"{apart:.0e}"]
        cells += shown(difference(vectors(model, images), reference.images))
        if not model.has_text:
            return cells + [""] * 5
        cells += [f"{len(TEXTS)}", f"{ids_apart(model, TEXTS, reference.tokens)}"]
        return cells + shown(difference(describe_texts(model, TEXTS), reference.texts))


def shown(made: Difference) -> list[str]:
    """The smallest cosine, the worst and the median error."""
    return [f"{made.cosine:.6f}", f"{made.worst:.0e}", f"{made.median:.0e}"]
