"""Ids, and everything that a person can name as a source of images."""

import importlib.util
import io
import os
import sqlite3
import stat
import string
import tarfile
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbir.errors import CbirError, ImageError, MissingExtraError
from cbir.images import decode as decode_module
from cbir.images.ids import decode_path, encode_path, make_id
from cbir.images.sources import file_path, open_source, source_for_uri
from cbir.index.open import create_index
from cbir.types import DescriptorSpec
from tests.images.support_images import add_to_tar, encoded, four_colours, noise, write

JPEG = encoded(noise(1))
PNG = encoded(noise(2), "PNG")


# ---- ids

names = st.binary(min_size=1).map(lambda data: data.replace(b"\0", b"x"))


@given(names)
def test_an_encoded_path_decodes_to_the_same_bytes(data):
    assert decode_path(encode_path(data)) == data


@given(st.text())
def test_text_is_encoded_as_its_utf8_bytes(text):
    assert encode_path(text) == encode_path(text.encode())


@given(names)
def test_an_encoded_path_has_no_white_space_and_is_clean_utf8(data):
    text = encode_path(data)
    assert text == "".join(text.split())
    assert text.encode().decode() == text
    assert text.isprintable() or not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in text)


@given(names, names)
def test_different_paths_have_different_encodings(one, other):
    assert (encode_path(one) == encode_path(other)) == (one == other)


def test_readable_names_stay_readable():
    assert encode_path("Große Katze/été 100%.jpg") == "Große%20Katze/été%20100%25.jpg"
    assert encode_path(b"latin-\xe9.jpg") == "latin-%E9.jpg"
    assert encode_path("a\u3000b\tc\x7f") == "a%E3%80%80b%09c%7F"


def test_an_id_is_the_source_and_the_key():
    assert make_id("photos", "a/b.jpg") == "photos/a/b.jpg"


@given(st.integers(490, 520))
def test_ids_of_up_to_512_bytes_are_left_alone(length):
    whole = "s/" + "x" * (length - 2)
    assert (make_id("s", whole[2:]) == whole) == (length <= 512)


long_keys = st.binary(min_size=520, max_size=700).map(encode_path)


@given(long_keys)
def test_a_long_id_is_cut_at_a_boundary_and_ends_in_a_hash(key):
    cut, _, digest = make_id("s", key).rpartition("~")
    assert len(digest) == 64
    assert set(digest) <= set(string.hexdigits)
    assert 397 - 3 <= len(cut.encode()) <= 400
    assert f"s/{key}".startswith(cut)
    assert encode_path(decode_path(cut)) == cut  # no `%XX` is cut in two


@given(st.lists(long_keys, min_size=2, max_size=4, unique=True))
def test_long_ids_stay_unique(keys):
    start = "y" * 600
    assert len({make_id("s", start + key) for key in keys}) == len(keys)


# ---- folders


def write_index(folder):
    """An empty index as the embedded engine makes it."""
    create_index(str(folder), DescriptorSpec("none", 2, "0" * 64)).close()


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "my photos"
    for name in ("b.jpg", "a/2.jpg", "a/10.JPG", "a-b/1.jpg", "a/deep/er/x y.png", "été.jpeg"):
        write(root / name, PNG if name.endswith("png") else JPEG)
    write(root / "notes.txt", b"nothing to see")
    write(root / ".hidden.jpg", JPEG)
    write(root / ".git/object.jpg", JPEG)
    write_index(root / "old.cbir")
    write(root / "old.cbir/thumb.jpg", JPEG)
    write(root / "no_extension", PNG)
    write(root / "liar.jpg", b"a text, not an image")
    return root


PHOTO_KEYS = [
    *("a-b/1.jpg", "a/10.JPG", "a/2.jpg", "a/deep/er/x%20y.png"),
    *("b.jpg", "liar.jpg", "no_extension", "été.jpeg"),
]


