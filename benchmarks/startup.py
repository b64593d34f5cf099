"""Startup time of the command, modules that importing loads, size of the core installation."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from benchmarks.setting import cbir_command, median_ms

RUNS = 15
HEAVY = ("torch", "cv2", "faiss", "onnxruntime", "sklearn")
ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Print medians, compared with a bare interpreter, and the size of a fresh core."""
    bare = median_ms(lambda: _run([sys.executable, "-c", "pass"]), RUNS)
    shown = median_ms(lambda: _run([cbir_command(), "--help"]), RUNS)
    print(f"python -c pass   {bare / 1000:.3f} s, n={RUNS}, median")
    print(f"cbir --help      {shown / 1000:.3f} s (target 0.25)")
    code = f"import cbir, sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    print(f"import cbir loads of {', '.join(HEAVY)}: {loaded.stdout.strip()}")
    print(f"core installation {_core_size() / 1e6:,.0f} MB (target 450), pip and setuptools apart")


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _core_size() -> int:
    """Bytes of site-packages after installing the core into an empty environment."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = str(Path(folder) / "bin" / "python")
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, "--require-hashes", "-r", str(ROOT / "requirements" / "core.txt")])
        _run([*pip, "--no-deps", str(ROOT)])
        site = next(Path(folder).glob("lib/python*/site-packages"))
        tops = [path for path in site.iterdir() if not path.name.startswith(("pip", "setuptools"))]
        return sum(_size(path) for path in tops)


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(
        (Path(folder) / name).lstat().st_size
        for folder, _, names in os.walk(path)
        for name in names
    )


if __name__ == "__main__":
    main()
