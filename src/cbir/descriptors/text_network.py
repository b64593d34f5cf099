"""Runs a text tower: `text.onnx` and `tokenizer.json` of a model."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from cbir.descriptors.fusion import unit_rows
from cbir.descriptors.pooling import embedding_rows
from cbir.descriptors.runtime import Network
from cbir.descriptors.text import TextTokenizer, TextTower
from cbir.types import ModelFile, Vectors

TEXT_FILE = "text.onnx"
TOKENIZER_FILE = "tokenizer.json"


class TextNetwork:
    """The text tower of the model `name`, whose vectors have `dim` dimensions. Thread-safe.

    Opens the tokenizer and the network at the first call.
    """

    def __init__(
        self, files: Mapping[str, ModelFile], tower: TextTower, dim: int, name: str
    ) -> None:
        self._files, self._tower, self._dim, self._name = files, tower, dim, name
        self._network = Network(files[TEXT_FILE], f"{TEXT_FILE} of {name}", files)
        self._loading = threading.Lock()

    def describe(self, texts: Sequence[str]) -> Vectors:
        """The unit vectors (n, dim) of `texts`, each described alone, so that none is padded for
        another.

        Raises `MissingExtraError` without `tokenizers`, and `CbirError` if the files do not fit
        the card.
        """
        return np.concatenate([self._vector(text) for text in texts])

    def _vector(self, text: str) -> Vectors:
        with self._loading:
            tokenizer = self._tokenizer
        tower, network = self._tower, self._network
        inputs = tokenizer.encode([text], [port.name for port in network.ports(alone=True)[0]])
        (features,) = network.outputs(inputs, [tower.output], alone=True)
        return unit_rows(
            embedding_rows(features, tower.output, tower.pooling, (1, self._dim), self._name)
        )

    @cached_property
    def _tokenizer(self) -> TextTokenizer:
        return TextTokenizer(self._files[TOKENIZER_FILE], self._tower)
