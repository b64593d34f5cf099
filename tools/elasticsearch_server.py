"""A real Elasticsearch on this machine, without a container engine, for tests and the demo.

`python -m tools.elasticsearch_server COMMAND...` runs a command while the server is up, replacing
`{url}` with `elasticsearch://HOST:PORT`; without a command the server runs until Ctrl-C.

A server runs as long as a process holds its lifeline, a named pipe. When the last process releases
it (by `stop`, on exit or after kill -9), the server stops and its folder is deleted. So several
processes can share a server, and none is left running.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cbir.errors import CbirError
from tools.elasticsearch_address import Address
from tools.elasticsearch_config import make_certificates, write_config
from tools.elasticsearch_files import (
    base_folder,
    java_home,
    owned_by,
    server_files,
    unprivileged,
)

HOST = "127.0.0.1"
PORTS = range(20000, 32000)  # below the ports of outgoing connections
PATIENCE_S = 180.0
USER = "cbir"

# Waits for the end of the server or of the lifeline, whichever comes first.
KEEPER = """
exec 3<&0
"$@" >>"$NODE/output" 2>&1 3<&- & server=$!
{ read -r _ <&3; touch "$NODE/over"; kill "$server"; } 2>/dev/null & watcher=$!
wait "$server"; status=$?
kill "$watcher" 2>/dev/null
if [ -e "$NODE/over" ]; then
  rm -f "$NODE/over"
  [ -n "$KEEP" ] || rm -rf "$RUN" 2>/dev/null
