"""Starts Ray quietly on this machine alone, or joins a cluster, and leaves nothing behind."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path
from socket import create_connection
from tempfile import TemporaryDirectory
from typing import Any

from cbir.errors import CbirError
from cbir.home import cbir_home
from cbir.machine import usable_cores
from cbir.registry import require_extra

STORE_BYTES = 80 * 2**20
"""Near Ray's minimum: only settings and results pass through its object store."""
CONNECT_SECONDS = 5
LONGEST_FOLDER = 38
"""Bytes in the path of Ray's folder. It appends up to 64 for its sockets, whose paths may have 103
bytes on macOS and 107 on Linux."""

_QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the old output can be silenced
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # Otherwise `uv run` makes Ray copy the current folder.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is a KeyboardInterrupt as anywhere else
    "TUNE_GLOBAL_CHECKPOINT_S": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "1",  # trials start in order
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}
# Without this setting, Ray listens on all addresses on Linux.
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}


@contextmanager
def ray_session(name: str, cpus: int, gpus: float, address: str | None) -> Iterator[None]:
    """Ray in the block: on this machine, or the cluster that `address` (HOST:PORT) belongs to.

    On this machine, Ray listens on 127.0.0.1 only, and keeps its files in a folder of `CBIR_HOME`
    called after `name`, which is removed at the end. Raises `CbirError` if Ray cannot start, or
    no machine has that many `cpus` and `gpus`.
    """
    require_extra("cbir tune", "train", "ray", "torch")
    if address is not None:
        _require_answer(address)
    os.environ.update(_QUIET)
    with ExitStack() as stack:
        given: dict[str, Any] = {"address": address}
        if address is None:
            # The token is for this session; without it, Ray writes one to ~/.ray.
            os.environ.update(_LOOPBACK, RAY_AUTH_TOKEN=secrets.token_hex(32))
            given = {
                "address": "local",
                "include_dashboard": False,
                "num_cpus": usable_cores(),
                "object_store_memory": STORE_BYTES,
                "_temp_dir": str(stack.enter_context(_folder(name))),
            }
        import ray

        stack.callback(ray.shutdown)
        try:
            ray.init(**given, log_to_driver=False, logging_level=logging.CRITICAL + 1)
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            raise CbirError(f"Ray cannot start: {str(error).splitlines()[0]}") from error
        if address is None and not ray.get_runtime_context().gcs_address.startswith("127.0.0.1:"):
            raise CbirError(
                "Ray listens on other addresses than 127.0.0.1",
                "run cbir tune as a command: here, Ray was loaded before",
            )
        _require_resources(ray.nodes(), cpus, gpus)
        yield


@contextmanager
def _folder(name: str) -> Iterator[Path]:
    """A new folder of `CBIR_HOME`; if its path is too long for sockets, by a link to it."""
    folder = cbir_home().resolve() / f"ray-{sha256(name.encode()).hexdigest()[:6]}"
    _remove(folder)  # a killed run leaves it
    folder.mkdir(parents=True)
    try:
        if len(os.fsencode(folder)) <= LONGEST_FOLDER:
            yield folder
            return
        with TemporaryDirectory(prefix="cbir-") as place:
            link = Path(place) / "ray"
            if len(os.fsencode(link)) > LONGEST_FOLDER:
                raise CbirError(
                    f"the path of {folder} is too long for Ray's sockets",
                    f"set CBIR_HOME to a folder with a path of at most {LONGEST_FOLDER - 11} bytes",
                )
            link.symlink_to(folder)
            yield link
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    """Remove `folder`, into which processes that are ending may still write."""
    for _ in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)


def _require_answer(address: str) -> None:
    """Raise `CbirError` if nothing listens at `address`: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        raise CbirError(f"'{address}' is no address of a Ray cluster", "give HOST:PORT")
    try:
        create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise CbirError(
            f"no Ray cluster answers at {address}: {error.strerror or error}",
            "start one with `ray start --head`, and run cbir tune on one of its machines",
        ) from error


def _require_resources(nodes: list[dict[str, Any]], cpus: int, gpus: float) -> None:
    has = [node["Resources"] for node in nodes if node["Alive"]]
    if not any(one.get("CPU", 0) >= cpus and one.get("GPU", 0) >= gpus for one in has):
        most = {what: max(one.get(what, 0) for one in has) for what in ("CPU", "GPU")}
        raise CbirError(
            f"no machine has {cpus} CPUs and {gpus:g} GPUs for a trial",
            f"choose fewer with --cpus and --gpus: there are {most['CPU']:g} and {most['GPU']:g}",
        )
