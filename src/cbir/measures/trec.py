"""Reads and writes TREC run and qrels files, plain or gzip; trec_eval keeps our ranking order.

Formats: https://github.com/usnistgov/trec_eval, README.
"""

from __future__ import annotations

import codecs
import errno
import gzip
import io
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO, TextIO, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from cbir.errors import CbirError, write_hint
from cbir.files import replacing, require_regular, require_writable
from cbir.measures.names import MAX_RELEVANCE
from cbir.types import OnDone

_RUN_LINE = "the format of a run line is: query Q0 document rank score tag"
_QRELS_LINE = "the format of a qrels line is: query 0 document relevance"
_NOT_IN_A_WORD = re.compile(r"[\s\x00-\x1f\x7f\ud800-\udfff]|^$")
_WORD = "it must not be empty or contain white space, control characters or lone surrogates"
_LINES_A_TELL = 1 << 16
_Value = TypeVar("_Value")
_FLOAT32_MAX = float(np.finfo(np.float32).max)


def write_run(
    target: Path | TextIO,
    rankings: Iterable[tuple[str, Sequence[str], NDArray[np.float32]]],
    tag: str,
) -> int:
    """Write a run file and return its number of lines.

    `rankings` yields query id, document ids best first, and their non-increasing scores, float32
    (k,). trec_eval breaks ties by descending id and ignores the rank column. To keep the given
    order, a score equal to the previous one is written as the next lower float32. `target` is a
    text stream, or a file to replace atomically, compressed if its name ends in `.gz`. Raises
    `CbirError` for an id that TREC files cannot hold, a duplicate query or document, increasing or
    non-finite scores, empty output, and a file that cannot be written.
    """
    _check_word(tag, "tag")
    return _write(target, _run_texts(rankings, tag))


def write_qrels(target: Path | TextIO, rows: Iterable[tuple[str, str, int]]) -> int:
    """Write a qrels file and return its number of lines.

    `rows` are query id, document id and relevance (0: irrelevant), grouped by query. `target` and
    errors as in `write_run`.
    """
    return _write(target, _qrels_texts(rows))


def check_target(target: Path | TextIO) -> None:
    """Raise `CbirError` if `target` cannot be written, before any work begins."""
    if not isinstance(target, Path):
        return
    with _naming(target):
        file = target.resolve()
        replaced = file.is_file() or not file.exists()
        if file.is_dir():
            raise _error(errno.EISDIR)
        if not file.parent.is_dir():
            raise _error(errno.ENOTDIR if file.parent.exists() else errno.ENOENT)
        if replaced:
            require_writable(file.parent)
        elif not os.access(file, os.W_OK):
            raise _error(errno.EACCES)


def read_run(
    path: Path, on_done: OnDone = lambda _done, _total: None
) -> dict[str, list[tuple[str, float]]]:
    """Query id -> (document id, score) in trec_eval's order.

    The order is by descending float32 score, then by descending id; the rank column is ignored.
    Scores are rounded to float32. `on_done` is a progress callback in bytes. Raises `CbirError`,
    with file and line, if the file is not a valid run.
    """
    scores: dict[str, dict[str, float]] = {}
    known: dict[bytes, str] = {}
    for line, (query, _, document, _, score, _) in _rows(path, 6, _RUN_LINE, on_done):
        pair = _word(query, known, path, line), _word(document, known, path, line)
        _add(scores, *pair, _score(score, path, line), path, line)
    return {query: _ranked(of) for query, of in scores.items()}


def read_qrels(
    path: Path, on_done: OnDone = lambda _done, _total: None
) -> dict[str, dict[str, int]]:
    """Query id -> document id -> relevance.

    `on_done` is a progress callback in bytes. Raises `CbirError`, with file and line, if the file
    is not a valid qrels file.
    """
    qrels: dict[str, dict[str, int]] = {}
    known: dict[bytes, str] = {}
    for line, (query, _, document, relevance) in _rows(path, 4, _QRELS_LINE, on_done):
        pair = _word(query, known, path, line), _word(document, known, path, line)
        _add(qrels, *pair, _relevance(relevance, path, line), path, line)
    return qrels


