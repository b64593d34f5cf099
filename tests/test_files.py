"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cbir.files import alone, replacing, write_files, write_whole


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    write_whole(file, b"old")
    write_whole(file, b"new")
    assert file.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [file]


def test_a_failure_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), replacing(file) as draft:
        assert draft.name == file.name  # for formats that keep the name, and NumPy's .npz
        draft.write_bytes(b"half of the n")
        raise KeyboardInterrupt
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    with replacing(tmp_path / "model") as draft:
        draft.mkdir()
        (draft / "card").write_bytes(b"{}")
        assert not (tmp_path / "model").exists()
    assert (tmp_path / "model" / "card").read_bytes() == b"{}"


def test_no_file_of_several_is_replaced_unless_all_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "b").write_bytes(b"in the way")
    with pytest.raises(OSError, match="b"):
        write_files({"a": b"new", "b/c": b"new"}, tmp_path)
    assert (tmp_path / "a").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_names_with_folders_make_the_folders(tmp_path: Path) -> None:
    write_files({"index.html": b"a", "plots/b.png": b"b"}, tmp_path / "report")
    assert (tmp_path / "report" / "plots" / "b.png").read_bytes() == b"b"


def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path: Path) -> None:
    file, link = tmp_path / "a.txt", tmp_path / "link"
    file.write_bytes(b"old")
    link.symlink_to(file)
    write_whole(link, b"new")
    assert link.is_symlink()
    assert file.read_bytes() == b"new"


def test_a_pipe_is_written_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_bytes)
        write_whole(pipe, b"through")
        assert read.result(timeout=10) == b"through"
    assert pipe.is_fifo()


def test_only_one_holds_a_lock(tmp_path: Path) -> None:
    lock, refused = tmp_path / "x.lock", RuntimeError("in use")
    with pytest.raises(KeyboardInterrupt), alone(lock, refused):
        with pytest.raises(RuntimeError, match="in use"), alone(lock, refused):
            pytest.fail("two hold it")
        raise KeyboardInterrupt
    with alone(lock, refused):
        pass
