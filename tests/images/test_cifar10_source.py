"""CIFAR-10 in all its forms: the same ids, labels and pixels; found, or downloaded."""

import hashlib
import http.server
import os
import pickle
import socket
import tarfile
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest

from cbir.errors import CbirError, ImageError
from cbir.images import cifar10
from cbir.images.cifar10 import CLASSES, MissingDataError, download_cifar10, find_cifar10
from cbir.images.decode import decode, load_pixels
from cbir.images.download import fetch
from cbir.images.sources import file_path, open_source, source_for_uri
from tests.images.support_images import (
    encoded,
    noise,
    tiny_cifar10,
    write,
    write_batches,
    write_batches_archive,
    write_flat,
    write_tree,
)

BATCHES = tiny_cifar10()


@pytest.fixture(autouse=True)
def empty_home(tmp_path, monkeypatch, request):
    if "cifar10" not in request.keywords:
        monkeypatch.delenv("CBIR_DATA", raising=False)
        monkeypatch.setenv("CBIR_HOME", str(tmp_path / "home"))


def tree_archive(folder, prefix=""):
    tree = write_tree(folder / "to pack", BATCHES)
    folder.mkdir(exist_ok=True)
    path = folder / "cifar10-copy.tar.xz"
    with tarfile.open(path, "w:xz") as tar:
        for split in ("test", "train"):
            tar.add(tree / split, f"{prefix}{split}")
    return path


FORMS = {
    "the canonical archive": lambda place: write_batches_archive(
        place / "cifar-10-python.tar.gz", BATCHES
    ),
    "the extracted batches": lambda place: write_batches(place / "cifar-10-batches-py", BATCHES),
    "flat folders": lambda place: write_flat(place, BATCHES),
    "flat folders with numbers": lambda place: write_flat(place, BATCHES, range(10)),
    "a class-folder tree": lambda place: write_tree(place, BATCHES),
    "an archive of a tree": lambda place: tree_archive(place),
    "an archive of a tree in a folder": lambda place: tree_archive(place, "./cifar10/"),
}


@pytest.fixture(params=FORMS)
def form(request, tmp_path, monkeypatch):
    path = FORMS[request.param](tmp_path / "data")
    monkeypatch.setenv("CBIR_DATA", str(tmp_path / "data"))
    return path


def expected(split):
    """Key -> (label, pixels), straight from the definition of the canonical order."""
    seen, images = Counter(), {}
    for name, (rows, labels) in BATCHES.items():
        if (name == "test_batch") == (split == "test"):
            for row, label in zip(rows, labels, strict=True):
                planes = [row[n * 1024 : (n + 1) * 1024].reshape(32, 32) for n in range(3)]
                key = f"{split}/{CLASSES[label]}/{seen[label]:04d}"
                images[key] = (CLASSES[label], np.dstack(planes))
                seen[label] += 1
    return images


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_form_gives_the_same_ids_labels_and_pixels(form, split):
    wanted = expected(split)
    items = list(open_source(f"cifar10:{split}").items())
    assert {item.key for item in items} == set(wanted)
    assert len(items) == len(wanted)
    for item in items:
        label, pixels = wanted[item.key]
        assert item.label == label
        got = load_pixels(item.read())
        assert got.flags.c_contiguous
        assert np.array_equal(got, pixels)


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_form_opens_its_images_again(form, split):
    wanted = expected(split)
    source = source_for_uri(open_source(f"cifar10:{split}").uri)
    for item in list(open_source(f"cifar10:{split}").items())[::13]:
        assert np.array_equal(load_pixels(source.open(item.location)), wanted[item.key][1])
        assert file_path(source.uri, item.location) is None


@pytest.mark.parametrize(
    "location", ["train/cat/9999.png", "data_batch_1/99", "data_batch_6/0", "../x.jpg", ""]
)
def test_what_is_not_there_cannot_be_opened(form, location):
    with pytest.raises(ImageError):
        open_source("cifar10:train").open(location)


def test_the_source_says_what_it_is(form):
    source = open_source("cifar10:train")
    assert (source.name, source.uri, source.scope) == ("cifar10", "cifar10", "train/")
    assert (source.descriptor, source.ignored) == ("cifar10-cnn", {})
    both = [item.key for item in source_for_uri("cifar10").items()]
    assert set(both) == set(expected("train")) | set(expected("test"))


def test_the_order_is_the_same_each_time(form):
    keys = [[item.key for item in open_source("cifar10:train").items()] for _ in range(2)]
    assert keys[0] == keys[1]


