"""How to reproduce the figures: command, versions, fingerprints, machine."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from cbir.files import sha256_of
from cbir.index.base import Index
from cbir.machine import processor, usable_cores
from cbir.report.content import Block, Code, Section, Table
from cbir.types import Vectors

_PACKAGES = (
    *("numpy", "pillow", "opencv-python-headless", "onnxruntime", "faiss-cpu"),
    *("ir-measures", "pytrec-eval-terrier", "matplotlib"),
)


def reproduce(command: str, facts: list[tuple[str, str]]) -> Section:
    """The command line (unless empty), `facts` about the evaluation, versions, machine."""
    versions = [(name, _version(name)) for name in _PACKAGES]
    rows = [
        *facts,
        ("made", datetime.now().astimezone().isoformat(" ", "seconds")),
        ("machine", f"{processor()}, {usable_cores()} cores used, {platform.system()}"),
        ("cbir", f"{_version('cbir')}, Python {platform.python_version()}"),
        ("packages", ", ".join(f"{name} {found}" for name, found in versions if found)),
    ]
    blocks: list[Block] = [Code(command)] if command else []
    blocks.append(Table("Data and environment", ["", ""], rows, numbers=False, wide=True))
    return Section("reproduce", "How to reproduce this report", blocks)


def index_facts(index: Index) -> list[tuple[str, str]]:
    """The place, contents and descriptor of the index."""
    spec, labels = index.spec, index.labels()
    ids, matrix = index.matrix()
    fingerprint = contents_fingerprint(ids, [labels[record_id] for record_id in ids], matrix)
    return [
        ("index", f"{index.url} ({index.engine}), {index.count():,} images"),
        *((f"source {name}", uri) for name, uri in index.sources().items()),
        ("contents of the index", f"sha256 {fingerprint} of ids, labels, vectors"),
        ("descriptor", f"{spec.name}, {spec.dim} dimensions"),
        ("fingerprint of the descriptor", spec.fingerprint),
        *([("trained on", spec.trained_on)] if spec.trained_on else []),
        *([("licence of the model", spec.licence)] if spec.licence else []),
    ]


def file_facts(files: Sequence[Path]) -> list[tuple[str, str]]:
    """The name of each file and the sha256 of its bytes."""
    return [(path.name, f"sha256 {sha256_of(path)}") for path in files]


def contents_fingerprint(
    ids: Sequence[str], labels: Sequence[str | None], contents: Sequence[str] | Vectors
) -> str:
    """A sha256 (hex) over ids, labels and contents (hashes of files, or vectors)."""
    digest = hashlib.sha256()
    for record_id, label in zip(ids, labels, strict=True):
        digest.update(f"{record_id}\t{label or ''}\n".encode())
    if isinstance(contents, np.ndarray):
        digest.update(np.ascontiguousarray(contents).tobytes())
    else:
        digest.update("\n".join(contents).encode())
    return digest.hexdigest()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
