"""Formats counts, lists and hints for messages."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Sequence
from typing import Any, TextIO, cast

_COMPARED = 100
_PLURALS = {"query": "queries", "class": "classes", "index": "indexes"}


def counted(number: int, noun: str) -> str:
    """`1 image`, `2,000 images`, `2 queries`."""
    return f"{number:,} {noun if number == 1 else _PLURALS.get(noun, f'{noun}s')}"


def shown_size(size: int) -> str:
    """A number of bytes: `3.2 kB`, `1,234.5 MB`."""
    return f"{size / 1e3:.1f} kB" if size < 100_000 else f"{size / 1e6:,.1f} MB"


def listed(words: Sequence[str], shown: int = 10) -> str:
    """The first few `words`: `a, b, c ...`."""
    return ", ".join(words[:shown]) + (" ..." if len(words) > shown else "")


def one_line(text: str) -> str:
    """`text` with control characters escaped: file names may contain any."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def escaped(text: str) -> str:
    """`text` with control characters escaped, except line breaks."""
    return text if text.isprintable() else "\n".join(map(one_line, text.split("\n")))


class EscapedStream:
    """A text stream that escapes control characters, except line breaks.

    Bytes written to its `buffer` stay as they are.
    """

    def __init__(self, stream: TextIO) -> None:
        self.plain = stream

    def write(self, text: str) -> int:
        self.plain.write(escaped(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plain, name)


def plain_stream(stream: TextIO) -> TextIO:
    """The stream inside an `EscapedStream`, for text that is escaped already."""
    return cast("EscapedStream", stream).plain if isinstance(stream, EscapedStream) else stream


def shell_word(text: str) -> str:
    """`text` as one word of a shell, quoted only if needed."""
    if os.name == "nt":
        import subprocess

        return subprocess.list2cmdline([text])
    if text.isprintable():
        # shlex writes it's as 'it'"'"'s'.
        return f'"{text}"' if "'" in text and not set(text) & set('"$`\\!') else shlex.quote(text)
    return "$'" + "".join(map(_escaped, text)) + "'"  # as GNU ls prints it


def shell_words(words: Iterable[str]) -> str:
    """`words` as a shell takes them apart again."""
    return " ".join(map(shell_word, words))


def most_similar(name: str, known: Iterable[str], most: int) -> list[str]:
    """The `known` names that are similar to `name`, the most similar first.

    Only those that share the most pairs of letters are compared, as difflib takes seconds for
    thousands of long names.
    """
    from difflib import get_close_matches
    from heapq import nlargest

    pairs = _pairs(name)
    candidates = nlargest(_COMPARED, known, key=lambda other: len(pairs & _pairs(other)))
    return get_close_matches(name, candidates, most)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The `known` name most similar to `name`, or None."""
    return next(iter(most_similar(name, known, 1)), None)


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """The hint for an unknown name: the most similar `known` one, else `otherwise` or the list."""
    known = list(known)
    near = nearest(name, known)
    return f"did you mean '{near}'?" if near else otherwise or f"known: {', '.join(known)}"


def percent(share: float) -> str:
    """A fraction as a percentage: `88.4%`, `100%`."""
    return f"{100 * share:.1f}%" if share < 0.9995 else "100%"


def _pairs(text: str) -> set[str]:
    return {text[at : at + 2] for at in range(len(text))}


def _escaped(character: str) -> str:
    if character in "'\\":
        return f"\\{character}"
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))
