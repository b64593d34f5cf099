"""The command line, called in this process or in one of its own."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.request import ProxyHandler, build_opener

import numpy as np
import pytest
from PIL import Image

from cbir.cli.main import main

COMMAND = [sys.executable, "-m", "cbir"]
TIMEOUT = 120

# Root may read and write whatever it likes; without its capabilities it is a person like others.
UNPRIVILEGED = """
import ctypes, os, sys
if os.geteuid() == 0:
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert ctypes.CDLL(None).capset(header, sets) == 0
from cbir.cli.main import main
main()
"""


@dataclass(frozen=True)
class Answer:
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, read as JSON, of a command that ended well."""
        assert self.code == 0, self.err
        return json.loads(self.out)

    @property
    def error(self) -> tuple[str, str]:
        """The message and the hint of a reported error: nothing else may be in its way."""
        assert self.code == 1, (self.code, self.out, self.err)
        assert "Traceback" not in self.err
        lines = [line for line in self.err.splitlines() if not line.startswith("using ")]
        assert lines[0].startswith("error: "), self.err
        assert len(lines) == 1 or (len(lines) == 2 and lines[1].startswith("  hint: ")), self.err
        return lines[0].removeprefix("error: "), "".join(lines[1:]).removeprefix("  hint: ")


def call(*arguments: object, stdin: bytes = b"") -> Answer:
    """`cbir ARGUMENTS` in this process."""
    out, err = _Stream(), _Stream()
    with (
        patch.object(sys, "argv", ["cbir", *map(str, arguments)]),
        patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin))),
        patch.object(sys, "stdout", out),
        patch.object(sys, "stderr", err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    assert isinstance(ended.value.code, int)
    return Answer(ended.value.code, out.text(), err.text())


def replaced(defaults: Sequence[object], options: Sequence[object]) -> list[object]:
    """`options` after those `defaults` (an option and its value each) that they do not replace."""
    pairs = zip(defaults[::2], defaults[1::2], strict=True)
    kept = [part for pair in pairs if pair[0] not in options for part in pair]
    return [*kept, *options]


class _Stream(io.TextIOWrapper):
    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)

    def text(self) -> str:
        self.flush()
        raw = self.buffer
        assert isinstance(raw, io.BytesIO)
        return raw.getvalue().decode()


def run(*arguments: object, command: list[str] = COMMAND, **options: Any) -> Answer:
    """`cbir ARGUMENTS` in a process of its own."""
    ended = subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, timeout=TIMEOUT, **options
    )
    return Answer(ended.returncode, ended.stdout.decode(), ended.stderr.decode())


def run_unprivileged(*arguments: object) -> Answer:
    """`cbir ARGUMENTS` as someone for whom modes of files count."""
    return run(*arguments, command=[sys.executable, "-c", UNPRIVILEGED])


needs_unprivileged = pytest.mark.skipif(
    not sys.platform.startswith("linux") and getattr(os, "geteuid", lambda: 1)() == 0,
    reason="only on Linux can root give up its rights",
)
needs_signals = pytest.mark.skipif(os.name != "posix", reason="signals and limits are POSIX")


def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """`cbir ARGUMENTS` in a process of its own, running."""
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def check_no_process_is_left(child: subprocess.Popen[str]) -> None:
    """No process of the session that `child` led, which has ended, is running."""
    with pytest.raises(ProcessLookupError):
        os.killpg(child.pid, 0)


@contextmanager
def serving(
    *arguments: object, ended_by: signal.Signals = signal.SIGINT, **options: Any
) -> Iterator[tuple[list[str], str]]:
    """`cbir ARGUMENTS` until its page answers; yields what it said and the page's address."""
    child = start(*arguments, **options)
    said: list[str] = []
    assert child.stderr is not None
    try:
        for line in child.stderr:
            said.append(line)
            if "http://" in line and "Ctrl-C" in line:
                break
        else:
            pytest.fail(f"no page came: {said}, exit code {child.wait(TIMEOUT)}")
        address = next(word for word in line.split() if word.startswith("http://"))
        yield said, address
        child.send_signal(ended_by)
        _, rest = child.communicate(timeout=TIMEOUT)
        assert (child.returncode, rest.strip()) == (0, "")
    finally:
        child.kill()
        child.communicate()


def look_at(address: str) -> str:
    """The page at `address` on this machine, whatever proxy is set."""
    with build_opener(ProxyHandler({})).open(address, timeout=TIMEOUT) as page:
        return str(page.read().decode())


def many_pictures(folder: Path, count: int, kind: str = "bmp") -> Path:
    """`folder`/NNNN.KIND: `count` pictures of 32 x 32 that are all different."""
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(7).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{number:04d}.{kind}")
    return folder
