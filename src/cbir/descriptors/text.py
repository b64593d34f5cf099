"""How words become the input of a text tower: a card's `text`, and its tokenizer."""

from __future__ import annotations

import string
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from html import unescape
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from cbir.descriptors.pooling import POOLINGS
from cbir.errors import CbirError, QueryError
from cbir.registry import require_extra

PADDINGS = ("none", "longest", "context")
SIDES = ("right", "left")
CLEANINGS = ("none", "whitespace", "lower", "canonicalize")
MAX_CONTEXT = 8192
MAX_ID = 2**31 - 1

INPUTS = {
    "input_ids": "ids",
    "text": "ids",
    "attention_mask": "mask",
    "token_type_ids": "types",
    "position_ids": "positions",
}
"""Names that text networks give their inputs, and what they mean."""

Ids = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class TextTower:
    """How a card's text network is fed and read.

    A text becomes at most `context` tokens, special tokens included: the rest is cut off, the
    end token stays. `padding` with the token `pad`, on the `side`: "context" to `context` tokens,
    "longest" to the longest text of a batch, "none" not at all (then texts of different lengths
    cannot share a batch). `lower`: the tokenizer lower-cases, though its file does not say so.
    `clean` is what happens to a text before, see `cleaned`. `output` is the network's output, and
    `pooling` (see `cbir.descriptors.pooling`) makes a row of it. Raises `CbirError` for other
    values.
    """

    context: int
    padding: str
    pad: int = 0
    side: str = "right"
    lower: bool = False
    clean: str = "none"
    output: str = "text_embeds"
    pooling: str = "none"

    def __post_init__(self) -> None:
        allowed = {
            "context": type(self.context) is int and 1 <= self.context <= MAX_CONTEXT,
            "padding": self.padding in PADDINGS,
            "pad": type(self.pad) is int and 0 <= self.pad <= MAX_ID,
            "side": self.side in SIDES,
            "lower": isinstance(self.lower, bool),
            "clean": self.clean in CLEANINGS,
            "output": isinstance(self.output, str) and self.output != "",
            "pooling": self.pooling in POOLINGS,
        }
        for name, fits in allowed.items():
            if not fits:
                raise CbirError(f"text tower: {name} is {repr(getattr(self, name))[:60]}")

    @classmethod
    def parse(cls, stored: object) -> TextTower:
        """From the JSON object of a card; raises `CbirError` for anything else."""
        if not isinstance(stored, dict) or not {"context", "padding"} <= set(stored):
            raise CbirError("text tower: no JSON object with 'context' and 'padding'")
        if unknown := sorted(set(stored) - set(cls.__dataclass_fields__)):
            raise CbirError(f"text tower: unknown {', '.join(map(repr, unknown))}")
        return cls(**stored)

    def to_json(self) -> dict[str, Any]:
        """Every value, for the card and the fingerprint."""
        return asdict(self)


class TextTokenizer:
    """Turns texts into the inputs of a text tower, with the `tokenizers` library. Thread-safe.

    `file` is a `tokenizer.json`, its path or its bytes. Raises `MissingExtraError` without the
    extra, and `CbirError` if the file is no tokenizer, or if `tower` leaves no room for its
    special tokens.
    """

    def __init__(self, file: bytes | Path, tower: TextTower) -> None:
        require_extra("search by words", "hub", "tokenizers")
        self.tower = tower
        with _reading():
            self._tokenizer = _tokenizer(file, tower)
            special = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        if special >= tower.context:
            raise CbirError(
                f"text tower: a context of {tower.context} tokens leaves no room for words"
            )
        self._ids("a")  # so that what only fails here is known at once

    def encode(self, texts: Sequence[str], names: Iterable[str] = ("input_ids",)) -> dict[str, Ids]:
        """The inputs `names` (keys of `INPUTS`) of `texts` (n): int64 (n, tokens) each.

        With padding "none", texts of different lengths raise `ValueError`. Raises `QueryError` if
        a text is not valid Unicode, and `CbirError` for other names.
        """
        if unknown := sorted(set(names := list(names)) - set(INPUTS)):
            raise CbirError(
                f"the text network has an input '{unknown[0]}'", f"known: {', '.join(INPUTS)}"
            )
        rows = [self._ids(text) for text in texts]
        longest = max([1, *(len(ids) for ids, _ in rows)])
        width = self.tower.context if self.tower.padding == "context" else longest
        if self.tower.padding == "none" and any(len(ids) != longest for ids, _ in rows):
            raise ValueError("texts of different lengths, and the tower pads none")
        made = {
            "ids": np.full((len(rows), width), self.tower.pad, dtype=np.int64),
            "mask": np.zeros((len(rows), width), dtype=np.int64),
            "types": np.zeros((len(rows), width), dtype=np.int64),
            "positions": np.tile(np.arange(width, dtype=np.int64), (len(rows), 1)),
        }
        for row, (ids, types) in enumerate(rows):
            start = 0 if self.tower.side == "right" else width - len(ids)
            words = slice(start, start + len(ids))
            made["ids"][row, words], made["types"][row, words] = ids, types
            made["mask"][row, words] = 1
        return {name: made[INPUTS[name]] for name in names}

    def _ids(self, text: str) -> tuple[list[int], list[int]]:
        """The token ids of `text`, and their types."""
        try:
            text.encode()
        except UnicodeError as error:
            raise QueryError("the text is not valid Unicode") from error
        with _reading():
            # One at a time: batches would start threads of their own.
            encoded = self._tokenizer.encode(cleaned(text, self.tower.clean))
        return encoded.ids, encoded.type_ids


def cleaned(text: str, how: str) -> str:
    """`text` as open_clip cleans it, except that broken characters are not repaired.

    `how`, one of `CLEANINGS`: "whitespace" resolves HTML entities, composes accents and puts words
    one space apart; "lower" makes them lower-case as well; "canonicalize" also drops punctuation.
    """
    if how == "none":
        return text
    text = unescape(unescape(normalize("NFC", text)))
    if how == "canonicalize":
        text = text.replace("_", " ").translate(str.maketrans("", "", string.punctuation))
    text = " ".join(text.split())
    return text if how == "whitespace" else text.lower()


def _tokenizer(file: bytes | Path, tower: TextTower) -> Any:
    from tokenizers import Tokenizer, normalizers

    made = Tokenizer.from_buffer(file.read_bytes() if isinstance(file, Path) else file)
    if tower.lower:
        own = [made.normalizer] if made.normalizer else []
        made.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])
    made.no_padding()
    made.enable_truncation(tower.context)
    return made


@contextmanager
def _reading() -> Iterator[None]:
    """Turn what the library raises into `CbirError`."""
    try:
        yield
    except BaseException as error:
        # The library raises nothing narrower than Exception, and a panic in it is not even that.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise CbirError(
            f"the tokenizer cannot be used: {' '.join(str(error).split())[:200]}",
            "fetch or export the model again",
        ) from error
