"""The bytes of a model's files, wherever they are."""

from __future__ import annotations

from collections.abc import Mapping

from cbir.files import content
from cbir.types import ModelFile


def contents(files: Mapping[str, ModelFile]) -> dict[str, bytes]:
    return {name: content(file) for name, file in files.items()}