def test_a_tree_counts_its_images_and_is_in_order(tmp_path, monkeypatch):
    monkeypatch.setenv("CBIR_DATA", str(write_tree(tmp_path / "data", BATCHES)))
    source = open_source("cifar10:test")
    keys = [item.key for item in source.items()]
    assert source.count == len(keys)
    assert keys == sorted(keys)


def test_the_other_forms_announce_the_whole_data_set(tmp_path, monkeypatch):
    write_batches(tmp_path / "data/cifar-10-batches-py", BATCHES)
    monkeypatch.setenv("CBIR_DATA", str(tmp_path / "data"))
    assert open_source("cifar10:train").count == 50_000
    assert open_source("cifar10:test").count == 10_000


def test_files_of_a_tree_carry_size_and_time(tmp_path, monkeypatch):
    root = write_tree(tmp_path / "data", BATCHES)
    monkeypatch.setenv("CBIR_DATA", str(root))
    item = next(open_source("cifar10:train").items())
    assert item.location == "train/airplane/0000.png"
    assert item.mtime_ns == (root / item.location).stat().st_mtime_ns
    assert item.file_size == (root / item.location).stat().st_size


# ---- where it is found


def test_cbir_data_may_be_the_thing_itself(form, monkeypatch):
    monkeypatch.setenv("CBIR_DATA", str(form if form.exists() else form.parent))
    assert find_cifar10() == form
    assert len(list(open_source("cifar10:test").items())) == len(expected("test"))


def test_cbir_data_goes_before_the_cache_and_the_cache_before_nothing(tmp_path, monkeypatch):
    assert find_cifar10() is None
    cached = write_batches_archive(tmp_path / "home/data/cifar-10-python.tar.gz", BATCHES)
    assert find_cifar10() == cached
    monkeypatch.setenv("CBIR_DATA", str(tmp_path / "empty"))
    assert find_cifar10() == cached
    tree = write_tree(tmp_path / "named", BATCHES)
    monkeypatch.setenv("CBIR_DATA", str(tree))
    assert find_cifar10() == tree


def test_folders_of_other_classes_are_not_taken_for_cifar10(tmp_path, monkeypatch):
    for word in ("cat", "dog", "zebra"):
        write(tmp_path / f"data/train/{word}/0000.jpg", encoded(noise(1)))
    monkeypatch.setenv("CBIR_DATA", str(tmp_path / "data"))
    assert find_cifar10() is None


def test_flat_folders_with_missing_files_keep_their_names(tmp_path, monkeypatch):
    root = write_flat(tmp_path / "data", BATCHES)
    monkeypatch.setenv("CBIR_DATA", str(root))
    (gone,) = (root / "train").glob("3-*")
    gone.unlink()
    items = list(open_source("cifar10:train").items())
    assert len(items) == len(expected("train")) - 1
    for item in items:
        assert item.location == f"train/{item.key.rpartition('/')[2]}.png"
        assert item.key.split("/")[1] == item.label == item.key.rpartition("-")[2]
    assert {item.key for item in open_source("cifar10:test").items()} == set(expected("test"))


def test_flat_folders_of_other_classes_are_not_taken_for_cifar10(tmp_path, monkeypatch):
    for name in ("0-cat", "1-dog", "2-zebra", "cat", "cat-1"):
        write(tmp_path / f"data/train/{name}.png", encoded(noise(1)))
    monkeypatch.setenv("CBIR_DATA", str(tmp_path / "data"))
    assert find_cifar10() is None


def test_no_data_is_an_error_that_says_how_to_get_it():
    with pytest.raises(MissingDataError) as caught:
        open_source("cifar10:train")
    assert "CBIR_DATA" in caught.value.hint
    assert "cbir demo" in caught.value.hint


def test_an_archive_without_the_split_is_an_error(tmp_path, monkeypatch):
    tree = write_tree(tmp_path / "tree", BATCHES)
    (tmp_path / "data").mkdir()
    with tarfile.open(tmp_path / "data/cifar10.tar", "w") as tar:
        tar.add(tree / "train", "train")
    monkeypatch.setenv("CBIR_DATA", str(tmp_path / "data"))
    assert list(open_source("cifar10:train").items())
    with pytest.raises(MissingDataError, match="no images of cifar10:test"):
        list(open_source("cifar10:test").items())


# ---- pickles that are not to be trusted


class _Shell:
    def __reduce__(self):
        return os.system, ("echo pwned > pwned.txt",)


class _Import:
    def __reduce__(self):
        return __import__, ("antigravity",)


