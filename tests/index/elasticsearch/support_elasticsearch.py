"""A real Elasticsearch for tests: one for all workers of a run, or servers of a test's own."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import pytest
from filelock import FileLock

from cbir.errors import CbirError
from tools.elasticsearch_address import Address
from tools.elasticsearch_server import Server, hold, start_server

_HELD = ExitStack()
_STARTED: list[Server] = []  # others may use them after us: not ours to wait for


def missing(reason: str) -> NoReturn:
    """Skip, or fail under CBIR_TEST_STRICT=1."""
    if os.environ.get("CBIR_TEST_STRICT") == "1":
        pytest.fail(f"{reason} (CBIR_TEST_STRICT=1)", pytrace=False)
    pytest.skip(reason)


def _run_folder(factory: pytest.TempPathFactory) -> Path:
    """The folder that all workers of this test run have in common."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def session_server(factory: pytest.TempPathFactory, **wanted: Any) -> Address:
    """The server that all workers of a test run share; each holds it until it exits.

    One that was let go of may not be joined again: it may be shutting down already.
    """
    return _HELD.enter_context(shared_server(_run_folder(factory), **wanted))


@contextmanager
def own_server(**wanted: Any) -> Iterator[Server]:
    """A server of the caller's own (see `start_server`), whatever CBIR_ELASTICSEARCH_URL says."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(start_server(**wanted))
        except CbirError as error:
            missing(str(error))
        yield server


@contextmanager
def shared_server(folder: Path, **wanted: Any) -> Iterator[Address]:
    """The server that all workers of a test run share, started by the first that asks.

    `folder` is one that they have in common. `wanted` is as for `start_server`;
    what differs in it is another server. It stops when the last of them is done.
    CBIR_ELASTICSEARCH_URL names a running one to use instead (`http://USER:PASSWORD@HOST:PORT`).
    """
    if (named := _named()) and not wanted:
        yield named
        return
    note = folder / f"elasticsearch{'-'.join(['', *sorted(wanted)])}.json"
    with FileLock(f"{note}.lock"):
        held = _joined(note) or _started(note, wanted)
    address, release = held
    try:
        yield address
    finally:
        release()


def _named() -> Address | None:
    url = os.environ.get("CBIR_ELASTICSEARCH_URL")
    if not url:
        return None
    parts = urlsplit(url)
    bare = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    return Address(
        (bare,), parts.username, parts.password, os.environ.get("CBIR_ELASTICSEARCH_CA_FILE")
    )


def _joined(note: Path) -> tuple[Address, Any] | None:
    """Another worker's server, if it is still there."""
    if not note.exists():
        return None
    kept = json.loads(note.read_text())
    if "missing" in kept:  # ask for it once a run, not once a worker
        missing(kept["missing"])
    try:
        lifeline = hold(Path(kept["folder"]))
    except OSError:
        return None
    fields = kept["address"]
    return Address(**{**fields, "urls": tuple(fields["urls"])}), lambda: os.close(lifeline)


def _started(note: Path, wanted: dict[str, Any]) -> tuple[Address, Any]:
    try:
        server = start_server(**{"heap": "512m", **wanted})
    except CbirError as error:
        note.write_text(json.dumps({"missing": str(error)}))
        missing(str(error))
    kept = {"folder": str(server.folder), "address": asdict(server.address)}
    note.write_text(json.dumps(kept))
    note.chmod(0o600)
    _STARTED.append(server)
    return server.address, server.release
