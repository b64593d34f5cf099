from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cbir.home import cbir_home


def test_cbir_home_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CBIR_HOME", "~/elsewhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cbir_home() == Path("~/elsewhere").expanduser()


@pytest.mark.parametrize("given", [None, ""])
def test_without_it_the_users_cache_folder_is_taken(
    given: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if given is None:
        monkeypatch.delenv("CBIR_HOME")
    else:
        monkeypatch.setenv("CBIR_HOME", given)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cbir_home().name in ("cbir", "Cache")
    if sys.platform.startswith("linux"):
        assert cbir_home() == tmp_path / ".cache" / "cbir"
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert cbir_home() == tmp_path / "xdg" / "cbir"
    assert not cbir_home().exists()
