"""Figures on the terminal: readable at 80 columns, whole lines in a pipe, notes apart."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest

from cbir.measures.significance import ClassMeans, compare_runs
from cbir.report.content import Table, Text
from cbir.report.tables import class_table, comparison_words
from cbir.report.terminal import show


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(*blocks: Text | Table, to: io.StringIO | None = None) -> tuple[str, str]:
    """What comes out on standard output and on standard error."""
    out, err = to or io.StringIO(), io.StringIO()
    show(blocks, out, err)
    return re.sub(r"\x1b\[[\d;]*m", "", out.getvalue()), err.getvalue()


def test_notes_go_to_standard_error_and_tables_stand_apart() -> None:
    table = Table("Figures", ["measure", "a"], [["nAP@10", "0.5000"], ["P@1", "1"]])
    out, err = shown(Text("one"), Text("mind this", note=True), Text("two"), table, table)
    assert err == "mind this\n"
    words = [line.split() for line in out.splitlines()]
    body = [["Figures"], ["measure", "a"], ["nAP@10", "0.5000"], ["P@1", "1"]]
    assert words == [["one"], ["two"], [], *body, [], *body]
    assert out.splitlines()[6].endswith("     1")  # figures end in line


def test_what_looks_like_markup_is_shown_as_it_is() -> None:
    out, err = shown(Text("[bold]x[/bold] :cat:"), Table("[b]", ["[i]", "n"], [["[/u]", "日本"]]))
    assert (out.split(), err) == (
        ["[bold]x[/bold]", ":cat:", "[b]", "[i]", "n", "[/u]", "日本"],
        "",
    )


def test_a_folded_table_shows_its_first_rows_and_says_so() -> None:
    classes = {f"class {number:02}": ClassMeans(1, {"P@1": number / 100}) for number in range(30)}
    lines = shown(class_table("Class by class", classes, folded=True))[0].splitlines()
    assert len(lines) == 1 + 1 + 20 + 1 and lines[-1] == "20 of 30 rows; --json has all"
    assert len(shown(class_table("", dict(list(classes.items())[:20]), True))[0].splitlines()) == 22


@pytest.mark.parametrize("runs", [2, 3])
def test_comparisons_are_readable_at_80_columns_and_whole_lines_in_a_pipe(
    runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    random = np.random.default_rng(0)
    values = []
    for name in ("classic", "words", "network")[:runs]:
        good = random.random(30) ** (0.3 if name == "words" else 3)
        values.append((f"{name}.cbir", {"nAP@100": good, "P@1": random.random(30)}))
    found = compare_runs(values, ["ant", "bee", "cow"] * 10)
    words = comparison_words(found, ", leave-one-out")
    narrow = shown(*words, to=Terminal())[0]
    sentences = {one.in_words for one in found}
    assert all(len(line) <= 80 for line in narrow.splitlines() if line not in sentences)
    assert any(one.significant for one in found)
    figures = [f"{one.difference:+.4f}" for one in found] + [f"{one.p:.4f}" for one in found]
    assert all(figure in narrow.split() for figure in figures)
    piped = [line.split() for line in shown(*words)[0].splitlines()]
    for one in found:
        low, high = one.interval
        row = [one.measure, f"{one.difference:+.4f}", f"{low:+.4f}", "to", f"{high:+.4f}"]
        row += [f"{one.p:.4f}"] * (runs > 2) + ["*"] * one.significant + [f"{one.p_adjusted:.4f}"]
        assert [*row, str(one.wins), str(one.ties), str(one.losses)] in piped