fi
exit "$status"
"""


class Server:
    """A running server of one or more nodes; a context manager that stops it."""

    def __init__(self, address: Address, folder: Path, launch: Callable[[int], _Process]) -> None:
        self.address = address
        self.folder = folder
        self._launch = launch
        with _reading_end(folder):
            self._lifeline: int | None = hold(folder)
            self._processes = [launch(node) for node in range(len(address.urls))]

    @property
    def url(self) -> str:
        """The URL of the first node."""
        return self.address.url

    @property
    def urls(self) -> tuple[str, ...]:
        """The URLs of all nodes."""
        return self.address.urls

    def index_url(self, name: str) -> str:
        """The URL of the index `name` for `cbir`, without credentials."""
        return self.address.index_url(name)

    def wait(self) -> None:
        """Wait until all nodes that were not killed answer; raises `CbirError` if one does not."""
        waited_for = [node for node, process in enumerate(self._processes) if not process.killed]
        health = f"/_cluster/health?wait_for_nodes={len(waited_for)}&timeout=5s"
        give_up = time.monotonic() + PATIENCE_S
        while waited_for:
            node = waited_for[0]
            if self._processes[node].poll() is not None:
                raise CbirError(f"Elasticsearch did not start: {self._said(node)}")
            if time.monotonic() > give_up:
                raise CbirError(
                    f"Elasticsearch is not up after {PATIENCE_S:.0f} s: {self._said(node)}"
                )
            try:
                self.address.request("GET", health, node=node)
                waited_for.pop(0)
            except (OSError, http.client.HTTPException):
                time.sleep(0.25)

    def kill(self, node: int) -> None:
        """Kill a node like a power failure (kill -9)."""
        self._processes[node].killed = True
        os.kill(int((self.folder / f"node-{node}" / "pid").read_text()), signal.SIGKILL)
        self._processes[node].wait()

    def restart(self, node: int) -> None:
        """Start a killed node again, with its data and address; returns when it answers."""
        self._processes[node] = self._launch(node)
        self.wait()

    def stop(self) -> None:
        """Stop every node and delete its data, unless the data is to be kept."""
        if self.release():
            for process in self._processes:
                process.end()

    def release(self) -> bool:
        """Release the server, which stops when no process holds it; False if already released."""
        held, self._lifeline = self._lifeline, None
        if held is not None:
            os.close(held)
        return held is not None

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _said(self, node: int) -> str:
        output = self.folder / f"node-{node}" / "output"
        lines = output.read_text(errors="replace").splitlines() if output.exists() else []
        telling = [line for line in lines if "ERROR" in line or "xception" in line] or lines
        return " | ".join(telling[:2] + telling[-1:])[:600]


class _Process(subprocess.Popen[bytes]):
    """The process that starts one node and stops it with its lifeline."""

    killed = False

    def end(self) -> None:
        try:
            self.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.pid, signal.SIGKILL)
            self.wait()


def start_server(
    nodes: int = 1,
    *,
    security: bool = False,
    tls: bool = False,
    fuller: bool = False,
    heap: str = "1g",
    keep: str = "",
    port: int | None = None,
) -> Server:
    """Start Elasticsearch on free ports of this machine and wait until it answers.

    `security`: user and password; `tls`: also HTTPS, with its own certificate authority.
    `fuller`: with scripts. `heap`: per node. `keep`: a name under which data outlives the server.
    `port`: of the first node. Raises `CbirError` with one clear reason if it cannot start.
    """
    if port and not _is_free(port):
        raise CbirError(
            f"port {port} is taken", "stop the process that uses it, or give another --port"
        )
    files = server_files(fuller)
    account = unprivileged()
    folder = _run_folder(keep)
    ports = _free_ports(2 * nodes)
    http_ports = [port or ports[0], *ports[1:nodes]]
    secured = security or tls
    address = Address(
        urls=tuple(f"{'https' if tls else 'http'}://{HOST}:{port}" for port in http_ports),
        user=USER if secured else None,
        password=secrets.token_urlsafe(12) if secured else None,
        ca=str(folder / "ca.pem") if tls else None,
    )
    if tls:
        make_certificates(folder, HOST)
    for node in range(nodes):
        write_config(folder / f"node-{node}", files, node, http_ports, ports[nodes:], address)
    os.mkfifo(folder / "lifeline")
    owned_by(folder, account)

    def launch(node: int) -> _Process:
        own = folder / f"node-{node}"
        (own / "pid").unlink(missing_ok=True)
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "ES_JAVA_HOME": str(java_home()),
            "ES_JAVA_OPTS": f"-Xms{heap} -Xmx{heap}",
            "ES_PATH_CONF": str(own / "config"),
            "ES_TMPDIR": str(own / "tmp"),
            "NODE": str(own),
            "RUN": str(folder),
            "KEEP": keep,
        }
        start = [str(files / "bin" / "elasticsearch"), "-p", str(own / "pid")]
        with _reading_end(folder) as lifeline:
            return _Process(
                ["sh", "-c", KEEPER, "sh", *start],
                stdin=lifeline,
                cwd=own,
                env=environment,
                start_new_session=True,  # no Ctrl-C: the server ends with its lifeline
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=[] if account else None,
            )

    server = Server(address, folder, launch)
    try:
        server.wait()
    except BaseException:
        server.stop()
        raise
    return server


def hold(folder: Path) -> int:
    """Keep the server in `folder` alive until the descriptor is closed; `OSError` if it is gone."""
    return os.open(folder / "lifeline", os.O_WRONLY | os.O_NONBLOCK)


@contextlib.contextmanager
def _reading_end(folder: Path) -> Iterator[int]:
    lifeline = os.open(folder / "lifeline", os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(lifeline, True)
    try:
        yield lifeline
    finally:
        os.close(lifeline)


def _run_folder(keep: str) -> Path:
    """A new folder for this run, or the kept one named `keep`; raises if it is in use."""
    if not keep:
        return Path(tempfile.mkdtemp(prefix="cbir-elasticsearch-"))
    folder = base_folder() / keep
    folder.mkdir(parents=True, exist_ok=True)
    lifeline = folder / "lifeline"
    if lifeline.exists():
        try:
            os.close(hold(folder))
        except OSError:  # no reader: left behind by a power failure
            lifeline.unlink()
        else:
            raise CbirError(f"the server in {folder} is already running", "stop it first")
    return folder


def _free_ports(count: int) -> list[int]:
    shuffled = random.sample(PORTS, len(PORTS))
    return list(itertools.islice(filter(_is_free, shuffled), count))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def main() -> None:
    """Run a command while a server is up, or the server alone until Ctrl-C."""
    options = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    options.add_argument("--nodes", type=int, default=1)
    options.add_argument("--security", action="store_true", help="user and password")
    options.add_argument("--tls", action="store_true", help="HTTPS, user and password")
    options.add_argument("--fuller", action="store_true", help="a server with scripts")
    options.add_argument("--heap", default="1g")
    options.add_argument("--keep", default="", metavar="NAME", help="keep the data under this name")
    options.add_argument("--port", type=int)
    options.add_argument("command", nargs=argparse.REMAINDER)
    given = vars(options.parse_args())
    command = given.pop("command")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.stderr.write("starting Elasticsearch\n")
        with start_server(**given) as server:
            sys.exit(_run(server, command))
    except CbirError as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _run(server: Server, command: list[str]) -> int:
    address = server.address
    prefix = server.index_url("").rstrip("/")
    environment = {**os.environ, **address.environment()}
    if command:
        # Ctrl-C also reaches the command; the server stays until the command ends.
        signal.signal(signal.SIGINT, lambda *_: None)
        return subprocess.call([part.replace("{url}", prefix) for part in command], env=environment)
    sys.stdout.write(f"{prefix}\n")
    if address.user:
        sys.stdout.write(f"user {address.user}, password {address.password}, CA {address.ca}\n")
    sys.stdout.flush()
    signal.pause()
    return 0


if __name__ == "__main__":
    main()