def test_a_folder_yields_every_image_below_it_in_the_order_of_their_bytes(photos):
    source = open_source(str(photos))
    items = list(source.items())
    assert [item.key for item in items] == PHOTO_KEYS
    assert sorted(PHOTO_KEYS, key=str.encode) == PHOTO_KEYS
    assert [item.location for item in items] == PHOTO_KEYS
    assert source.count == len(items)
    assert source.ignored.total() == 1
    assert (source.name, source.uri) == ("my%20photos", str(photos))
    assert (source.scope, source.descriptor) == ("", None)


def test_items_of_a_folder_carry_size_time_and_bytes(photos):
    for item in open_source(str(photos)).items():
        path = photos / os.fsdecode(decode_path(item.location))
        assert item.read() == path.read_bytes()
        assert item.file_size == path.stat().st_size
        assert item.mtime_ns == path.stat().st_mtime_ns
        assert item.label is None


def test_labels_are_the_folders_names(photos):
    labels = {item.key: item.label for item in open_source(str(photos), True).items()}
    assert labels["a/2.jpg"] == "a"
    assert labels["a/deep/er/x%20y.png"] == "er"
    assert labels["b.jpg"] == "my photos"


def test_an_image_is_opened_again_by_its_location(photos):
    source = open_source(str(photos))
    assert source.open("a/deep/er/x%20y.png") == PNG
    assert source_for_uri(source.uri).open("no_extension") == PNG
    assert file_path(source.uri, "a/deep/er/x%20y.png") == str(photos / "a/deep/er/x y.png")


@pytest.mark.parametrize(
    "location",
    [
        *(
            "../secret.jpg",
            "a/../../secret.jpg",
            "/etc/passwd",
            "a//2.jpg",
            "",
            ".",
            "a",
            "./b.jpg",
        ),
        *(
            "gone.jpg",
            "notes.txt",
            "%2E%2E/secret.jpg",
            "b.jpg%00",
        ),
        "x" * 5000 + ".jpg",
        *("%2E%2E%2Fsecret.jpg", "a/%2e%2e/%2e%2e/secret.jpg"),
    ],
)
def test_nothing_outside_of_a_folder_can_be_opened(photos, location):
    write(photos.parent / "secret.jpg", JPEG)
    with pytest.raises(ImageError):
        open_source(str(photos)).open(location)


def test_names_that_are_not_utf8_are_images_like_others(tmp_path):
    raw = os.fsencode(tmp_path) + b"/caf\xe9 1.jpg"
    try:
        Path(os.fsdecode(raw)).write_bytes(JPEG)
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    source = open_source(str(tmp_path))
    [item] = source.items()
    assert item.key == "caf%E9%201.jpg"
    assert source.open(item.location) == JPEG


def test_an_empty_folder_has_no_items(tmp_path):
    source = open_source(str(tmp_path))
    assert list(source.items()) == []
    assert source.count == 0


def test_only_an_index_of_ours_is_skipped_and_it_is_named(photos):
    assert open_source(str(photos)).indexes == []
    with closing(sqlite3.connect(photos / "a/index.sqlite")) as database:
        database.execute("CREATE TABLE meta (name)")
    write(photos / "a-b/index.sqlite", b"no database")
    before = {path: path.stat().st_mtime_ns for path in photos.rglob("*")}
    source = open_source(str(photos))
    assert [item.key for item in source.items()] == PHOTO_KEYS
    assert source.indexes == [str(photos / "old.cbir")]
    assert source.ignored.total() == 3
    assert open_source(str(photos / "a")).count == 3
    assert {path: path.stat().st_mtime_ns for path in photos.rglob("*")} == before


def test_a_date_that_does_not_fit_into_64_bits_is_none(photos):
    os.utime(photos / "b.jpg", (10_413_792_000, 10_413_792_000))  # the year 2300
    if (photos / "b.jpg").stat().st_mtime != 10_413_792_000:
        pytest.skip("this file system has no such dates")
    items = {item.key: item for item in open_source(str(photos)).items()}
    assert items["b.jpg"].mtime_ns is None
    assert items["b.jpg"].file_size == len(JPEG)
    assert items["a/2.jpg"].mtime_ns is not None


def test_a_second_walk_yields_the_same_and_counts_ignored_files_afresh(photos):
    source = open_source(str(photos))
    keys = [[item.key for item in source.items()] for _ in range(2)]
    assert keys[0] == keys[1]
    assert source.ignored.total() == 1


