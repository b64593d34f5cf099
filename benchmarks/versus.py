"""Compares this checkout with another: processor time of the same tasks, interleaved runs.

    python -m benchmarks.versus ../other-checkout [--runs 5]

Prints, for each task, the median of user plus system time (seconds) of both and their ratio. The
runs alternate, so that a busy machine slows both alike. Needs CIFAR-10.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.setting import print_setting, test_files

HERE = Path(__file__).parents[1]
QUERIES = 500
INDEXING = "index 50,000 files"
CBIR = (sys.executable, "-m", "cbir")
OWN = "INDEX"  # stands for the index of the checkout

SEARCHES = """
import sys, cbir
from pathlib import Path
searcher = cbir.Searcher.open(sys.argv[1])
for file in sorted(Path(sys.argv[2]).iterdir()):
    searcher.search(file.read_bytes())
"""
POSTS = """
import io, sys, cbir
from pathlib import Path
from cbir.web.app import create_app
client = create_app(cbir.Searcher.open(sys.argv[1])).test_client()
for file in sorted(Path(sys.argv[2]).iterdir()):
    data = {"image": (io.BytesIO(file.read_bytes()), file.name)}
    answer = client.post("/search", data=data, headers={"Accept": "application/json"})
    assert len(answer.json["hits"]) == 10
"""


def main() -> None:
    """Run every task in both checkouts, alternately, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("other", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    print_setting()
    print(f"\nuser + system seconds, median of n={given.runs} interleaved runs\n")
    print(f"{'task':40}{'other':>8}{'this':>8}{'ratio':>7}")
    with tempfile.TemporaryDirectory() as folder:
        checkouts = {given.other.resolve(): f"{folder}/other", HERE: f"{folder}/this"}
        for name, command in _tasks(Path(folder), checkouts).items():
            spent: Mapping[Path, list[float]] = {checkout: [] for checkout in checkouts}
            for number in range(given.runs):
                for checkout, seconds in spent.items():
                    own = checkouts[checkout] + (f"-{number}" if name == INDEXING else "")
                    done = [own if word == OWN else word for word in command]
                    seconds.append(_processor_seconds(checkout, done))
            other, this = (statistics.median(seconds) for seconds in spent.values())
            print(f"{name:40}{other:8.2f}{this:8.2f}{this / other:7.3f}", flush=True)


def _tasks(folder: Path, checkouts: Mapping[Path, str]) -> dict[str, Sequence[str]]:
    """Commands by task; all but the first search the checkout's own index, which this creates.

    So checkouts may differ in the format of an index.
    """
    files = folder / "queries"
    files.mkdir()
    for number, data in enumerate(test_files(QUERIES)):
        (files / f"{number:03}.jpg").write_bytes(data)
    for checkout, own in checkouts.items():
        _processor_seconds(checkout, [*CBIR, "index", "cifar10:train", "--into", own])
    first = str(files / "000.jpg")
    python = (sys.executable, "-c")
    return {
        INDEXING: (*CBIR, "index", "cifar10:train", "--into", OWN),
        "evaluate 10,000 queries": (*CBIR, "evaluate", "--in", OWN, "--queries", "cifar10:test"),
        f"{QUERIES} queries in process": (*python, SEARCHES, OWN, str(files)),
        f"{QUERIES} x POST /search": (*python, POSTS, OWN, str(files)),
        "cbir search, cold": (*CBIR, "search", first, "--in", OWN),
        "cbir --help": (*CBIR, "--help"),
    }


def _processor_seconds(checkout: Path, command: Sequence[str]) -> float:
    """User plus system time of `command`, run with the code of `checkout`."""
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{checkout}: {' '.join(command)[:80]} failed: {said.decode()[-300:]}")
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
