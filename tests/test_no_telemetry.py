"""ONNX Runtime, huggingface_hub and Ray send telemetry by default; cbir switches it off."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from tests.descriptors.support_hub import write_repository
from tests.descriptors.support_photos import write_photos
from tools.hub_server import Hub, serve_hub

NETWORK = files("cbir.descriptors") / "shipped" / "cifar10-cnn" / "model.onnx"
KEPT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH")
ROOT = Path(__file__).parents[1]

PLAIN = f"import onnxruntime; onnxruntime.InferenceSession({str(NETWORK)!r})"
SEARCH = """
import cbir
cbir.index_images(["photos"], "photos.cbir", descriptor="cifar10-cnn")
assert cbir.Searcher.open("photos.cbir").search("photos/red/0.png", k=3)
"""
COMMANDS = """
import sys
from cbir.cli.main import main
for arguments in (
    ["index", "photos", "--into", "photos.cbir", "--descriptor", "cifar10-cnn"],
    ["search", "photos/red/0.png", "--in", "photos.cbir"],
    ["doctor"],
):
    sys.argv = ["cbir", *arguments]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, arguments
"""
MODULE = """
import runpy, sys
sys.argv = ["cbir", "doctor"]
runpy.run_module("cbir", run_name="__main__")
"""
BENCHMARK = "from benchmarks import vgg16; import onnxruntime"
ENTRIES = {"python": SEARCH, "commands": COMMANDS, "module": MODULE, "benchmarks": BENCHMARK}

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="on other systems it leaves no such files"
)


def written(folder: Path, code: str, **environment: str) -> list[Path]:
    """The files that `code` leaves in a new home; without CI variables, which end telemetry."""
    photos = folder / "photos"
    if not photos.exists():
        write_photos(photos, per_colour=2)
    home = folder / "home"
    home.mkdir()
    own = {name: os.environ[name] for name in KEPT if name in os.environ}
    path = os.pathsep.join(filter(None, [str(ROOT), own.get("PYTHONPATH", "")]))
    places = {"HOME": str(home), "CBIR_HOME": str(folder / "cbir"), "PYTHONPATH": path}
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={**own, **places, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    return [path for path in home.rglob("*") if path.is_file()]


def test_onnxruntime_alone_leaves_an_identifier_and_a_database(tmp_path: Path) -> None:
    left = {path.name for path in written(tmp_path, PLAIN)}
    assert {"deviceid", "onnxruntime.db"} <= left


@pytest.mark.parametrize("asked", [{}, {"ORT_DISABLE_TELEMETRY": "0"}], ids=["unset", "0"])
@pytest.mark.parametrize("entry", ENTRIES)
def test_no_entry_point_of_cbir_leaves_either(
    entry: str, asked: dict[str, str], tmp_path: Path
) -> None:
    assert written(tmp_path, ENTRIES[entry], **asked) == []


HUB_ALONE = "from huggingface_hub import HfApi; HfApi().model_info('me/mine')"
HUB = """
from cbir.descriptors.hub.fetching import fetch
from cbir.descriptors.hub.offers import offer
fetch(offer("hf:me/mine"), lambda done, total: None)
"""


def asked(folder: Path, code: str, hub: Hub) -> list[str]:
    """The requests of `code` as an agent runs it: huggingface_hub asks the hub who that may be."""
    places = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(folder / "huggingface")}
    written(folder, code, AGENT="someone", NO_PROXY="127.0.0.1", **places)
    return hub.asked


def test_pulling_a_model_asks_the_hub_for_nothing_else(tmp_path: Path) -> None:
    repository = write_repository(tmp_path / "mine", "model.onnx")
    with serve_hub({"me/mine": repository}) as hub:
        (tmp_path / "alone").mkdir()
        assert "GET /api/agent-harnesses" in asked(tmp_path / "alone", HUB_ALONE, hub)
        hub.asked.clear()
        commit = hub.commit("me/mine")
        (tmp_path / "cbir").mkdir()
        assert asked(tmp_path / "cbir", HUB, hub) == [
            "GET /api/models/me/mine/revision/main",
            f"GET /me/mine/resolve/{commit}/model.onnx",
            f"GET /me/mine/{commit}/model.onnx",
        ]
    files = {path.name for path in (tmp_path / "cbir" / "huggingface").iterdir()}
    assert files == {"hub"}


USAGE = "from ray._common.usage.usage_lib import usage_stats_enabled as asked; print(asked())"


@pytest.mark.training
def test_ray_reports_no_usage_whatever_the_environment_says() -> None:
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "1"}
    for code, answer in ((USAGE, b"True"), (f"import cbir; {USAGE}", b"False")):
        said = subprocess.check_output([sys.executable, "-c", code], env=environment)
        assert said.strip() == answer