def test_links_in_a_circle_do_not_trap_the_walk(photos):
    (photos / "a/up").symlink_to(photos)
    (photos / "a/self").symlink_to(photos / "a/self")
    (photos / "out").symlink_to(photos.parent)
    assert [item.key for item in open_source(str(photos)).items()] == PHOTO_KEYS


def test_a_linked_folder_outside_is_walked_and_its_images_can_be_opened(photos):
    write(photos.parent / "elsewhere/far.jpg", PNG)
    (photos / "link").symlink_to(photos.parent / "elsewhere")
    (photos / "link again").symlink_to(photos.parent / "elsewhere")
    (photos / "linked.jpg").symlink_to(photos.parent / "elsewhere/far.jpg")
    source = open_source(str(photos))
    keys = [item.key for item in source.items()]
    assert [key for key in keys if "link" in key] == ["link%20again/far.jpg", "linked.jpg"]
    assert source.open("linked.jpg") == PNG
    assert source.open("link%20again/far.jpg") == PNG


def test_a_link_that_leads_nowhere_or_to_itself_is_an_item_that_says_why_it_fails(tmp_path):
    (tmp_path / "dead.jpg").symlink_to(tmp_path / "nothing.jpg")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    (tmp_path / "dead.txt").symlink_to(tmp_path / "nothing.txt")
    source = open_source(str(tmp_path))
    items = list(source.items())
    assert [item.key for item in items] == ["dead.jpg", "loop.jpg"]
    for item in items:
        with pytest.raises(ImageError, match="cannot be read"):
            item.read()
    assert source.ignored.total() == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_with_an_images_name_is_passed_over(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    source = open_source(str(tmp_path))
    assert list(source.items()) == []
    assert source.ignored.total() == 1


def test_an_unreadable_folder_is_an_item_that_says_why_it_fails(photos, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    items = {item.key: item for item in open_source(str(photos)).items()}
    assert set(items) == set(PHOTO_KEYS) - {"a/deep/er/x%20y.png"} | {"a/deep"}
    with pytest.raises(ImageError, match="cannot be read: Permission denied"):
        items["a/deep"].read()


def test_a_file_that_vanished_after_the_walk_says_so(photos):
    items = list(open_source(str(photos)).items())
    (photos / "b.jpg").unlink()
    with pytest.raises(ImageError, match="No such file"):
        next(item for item in items if item.key == "b.jpg").read()


def test_a_file_over_the_byte_limit_is_not_read(photos, monkeypatch):
    monkeypatch.setattr(decode_module, "BYTE_LIMIT", 100)
    with pytest.raises(ImageError, match="exceeds the limit"):
        next(open_source(str(photos)).items()).read()


def test_one_image_file_is_a_source_of_one_item_with_its_folders_id(photos):
    source = open_source(str(photos / "a/2.jpg"), True)
    [item] = source.items()
    assert (item.key, item.label, item.read()) == ("2.jpg", "a", JPEG)
    assert (source.name, source.uri) == ("a", str(photos / "a"))
    assert (source.scope, source.count) == ("2.jpg", 1)


def test_a_relative_path_and_its_absolute_form_are_one_source(photos, monkeypatch):
    monkeypatch.chdir(photos.parent)
    assert open_source("my photos/../my photos").uri == open_source(str(photos)).uri


# ---- archives


def zip_of(path, members, **options):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 2, 3, 4, 6)), data, **options)
    return path


