"""A local server of the hub's shape: repositories are folders, and it fails as it is told to."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = re.compile(r".*\.onnx([._]data(_\d+)?)?")
"""Files that the hub keeps outside of git, with a sha256, and serves from another host."""

CHUNK = 1 << 14


@dataclass
class Faults:
    """How the server fails; nothing fails by default. Change it at any time.

    `status`: a part of a request's path -> the HTTP status (and, after a space, the hub's error
    code) that it gets. `cuts`: the number of responses that break off after `cut_after` bytes.
    `dead_at`: no byte of a large file past this offset is ever sent. `other_bytes`: names of files
    whose bytes are not those of their hash. `pause`: seconds before each 16 KiB. `no_ranges`: a
    request for a part of a file gets all of it. `answer` replaces the answer about a repository.
    """

    status: dict[str, str] = field(default_factory=dict)
    cuts: int = 0
    cut_after: int = 0
    dead_at: int | None = None
    other_bytes: set[str] = field(default_factory=set)
    pause: float = 0.0
    no_ranges: bool = False
    answer: str | None = None


@dataclass
class Hub:
    """The running server: its address, the repositories (OWNER/NAME -> folder), what it did.

    `asked` are the requests: "GET /api/models/..."; `sent` counts the bytes of each file;
    `tokens` are the Authorization headers, by "hub" and "storage" (the host of large files).
    """

    endpoint: str
    storage: str
    repositories: dict[str, Path]
    private: frozenset[str]
    faults: Faults = field(default_factory=Faults)
    asked: list[str] = field(default_factory=list)
    sent: Counter[str] = field(default_factory=Counter)
    tokens: dict[str, set[str | None]] = field(
        default_factory=lambda: {"hub": set(), "storage": set()}
    )

    def commit(self, repository: str) -> str:
        """The commit of all its revisions: it changes with the files."""
        folder = self.repositories[repository]
        names = sorted(path for path in folder.rglob("*") if path.is_file())
        parts = [f"{name.relative_to(folder)} {git_hash(name)}" for name in names]
        return hashlib.sha1("\n".join(parts).encode()).hexdigest()

    def forget(self) -> None:
        """Start the records anew."""
        self.asked.clear()
        self.sent.clear()


def git_hash(path: Path) -> str:
    """The hash under which git keeps a file."""
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextmanager
def serve_hub(
    repositories: Mapping[str, Path], private: frozenset[str] = frozenset()
) -> Iterator[Hub]:
    """Serve `repositories` on this machine; those in `private` need the token "hf_secret"."""
    with ExitStack() as stack:
        servers = [stack.enter_context(_Server(("127.0.0.1", 0), _Handler)) for _ in range(2)]
        hub, storage = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
        state = Hub(hub, storage, dict(repositories), private)
        for server in servers:
            server.hub = state
            thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
        yield state


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    hub: Hub


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        hub = self.server.hub
        path = unquote(urlsplit(self.path).path)
        stored = self.server.server_address[1] == urlsplit(hub.storage).port
        token = self.headers.get("Authorization")
        hub.tokens["storage" if stored else "hub"].add(token)
        hub.asked.append(f"{self.command} {path}")
        for part, failure in hub.faults.status.items():
            if part in path:
                return self._refuse(*failure.split())
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/(?:resolve/)?([^/]+)/(.+)", path)
        matched = api or file
        repository = matched[1] if matched else ""
        if matched is None or repository not in hub.repositories:
            return self._refuse("404", "RepoNotFound")
        if repository in hub.private and not stored and token != "Bearer hf_secret":
            return self._refuse("401", "RepoNotFound")
        commit = hub.commit(repository)
        if (matched[2] or "main") not in ("main", "v1", commit):
            return self._refuse("404", "RevisionNotFound")
        if api:
            about = hub.faults.answer or json.dumps(_model_info(hub, repository, commit))
            return self._send(200, {"Content-Type": "application/json"}, about.encode())
        return self._send_file(repository, commit, matched[3], stored)

    def _send_file(self, repository: str, commit: str, name: str, stored: bool) -> None:
        path = self.server.hub.repositories[repository] / name
        if not path.is_file():
            return self._refuse("404", "EntryNotFound")
        large = LARGE.fullmatch(path.name)
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if large else git_hash(path)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{digest}"', "Accept-Ranges": "bytes"}
        if large and not stored:
            headers["X-Linked-Etag"] = f'"{digest}"'
            headers["X-Linked-Size"] = str(path.stat().st_size)
            headers["Location"] = f"{self.server.hub.storage}/{repository}/{commit}/{name}"
            return self._send(302, headers, b"")
        return self._send_bytes(name, path.read_bytes(), headers)

    def _send_bytes(self, name: str, data: bytes, headers: dict[str, str]) -> None:
        faults = self.server.hub.faults
        if name in faults.other_bytes:
            data = data[:-1] + bytes([data[-1] ^ 1])
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked and not faults.no_ranges else 0
        if not start:
            return self._send(200, headers, data, name)
        headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return self._send(206, headers, data[start:], name, start)

    def _refuse(self, status: str, code: str = "") -> None:
        headers = {"X-Error-Code": code} if code else {}
        self._send(int(status), headers, json.dumps({"error": "refused by the test"}).encode())

    def _send(
        self, status: int, headers: dict[str, str], body: bytes, name: str = "", start: int = 0
    ) -> None:
        self.send_response(status)
        for header, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(header, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        end = self._end(name, start, len(body))
        for offset in range(0, end, CHUNK):
            time.sleep(self.server.hub.faults.pause if name else 0)
            chunk = body[offset : min(offset + CHUNK, end)]
            self.wfile.write(chunk)
            if name:
                self.server.hub.sent[name] += len(chunk)
        if end < len(body):
            self.close_connection = True

    def _end(self, name: str, start: int, length: int) -> int:
        """How many bytes of a body are sent."""
        faults = self.server.hub.faults
        if not LARGE.fullmatch(name):
            return length
        if faults.cuts > 0:
            faults.cuts -= 1
            length = min(length, faults.cut_after)
        return length if faults.dead_at is None else max(0, min(length, faults.dead_at - start))


def _model_info(hub: Hub, repository: str, commit: str) -> dict[str, Any]:
    folder = hub.repositories[repository]
    readme = folder / "README.md"
    licence = re.search(r"^license: (.+)$", readme.read_text(), re.M) if readme.exists() else None
    return {
        "id": repository,
        "sha": commit,
        "private": repository in hub.private,
        "gated": False,
        "siblings": [
            _sibling(path, path.relative_to(folder).as_posix())
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        ],
        **({"cardData": {"license": licence[1]}} if licence else {}),
    }


def _sibling(path: Path, name: str) -> dict[str, Any]:
    size = path.stat().st_size
    entry: dict[str, Any] = {"rfilename": name, "size": size, "blobId": git_hash(path)}
    if LARGE.fullmatch(path.name):
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        entry["lfs"] = {"sha256": sha256, "size": size, "pointerSize": 134}
    return entry
