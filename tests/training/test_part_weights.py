"""`cbir train compose`: the measures of each choice, and the name that comes out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cbir.errors import CbirError
from cbir.images.sources import open_source
from cbir.training.part_weights import choose_part_weights
from tests.cli.support_cli import call
from tests.descriptors.support_composed import COLOUR, NOISE
from tests.descriptors.support_photos import write_photos
from tests.training.support_patterns import write_labels, write_patterns, write_unsorted

NETWORK, WORDS = "cifar10-cnn:embedding", "cifar10-bovw:embedding"


@pytest.fixture
def patterns(tmp_path: Path) -> Path:
    return write_patterns(tmp_path / "patterns", each=8)


def test_each_choice_measures_what_evaluation_measures(patterns: Path, tmp_path: Path) -> None:
    """Leave-one-out of `cbir evaluate` on an index of the composed descriptor is the reference."""
    options = ("--of", NETWORK, "--of", WORDS, "--label-from-folder", "-m", "nAP@7", "--json")
    chosen = call("train", "compose", patterns, *options).json
    tried = {row["name"]: row for row in chosen["tried"]}
    assert (chosen["images"], chosen["queries"], chosen["classes"]) == (24, 24, 3)
    assert len(tried) == 21 and {NETWORK, WORDS} < tried.keys()
    for number, name in enumerate((NETWORK, WORDS, f"{NETWORK}+{WORDS}:0.35")):
        index = tmp_path / f"{number}.cbir"
        made = call("index", patterns, "--into", index, "--descriptor", name, "--label-from-folder")
        assert made.code == 0
        asked = ("--in", index, "--queries", patterns, "--label-from-folder", "--json")
        measures = ("-m", "nAP@7", "-m", "P@10", "--protocol", "unseen")
        wanted = call("evaluate", *asked, *measures).json["measures"]
        for measure in ("nAP@7", "P@10"):
            assert tried[name]["measures"][measure] == pytest.approx(wanted[measure], abs=1e-9)
    best = max(row["measures"]["nAP@7"] for row in tried.values())
    assert chosen["best"]["measures"]["nAP@7"] == best
    single = chosen["best_single"]
    assert single["name"] in (NETWORK, WORDS) and single["difference"] == 0
    for row in tried.values():
        difference = row["measures"]["nAP@7"] - single["measures"]["nAP@7"]
        assert row["difference"] == pytest.approx(difference, abs=1e-12)
        low, high = row["interval"]
        assert low <= row["difference"] <= high


def test_a_part_that_is_always_right_is_used_alone(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", per_colour=6)
    said = call("train", "compose", photos, "--label-from-folder", "--of", NOISE, "--of", COLOUR)
    lines = said.out.splitlines()
    assert lines[0] == "leave-one-out among 18 training images, 18 queries, 3 classes"
    assert lines[1].split()[:4] == [NOISE, COLOUR, "nAP@10", "P@10"]
    assert len(lines) == 2 + 21 + 2
    assert lines[-2] == f"no weights are better than {COLOUR} alone"
    assert lines[-1] == f"use it: --descriptor {COLOUR}"
    assert lines[-3].split()[:3] == ["0.00", "1.00", "1.0000"]


def test_metadata_files_label_the_images(tmp_path: Path) -> None:
    folder, labels = write_unsorted(tmp_path / "flat", 4)
    given = ("--metadata", write_labels(tmp_path / "l.csv", labels | {"gone.png": "x"}))
    said = call("train", "compose", folder, "--of", NOISE, "--of", COLOUR, *given)
    assert said.out.startswith("leave-one-out among 12 training images, 12 queries, 3 classes\n")
    assert "warning: 1 metadata row matched no image: 'gone.png'" in said.err


def test_three_parts_go_in_steps_of_a_tenth(patterns: Path) -> None:
    names = [NETWORK, WORDS, COLOUR]
    chosen = choose_part_weights(open_source(str(patterns), label_from_folder=True), names)
    assert len(chosen.tried) == 66
    assert all(sum(row.weights) == pytest.approx(1) for row in chosen.tried)
    assert f"{NETWORK}+{WORDS}:0.3+{COLOUR}:0.1" in {row.name for row in chosen.tried}
    assert f"{WORDS}+{COLOUR}:0.4" in {row.name for row in chosen.tried}
    options = [option for name in names for option in ("--of", name)]
    said = call("train", "compose", patterns, "--label-from-folder", *options)
    assert "the best 21 of 66; --json prints all" in said.out
    assert said.out.endswith(f"use it: --descriptor {chosen.best.name}\n")


def test_a_sample_is_drawn_by_its_seed_and_lonely_images_are_no_queries(patterns: Path) -> None:
    source = open_source(str(patterns), label_from_folder=True)
    names = [NETWORK, WORDS]
    one, again, other = (
        choose_part_weights(source, names, limit=9, seed=seed) for seed in (1, 1, 2)
    )
    assert one == again and one.images == other.images == 9
    assert one.tried != other.tried
    lonely = patterns / "lonely"
    lonely.mkdir()
    (patterns / "checks" / "000.png").rename(lonely / "000.png")
    (patterns / "checks" / "001.png").write_bytes(b"\x89PNG broken")
    said: list[str] = []
    chosen = choose_part_weights(
        open_source(str(patterns), label_from_folder=True), names, say=said.append
    )
    assert (chosen.images, chosen.queries, chosen.classes) == (23, 22, 4)
    assert len(said) == 1 and said[0].startswith("skipped checks/001.png: ")


def test_wrong_input_is_one_line_and_a_cure(patterns: Path, tmp_path: Path) -> None:
    def error(*arguments: object, source: Path = patterns) -> str:
        return ": ".join(call("train", "compose", source, *arguments).error)

    both = ("--of", NETWORK, "--of", WORDS)
    labelled = ("--label-from-folder", *both)
    assert "1 descriptor to weigh: name two" in error("--label-from-folder", "--of", NETWORK)
    assert "did you mean 'classic'?" in error("--of", NETWORK, "--of", "clasic")
    assert "twice" in error("--of", NETWORK, "--of", NETWORK)
    assert "has weights of its own" in error("--of", NETWORK, "--of", "classic+cifar10-bovw")
    assert "has no label: label every image: --label-from-folder, or --metadata" in error(*both)
    assert "unknown measure 'nap@10'" in error(*labelled, "-m", "nap@10")
    assert "nothing to compare" in error(*labelled, source=patterns / "checks")
    assert "no such file" in error(*labelled, source=tmp_path / "none").lower()
    (tmp_path / "empty").mkdir()
    assert "no images that can be described" in error(*labelled, source=tmp_path / "empty")
    assert call("train", "compose", patterns).code == 2


def test_the_choice_is_the_same_in_portions(
    patterns: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, names = open_source(str(patterns), label_from_folder=True), [NETWORK, WORDS]
    whole = choose_part_weights(source, names)
    monkeypatch.setattr("cbir.training.part_weights._SCORES_AT_ONCE", 100)
    assert choose_part_weights(source, names) == whole
    with pytest.raises(CbirError):
        choose_part_weights(source, ["classic", "nothing"])
    assert np.isfinite([row.difference for row in whole.tried]).all()
