"""Runs the usual benchmarks, or those named: `python -m benchmarks [quality indexing ...]`."""

from __future__ import annotations

import sys

from benchmarks import bovw, elasticsearch, indexing, memory, quality, queries, startup, words
from benchmarks.setting import print_setting

USUAL = {
    "startup": startup.main,
    "indexing": indexing.main,
    "quality": quality.main,
    "queries": queries.main,
    "memory": memory.main,
}
# These take long; the last two need Java and Maven.
ALL = {**USUAL, "bovw": bovw.main, "elasticsearch": elasticsearch.main, "words": words.main}


def main() -> None:
    """Print where it runs, then each benchmark's figures."""
    names = sys.argv[1:] or list(USUAL)
    print_setting()
    for name in names:
        print(f"\n## {name}", flush=True)
        ALL[name]()


if __name__ == "__main__":
    main()
