"""Descriptors composed by weight: vectors side by side, so that cosines add up.

`efficientnet-lite0+classic:0.3` is 0.7 times the cosine of the first descriptor plus 0.3 times
that of the second. An index keeps a card `model.json` with names, fingerprints and weights of the
parts, and the files of part n under `n/`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cbir.descriptors.cards import CARD_FILE, Model, no_card, split_variant
from cbir.descriptors.contract import Descriptor, describe, describe_texts, has_text, prepare
from cbir.descriptors.fusion import fuse, unit_rows
from cbir.errors import CbirError
from cbir.types import DescriptorSpec, ModelFile, RgbImage, Vectors

KIND = "composed"
EXAMPLE = "efficientnet-lite0+classic:0.3"
_VERSION = 1
_TOLERANCE = 1e-6
_NUMBER = re.compile(r"-?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


def named_parts(name: str) -> list[tuple[str, float]]:
    """The parts of the composition called `name`, with their weights; [] if it composes nothing.

    Parts are joined by "+". Each may end in ":WEIGHT"; those that do not share what the others
    leave. A plus sign inside the path of an existing folder joins nothing. Raises `CbirError` if a
    part is empty, or if the weights are not positive or do not add up to 1.
    """
    pieces = _pieces(name)
    if len(pieces) == 1:
        return []
    names, stated = zip(*map(_split_weight, pieces), strict=True)
    if not all(names):
        raise CbirError(f"'{name}' has an empty part", f"join descriptors like this: {EXAMPLE}")
    return list(zip(names, _resolved(name, stated), strict=True))


class ComposedDescriptor:
    """`parts` side by side: the cosine is the sum of their cosines, each times its weight.

    Weights are rounded to the six digits that the name shows, and the first takes what the others
    leave. A composition among the parts is replaced by its own parts. Words are described by the
    parts that have a text tower; the others contribute zeros. Raises `CbirError` if a part is
    there twice or has an ambiguous name, or if the weights are not positive or do not add up to 1.
    """

    def __init__(self, parts: Sequence[Descriptor], weights: Sequence[float]) -> None:
        flat: list[tuple[Descriptor, float]] = []
        for part, weight in zip(parts, weights, strict=True):
            if isinstance(part, ComposedDescriptor):
                flat += [(p, weight * w) for p, w in zip(part.parts, part.weights, strict=True)]
            else:
                flat.append((part, weight))
        self.parts: tuple[Descriptor, ...] = tuple(part for part, _ in flat)
        self.weights: tuple[float, ...] = _rounded([weight for _, weight in flat])
        self.spec = _spec([part.spec for part in self.parts], self.weights)

    @property
    def files(self) -> Mapping[str, ModelFile]:
        """The files by name to store with an index; none if no part has any."""
        models = {str(n): part for n, part in enumerate(self.parts, 1) if isinstance(part, Model)}
        files = {f"{n}/{name}": file for n, m in models.items() for name, file in m.files.items()}
        return {CARD_FILE: self._card(), **files} if files else {}

    def describe(self, images: Sequence[RgbImage]) -> Vectors:
        """The unit vectors (n, spec.dim) of `images`."""
        return fuse(
            [describe(part, [prepare(part, image) for image in images]) for part in self.parts],
            self.weights,
        )

    def blocks(self, vectors: Vectors) -> list[Vectors]:
        """The vectors of each part, (n, its dim), in the composed `vectors` (n, spec.dim)."""
        ends = np.cumsum([part.spec.dim for part in self.parts])[:-1]
        return [unit_rows(block) for block in np.split(vectors, ends, axis=1)]

    @property
    def has_text(self) -> bool:
        """Whether a part has a text tower."""
        return any(map(has_text, self.parts))

    def describe_texts(self, texts: Sequence[str]) -> Vectors:
        """The unit vectors (n, spec.dim) of `texts`, by the parts that have a text tower."""
        blocks = [
            describe_texts(part, texts)
            if has_text(part)
            else np.zeros((len(texts), part.spec.dim), dtype=np.float32)
            for part in self.parts
        ]
        return unit_rows(fuse(blocks, self.weights))

    def _card(self) -> bytes:
        parts = [
            {"name": part.spec.name, "fingerprint": part.spec.fingerprint, "weight": weight}
            for part, weight in zip(self.parts, self.weights, strict=True)
        ]
        return json.dumps({"kind": KIND, "name": self.spec.name, "parts": parts}, indent=1).encode()


def parts_of_card(card: Mapping[str, Any]) -> list[tuple[DescriptorSpec, float]]:
    """The parts on the card of a composition, with their weights; of each spec only the name and
    the fingerprint are known. Raises `CbirError` if it is no such card."""
    try:
        parts = [
            (DescriptorSpec(str(part["name"]), 0, str(part["fingerprint"])), float(part["weight"]))
            for part in card["parts"]
        ]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise no_card(error) from error
    if len(parts) < 2:
        raise no_card("it composes fewer than two parts")
    return parts


def part_files(files: Mapping[str, ModelFile]) -> dict[str, dict[str, ModelFile]]:
    """The files of each part by its number ("1", "2", ...) and their own names."""
    parts: dict[str, dict[str, ModelFile]] = {}
    for path, file in files.items():
        number, slash, name = path.partition("/")
        if slash:
            parts.setdefault(number, {})[name] = file
    return parts


def composed_name(names: Sequence[str], weights: Sequence[float]) -> str:
    """The name of a composition: every weight but the first, with up to six digits."""
    others = zip(names[1:], weights[1:], strict=True)
    return "+".join([names[0], *(f"{name}:{weight:g}" for name, weight in others)])


def _spec(specs: Sequence[DescriptorSpec], weights: Sequence[float]) -> DescriptorSpec:
    name = composed_name([spec.name for spec in specs], weights)
    for place, spec in enumerate(specs):
        if spec.fingerprint in {other.fingerprint for other in specs[:place]}:
            raise CbirError(f"{spec.short} is in '{name}' twice", "each descriptor may occur once")
    for spec in specs:
        if "+" in spec.name or _split_weight(spec.name)[1] is not None:
            raise CbirError(
                f"'{spec.name}' cannot be part of a composition, whose name would be ambiguous",
                "rename it, without a plus sign or a number at its end",
            )
    facts = [[spec.fingerprint, f"{w:g}"] for spec, w in zip(specs, weights, strict=True)]
    told = {"vector": " + ".join(f"{w:g} {s.short}" for s, w in zip(specs, weights, strict=True))}
    for number, spec in enumerate(specs, 1):
        told |= {f"part {number} {key}": value for key, value in spec.preprocessing.items()}
    return DescriptorSpec(
        name=name,
        dim=sum(spec.dim for spec in specs),
        fingerprint=hashlib.sha256(json.dumps([_VERSION, facts]).encode()).hexdigest(),
        preprocessing=told,
        trained_on="; ".join(dict.fromkeys(spec.trained_on for spec in specs if spec.trained_on)),
        licence=" AND ".join(dict.fromkeys(spec.licence for spec in specs if spec.licence)),
    )


def _pieces(name: str) -> list[str]:
    words = name.split("+")
    pieces = []
    while words:
        folders = (n for n in range(len(words), 1, -1) if _is_folder("+".join(words[:n])))
        count = next(folders, 1)
        pieces.append("+".join(words[:count]))
        words = words[count:]
    return pieces


def _is_folder(piece: str) -> bool:
    place = Path(split_variant(_split_weight(piece)[0])[0])
    return place.name != str(place) and place.is_dir()


def _split_weight(piece: str) -> tuple[str, float | None]:
    name, _, last = piece.rpartition(":")
    return (name, float(last)) if _NUMBER.fullmatch(last) else (piece, None)


def _resolved(name: str, stated: Sequence[float | None]) -> tuple[float, ...]:
    """Every weight: those without one share what the others leave."""
    given = [weight for weight in stated if weight is not None]
    left, missing = 1 - sum(given), len(stated) - len(given)
    if any(not 0 < weight < 1 for weight in given):
        raise CbirError(f"a weight in '{name}' is not between 0 and 1", f"for example: {EXAMPLE}")
    if missing and left <= _TOLERANCE:
        raise CbirError(
            f"the weights in '{name}' add up to {sum(given):g} and leave nothing for the others",
            f"lower them, for example: {EXAMPLE}",
        )
    if not missing and abs(left) > _TOLERANCE:
        raise CbirError(
            f"the weights in '{name}' add up to {sum(given):g}, not 1",
            f"omit one: it gets what the others leave, as in {EXAMPLE}",
        )
    return _rounded([left / missing if weight is None else weight for weight in stated])


def _rounded(weights: Sequence[float]) -> tuple[float, ...]:
    """`weights` with the digits of a name; the first is 1 minus the others."""
    others = [float(f"{weight:g}") for weight in weights[1:]]
    rounded = (round(1 - sum(others), 9), *others)
    if not (min(rounded) > 0 and abs(sum(weights) - 1) <= _TOLERANCE):
        shown = ", ".join(f"{weight:g}" for weight in weights)
        raise CbirError(
            f"the weights are {shown}, and add up to {sum(weights):g}",
            "give positive ones that add up to 1",
        )
    return rounded