@pytest.mark.parametrize("hostile", [_Shell(), _Import(), print])
def test_a_pickle_that_wants_to_run_something_is_refused(tmp_path, monkeypatch, hostile):
    monkeypatch.chdir(tmp_path)
    rows, labels = BATCHES["test_batch"]
    data = pickle.dumps({b"data": rows, b"labels": labels, b"extra": hostile}, protocol=2)
    write(tmp_path / "data/cifar-10-batches-py/test_batch", data)
    monkeypatch.setenv("CBIR_DATA", str(tmp_path / "data"))
    with pytest.raises(CbirError, match="refused to load"):
        list(open_source("cifar10:test").items())
    assert not (tmp_path / "pwned.txt").exists()


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]}, protocol=2),
        pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]}, protocol=2),
        pickle.dumps({b"data": np.zeros((1, 3072), np.float64), b"labels": [1]}, protocol=2),
        pickle.dumps({b"labels": [1]}, protocol=2),
        pickle.dumps([1, 2, 3], protocol=2),
        b"not a pickle",
        b"",
    ],
)
def test_a_batch_that_is_not_one_is_refused_in_one_line(tmp_path, monkeypatch, content):
    write(tmp_path / "data/cifar-10-batches-py/test_batch", content)
    monkeypatch.setenv("CBIR_DATA", str(tmp_path / "data"))
    with pytest.raises(CbirError, match="test_batch"):
        list(open_source("cifar10:test").items())


def test_a_missing_batch_is_named(tmp_path, monkeypatch):
    write_batches(tmp_path / "data/cifar-10-batches-py", BATCHES)
    (tmp_path / "data/cifar-10-batches-py/data_batch_3").unlink()
    monkeypatch.setenv("CBIR_DATA", str(tmp_path / "data"))
    with pytest.raises(CbirError, match="data_batch_3"):
        list(open_source("cifar10:train").items())


def test_a_cut_archive_of_batches_is_named(tmp_path, monkeypatch):
    path = write_batches_archive(tmp_path / "data/cifar-10-python.tar.gz", BATCHES)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    monkeypatch.setenv("CBIR_DATA", str(tmp_path / "data"))
    with pytest.raises(CbirError, match=r"cifar-10-python\.tar\.gz"):
        list(open_source("cifar10:train").items())


# ---- download

CONTENT = np.random.default_rng(3).bytes(3_000_000)
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


