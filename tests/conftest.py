"""What every test shares: a home of its own, and the rule for parts that are not there."""

from __future__ import annotations

import os
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest


def pytest_configure() -> None:
    """Find CIFAR-10 where this person has it; then give the session a home of its own."""
    from cbir.images.cifar10 import find_cifar10

    found = find_cifar10()
    if found is not None:
        os.environ.setdefault("CBIR_DATA", str(found))
    os.environ["CBIR_HOME"] = tempfile.mkdtemp(prefix="cbir-tests-")


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["CBIR_HOME"], ignore_errors=True)


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees another's model store and downloads.

    It knows the sources of the indexes that fixtures of its module made in the session's home.
    """
    known = Path(os.environ["CBIR_HOME"], "sources.json")
    home = tmp_path_factory.mktemp("home")
    if known.exists():
        shutil.copy(known, home)
    monkeypatch.setenv("CBIR_HOME", str(home))


@pytest.fixture(autouse=True)
def classic_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up pictures are described by `classic`, whether the extra `photos` is there or not.

    tests/ingest/test_default_descriptor.py tests the default itself.
    """
    monkeypatch.setattr("cbir.ingest.indexing.packaged_installed", lambda name: False)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A missing real part skips its tests; with CBIR_TEST_STRICT=1 it fails them."""
    for marker, reason in (
        ("cifar10", _no_cifar10),
        ("photos", _no_photos),
        ("browser", _no_browser),
        ("elasticsearch", _no_client),
        ("training", _no_torch),
        ("reference", _no_reference),
    ):
        if item.get_closest_marker(marker) and (missing := reason()):
            if os.environ.get("CBIR_TEST_STRICT") == "1":
                pytest.fail(f"{missing} (CBIR_TEST_STRICT=1)", pytrace=False)
            pytest.skip(missing)


def _no_cifar10() -> str:
    from cbir.images.cifar10 import find_cifar10

    return "" if find_cifar10() else "no CIFAR-10: CBIR_DATA names no folder that holds it"


def _no_photos() -> str:
    from benchmarks.setting import PHOTOS, find_photos

    return "" if find_photos() else f"no {PHOTOS} in the folder that CBIR_DATA names"


def _no_browser() -> str:
    return "" if shutil.which("chromium") else "no Chromium on the path"


def _no_client() -> str:
    installed = find_spec("elasticsearch") and find_spec("orjson")
    return "" if installed else "no client of Elasticsearch (extra 'elasticsearch')"


def _no_reference() -> str:
    missing = [name for name in ("open_clip", "timm", "transformers") if not find_spec(name)]
    return f"no {', '.join(missing)} (dependency group 'reference')" if missing else ""


def _no_torch() -> str:
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError:
        return "torch is not installed (extra 'train')"
    return ""