def tar_of(path, members, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            add_to_tar(archive, name, data)
    return path


MEMBERS = {
    "z/last.jpg": JPEG,
    "cats/one two.jpg": JPEG,
    "cats/100%.png": PNG,
    "top.gif": encoded(four_colours(), "GIF"),
    "plain": PNG,
    "readme.txt": b"hello",
    ".hidden.jpg": JPEG,
    "__MACOSX/._one.jpg": b"resource fork",
    "../evil.jpg": JPEG,
    "/abs/evil.jpg": PNG,
}
ARCHIVE_KEYS = {
    *("z/last.jpg", "cats/one%20two.jpg", "cats/100%25.png", "top.gif", "plain"),
    *("evil.jpg", "abs/evil.jpg"),
}
ORIGINALS = {"evil.jpg": "../evil.jpg", "abs/evil.jpg": "/abs/evil.jpg"}
MAKERS = {
    "x.zip": zip_of,
    "x.tar": tar_of,
    "x.tar.gz": lambda path, members: tar_of(path, members, "w:gz"),
    "x.tgz": lambda path, members: tar_of(path, members, "w:gz"),
    "x.tar.xz": lambda path, members: tar_of(path, members, "w:xz"),
    "x.tar.bz2": lambda path, members: tar_of(path, members, "w:bz2"),
}


@pytest.mark.parametrize("name", MAKERS)
def test_an_archive_yields_its_images_and_writes_nothing_to_disk(tmp_path, name):
    path = MAKERS[name](tmp_path / name, MEMBERS)
    source = open_source(str(path), label_from_folder=True)
    items = list(source.items())
    assert {item.key for item in items} == ARCHIVE_KEYS
    for item in items:
        original = MEMBERS[ORIGINALS.get(item.key, decode_path(item.key).decode())]
        assert item.read() == original
        assert item.file_size == len(original)
        assert source.open(item.location) == original
        assert source_for_uri(source.uri).open(item.location) == original
    labels = {item.key: item.label for item in items}
    assert labels["cats/100%25.png"] == "cats"
    assert labels["top.gif"] == "x"
    assert source.ignored.total() == 1
    assert (source.name, source.uri) == ("x", str(path))
    assert file_path(source.uri, "top.gif") is None
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_a_label_is_the_folder_alike_for_folders_and_archives(tmp_path):
    members = {"top.png": PNG, "cats/one.png": PNG, "zoo/big cats/two.png": PNG}
    for name, data in members.items():
        (tmp_path / "dogs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "dogs" / name).write_bytes(data)
    zip_of(tmp_path / "dogs.zip", members)
    tar_of(tmp_path / "dogs.tar", members)
    expected = {"top.png": "dogs", "cats/one.png": "cats", "zoo/big%20cats/two.png": "big cats"}
    for place in ("dogs", "dogs.zip", "dogs.tar"):
        items = list(open_source(str(tmp_path / place), label_from_folder=True).items())
        assert {item.key: item.label for item in items} == expected
    alone = open_source(str(tmp_path / "dogs" / "cats" / "one.png"), label_from_folder=True)
    assert [item.label for item in alone.items()] == ["cats"]


def test_a_zip_is_in_the_order_of_its_names_and_knows_its_count(tmp_path):
    source = open_source(str(zip_of(tmp_path / "x.zip", MEMBERS)))
    assert source.count == len(ARCHIVE_KEYS)
    keys = [item.key for item in source.items()]
    assert keys == sorted(ARCHIVE_KEYS, key=str.encode)
    assert {item.label for item in source.items()} == {None}
    assert next(source.items()).mtime_ns == 1_577_934_246 * 10**9


def test_a_tar_is_in_its_own_order_and_carries_times(tmp_path):
    members = {name: MEMBERS[name] for name in ("z/last.jpg", "cats/one two.jpg")}
    items = list(open_source(str(tar_of(tmp_path / "x.tar", members))).items())
    assert [item.key for item in items] == ["z/last.jpg", "cats/one%20two.jpg"]
    assert {item.mtime_ns for item in items} == {1_600_000_000 * 10**9}


def test_a_leading_dot_in_a_tars_names_is_no_part_of_the_key(tmp_path):
    source = open_source(str(tar_of(tmp_path / "x.tar", {"./a/b.jpg": JPEG, "./c.jpg": PNG})))
    assert [item.key for item in source.items()] == ["a/b.jpg", "c.jpg"]
    assert source.open("c.jpg") == PNG


def test_links_in_a_tar_are_items_that_say_why_they_fail(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    [item] = open_source(str(tmp_path / "x.tar")).items()
    with pytest.raises(ImageError, match="a link to /etc/passwd"):
        item.read()


def test_a_member_over_the_byte_limit_is_an_item_that_says_so(tmp_path, monkeypatch):
    huge = tarfile.TarInfo("huge.jpg")
    huge.size = 200_000_000
    path = tmp_path / "x.tar"
    with path.open("wb") as file:
        file.write(huge.tobuf())
        file.truncate(512 + 200_000_000)  # a whole number of blocks
    with path.open("ab") as file, tarfile.open(fileobj=file, mode="w|") as archive:
        add_to_tar(archive, "small.jpg", JPEG)
    huge_item, small_item = open_source(str(path)).items()
    with pytest.raises(ImageError, match="200 MB exceeds the limit of 100 MB"):
        huge_item.read()
    assert small_item.read() == JPEG


def test_members_of_a_zip_can_be_read_from_many_threads(tmp_path):
    members = {f"{n}.png": encoded(noise(n), "PNG") for n in range(60)}
    items = list(open_source(str(zip_of(tmp_path / "x.zip", members))).items())
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda item: item.read(), items))
    assert read == [members[item.key] for item in items]


def test_items_of_a_tar_can_be_read_later_and_elsewhere(tmp_path):
    members = {f"{n}.png": encoded(noise(n), "PNG") for n in range(20)}
    items = list(open_source(str(tar_of(tmp_path / "x.tar", members))).items())
    read = []
    worker = threading.Thread(target=lambda: read.extend(item.read() for item in reversed(items)))
    worker.start()
    worker.join()
    assert read == list(reversed(members.values()))


def test_a_damaged_member_of_a_zip_fails_alone(tmp_path):
    path = zip_of(tmp_path / "x.zip", {"a.jpg": JPEG, "b.jpg": PNG}, compress_type=0)
    data = bytearray(path.read_bytes())
    data[data.index(JPEG[100:140])] ^= 0xFF
    path.write_bytes(data)
    bad, good = open_source(str(path)).items()
    with pytest.raises(ImageError, match="damaged in the archive"):
        bad.read()
    assert good.read() == PNG


def test_an_encrypted_member_says_so(tmp_path):
    path = zip_of(tmp_path / "x.zip", {"a.jpg": JPEG})
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    path.write_bytes(data)
    [item] = open_source(str(path)).items()
    with pytest.raises(ImageError, match="password"):
        item.read()


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "x.zip"])
def test_a_tar_that_is_cut_off_yields_what_is_whole_and_then_an_error_naming_it(tmp_path, name):
    members = {f"{n}.png": encoded(noise(n), "PNG") for n in range(100)}
    path = MAKERS[name](tmp_path / name, members)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 9 // 10])
    items = []
    with pytest.raises(CbirError, match=name):
        items.extend(open_source(str(path)).items())
    taken = []
    with pytest.raises(CbirError, match="damaged"):
        for item in open_source(str(path)).items():
            taken.append(item.read())
    assert taken == list(members.values())[: len(taken)]
    assert len(taken) > 0 or name == "x.tar.bz2"


