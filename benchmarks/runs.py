"""Tables of many long runs: each result is kept as a line of JSON, so an interrupted table goes on.

A task is a dictionary of JSON values that says all about a run, and a result is another.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

from benchmarks.setting import kept
from cbir.errors import CbirError
from cbir.machine import processor
from cbir.wording import counted

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

Task = Mapping[str, Any]
Result = dict[str, Any]
Work = Callable[[Task], Result]


def options(name: str) -> argparse.ArgumentParser:
    """A parser of the options of the benchmark `name`: where its results are, and its processes."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks {name}")
    place = kept("benchmarks", name)
    parser.add_argument("--out", type=Path, default=Path(place), help="folder of the results")
    parser.add_argument("--jobs", type=int, default=1, help="processes of one thread each")
    return parser


def results(tasks: Sequence[Task], out: Path, work: Work, jobs: int) -> list[Result]:
    """The result of each task: kept in `out`/runs.jsonl from before, or of a run by `work` now.

    `work` is a function of a module; it is called in `jobs` processes with one thread each. To its
    result come the `seconds` of processor time and the `processor`.
    """
    out.mkdir(parents=True, exist_ok=True)
    file = out / "runs.jsonl"
    known = read_results(file)
    missing = {_key(task): task for task in tasks if _key(task) not in known}
    started = time.perf_counter()
    for done, (key, result) in enumerate(_run(missing, work, jobs), 1):
        keep_result(file, missing[key], result)
        known[key] = result
        left = (time.perf_counter() - started) / done * (len(missing) - done)
        print(
            f"{done} of {counted(len(missing), 'run')}, {left / 60:.0f} min left: {key}",
            file=sys.stderr,
            flush=True,
        )
    return [known[_key(task)] for task in tasks]


def read_results(file: Path) -> dict[str, Result]:
    """The results in `file` by the JSON of their tasks; none if there is no file.

    An incomplete last line, as of a run that was killed, is removed. Raises `CbirError` if another
    line cannot be read.
    """
    if not file.exists():
        return {}
    data = file.read_bytes()
    complete = data[: data.rfind(b"\n") + 1]
    if complete != data:
        os.truncate(file, len(complete))
    known = {}
    for number, line in enumerate(complete.splitlines(), 1):
        try:
            kept_line = json.loads(line)
            known[_key(kept_line["task"])] = kept_line["result"]
        except (ValueError, KeyError, TypeError) as error:
            raise CbirError(
                f"line {number} of {file} is no result", "remove the line; its run is repeated"
            ) from error
    return known


def keep_result(file: Path, task: Task, result: Result) -> None:
    """Add a line to `file`."""
    with file.open("a", encoding="utf-8") as opened:
        opened.write(json.dumps({"task": task, "result": result}) + "\n")
        opened.flush()
        os.fsync(opened.fileno())


def spent(found: Sequence[Result]) -> str:
    """The runs in words: how many, their hours of processor time, and the processors."""
    hours = sum(result["seconds"] for result in found) / 3600
    names = " and ".join(sorted({result["processor"] for result in found}))
    return f"{counted(len(found), 'run')}, {hours:.2f} hours of one core ({names})"


def _run(tasks: Mapping[str, Task], work: Work, jobs: int) -> Iterator[tuple[str, Result]]:
    if not tasks:
        return
    os.environ.update(ONE_THREAD)  # the libraries read it when a process loads them
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), _end_with_parent)
    try:
        futures = {pool.submit(_timed, work, task): key for key, task in tasks.items()}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Let this process end with the one that started it, even if that is killed."""
    parent = parent_process()
    assert parent is not None

    def end() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()


def _timed(work: Work, task: Task) -> Result:
    started = time.process_time()
    result = work(task)
    return {**result, "seconds": time.process_time() - started, "processor": processor()}


def _key(task: Task) -> str:
    return json.dumps(task, sort_keys=True)