@dataclass
class Server:
    """What the HTTP server sends, and what it was asked for."""

    content: bytes = CONTENT
    ranges: bool = True
    status: int | None = None
    cuts: list[int] = field(default_factory=list)  # bytes after which each next answer breaks off
    asked: list[str | None] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving(server):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            wanted = self.headers.get("Range")
            server.asked.append(wanted)
            if server.status:
                self.send_error(server.status)
                return
            start = int(wanted[6:].rstrip("-")) if wanted and server.ranges else 0
            if start >= len(server.content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(server.content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = server.content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            cut = server.cuts.pop(0) if server.cuts else len(body)
            self.wfile.write(body[:cut])
            if cut < len(body):
                self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        server.url = f"http://127.0.0.1:{httpd.server_port}/cifar-10-python.tar.gz"
        thread = threading.Thread(target=httpd.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            httpd.shutdown()
            thread.join()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving(Server()) as running:
        yield running


def nothing(done, total):
    """A progress nobody looks at."""


def test_a_file_is_downloaded_with_progress_and_gets_its_name_last(server, tmp_path):
    seen = []
    target = tmp_path / "deep/er/file.tar.gz"

    def progress(done, total):
        seen.append((done, total))
        assert not target.exists()

    assert fetch(server.url, target, MD5, progress) == target
    assert target.read_bytes() == CONTENT
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert len(seen) > 5
    assert not target.with_name("file.tar.gz.part").exists()


def test_a_file_that_is_there_is_not_fetched_again(server, tmp_path):
    target = fetch(server.url, tmp_path / "file", MD5, nothing)
    fetch(server.url, target, MD5, nothing)
    assert len(server.asked) == 1


def test_a_connection_that_breaks_is_resumed_where_it_broke(server, tmp_path):
    server.cuts = [1_000_000, 500_000]
    fetch(server.url, tmp_path / "file", MD5, nothing)
    assert (tmp_path / "file").read_bytes() == CONTENT
    first, second, third = server.asked
    assert first is None
    assert 0 < int(second[6:-1]) <= 1_000_000
    assert int(second[6:-1]) < int(third[6:-1]) <= 1_500_000


def test_a_download_that_failed_goes_on_at_the_next_call(server, tmp_path):
    server.cuts = [1_000_000, 0]
    with pytest.raises(CbirError, match=r"the connection broke after .* of 3,000,000 bytes"):
        fetch(server.url, tmp_path / "file", MD5, nothing)
    kept = (tmp_path / "file.part").stat().st_size
    assert 0 < kept <= 1_000_000
    fetch(server.url, tmp_path / "file", MD5, nothing)
    assert server.asked[-1] == f"bytes={kept}-"
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_server_without_ranges_sends_it_all_again(server, tmp_path):
    server.ranges = False
    write(tmp_path / "file.part", CONTENT[:1_000_000])
    fetch(server.url, tmp_path / "file", MD5, nothing)
    assert server.asked == ["bytes=1000000-"]
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_part_that_is_the_whole_file_is_checked_and_taken(server, tmp_path):
    write(tmp_path / "file.part", CONTENT)
    fetch(server.url, tmp_path / "file", MD5, nothing)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_part_that_is_longer_than_the_file_is_thrown_away(server, tmp_path):
    write(tmp_path / "file.part", CONTENT + b"more")
    fetch(server.url, tmp_path / "file", MD5, nothing)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_wrong_file_is_refused_and_not_kept(server, tmp_path):
    with pytest.raises(CbirError, match="returned a wrong file"):
        fetch(server.url, tmp_path / "file", "0" * 32, nothing)
    assert [path.name for path in tmp_path.iterdir() if "lock" not in path.name] == []


def test_an_http_error_is_told_in_one_line(server, tmp_path):
    server.status = 404
    with pytest.raises(CbirError, match="HTTP 404") as caught:
        fetch(server.url, tmp_path / "file", MD5, nothing)
    assert "CBIR_DATA" in caught.value.hint


def test_no_network_is_told_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/x"
        with pytest.raises(CbirError, match=r"cannot download .*: .*refused") as caught:
            fetch(url, tmp_path / "file", MD5, nothing)
    assert "check the network" in caught.value.hint


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")  # noqa: PTH110
def test_a_full_disk_is_told_in_one_line(server, tmp_path):
    (tmp_path / "file.part").symlink_to("/dev/full")
    with pytest.raises(CbirError, match="the disk is full") as caught:
        fetch(server.url, tmp_path / "file", MD5, nothing)
    assert caught.value.hint == "free some space"
    assert not (tmp_path / "file").exists()


def test_a_place_that_cannot_be_written_is_named(server, tmp_path):
    write(tmp_path / "in the way", b"a file")
    with pytest.raises(CbirError, match=r"cannot write .*in the way"):
        fetch(server.url, tmp_path / "in the way/file", MD5, nothing)


def test_two_downloads_at_once_fetch_it_once(server, tmp_path):
    threads = [
        threading.Thread(target=fetch, args=(server.url, tmp_path / "file", MD5, nothing))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.asked) == 1
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_cifar10_is_downloaded_into_the_cache_and_found_there(tmp_path, monkeypatch):
    archive = write_batches_archive(tmp_path / "origin/cifar-10-python.tar.gz", BATCHES)
    content = archive.read_bytes()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(cifar10, "MD5", hashlib.md5(content, usedforsecurity=False).hexdigest())
    with serving(Server(content=content)) as server:
        path = download_cifar10(nothing, server.url)
    assert path == tmp_path / "home/data/cifar-10-python.tar.gz" == find_cifar10()
    assert len(list(open_source("cifar10:test").items())) == len(expected("test"))


def test_anything_but_the_canonical_archive_is_refused(server):
    with pytest.raises(CbirError, match="c58f30108f718f92721af3a45b9a66d0"):
        download_cifar10(nothing, server.url)
    assert find_cifar10() is None


# ---- the real thing


@pytest.mark.cifar10
@pytest.mark.parametrize(("split", "per_class"), [("train", 5000), ("test", 1000)])
def test_the_real_cifar10_has_all_its_images_ids_and_labels(split, per_class):
    source = open_source(f"cifar10:{split}")
    keys, labels, sample = [], Counter(), []
    for item in source.items():
        assert item.key.split("/")[1] == item.label
        if len(keys) % 1000 == 0:
            sample.append(load_pixels(item.read()))
        keys.append(item.key)
        labels[item.label] += 1
    assert labels == dict.fromkeys(CLASSES, per_class)
    assert len(keys) == source.count == 10 * per_class
    assert set(keys) == {f"{split}/{word}/{n:04d}" for word in CLASSES for n in range(per_class)}
    assert {pixels.shape for pixels in sample} == {(32, 32, 3)}


@pytest.mark.cifar10
def test_an_image_of_the_real_cifar10_opens_again():
    source = open_source("cifar10:train")
    item = next(source.items())
    first, again = item.read(), source.open(item.location)
    assert np.array_equal(load_pixels(first), load_pixels(again))
    assert decode(encoded(load_pixels(first), "PNG")).shape == (32, 32, 3)