def test_a_header_damaged_in_the_middle_of_a_tar_is_an_error_and_not_the_end(tmp_path):
    path = tar_of(tmp_path / "x.tar", {"a.jpg": JPEG, "b.jpg": PNG, "c.jpg": JPEG})
    data = bytearray(path.read_bytes())
    data[data.index(b"b.jpg")] = 0x7A
    path.write_bytes(data)
    with pytest.raises(CbirError, match=r"x\.tar"):
        list(open_source(str(path)).items())


def test_an_original_that_is_gone_says_so(tmp_path):
    for name in ("x.zip", "x.tar"):
        path = MAKERS[name](tmp_path / name, MEMBERS)
        source = open_source(str(path))
        with pytest.raises(ImageError, match=r"gone: no image other\.jpg"):
            source.open("other.jpg")
        path.unlink()
        with pytest.raises(ImageError, match="gone"):
            source.open("top.gif")


# ---- what cannot be opened


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("nowhere/at all", "nowhere/at all: no such file or folder", "check the spelling"),
        ("cifar10:tran", "unknown source 'cifar10:tran'", "did you mean 'cifar10:train'?"),
        ("cifar10", "unknown source 'cifar10'", "use cifar10:train or cifar10:test"),
        ("digits:tests", "unknown source 'digits:tests'", "did you mean 'digits:test'?"),
        ("cifar-10:train", "no such file or folder", "did you mean 'cifar10:train'?"),
    ],
)
def test_a_source_that_is_not_there_is_refused_at_once_with_the_cure(text, message, hint):
    with pytest.raises(CbirError) as caught:
        open_source(text)
    assert message in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("notes.txt", b"hello", "not an image, folder or archive"),
        ("empty.jpg", b"", "not an image"),
        ("photos.zip", b"not a zip", "damaged, or not an archive despite its name"),
        ("photos.tar.gz", b"\x1f\x8b\x08", "damaged|truncated"),
        ("photos.tar.xz", b"\xfd7zXZ\0nonsense", "damaged|truncated"),
    ],
)
def test_a_file_that_is_no_source_is_refused_at_once(tmp_path, name, data, message):
    path = write(tmp_path / name, data)
    with pytest.raises(CbirError, match=message) as caught:
        open_source(str(path))
    assert name in caught.value.message


