"""Runs the usual benchmarks, or those named: `python -m benchmarks [quality indexing ...]`."""

from __future__ import annotations

import sys
from importlib import import_module

from benchmarks.setting import print_setting

USUAL = ("startup", "indexing", "quality", "photos", "queries", "memory")
ALL = (
    *USUAL,
    "bovw",  # takes half an hour
    "copies",  # takes minutes, and needs photos
    "inference",
    "elasticsearch",  # slow, and needs Java and Maven
    "near_duplicates",  # needs photos
    "parity",  # needs the dependency group `reference`
    "photo_choices",  # needs photos
    "qrels",  # writes a file of 50 million lines
    "leaderboard",  # slow; writes docs/leaderboard.md
    "words",  # needs Java and Maven
)


def main() -> None:
    """Print the setting, then the figures of each benchmark."""
    names = sys.argv[1:] or USUAL
    if unknown := set(names).difference(ALL):
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(ALL)}")
    print_setting()
    for name in names:
        print(f"\n## {name}", flush=True)
        import_module(f"benchmarks.{name}").main()


if __name__ == "__main__":
    main()
