"""Runs the usual benchmarks, or those named: `python -m benchmarks [quality indexing ...]`."""

from __future__ import annotations

import sys

from benchmarks import (
    bovw,
    copies,
    elasticsearch,
    indexing,
    leaderboard,
    memory,
    near_duplicates,
    photos,
    qrels,
    quality,
    queries,
    startup,
    words,
)
from benchmarks.setting import print_setting

USUAL = {
    "startup": startup.main,
    "indexing": indexing.main,
    "quality": quality.main,
    "photos": photos.main,
    "queries": queries.main,
    "memory": memory.main,
}
ALL = {
    **USUAL,
    "bovw": bovw.main,  # takes half an hour
    "copies": copies.main,  # takes minutes, and needs photos
    "elasticsearch": elasticsearch.main,  # takes long, and needs Java and Maven
    "near_duplicates": near_duplicates.main,  # needs photos
    "qrels": qrels.main,  # writes a file of 50 million lines
    "leaderboard": leaderboard.main,  # takes long; writes docs/leaderboard.md
    "words": words.main,  # needs Java and Maven
}


def main() -> None:
    """Print where it runs, then each benchmark's figures."""
    names = sys.argv[1:] or list(USUAL)
    print_setting()
    for name in names:
        print(f"\n## {name}", flush=True)
        ALL[name]()


if __name__ == "__main__":
    main()