def test_an_index_is_no_source_of_images(photos):
    with pytest.raises(CbirError, match="is an index"):
        open_source(str(photos / "old.cbir"))


@pytest.mark.parametrize("text", ["x" * 5000, "a\0b"])
def test_a_path_that_cannot_be_is_refused_in_one_line(text):
    with pytest.raises(CbirError) as caught:
        open_source(text)
    assert "\0" not in caught.value.message


def test_a_source_that_has_moved_says_so(tmp_path):
    with pytest.raises(CbirError, match="no such file or folder"):
        source_for_uri(str(tmp_path / "moved"))


def test_archives_of_any_name_are_known_by_their_bytes(tmp_path):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("a.jpg", JPEG)
    [item] = open_source(str(write(tmp_path / "comic.cbz", data.getvalue()))).items()
    assert item.read() == JPEG


# ---- digits


def test_digits_are_split_one_in_five_within_each_class():
    sklearn = pytest.importorskip("sklearn.datasets", reason="needs the `digits` extra")
    data = sklearn.load_digits()
    items = {split: list(open_source(f"digits:{split}").items()) for split in ("train", "test")}
    assert len(items["train"]) + len(items["test"]) == 1797
    for digit in range(10):
        of_class = data.images[data.target == digit]
        for split, expected in (
            ("test", of_class[4::5]),
            ("train", [grey for n, grey in enumerate(of_class) if n % 5 != 4]),
        ):
            members = [item for item in items[split] if item.label == str(digit)]
            assert [item.key for item in members] == [
                f"{split}/{digit}/{n:04d}" for n in range(len(expected))
            ]
            pixels = np.stack([item.read() for item in members])
            assert pixels.dtype == np.uint8
            assert pixels.shape[1:] == (8, 8, 3)
            greys = np.stack(expected)[..., None]
            assert np.abs(pixels - greys * 255 / 16).max() <= 0.5


def test_digits_are_reopened_from_what_an_index_keeps():
    pytest.importorskip("sklearn", reason="needs the `digits` extra")
    source = open_source("digits:test")
    assert (source.name, source.uri, source.scope) == ("digits", "digits", "test/")
    assert source.descriptor == "classic"
    assert source.count == len(list(source.items()))
    item = next(source.items())
    assert np.array_equal(source_for_uri(source.uri).open(item.location), item.read())
    with pytest.raises(ImageError):
        source.open("train/0/9999")
    assert file_path(source.uri, item.location) is None


def test_digits_without_scikit_learn_say_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match="the digits source needs the 'digits' extra"):
        open_source("digits:train")


def test_permissions_of_sources_are_never_changed(photos):
    before = {path: stat.S_IMODE(path.stat().st_mode) for path in photos.rglob("*")}
    for item in open_source(str(photos)).items():
        item.read()
    assert {path: stat.S_IMODE(path.stat().st_mode) for path in photos.rglob("*")} == before
