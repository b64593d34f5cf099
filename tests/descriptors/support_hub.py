"""Repositories to serve, and the environment that makes a process use another hub."""

from __future__ import annotations

import hashlib
from pathlib import Path
from random import Random

import pytest

from tools.hub_server import LARGE

README = b"---\nlicense: mit\n---\n# A model\n"


def write_repository(folder: Path, *names: str) -> Path:
    """Files with random bytes in `folder`, 300,000 for networks and 1,000 for others; a README."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        seed = int.from_bytes(hashlib.sha256(f"{folder.name}/{name}".encode()).digest()[:4])
        data = Random(seed).randbytes(300_000 if LARGE.fullmatch(path.name) else 1_000)
        path.write_bytes(README if name == "README.md" else data)
    return folder


def use_hub(
    monkeypatch: pytest.MonkeyPatch, hub: str, home: Path, *, token: str = "", offline: bool = False
) -> None:
    """Let this process, and those that it starts, use the hub at this address and this home.

    huggingface_hub reads the environment when it is imported, so that its constants change too.
    """
    from huggingface_hub import close_session, constants

    variables = {
        "HF_ENDPOINT": hub,
        "HF_HOME": str(home / "huggingface"),
        "HF_TOKEN": token,
        "HF_HUB_OFFLINE": "1" if offline else "",
        "CBIR_HOME": str(home / "cbir"),
        "NO_PROXY": "127.0.0.1",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN_PATH", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    in_process = {
        "ENDPOINT": hub,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HOME": str(home / "huggingface"),
        "HF_HUB_CACHE": str(home / "huggingface" / "hub"),
        "HF_TOKEN_PATH": str(home / "huggingface" / "token"),
        "HF_HUB_OFFLINE": offline,
    }
    for name, constant in in_process.items():
        monkeypatch.setattr(constants, name, constant)
    close_session()  # its client read the proxies of the environment
