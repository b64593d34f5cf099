"""`cbir models add`, `list` and `remove`, from the file of a network to hits."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from cbir.descriptors.models import keep_model
from cbir.files import LINKED_BYTES, sha256_of
from cbir.home import cbir_home
from tests.cli.support_cli import call, replaced, run
from tests.descriptors.support_networks import DIM, network
from tests.descriptors.support_photos import write_photos

onnx = pytest.importorskip("onnx", reason="needs the `photos` extra")

ANSWERS = ("--size", "16", "--resize", "stretch", "--mean", "0.5", "--std", "0.5,0.5,0.5")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    path.write_bytes(network())
    return path


def listed() -> dict[str, dict[str, Any]]:
    return {model["name"]: model for model in call("models", "list", "--json").json}


def test_a_file_is_added_and_its_next_command_works(file: Path, tmp_path: Path) -> None:
    made = call("models", "add", file, *ANSWERS, "--licence", "MIT", "--trained-on", "toys")
    assert made.code == 0, made.err
    first, *assumptions = made.out.splitlines()
    assert first.startswith("net@") and f": {DIM} dimensions, " in first
    assert "images/s on one core" in first and "kB" in first
    assert any("output 'embedding'" in line for line in assumptions)
    assert any("--interpolation" in line for line in assumptions)
    assert made.err == "next: cbir index FOLDER --into INDEX --descriptor net\n"
    photos, index = write_photos(tmp_path / "photos"), tmp_path / "x.cbir"
    assert call("index", photos, "--into", index, "--descriptor", "net").code == 0
    picture = photos / "red" / "0.png"
    (found,) = call("search", picture, "--in", index, "--json").json
    assert found["hits"][0]["id"] == "photos/red/0.png"
    listed_model = listed()["net"]
    size = sum(kept.stat().st_size for kept in Path(listed_model["place"]).iterdir())
    assert (listed_model["bytes"], listed_model["licence"]) == (size, "MIT")
    assert listed_model["trained_on"] == "toys"


def test_the_result_is_json_on_request(file: Path) -> None:
    made = call("models", "add", file, *ANSWERS, "--name", "other", "--json")
    facts = made.json
    assert (facts["name"], facts["dim"], facts["has_text"]) == ("other", DIM, False)
    assert facts["bytes"] > 0 and facts["images_per_second"] > 0
    assert facts["licence"] == facts["trained_on"] == "not stated"
    assert Path(facts["place"]).parent == cbir_home() / "models"
    assert made.err == ""


def test_each_open_question_is_one_line_with_its_option(file: Path) -> None:
    asked = call("models", "add", file)
    *questions, error, hint = asked.err.splitlines()
    assert (asked.code, asked.out, len(questions)) == (1, "", 3)
    for option, line in zip(("--size", "--mean", "--resize"), questions, strict=True):
        assert option in line
    assert error == "error: 3 questions about the network stay open"
    assert "option" in hint
    (question,) = call("models", "add", file, *ANSWERS[:4], "--mean", "0").err.splitlines()[:-2]
    assert "give --std" in question


@pytest.mark.parametrize(
    "wrong",
    [
        ("--mean", "a,b,c"),
        ("--mean", "1,2"),
        ("--std", ""),
        ("--size", "12,12"),
        ("--size", "1x2x3"),
        ("--scale", "1/0"),
        ("--scale", "nan,1"),
        ("--side", "x"),
        ("--side", "-10"),
        ("--size", "0"),
        ("--size", "16x-1"),
        ("--resize", "crop"),
        ("--interpolation", "cubic"),
        ("--layout", "HWC"),
        ("--pooling", "max"),
    ],
)
def test_a_value_that_cannot_be_read_is_wrong_usage(wrong: tuple[str, str], file: Path) -> None:
    refused = call("models", "add", file, *replaced(ANSWERS, wrong))
    assert refused.code == 2 and wrong[0] in refused.err


def test_numbers_without_meaning_are_one_line(file: Path) -> None:
    for wrong in (("--std", "0"), ("--mean", "nan"), ("--size", "16x9999")):
        message, _ = call("models", "add", file, *replaced(ANSWERS, wrong)).error
        assert "preprocessing" in message
    wide = ("--size", "32x16", "--scale", "1/255")
    assert call("models", "add", file, *replaced(ANSWERS, wide)).code == 0
    assert "32x16" in call("models", "show", "net").out


def test_names_come_from_file_or_folder(tmp_path: Path) -> None:
    places = {
        "mobile.v1.onnx": "mobile.v1",
        "dino/model.onnx": "dino",
        "clip/onnx/vision_model.onnx": "clip",
    }
    for place, name in places.items():
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(network())
        assert call("models", "add", path, *ANSWERS, "--json").json["name"] == name
    assert call("models", "add", tmp_path / "clip", *ANSWERS, "--json").json["name"] == "clip"
    message, hint = call("models", "add", tmp_path / "clip", *ANSWERS, "--name", "classic").error
    assert "'classic'" in message and "--name" in hint


def test_a_model_folder_is_added_under_its_own_name(file: Path, tmp_path: Path) -> None:
    place = call("models", "add", file, *ANSWERS, "--json").json["place"]
    moved = Path(place).rename(tmp_path / "moved")
    assert call("models", "add", moved, "--mean", "0").code == 2
    assert call("models", "add", moved, "--json").json["name"] == "net"
    assert call("models", "add", moved, "--json", "--name", "x").json["name"] == "x"


def test_a_model_that_is_added_again_is_the_newest_with_its_new_card(file: Path) -> None:
    first = call("models", "add", file, *ANSWERS, "--json").json
    other = call("models", "add", file, *replaced(ANSWERS, ("--std", "0.4")), "--json").json
    os.utime(first["place"], (0, 0))
    assert (
        call("models", "show", "net", "--json").json["spec"]["fingerprint"] == other["fingerprint"]
    )
    again = call("models", "add", file, *ANSWERS, "--licence", "MIT", "--json").json
    assert again["place"] == first["place"]
    spec = call("models", "show", "net", "--json").json["spec"]
    assert (spec["fingerprint"], spec["licence"]) == (first["fingerprint"], "MIT")


def test_a_name_that_no_model_can_have_is_refused(file: Path) -> None:
    for name, message in (("", "'' is not a valid name"), ("classic", "cbir's own models")):
        assert message in call("models", "add", file, *ANSWERS, "--name", name).error[0]
    assert "net" not in listed()


def test_the_size_of_a_small_model_is_not_zero(file: Path) -> None:
    made = call("models", "add", file, *ANSWERS).out.splitlines()[0]
    (row,) = [row for row in call("models", "list").out.splitlines() if row.startswith("net@")]
    assert made.endswith(" kB") and " kB " in row and "0.0" not in made


def test_the_list_shows_size_and_licence(file: Path) -> None:
    call("models", "add", file, *ANSWERS, "--licence", "CC0-1.0")
    header, *rows = call("models", "list").out.splitlines()
    assert header.split() == ["model", "dim", "size", "licence", "origin", "trained", "on"]
    assert any(row.startswith("classic@") and " MB  MIT " in row for row in rows)
    assert any(row.startswith("net@") and "CC0-1.0" in row for row in rows)


def test_a_model_is_removed_and_its_index_goes_on(file: Path, tmp_path: Path) -> None:
    call("models", "add", file, *ANSWERS)
    photos, index = write_photos(tmp_path / "photos"), tmp_path / "x.cbir"
    call("index", photos, "--into", index, "--descriptor", "net")
    size = listed()["net"]["bytes"]
    removed = call("models", "remove", "net", "--yes")
    assert removed.code == 0 and f"{size:,} bytes freed" in removed.out
    assert "Elasticsearch" in removed.err
    assert "net" not in listed() and not list((cbir_home() / "models").iterdir())
    assert len(call("search", photos / "red" / "0.png", "--in", index, "--json").json[0]["hits"])
    assert "no 'net'" in call("models", "remove", "net", "--yes").error[0]


def test_nothing_is_removed_without_a_yes(file: Path) -> None:
    call("models", "add", file, *ANSWERS)
    refused = call("models", "remove", "net")
    assert refused.code == 1 and "cbir models remove net --yes" in refused.err
    assert "net" in listed()


def test_only_the_model_that_is_named_is_removed(file: Path) -> None:
    first = call("models", "add", file, *ANSWERS, "--json").json["fingerprint"]
    second = call("models", "add", file, *replaced(ANSWERS, ("--std", "0.4")), "--json").json[
        "fingerprint"
    ]
    call("models", "add", file, *ANSWERS, "--name", "net2")
    message, hint = call("models", "remove", "net", "--yes").error
    assert "2 models" in message and "cbir models remove net@" in hint
    answer = call("models", "remove", f"net@{first[:8]}", "--yes", "--json").json
    assert answer["removed"] == f"net@{first[:16]}" and answer["bytes"] > 0
    assert (listed()["net"]["fingerprint"], set(listed()) >= {"net2"}) == (second, True)
    call("models", "remove", f"net@{second}", "--yes")
    assert "net" not in listed()


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("classic", "part of cbir itself", "only models in the store can be removed"),
        ("gone", "no 'gone'", "cbir models list"),
        ("net@", "no 'net@'", "cbir models list"),
        ("net+classic:0.3", "'net+classic:0.3' is a composition", "remove its parts one by one"),
        ("efficientnet-lite0", "no 'efficientnet-lite0'", "it is built at first use"),
    ],
)
def test_what_cannot_be_removed_is_one_line_and_a_cure(
    name: str, message: str, hint: str, file: Path
) -> None:
    call("models", "add", file, *ANSWERS)
    refused = call("models", "remove", name, "--yes").error
    assert message in refused[0] and hint in refused[1]
    assert "net" in listed()


def test_a_damaged_model_can_be_removed(file: Path) -> None:
    folder = Path(call("models", "add", file, *ANSWERS, "--json").json["place"])
    (folder / "model.json").write_text("{")
    assert call("models", "remove", "net", "--yes").code == 0
    assert not folder.exists()


def test_a_file_that_an_index_shares_frees_nothing(tmp_path: Path) -> None:
    card = {"name": "large", "classes": [], "trained_on": "", "licence": "", "quality": {},
            "training": {"images": "none/"}, "preprocessing": {"height": 16, "width": 16},
            "dim": DIM}  # fmt: skip
    own = {"model.onnx": network(), "large.bin": bytes(LINKED_BYTES)}
    card["files"] = {name: sha256_of(data) for name, data in own.items()}
    small = {"model.onnx": own["model.onnx"], "model.json": json.dumps(card).encode()}
    folder = keep_model({**own, **small})
    os.link(folder / "large.bin", tmp_path / "shared")
    removed = call("models", "remove", "large", "--yes", "--json").json
    assert removed["bytes"] == sum(map(len, small.values()))


def test_nothing_but_one_line_is_said_of_a_broken_network(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a network" * 50)
    message, hint = run("models", "add", broken).error
    assert message.startswith("broken.onnx cannot be loaded") and "ONNX" in hint
    fails = tmp_path / "fails.onnx"
    fails.write_bytes(network())
    message, _ = run("models", "add", fails, *replaced(ANSWERS, ("--size", "4"))).error
    assert message.startswith("fails.onnx fails")