def _run_texts(
    rankings: Iterable[tuple[str, Sequence[str], NDArray[np.float32]]], tag: str
) -> Iterator[str]:
    """The lines of each query as one string."""
    written: set[str] = set()
    for query, documents, scores in rankings:
        _check_new(query, written, "query", "the run")
        if len(documents) != len(scores):
            raise CbirError(f"query {query}: {len(documents)} documents, {len(scores)} scores")
        ranked: set[str] = set()
        for document in documents:
            _check_new(document, ranked, "document", f"query {query}")
        lowered = _strictly_falling(np.asarray(scores), query).astype(str).tolist()
        scored = enumerate(zip(documents, lowered, strict=True), start=1)
        yield "".join(
            [f"{query} Q0 {document} {rank} {score} {tag}\n" for rank, (document, score) in scored]
        )


def _qrels_texts(rows: Iterable[tuple[str, str, int]]) -> Iterator[str]:
    """Like `_run_texts`. Checks each document id once, as many queries share it."""
    written: set[str] = set()
    known: set[str] = set()
    for query, of_query in groupby(rows, key=itemgetter(0)):
        _check_new(query, written, "query", "the qrels")
        judged = [(document, relevance) for _, document, relevance in of_query]
        documents = {document for document, _ in judged}
        if len(documents) < len(judged) or not documents <= known:
            seen: set[str] = set()
            for document, _ in judged:
                _check_new(document, seen, "document", f"query {query}")
            known |= documents
        start = f"{query} 0 "
        yield "".join([f"{start}{document} {relevance}\n" for document, relevance in judged])


def _strictly_falling(scores: NDArray[np.float32], query: str) -> NDArray[np.float32]:
    """`scores` with each tie lowered to the next float32.

    Interpreted as integers, float32 numbers of one sign are ordered and neighbours differ by one,
    so lowering is a running minimum of integers.
    """
    if scores.dtype != np.float32 or not np.isfinite(scores).all():
        raise CbirError(f"query {query}: scores must be finite float32 numbers")
    if (scores[1:] > scores[:-1]).any():
        raise CbirError(f"query {query}: scores increase; rankings must be best first")
    bits = scores.view(np.int32).astype(np.int64)
    steps = np.where(bits >= 0, bits, -(bits & 0x7FFFFFFF))
    places = np.arange(len(scores))
    steps = np.minimum.accumulate(steps + places) - places
    bits = np.where(steps >= 0, steps, -steps | 0x80000000)
    lowered: NDArray[np.float32] = bits.astype(np.uint32).view(np.float32)
    if not np.isfinite(lowered).all():
        raise CbirError(f"query {query}: scores are too low to be told apart")
    return lowered


def _check_word(word: str, what: str) -> None:
    if _NOT_IN_A_WORD.search(word):
        raise CbirError(f"{what} {word!r} is not valid in a TREC file", _WORD)


def _check_new(word: str, written: set[str], what: str, where: str) -> None:
    _check_word(word, what)
    if word in written:
        raise CbirError(f"{what} {word} appears twice in {where}")
    written.add(word)


def _write(target: Path | TextIO, texts: Iterator[str]) -> int:
    if not isinstance(target, Path):
        return _copy(texts, target)
    check_target(target)
    with ExitStack() as draft:
        with _naming(target):
            part = draft.enter_context(replacing(target))
        count = _fill(part, texts, target)
        with _naming(target):
            draft.close()
    return count


def _fill(file: Path, texts: Iterator[str], target: Path) -> int:
    with _naming(target):
        stream = _create(file)
    try:
        count = _copy(texts, stream, target)
    except BaseException:
        with suppress(OSError):
            stream.close()
        raise
    with _naming(target):
        stream.close()
    return count


def _create(file: Path) -> TextIO:
    if file.suffix != ".gz":
        return file.open("w", encoding="utf-8", newline="\n")
    # No timestamp in the header: the same rankings give the same bytes.
    compressed = cast(BinaryIO, gzip.GzipFile(file, "wb", compresslevel=6, mtime=0))
    return io.TextIOWrapper(compressed, encoding="utf-8", newline="\n")


