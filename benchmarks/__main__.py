"""Runs the usual benchmarks, or those named: `python -m benchmarks [quality indexing ...]`.

Options after a single name are those of its benchmark: `python -m benchmarks copies --help`.
"""

from __future__ import annotations

import sys
from importlib import import_module
from inspect import signature
from itertools import takewhile

from benchmarks.setting import print_setting

USUAL = ("startup", "indexing", "quality", "photos", "queries", "memory")
ALL = (
    *USUAL,
    "bovw",  # takes half an hour
    "copies",  # takes minutes, and needs photos
    "decoding",  # needs photos
    "inference",
    "elasticsearch",  # slow, and needs Java and Maven
    "near_duplicates",  # needs photos
    "parity",  # needs the dependency group `reference`
    "photo_choices",  # needs photos
    "qrels",  # writes a file of 50 million lines
    "leaderboard",  # slow; writes docs/leaderboard.md
    "changed_queries",
    "ensembles",
    "robustness",  # takes half an hour
    "scanning",
    "verification",  # needs photos
    "losses",  # takes hours, and needs the extra `train`, as the next three
    "fusion",
    "backbones",
    "transfer",  # needs photos
    "seed_vgg",  # takes 20 minutes, and needs the extra `train`
    "words",  # needs Java and Maven
)


def main() -> None:
    """Print the setting, then the figures of each benchmark."""
    names = list(takewhile(lambda word: not word.startswith("-"), sys.argv[1:]))
    options = sys.argv[1 + len(names) :]
    if unknown := set(names).difference(ALL):
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(ALL)}")
    if options and len(names) != 1:
        sys.exit("options need the name of one benchmark before them")
    print_setting()
    for name in names or USUAL:
        print(f"\n## {name}", flush=True)
        module = import_module(f"benchmarks.{name}")
        if not options:
            module.main()
        elif "arguments" in signature(module.main).parameters:
            module.main(options)
        else:
            sys.exit(f"{name} has no options here; perhaps python -m benchmarks.{name} has")


if __name__ == "__main__":
    main()
