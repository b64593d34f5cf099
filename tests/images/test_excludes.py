"""What patterns in gitignore syntax leave out of folders and archives; git itself is the judge."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import tarfile
import tempfile
import unicodedata
import zipfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbir.errors import CbirError, ImageError
from cbir.images.excludes import DEFAULT_PATTERNS, IGNORE_FILE, excludes
from cbir.images.sources import open_source
from tests.images.support_images import add_to_tar, encoded, noise, write

PNG = encoded(noise(2), "PNG")

names = st.sampled_from(["a", "b", "c.png", "foo", "x.jpg", ".h", "a b"])
segments = st.sampled_from(
    ["*", "**", "a", "b", "foo", "*.png", "?", "[a-c]*", "x.jpg", "f*o", "a b", ".*", "[!a]"]
)
patterns = st.builds(
    lambda negated, root, parts, folder: negated + root + "/".join(parts) + folder,
    *(st.sampled_from(["", "", "!"]), st.sampled_from(["", "", "/"])),
    *(st.lists(segments, min_size=1, max_size=3), st.sampled_from(["", "", "/"])),
)
trees = st.sets(st.lists(names, min_size=1, max_size=4).map("/".join), min_size=1, max_size=12)


@settings(max_examples=25, deadline=None)
@given(trees, st.lists(patterns, max_size=2), st.data())
def test_the_same_files_are_left_out_as_by_git(tree, chosen, data):
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for path in sorted(tree, key=len, reverse=True):
            if not (root / path).exists():
                write(root / path, PNG)
        for folder in [root, *filter(Path.is_dir, sorted(root.rglob("*")))]:
            if lines := data.draw(st.lists(patterns, max_size=3)):
                (folder / IGNORE_FILE).write_text("\n".join(lines) + "\n")
        source = open_source(name, rules=excludes(chosen))
        assert sorted(item.key.replace("%20", " ") for item in source.items()) == _by_git(
            root, chosen
        )


def _by_git(root: Path, chosen: list[str]) -> list[str]:
    git = ["git", "-C", str(root)]
    subprocess.run([*git, "init", "--quiet"], check=True)
    defaults = root / ".git" / "info" / "defaults"
    defaults.write_text("\n".join(DEFAULT_PATTERNS))
    listed = subprocess.run(
        [
            *(*git, "ls-files", "--others", "-z", f"--exclude-per-directory={IGNORE_FILE}"),
            *(f"--exclude={pattern}" for pattern in chosen),
            f"--exclude-from={defaults}",
        ],
        check=True,
        capture_output=True,
    ).stdout
    files = listed.decode().split("\0")[:-1]
    return sorted(file for file in files if not file.endswith(IGNORE_FILE))


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "photos"
    for name in ("a.png", "b/c.png", "b/@eaDir/thumb.png", ".trash/old.png", "x.lrdata/1.png"):
        write(root / name, PNG)
    return root


def keys(source):
    return [item.key for item in source.items()]


def test_default_patterns_can_be_switched_off_together_and_one_by_one(photos):
    assert keys(open_source(str(photos))) == ["a.png", "b/c.png"]
    everything = open_source(str(photos), rules=excludes(defaults=False))
    assert len(keys(everything)) == everything.count == 5
    assert everything.open(".trash/old.png") == PNG
    one = open_source(str(photos), rules=excludes(["!@eaDir"]))
    assert keys(one) == ["a.png", "b/@eaDir/thumb.png", "b/c.png"]


def test_a_source_says_what_it_left_out_and_why(photos):
    source = open_source(str(photos), rules=excludes(["c.*"]))
    assert keys(source) == ["a.png"]
    assert source.left_out.paths == {
        ".trash/": "default",
        "b/@eaDir/": "default",
        "x.lrdata/": "default",
        "b/c.png": "chosen",
    }
    asked = ["b/@eaDir/x.png", "b/c.png", "b/d.png", "b"]
    assert [key for key in asked if source.leaves_out(key)] == asked[:2]


def test_a_folder_or_file_that_is_named_is_no_default_exclude(photos):
    assert keys(open_source(str(photos / ".trash"))) == ["old.png"]
    assert keys(open_source(str(photos / ".trash" / "old.png"), rules=excludes(["*.png"]))) == [
        "old.png"
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_an_ignore_file_may_come_from_any_editor(photos, end):
    lines = f"\ufeff# mine{end}{end}caf\u00e9/{end}b  {end}"
    (photos / IGNORE_FILE).write_bytes(lines.encode())
    write(photos / unicodedata.normalize("NFD", "caf\u00e9") / "1.png", PNG)
    assert keys(open_source(str(photos))) == ["a.png"]


def test_a_folder_whose_ignore_file_is_unusable_is_not_walked(photos):
    write(photos / "b" / IGNORE_FILE, b"fine\n!\n")
    (photos / "x").mkdir()
    (photos / "x" / IGNORE_FILE).mkdir()
    reasons = {}
    for item in open_source(str(photos)).items():
        try:
            item.read()
        except ImageError as error:
            reasons[item.key] = error.message
    assert set(reasons) == {"b", "x"}
    assert "'!'" in reasons["b"]
    assert "directory" in reasons["x"]


def test_a_pattern_that_begins_with_a_hash_is_no_comment(tmp_path):
    write(tmp_path / "#work" / "1.png", PNG)
    write(tmp_path / "2.png", PNG)
    assert keys(open_source(str(tmp_path), rules=excludes(["#work"]))) == ["2.png"]


@pytest.mark.parametrize("pattern", ["", "  ", "!", "/", "a\\", "[z-"])
def test_what_is_no_pattern_is_refused(pattern):
    with pytest.raises(CbirError, match="gitignore") as refused:
        excludes(["*.png", pattern])
    assert f"'{pattern}'" in refused.value.message


def test_a_single_pattern_in_place_of_a_list_is_refused():
    with pytest.raises(CbirError, match="single pattern"):
        excludes("*.png")


def test_names_with_line_breaks_and_of_any_bytes_are_matched(tmp_path):
    folder = os.fsencode(tmp_path)
    for name in (b"in\nside", b"caf\xe9"):
        try:
            Path(os.fsdecode(folder + b"/" + name)).mkdir()
        except OSError:
            pytest.skip("this file system takes only UTF-8 names")
        Path(os.fsdecode(folder + b"/" + name + b"/raw.png")).write_bytes(PNG)
    assert keys(open_source(str(tmp_path), rules=excludes(["raw.png"]))) == []
    write(tmp_path / IGNORE_FILE, b"caf\xe9\n")
    assert keys(open_source(str(tmp_path))) == ["in%0Aside/raw.png"]


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_archives_leave_out_what_the_unpacked_folder_would(tmp_path, kind):
    members = ["a.png", "__MACOSX/a.png", "b/@eaDir/1.png", "b/c d.png", "b/e.png", "notes.txt"]
    path = tmp_path / f"photos.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name in members:
                archive.writestr(name, PNG if name.endswith("png") else "text")
    else:
        with tarfile.open(path, "w") as archive:
            for name in members:
                add_to_tar(archive, name, PNG if name.endswith("png") else b"text")
    source = open_source(str(path), rules=excludes(["c d.*"]))
    assert keys(source) == ["a.png", "b/e.png"]
    assert source.ignored.total() == 1
    assert source.count == (2 if kind == "zip" else None)
    assert source.left_out.paths == {
        "__MACOSX/": "default",
        "b/@eaDir/": "default",
        "b/c%20d.png": "chosen",
    }
    assert source.open("b/e.png") == PNG
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(path) if kind == "zip" else tarfile.open(path) as archive:
        archive.extractall(folder)
    assert keys(open_source(str(folder), rules=excludes(["c d.*"]))) == ["a.png", "b/e.png"]


def test_a_cbirignore_counts_beside_another_programs_index_but_not_inside_ours(tmp_path):
    write(tmp_path / "foreign/index.sqlite", b"of a photo manager")
    (tmp_path / "foreign" / IGNORE_FILE).write_text("a.png\n")
    for path in ("foreign/a.png", "foreign/b.png", "own/c.png"):
        write(tmp_path / path, PNG)
    with closing(sqlite3.connect(tmp_path / "own/index.sqlite")) as database:
        for table in ("meta", "records", "vectors"):
            database.execute(f"CREATE TABLE {table} (name)")
    (tmp_path / "own" / IGNORE_FILE).mkdir()  # cannot be read
    source = open_source(str(tmp_path))
    assert [(item.key, item.read()) for item in source.items()] == [("foreign/b.png", PNG)]
    assert source.indexes == [str(tmp_path / "own")]
    assert (source.left_out.paths["foreign/a.png"], source.ignored) == ("chosen", {".sqlite": 1})
