"""Runs every benchmark, or those named: `python -m benchmarks [quality indexing ...]`."""

from __future__ import annotations

import sys

from benchmarks import indexing, memory, quality, queries, startup
from benchmarks.setting import print_setting

ALL = {
    "startup": startup.main,
    "indexing": indexing.main,
    "quality": quality.main,
    "queries": queries.main,
    "memory": memory.main,
}


def main() -> None:
    """Print where it runs, then each benchmark's figures."""
    names = sys.argv[1:] or list(ALL)
    print_setting()
    for name in names:
        print(f"\n## {name}", flush=True)
        ALL[name]()


if __name__ == "__main__":
    main()
