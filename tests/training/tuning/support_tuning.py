"""Tuning runs in a process of their own, and what they leave: files, processes, sockets."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cli.support_cli import COMMAND, replaced
from tests.training.support_patterns import write_patterns

SPACE = """
width = 0.125
embedding = [8, 16, 24]
peak_rate = [0.02, 0.04]
"""
TIMEOUT = 400


@dataclass
class Place:
    """A folder of images, a search space, and homes that belong to one test."""

    folder: Path

    def __post_init__(self) -> None:
        self.images = write_patterns(self.folder / "images", 20)
        self.space = self.folder / "space.toml"
        self.space.write_text(SPACE)
        for home in (self.home, self.cbir_home):
            home.mkdir()

    @property
    def home(self) -> Path:
        """`HOME` of the run."""
        return self.folder / "home"

    @property
    def cbir_home(self) -> Path:
        """`CBIR_HOME` of the run."""
        return self.folder / "cbir"

    def start(
        self, out: str, *options: object, cores: int = 1, **environment: str
    ) -> subprocess.Popen[str]:
        """`cbir tune` on so many cores of this machine: on one, its trials run in order."""
        arguments = ("tune", self.images, "--label-from-folder", "--space", self.space)
        chosen = replaced(("--out", out, "--epochs", 2), options)
        allowed = sorted(os.sched_getaffinity(0))[:cores]
        homes = {"HOME": str(self.home), "CBIR_HOME": str(self.cbir_home)}
        return subprocess.Popen(
            [*COMMAND, *map(str, (*arguments, *chosen))],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env={**os.environ, **homes, **environment},
            start_new_session=True,
            preexec_fn=lambda: os.sched_setaffinity(0, allowed),
        )

    def tune(self, out: str, *options: object, **environment: str) -> tuple[int, str, str]:
        """Exit status, standard output and standard error of `cbir tune` on one core."""
        child = self.start(out, *options, **environment)
        try:
            said = child.communicate(timeout=TIMEOUT)
        finally:
            child.kill()
        return child.returncode, *said

    def trials(self, out: str) -> list[dict[str, Any]]:
        """What the run has recorded of each trial, without the times."""
        trials: list[dict[str, Any]] = json.loads((self.folder / out / "trials.json").read_text())[
            "trials"
        ]
        for trial in trials:
            for line in trial["epochs"]:
                del line["seconds"]
        return trials

    def processes(self) -> dict[int, str]:
        """The processes of runs in this place, Ray's among them, by number."""
        mark = f"CBIR_HOME={self.cbir_home}\0".encode()
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (process / "environ").read_bytes():
                    found[int(process.name)] = (process / "comm").read_text().strip()
            except OSError:
                continue  # it has ended
        return found

    def peers(self) -> set[str]:
        """The addresses that these processes listen on or are connected to."""
        inodes = set()
        for number in self.processes():
            for descriptor in Path(f"/proc/{number}/fd").glob("*"):
                try:
                    inodes.add(str(descriptor.readlink()))
                except OSError:
                    continue
        addresses = set()
        for table in ("tcp", "tcp6", "udp", "udp6"):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                words = line.split()
                if f"socket:[{words[9]}]" in inodes:
                    addresses.add(words[1].partition(":")[0])
                    if words[3] == "01":  # established
                        addresses.add(words[2].partition(":")[0])
        return addresses


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> bool:
    """Whether `condition` holds within that time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def read_until(child: subprocess.Popen[str], start: str) -> list[str]:
    """The lines of standard error up to the first that begins with `start`."""
    assert child.stderr is not None
    said = []
    for line in child.stderr:
        said.append(line)
        if line.startswith(start):
            return said
    raise AssertionError(f"'{start}' never came: {said}")


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def answers(port: int) -> bool:
    """Whether something listens on that port of this machine."""
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0
