"""Run and qrels files: trec_eval ranks what is written as it was given; what is read is checked."""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cbir.errors import CbirError
from cbir.measures.trec import check_target, read_qrels, read_run, write_qrels, write_run

Ranking = tuple[str, list[str], NDArray[np.float32]]

words = st.text(
    st.characters(exclude_categories=["Cc", "Cs", "Z"], exclude_characters="\u180e"), min_size=1
)
tied_scores = st.sampled_from([1.0, 0.5, 1e-45, 0.0, -0.0, -1e-45, -1e-38, -0.25, -3e38])
any_scores = st.floats(min_value=-(2.0**127), max_value=2.0**127, width=32)


def trec_eval_order(run: dict[str, dict[str, float]], query: str) -> list[str]:
    """The documents in the order trec_eval ranks them: each one's rank is 1 / its recip_rank."""
    import pytrec_eval

    ranks = {}
    for document in run[query]:
        evaluator = pytrec_eval.RelevanceEvaluator({query: {document: 1}}, {"recip_rank"})
        ranks[document] = round(1 / evaluator.evaluate(run)[query]["recip_rank"])
    return sorted(ranks, key=ranks.__getitem__)


def ranking(scores: dict[str, float], query: str = "q") -> Ranking:
    """A ranking in our own order: score descending, then id ascending by bytes."""
    rounded = {document: np.float32(score) for document, score in scores.items()}
    order = sorted(rounded, key=lambda document: (-rounded[document], document.encode()))
    return query, order, np.array([rounded[document] for document in order], dtype=np.float32)


@settings(deadline=None)
@given(st.dictionaries(words, tied_scores | any_scores, min_size=1, max_size=12))
def test_trec_eval_ranks_a_written_run_as_it_was_given(scores: dict[str, float]) -> None:
    import pytrec_eval

    query, documents, values = ranking(scores)
    stream = io.StringIO(newline="")
    assert write_run(stream, [(query, documents, values)], "cbir") == len(documents)
    run = pytrec_eval.parse_run(stream.getvalue().splitlines(keepends=True))
    assert trec_eval_order(run, query) == documents
    written = np.array([run[query][document] for document in documents]).astype(np.float32)
    assert (written[1:] < written[:-1]).all()


@settings(deadline=None)
@given(st.dictionaries(words, any_scores, min_size=1, max_size=12))
def test_scores_that_differ_are_written_to_the_last_bit(scores: dict[str, float]) -> None:
    query, documents, values = ranking(scores)
    stream = io.StringIO(newline="")
    write_run(stream, [(query, documents, values)], "cbir")
    written = np.array([line.split()[4] for line in stream.getvalue().split("\n")[:-1]])
    distinct = np.concatenate([[True], values[1:] < values[:-1]])
    first_tie = len(values) if distinct.all() else int(np.argmin(distinct))
    assert np.array_equal(written.astype(np.float32)[:first_tie], values[:first_tie])


@settings(deadline=None)
@given(
    st.dictionaries(
        words,
        st.sampled_from([1.0, 1.00000001, 1.0000001, 0.99999999, 0.5, -1.0])
        | st.floats(min_value=-1e30, max_value=1e30),
        min_size=1,
        max_size=12,
    )
)
def test_a_run_is_read_in_the_order_of_trec_eval(
    tmp_path_factory: pytest.TempPathFactory, scores: dict[str, float]
) -> None:
    path = tmp_path_factory.mktemp("runs") / "a.run"
    lines = [f"q Q0 {document} 1 {score!r} other\n" for document, score in scores.items()]
    path.write_bytes("".join(lines).encode())
    read = read_run(path)["q"]
    assert [document for document, _ in read] == trec_eval_order({"q": scores}, "q")
    assert all(score == float(np.float32(scores[document])) for document, score in read)