def _copy(texts: Iterator[str], stream: TextIO, target: Path | None = None) -> int:
    count = 0
    for text in texts:
        with _naming(target):
            stream.write(text)
        count += text.count("\n")
    if not count:
        raise CbirError(f"there is nothing to write to {target or 'the stream'}")
    return count


@contextmanager
def _naming(target: Path | None) -> Iterator[None]:
    """Report a file that cannot be written; errors of a stream are left to its owner."""
    try:
        yield
    except OSError as error:
        if target is None:
            raise
        raise CbirError(
            f"cannot write {target}: {error.strerror or error}",
            write_hint(error, "choose another place"),
        ) from error


def _error(code: int) -> OSError:
    return OSError(code, os.strerror(code))


def _rows(path: Path, width: int, form: str, on_done: OnDone) -> Iterator[tuple[int, list[bytes]]]:
    """The line number and fields of every non-blank line."""
    line = 0
    try:
        require_regular(path)
        with path.open("rb") as raw:
            size = os.fstat(raw.fileno()).st_size
            on_done(0, size)
            compressed = raw.peek(2)[:2] == b"\x1f\x8b"
            stream = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if compressed else raw
            empty = True
            for line, text in enumerate(_without_mark(stream), start=1):
                if line % _LINES_A_TELL == 0:
                    on_done(raw.tell(), size)
                fields = text.split()  # bytes.split uses ASCII white space only, like trec_eval
                if len(fields) not in (0, width):
                    found = f"{width} fields expected, found {len(fields)}"
                    raise CbirError(f"{path}:{line}: {found}", form)
                if fields:
                    empty = False
                    yield line, fields
            on_done(size, size)
    except OSError as error:
        raise CbirError(f"cannot read {path}: {error.strerror or error}") from error
    except (EOFError, zlib.error) as error:
        raise CbirError(f"{path}:{line}: the compressed file is damaged: {error}") from error
    if empty:
        raise CbirError(f"{path} is empty", form)


def _without_mark(lines: BinaryIO) -> Iterator[bytes]:
    """The lines, without the byte order mark that some Windows programs write."""
    first = next(lines, b"").removeprefix(codecs.BOM_UTF8)
    return chain([first], lines)


def _word(raw: bytes, known: dict[bytes, str], path: Path, line: int) -> str:
    """`raw` as interned text, because qrels files repeat document ids."""
    word = known.get(raw)
    if word is None:
        try:
            word = raw.decode()
        except UnicodeDecodeError as error:
            raise CbirError(f"{path}:{line}: {raw!r} is not UTF-8") from error
        _check_word(word, f"{path}:{line}: id")
        known[raw] = word
    return word


def _add(
    rows: dict[str, dict[str, _Value]],
    query: str,
    document: str,
    value: _Value,
    path: Path,
    line: int,
) -> None:
    of_query = rows.setdefault(query, {})
    if document in of_query:
        raise CbirError(f"{path}:{line}: document {document} appears twice for query {query}")
    of_query[document] = value


def _score(raw: bytes, path: Path, line: int) -> float:
    try:
        score = float(raw)
    except ValueError:
        score = float("nan")
    if not abs(score) <= _FLOAT32_MAX or b"_" in raw:  # also true for NaN
        raise CbirError(f"{path}:{line}: score {_shown(raw)} is not a finite float32 number")
    return score


def _relevance(raw: bytes, path: Path, line: int) -> int:
    if not re.fullmatch(rb"[+-]?\d{1,9}", raw) or abs(int(raw)) > MAX_RELEVANCE:
        raise CbirError(
            f"{path}:{line}: relevance {_shown(raw)} is not an integer "
            f"from -{MAX_RELEVANCE} to {MAX_RELEVANCE}"
        )
    return int(raw)


def _shown(raw: bytes) -> str:
    return repr(raw.decode(errors="replace"))


def _ranked(scores: dict[str, float]) -> list[tuple[str, float]]:
    rounded = np.array(list(scores.values())).astype(np.float32).tolist()
    return sorted(
        zip(scores, rounded, strict=True), key=lambda pair: (pair[1], pair[0]), reverse=True
    )
