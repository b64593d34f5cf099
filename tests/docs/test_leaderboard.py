"""The leaderboard is what `python -m benchmarks.leaderboard` measures; docs/ has all of it."""

from __future__ import annotations

from pathlib import Path

import pytest

import cbir
from benchmarks import leaderboard
from cbir.descriptors.models import ENSEMBLES

DOCS = Path(__file__).resolve().parents[2] / "docs" / "leaderboard.md"


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.photos
@pytest.mark.slow
def test_a_row_holds_the_figures_of_the_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CBIR_HOME", str(tmp_path))
    target = tmp_path / "board.md"
    leaderboard.main(["cifar10-cnn:embedding"], ["photos"], target)
    header, _, quality, costs, _, cost = rows(target.read_text())
    told = dict(zip(header, quality, strict=True))
    [place] = (tmp_path / "benchmarks" / "leaderboard").glob("*.cbir")
    [photos] = leaderboard.data_sets(["photos"])
    searcher = cbir.Searcher.open(place)
    result = cbir.evaluate(searcher, photos.queries, ["nAP@10", "P@10", "AP"], bits=64)
    assert result.unseen_index is not None and result.hamming is not None
    assert told["nAP@10, usual"] == f"{result.measures['nAP@10']:.3f}"
    assert told["P@10, leave-one-out"] == f"{result.unseen_index['P@10']:.3f}"
    assert told["64-bit AP, usual"] == f"{result.hamming.means['usual']['AP']:.3f}"
    assert told["pixels"] == "original files"
    assert dict(zip(costs, cost, strict=True))["dimensions"] == "256"
    searcher.close()


def test_the_stored_leaderboard_has_every_shipped_descriptor_on_both_sets() -> None:
    named = [row[0] for row in rows(DOCS.read_text(encoding="utf-8")) if row[0] != "---"]
    board = [*leaderboard.DESCRIPTORS]
    photos = [*board, *leaderboard.FOR_PHOTOS]
    assert named == [*["descriptor", *board] * 2, *["descriptor", *photos] * 2]
    shipped = Path(cbir.__file__).parent / "descriptors" / "shipped"
    models = {model.name for model in shipped.iterdir() if (model / "model.json").is_file()}
    parts = [part for name in board for part in ENSEMBLES.get(name, name).split("+")]
    assert models == {part.partition(":")[0] for part in parts}
