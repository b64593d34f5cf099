"""The server starter: it comes up, is shared, survives a lost node, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cbir.errors import CbirError
from tests.index.elasticsearch.support_elasticsearch import own_server, shared_server
from tools import elasticsearch_files

pytestmark = pytest.mark.elasticsearch
ROOT = Path(__file__).parents[2]


def test_workers_share_one_server_and_it_stops_with_the_last(tmp_path: Path) -> None:
    with shared_server(tmp_path) as first:
        with shared_server(tmp_path) as second:
            assert second == first
        assert first.request("GET", "/_cluster/health")["number_of_nodes"] == 1
    gives_up = time.monotonic() + 60
    while time.monotonic() < gives_up:
        try:
            first.request("GET", "/_cluster/health")
        except OSError:
            return
        time.sleep(0.1)
    raise AssertionError("the server is still there")


def test_a_server_ends_when_whoever_started_it_is_killed(tmp_path: Path) -> None:
    code = (
        "import time\nfrom tools.elasticsearch_server import start_server\n"
        "server = start_server(heap='512m')\nprint(server.folder, flush=True)\ntime.sleep(600)"
    )
    with own_server_in(code) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        pid = int((folder / "node-0" / "pid").read_text())
        process.kill()
        process.wait()
    gives_up = time.monotonic() + 60
    while time.monotonic() < gives_up and (folder.exists() or Path(f"/proc/{pid}").exists()):
        time.sleep(0.1)
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def own_server_in(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def test_user_and_password_over_tls_with_a_certificate_of_its_own() -> None:
    with own_server(tls=True, heap="512m") as server:
        who = server.address.request("GET", "/_security/_authenticate")
        assert (who["username"], who["roles"]) == (server.address.user, ["superuser"])
        assert server.address.password not in repr(server.address)
        assert server.index_url("photos").startswith("elasticsearch+https://127.0.0.1:")


def test_without_maven_the_reason_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elasticsearch_files, "base_folder", lambda: tmp_path / "base")
    real = elasticsearch_files.shutil.which
    monkeypatch.setattr(
        elasticsearch_files.shutil, "which", lambda name: None if name == "mvn" else real(name)
    )
    with pytest.raises(CbirError, match="no Maven on the path"):
        elasticsearch_files.server_files()
    assert not [path for path in (tmp_path / "base").iterdir() if path.is_dir()]


def test_a_command_runs_while_the_server_is_up_and_its_data_can_be_kept() -> None:
    name = f"test-{os.getpid()}"
    kept = elasticsearch_files.base_folder() / name
    put = [sys.executable, "-c", "import sys; print(sys.argv[1])", "{url}"]
    run = [sys.executable, "-m", "tools.elasticsearch_server", "--keep", name, "--heap", "512m"]
    try:
        done = subprocess.run([*run, *put], cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout.startswith("elasticsearch://127.0.0.1:")
        assert (kept / "node-0" / "data").is_dir()
    finally:
        elasticsearch_files.shutil.rmtree(kept)
