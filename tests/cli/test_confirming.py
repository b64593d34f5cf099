"""The question whether originals of an index from elsewhere may be opened."""

from __future__ import annotations

import io
import logging
from contextlib import closing
from pathlib import Path

import pytest

from cbir.cli.confirming import ask_to_confirm
from cbir.home import cbir_home
from cbir.index.open import open_index
from cbir.search.originals import unconfirmed
from tests.cli.support_cli import call
from tests.index.embedded.support_index import made_index


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def place(tmp_path: Path) -> Path:
    place = made_index(tmp_path / "odd.cbir", [])
    with closing(open_index(place, write=True)) as index:
        index.register_source("pho\x1btos", str(tmp_path / "pho\x1btos"))
    return place


def asked(
    place: Path, monkeypatch: pytest.MonkeyPatch, answer: str, pipe: str = "", ask: bool = True
) -> tuple[str, bool]:
    """What was written to standard error, and whether all sources are confirmed then."""
    streams = {"stdin": Terminal(answer), "stdout": Terminal(), "stderr": Terminal()}
    if pipe:
        streams[pipe] = io.StringIO(answer)  # type: ignore[assignment]
    with closing(open_index(place)) as index, monkeypatch.context() as patched:
        for name, stream in streams.items():
            patched.setattr(f"sys.{name}", stream)
        ask_to_confirm(index, ask)
        return streams["stderr"].getvalue(), not unconfirmed(index)


def test_a_yes_confirms_the_sources_that_were_shown(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told, confirmed = asked(place, monkeypatch, "y\n")
    assert confirmed and "\x1b" not in told
    assert f"{place.parent}/pho\\x1btos (pho\\x1btos)" in told
    assert asked(place, monkeypatch, "") == ("", True)
    assert not caplog.records


@pytest.mark.parametrize("answer", ["n\n", "\n"])
def test_anything_else_confirms_nothing_and_names_the_command(
    answer: str, place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told, confirmed = asked(place, monkeypatch, answer)
    assert told and not confirmed
    (line,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert "--confirm" in line and "\x1b" not in line


def test_a_no_is_remembered_until_the_sources_are_confirmed_or_change(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asked(place, monkeypatch, "n\n")[0]
    assert asked(place, monkeypatch, "y\n") == ("", False)
    with closing(open_index(place, write=True)) as index:
        index.register_source("more", str(place.parent / "more"))
    told, confirmed = asked(place, monkeypatch, "y\n")
    assert f"{place.parent}/more" in told and "pho" not in told and not confirmed
    answer = call("sources", place, "--confirm")
    assert answer.code == 0 and "is confirmed" in answer.err + answer.out
    assert asked(place, monkeypatch, "") == ("", True)


def test_a_damaged_file_of_answers_ends_no_command(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (cbir_home() / "refused_sources.json").write_text("{")
    assert asked(place, monkeypatch, "", pipe="stdin") == ("", False)
    assert asked(place, monkeypatch, "", ask=False) == ("", False)
    assert "refused_sources.json" not in caplog.text  # nobody is asked, so it is not read
    told, confirmed = asked(place, monkeypatch, "n\n")
    assert told and not confirmed
    assert "refused_sources.json cannot be read" in caplog.text
    caplog.clear()
    assert asked(place, monkeypatch, "y\n")[1]
    assert asked(place, monkeypatch, "") == ("", True)


@pytest.mark.parametrize("pipe", ["stdin", "stdout", "stderr"])
def test_nobody_is_asked_through_a_pipe_or_by_a_program(
    pipe: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asked(place, monkeypatch, "y\n", pipe)[1] is False
    assert asked(place, monkeypatch, "y\n", ask=False) == ("", False)
