from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.web.support_web import SlowSearcher, build_textured


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowSearcher]:
    """A search of textures, among them `PART`, that verifies only once `go_on` is set."""
    monkeypatch.setattr("cbir.web.admission.VERIFYING_TIME", 60.0)  # on a busy machine, too
    opened = SlowSearcher(build_textured(tmp_path), lambda _, asked: asked.verify)
    yield opened
    opened.go_on.set()
    opened.close()
