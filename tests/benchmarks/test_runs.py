"""Results of long runs are kept, so that an interrupted table goes on."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from benchmarks.runs import ONE_THREAD, Result, Task, keep_result, read_results, results
from cbir.errors import CbirError


def square(task: Task) -> Result:
    """The work of the tests; leaves a file for each call."""
    Path(task["folder"], f"{task['number']}-{os.getpid()}").touch()
    if task["number"] < 0:
        raise ValueError("negative")
    return {"square": task["number"] ** 2, "threads": os.environ["OMP_NUM_THREADS"]}


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ONE_THREAD:
        monkeypatch.setenv(name, "2")


def calls(folder: Path) -> list[int]:
    return sorted(int(path.name.rpartition("-")[0]) for path in folder.iterdir())


def test_finished_runs_are_not_repeated(tmp_path: Path) -> None:
    called, out = tmp_path / "called", tmp_path / "new" / "out"
    called.mkdir()
    tasks = [{"number": number, "folder": str(called)} for number in (3, -1, 2)]
    with pytest.raises(ValueError, match="negative"):
        results(tasks, out, square, 1)
    first = read_results(out / "runs.jsonl")
    assert [result["square"] for result in first.values()] == [9]

    found = results([tasks[2], tasks[0], tasks[2]], out, square, 2)
    assert [result["square"] for result in found] == [4, 9, 4]
    assert calls(called).count(3) == 1
    assert found[1] == next(iter(first.values()))
    assert found[0]["threads"] == "1"
    assert found[0]["seconds"] >= 0 and found[0]["processor"]


def test_other_settings_are_another_run(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    keep_result(file, {"a": 1, "b": [1, 2]}, {"value": 1})
    keep_result(file, {"b": [1, 2], "a": 2}, {"value": 2})
    keep_result(file, {"b": [1, 2], "a": 1}, {"value": 3})  # the first again
    known = read_results(file)
    assert [result["value"] for result in known.values()] == [3, 2]


def test_a_line_cut_short_is_left_out(tmp_path: Path) -> None:
    """As of a run that was killed while it wrote; the next line is not appended to it."""
    file = tmp_path / "runs.jsonl"
    keep_result(file, {"a": 1}, {"value": 1})
    whole = file.read_bytes()
    for size in range(1, len(whole)):
        file.write_bytes(whole + whole[:-size])
        assert len(read_results(file)) == 1
        keep_result(file, {"a": 2}, {"value": 2})
        assert [result["value"] for result in read_results(file).values()] == [1, 2]


@pytest.mark.parametrize("line", ["{", "[]", json.dumps({"task": {}})])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "runs.jsonl"
    keep_result(file, {"a": 1}, {"value": 1})
    with file.open("a") as opened:
        opened.write(f"{line}\n")
    with pytest.raises(CbirError, match=r"line 2 of .*runs\.jsonl"):
        read_results(file)


def test_no_file_means_no_results(tmp_path: Path) -> None:
    assert read_results(tmp_path / "runs.jsonl") == {}