def test_a_run_file_holds_ranks_from_one_and_the_tag() -> None:
    stream = io.StringIO()
    rankings = [ranking({"b": 0.5, "a": 0.5}), ranking({"c": -1.0}, "p"), ranking({}, "none")]
    assert write_run(stream, rankings, "cifar10-cnn") == 3
    assert stream.getvalue() == (
        "q Q0 a 1 0.5 cifar10-cnn\nq Q0 b 2 0.49999997 cifar10-cnn\np Q0 c 1 -1.0 cifar10-cnn\n"
    )


@pytest.mark.parametrize("name", ["a.run", "a.run.gz"])
def test_a_run_file_reads_back(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    rankings = [ranking({"x/1": 0.25, "x/ü": 0.25, "x/2": 0.5}, "q/1"), ranking({"x/1": 0.0}, "q2")]
    assert write_run(path, rankings, "tag") == 4
    read = read_run(path)
    assert {query: [document for document, _ in read[query]] for query in read} == {
        query: documents for query, documents, _ in rankings
    }
    assert (path.read_bytes()[:2] == b"\x1f\x8b") == name.endswith(".gz")
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a.qrels", "a.qrels.gz"])
def test_a_qrels_file_reads_back(tmp_path: Path, name: str) -> None:
    rows = [("q1", "d1", 1), ("q1", "d2", 0), ("q2", "d1", -1), ("q2", "d3", 3)]
    assert write_qrels(tmp_path / name, iter(rows)) == 4
    assert read_qrels(tmp_path / name) == {"q1": {"d1": 1, "d2": 0}, "q2": {"d1": -1, "d3": 3}}


def test_the_same_rows_make_the_same_compressed_bytes(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write_qrels(tmp_path / folder / "a.gz", [("q", "d", 1)])
    assert (tmp_path / "one" / "a.gz").read_bytes() == (tmp_path / "two" / "a.gz").read_bytes()


def test_gzip_is_known_by_its_bytes_not_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.run").write_bytes(gzip.compress(b"q Q0 d 1 0.5 t\n"))
    assert read_run(tmp_path / "a.run") == {"q": [("d", 0.5)]}


def test_blank_lines_tabs_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.qrels").write_bytes(b"\nq\t0  d1 1\r\n\r\nq 0 d2 +2\n")
    assert read_qrels(tmp_path / "a.qrels") == {"q": {"d1": 1, "d2": 2}}


def test_a_failed_run_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.run"
    path.write_text("old")

    def rankings() -> Iterator[Ranking]:
        yield ranking({f"d{number}": 1.0 for number in range(20_000)})
        raise RuntimeError("the engine broke")

    with pytest.raises(RuntimeError, match="the engine broke"):
        write_run(path, rankings(), "tag")
    assert [file.name for file in tmp_path.iterdir()] == ["a.run"]
    assert path.read_text() == "old"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full to write to")
def test_a_full_disk_is_one_line_that_names_the_file() -> None:
    with pytest.raises(CbirError, match="cannot write /dev/full: No space left on device"):
        write_run(Path("/dev/full"), [ranking({"d": 1.0})], "tag")
    assert Path("/dev/full").is_char_device()


def test_a_missing_folder_is_one_line_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(CbirError, match=r"cannot write .*no/a\.run: No such file"):
        write_run(tmp_path / "no" / "a.run", [ranking({"d": 1.0})], "tag")


def test_a_target_that_cannot_be_written_is_told_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    for target, why in (
        (tmp_path, "Is a directory"),
        (tmp_path / "no" / "a.run", "No such file or directory"),
        (tmp_path / "file" / "a.run", "Not a directory"),
        (tmp_path / ("x" * 300), "File name too long"),
    ):
        with pytest.raises(CbirError) as checked:
            check_target(target)
        assert checked.value.message == f"cannot write {target}: {why}"
        with pytest.raises(CbirError) as written:
            write_qrels(target, [("q", "d", 1)])
        assert (written.value.message, written.value.hint) == (
            checked.value.message,
            checked.value.hint,
        )
    check_target(tmp_path / "new.run")
    check_target(tmp_path / "file")
    check_target(Path(os.devnull))
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


@pytest.mark.parametrize("word", ["", "a b", "a\tb", "a\u00a0b", "a\n", "a\x00", "a\udc80"])
def test_an_id_that_trec_files_cannot_hold_is_named(word: str) -> None:
    one = np.ones(1, dtype=np.float32)
    for rankings in ([(word, ["d"], one)], [("q", [word], one)]):
        with pytest.raises(CbirError) as error:
            write_run(io.StringIO(), rankings, "tag")
        assert repr(word) in str(error.value)
    with pytest.raises(CbirError, match="tag"):
        write_run(io.StringIO(), [("q", ["d"], one)], word)
    for row in ((word, "d", 1), ("q", word, 1)):
        with pytest.raises(CbirError, match="is not valid in a TREC file"):
            write_qrels(io.StringIO(), [row])


def test_what_is_no_ranking_is_refused() -> None:
    def write(documents: list[str], scores: list[float], dtype: type = np.float32) -> None:
        write_run(io.StringIO(), [("q7", documents, np.array(scores, dtype=dtype))], "tag")

    with pytest.raises(CbirError, match="q7: scores increase"):
        write(["a", "b"], [0.1, 0.2])
    with pytest.raises(CbirError, match="q7: scores must be finite float32"):
        write(["a", "b"], [0.1, float("nan")])
    with pytest.raises(CbirError, match="q7: scores must be finite float32"):
        write(["a", "b"], [0.2, 0.1], np.float64)
    with pytest.raises(CbirError, match="q7: scores are too low"):
        write(["a", "b"], [float(np.finfo(np.float32).min)] * 2)
    with pytest.raises(CbirError, match="q7: 2 documents, 1 scores"):
        write(["a", "b"], [0.1])
    with pytest.raises(CbirError, match="document a appears twice in query q7"):
        write(["a", "a"], [0.2, 0.1])
    with pytest.raises(CbirError, match="query q appears twice"):
        write_run(io.StringIO(), [ranking({"a": 1.0}), ranking({"b": 1.0})], "tag")


def test_rows_that_make_no_qrels_are_refused() -> None:
    with pytest.raises(CbirError, match="document d appears twice in query q"):
        write_qrels(io.StringIO(), [("q", "d", 1), ("q", "d", 0)])
    with pytest.raises(CbirError, match="query q appears twice"):
        write_qrels(io.StringIO(), [("q", "d", 1), ("p", "d", 1), ("q", "e", 1)])


def test_nothing_to_write_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(CbirError, match=r"nothing to write to .*a\.qrels"):
        write_qrels(tmp_path / "a.qrels", [])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_byte_order_mark_is_no_part_of_the_first_query(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    (tmp_path / "a.run").write_bytes(pack(b"\xef\xbb\xbfq Q0 d 1 0.5 t\nq Q0 e 2 0.25 t\n"))
    (tmp_path / "a.qrels").write_bytes(pack(b"\xef\xbb\xbfq 0 d 1\n"))
    assert read_run(tmp_path / "a.run") == {"q": [("d", 0.5), ("e", 0.25)]}
    assert read_qrels(tmp_path / "a.qrels") == {"q": {"d": 1}}
    (tmp_path / "empty").write_bytes(pack(b"\xef\xbb\xbf"))
    with pytest.raises(CbirError, match="empty is empty"):
        read_run(tmp_path / "empty")


@pytest.mark.parametrize("word", ["q\x00", "q\x1b[31m", "q\x7f", "q\u00a0r", "q\x1fr"])
def test_an_id_that_is_not_written_is_not_read_either(tmp_path: Path, word: str) -> None:
    for read, lines in (
        (read_run, (f"{word} Q0 d 1 0.5 t", f"p Q0 {word} 1 0.5 t")),
        (read_qrels, (f"{word} 0 d 1", f"p 0 {word} 1")),
    ):
        for line in lines:
            (tmp_path / "a").write_text(f"\n{line}\n")
            with pytest.raises(CbirError) as error:
                read(tmp_path / "a")
            said = f"{tmp_path / 'a'}:2: id {word!r} is not valid in a TREC file"
            assert error.value.message == said


def test_readers_tell_how_many_bytes_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cbir.measures.trec._LINES_A_TELL", 10)
    write_qrels(tmp_path / "a", [("q", f"d{number}", 1) for number in range(5000)])
    write_qrels(tmp_path / "a.gz", [("q", f"d{number}", 1) for number in range(5000)])
    for name in ("a", "a.gz"):
        told: list[tuple[int, int | None]] = []
        read_qrels(tmp_path / name, lambda done, total, told=told: told.append((done, total)))
        size = (tmp_path / name).stat().st_size
        assert told[0] == (0, size) and told[-1] == (size, size)
        assert told == sorted(told) and len({done for done, _ in told}) > 2


RUN_ERRORS = [
    ("q Q0 d 1 0.5", ":2: 6 fields expected, found 5"),
    ("q Q0 d 1 0.5 t t", ":2: 6 fields expected, found 7"),
    ("q Q0 d 1 high t", ":2: score 'high' is not a finite float32 number"),
    ("q Q0 d 1 nan t", ":2: score 'nan' is not a finite float32 number"),
    ("q Q0 d 1 -inf t", ":2: score '-inf' is not a finite float32 number"),
    ("q Q0 d 1 1e39 t", ":2: score '1e39' is not a finite float32 number"),
    ("q Q0 d 1 1_0 t", ":2: score '1_0' is not a finite float32 number"),
    ("p Q0 d 1 0.5 t", ":2: document d appears twice for query p"),
    ("q Q0 d\xff 1 0.5 t", ":2: b'd\\xff' is not UTF-8"),
]


@pytest.mark.parametrize(("line", "message"), RUN_ERRORS)
def test_a_bad_line_of_a_run_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "a.run"
    path.write_bytes(f"p Q0 d 1 0.5 t\n{line}\np Q0 e 1 0.5 t\n".encode("latin-1"))
    with pytest.raises(CbirError) as error:
        read_run(path)
    assert error.value.message == f"{path}{message}"


QRELS_ERRORS = [
    ("q 0 d", ":2: 4 fields expected, found 3"),
    ("q 0 d 1.5", ":2: relevance '1.5' is not an integer from -1000 to 1000"),
    ("q 0 d yes", ":2: relevance 'yes' is not an integer from -1000 to 1000"),
    ("q 0 d 99999999999", ":2: relevance '99999999999' is not an integer from -1000 to 1000"),
    ("q 0 d 1001", ":2: relevance '1001' is not an integer from -1000 to 1000"),
    ("p 0 d 0", ":2: document d appears twice for query p"),
]


@pytest.mark.parametrize(("line", "message"), QRELS_ERRORS)
def test_a_bad_line_of_qrels_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "a.qrels"
    path.write_text(f"p 0 d 1\n{line}\n")
    with pytest.raises(CbirError) as error:
        read_qrels(path)
    assert error.value.message == f"{path}{message}"


def test_a_file_without_a_line_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"\n \n", gzip.compress(b"")):
        (tmp_path / "a").write_bytes(content)
        for read in (read_run, read_qrels):
            with pytest.raises(CbirError, match="a is empty"):
                read(tmp_path / "a")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for read in (read_run, read_qrels):
        with pytest.raises(CbirError, match=r"cannot read .*none: No such file"):
            read(tmp_path / "none")
        with pytest.raises(CbirError, match="cannot read"):
            read(tmp_path)


def test_a_truncated_compressed_file_is_refused(tmp_path: Path) -> None:
    lines = b"".join(b"q 0 d%d 1\n" % number for number in range(1000))
    (tmp_path / "a.gz").write_bytes(gzip.compress(lines)[:-20])
    with pytest.raises(CbirError, match=r"a\.gz:\d+: the compressed file is damaged"):
        read_qrels(tmp_path / "a.gz")
    (tmp_path / "b.gz").write_bytes(gzip.compress(lines)[:60] + b"\xff" * 60)
    with pytest.raises(CbirError, match=r"b\.gz"):
        read_qrels(tmp_path / "b.gz")
