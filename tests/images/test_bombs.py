"""Archives that are made to exhaust memory or disk: bounded, told, and the rest is read."""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import os
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from contextlib import contextmanager

import pytest

from cbir.errors import CbirError, ImageError
from cbir.images import kept_tars, tar_members, unpacked, zips
from cbir.images.items import SourceItem
from cbir.images.sources import open_source
from cbir.images.tars import TarSource
from cbir.ingest.indexing import index_images
from tests.cli.support_cli import call
from tests.images.support_archives import (
    END,
    PNG,
    bloated_tar,
    long_name_tar,
    lying_zip,
    padded,
    tar_header,
    tar_member,
)
from tests.images.support_images import add_to_tar

MUCH = 61_440_000
BOUND = 20_000_000
"""More than any step needs, far less than the bombs expand to."""


def outcomes(path):
    """What each item gives: its bytes or the reason why not; then the error that ended them."""
    found = {}
    try:
        for item in open_source(str(path)).items():
            assert isinstance(item, SourceItem)
            try:
                found[item.key] = item.read()
            except ImageError as error:
                found[item.key] = error.message
    except CbirError as error:
        found["end"] = error.message
    return found


@contextmanager
def bounded_memory():
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < BOUND


# ---- zip


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_member_is_read_up_to_its_stated_size(tmp_path, method):
    path = lying_zip(tmp_path / "x.zip", method, 1000, MUCH)
    with bounded_memory():
        found = outcomes(path)
    assert found == {
        "a.png": PNG,
        "b.png": "damaged in the archive: it expands to more than the 1,000 bytes that the "
        "archive states",
        "c.png": PNG,
    }


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_every_method_gives_what_zipfile_gives(tmp_path, method):
    contents = {
        f"{size}.png": PNG + bytes(range(256)) * size for size in (0, 1, 255, 256, 257, 900)
    }
    with zipfile.ZipFile(tmp_path / "x.zip", "w", method) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    assert outcomes(tmp_path / "x.zip") == contents


def test_members_that_share_their_bytes_are_refused_but_one(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.png", PNG)
        archive.writestr("d.png", PNG)
        first = archive.getinfo("a.png")
        for name in ("b.png", "c.png"):
            info = zipfile.ZipInfo(name)
            for field in ("header_offset", "CRC", "compress_size", "file_size"):
                setattr(info, field, getattr(first, field))
            archive.filelist.append(info)
    found = outcomes(tmp_path / "x.zip")
    reasons = [value for value in found.values() if value != PNG]
    assert reasons == ["damaged in the archive: its bytes are those of other members, too"] * 2
    assert found["d.png"] == PNG


def test_a_method_that_is_unknown_is_named_with_the_cure(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", PNG)
        archive.writestr("b.png", PNG)
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\1\2")
    data[entry + 10 : entry + 12] = struct.pack("<H", 9)
    path.write_bytes(data)
    found = outcomes(path)
    assert found["a.png"].startswith("compressed by a method that cannot be read here (deflate64)")
    assert "unpack the archive and index the folder" in found["a.png"]
    assert found["b.png"] == PNG


def test_a_zip_that_python_refuses_is_one_error_with_its_cure(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", PNG)
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + 6] = 200  # the version needed to read it
    path.write_bytes(data)
    with pytest.raises(CbirError, match=r"cannot be read \(zip file version 20\.0\)") as caught:
        list(open_source(str(path)).items())
    assert "unpack it with another program" in caught.value.hint


def test_an_endless_table_of_contents_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(zips, "_MOST_MEMBERS", 50)
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(51):
            archive.writestr(f"{number}.png", b"")
    assert "more than 50 members" in outcomes(path)["end"]
    monkeypatch.setattr(zips, "_MOST_TABLE_BYTES", 500)
    assert "table of contents is longer" in outcomes(path)["end"]


@pytest.mark.parametrize("name", ["n" * 60_000 + ".png", "d/" * 300 + "a.png"])
def test_a_long_name_in_a_zip_is_one_row(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(name, PNG)
        archive.writestr("a.png", PNG)
    found = outcomes(tmp_path / "x.zip")
    assert found.pop("a.png") == PNG
    [(key, reason)] = found.items()
    assert len(key) < 300
    assert reason == "its path in the archive has more than 4,096 bytes or 256 folders"


# ---- tar

PACKERS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_header_that_expands_is_one_row_and_the_next_member_is_read(tmp_path, packer, kind):
    bloated_tar(tmp_path / "x.tar", packer, kind, MUCH)
    with bounded_memory():
        found = outcomes(tmp_path / "x.tar")
    assert (found.pop("a.png"), found.pop("b.png")) == (PNG, PNG)
    [(key, reason)] = found.items()
    assert key.startswith("cut~") and "its path in the archive" in reason


@pytest.mark.parametrize(
    "record",
    [
        b"path=" + b"n" * 5000,
        b"path=" + b"d/" * 300 + b"x.png",
        b"linkpath=" + b"n" * 5000,
    ],
)
def test_a_long_name_in_a_tar_is_one_row(tmp_path, record):
    long_name_tar(tmp_path / "x.tar", record)
    found = outcomes(tmp_path / "x.tar")
    assert found.pop("a.png") == PNG
    assert [*found.values()] == ["its path in the archive has more than 4,096 bytes or 256 folders"]


@pytest.mark.parametrize(
    "headers",
    [
        # A search of tarfile for the character set takes quadratic time in digits.
        pytest.param(b"".join([b"1000012 comment=", b"1" * 999_995, b"\n"]), id="digits"),
        # Each of its keywords would be kept: all that follows, in half as many pieces as bytes.
        pytest.param(b"2 " * 499_999 + b"=", id="keywords"),
        pytest.param(b"13 size=-5120\n", id="backwards"),
        pytest.param(b"15 mtime=1e999\n", id="a date that is none"),
        pytest.param(b"99999999999999 path=x\n", id="length"),
        pytest.param(b"0 path=x\n", id="no length"),
        pytest.param(b"garbage", id="garbage"),
    ],
)
def test_headers_that_are_made_to_hang_do_not(tmp_path, headers):
    data = tar_header(tarfile.XHDTYPE, len(headers)) + padded(headers) + tar_member("b.png")
    (tmp_path / "x.tar").write_bytes(tar_member("a.png") + data + END)
    found = outcomes(tmp_path / "x.tar")
    assert found["a.png"] == PNG
    assert len(found) == 2


def test_a_map_of_holes_without_end_is_damage(tmp_path):
    info = tarfile.TarInfo("holes.png")
    info.type, info.size = tarfile.GNUTYPE_SPARSE, 512
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[482] = 1  # more of the map follows
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    more = (b"%011o\0" % 1) * 42 + b"\1" + bytes(7)
    content = tar_member("a.png") + bytes(block) + more * 20_000
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(content))
    found = outcomes(tmp_path / "x.tar.gz")
    assert found.pop("a.png") == PNG
    assert "headers of more than 8 MiB" in found["end"]


def test_an_archive_that_expands_without_end_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(tar_members, "EXPANDED_TIMES", 10)
    monkeypatch.setattr(tar_members, "EXPANDED_BYTES", 10_000_000)
    content = (
        tar_member("a.png")
        + tar_header(b"0", MUCH, "zeros.bin")
        + bytes(MUCH)
        + tar_member("b.png")
    )
    for packer, pack in PACKERS.items():
        path = tmp_path / f"x.tar.{packer}"
        path.write_bytes(pack(content + END))
        found = outcomes(path)
        assert found.pop("a.png") == PNG
        assert "expands to more than 10 times its size" in found["end"]
        assert open_source(str(path)).open("a.png") == PNG


def test_holes_count_as_expanded(tmp_path, monkeypatch):
    monkeypatch.setattr(tar_members, "EXPANDED_BYTES", 10_000_000)
    monkeypatch.setattr(tar_members, "EXPANDED_TIMES", 1)
    version = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n"
    headers = version + b"32 GNU.sparse.realsize=90000000\n"
    data = (
        tar_header(tarfile.XHDTYPE, len(headers))
        + padded(headers)
        + tar_member("b.png", padded(b"0\n"))
    )
    (tmp_path / "x.tar").write_bytes(tar_member("a.png") + data + END)
    found = outcomes(tmp_path / "x.tar")
    assert found["a.png"] == PNG
    assert "expands to more than" in found["end"]


def test_names_take_bounded_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(unpacked, "_MOST_TEXT", 20_000)
    with tarfile.open(tmp_path / "x.tar.xz", "w:xz") as archive:
        for number in range(200):
            add_to_tar(archive, f"{number}/a.png", PNG)
    found = outcomes(tmp_path / "x.tar.xz")
    assert "names and links take more than" in found.pop("end")
    assert set(found.values()) == {PNG}
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for number in range(200):
            archive.writestr(f"{number}/a.png", PNG)
    assert "names and links take more than" in outcomes(tmp_path / "x.zip")["end"]


def test_a_dictionary_larger_than_allowed_is_damage(tmp_path):
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0}]
    data = bytearray(lzma.compress(tar_member("a.png") + END, filters=filters))
    start = 12  # the header of the first block: its size, its filters, its checksum
    end = start + (data[start] + 1) * 4 - 4
    data[data.index(b"\x21\x01", start) + 2] = 38  # a dictionary of 2 GiB
    data[end : end + 4] = struct.pack("<I", zlib.crc32(data[start:end]))
    path = tmp_path / "x.tar.xz"
    path.write_bytes(data)
    with tarfile.open(path) as archive:
        assert archive.getnames() == ["a.png"]
    with pytest.raises(CbirError, match="damaged"):
        open_source(str(path))


def test_compression_inside_compression_is_no_archive(tmp_path):
    once = gzip.compress(tar_member("a.png") + END)
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(once))
    with pytest.raises(CbirError, match="damaged, or not an archive"):
        open_source(str(tmp_path / "x.tar.gz"))


def test_streams_one_after_another_are_one_archive(tmp_path):
    content = tar_member("a.png") + tar_member("b.png") + END
    for packer, pack in PACKERS.items():
        path = tmp_path / f"x.tar.{packer}"
        path.write_bytes(pack(content[:700]) + bytes(512) * (packer != "bz2") + pack(content[700:]))
        assert outcomes(path) == {"a.png": PNG, "b.png": PNG}


# ---- originals


@pytest.fixture
def packed(tmp_path):
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as archive:
        for number in range(5):
            add_to_tar(archive, f"{number}.png", PNG + bytes([number]))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "3.png"
        archive.addfile(link)
        add_to_tar(archive, "notes.txt", b"no picture")
    return tmp_path / "x.tar.gz"


def kept():
    folder = kept_tars.cbir_home() / "archives"
    return sorted(folder.glob("*.tar"))


def test_originals_of_a_compressed_tar_are_read_from_one_expanded_copy(packed, monkeypatch):
    source = open_source(str(packed))
    assert source.open("4.png") == PNG + b"\4"
    [copy] = kept()
    opened = []
    monkeypatch.setattr(kept_tars, "_expand", lambda *_: opened.append(1))
    again = open_source(str(packed))
    assert [again.open(f"{n}.png") for n in (0, 3)] == [PNG + b"\0", PNG + b"\3"]
    assert again.open("link.png") == PNG + b"\3"
    assert (kept(), opened) == ([copy], [])
    for name in ("notes.txt", "other.png"):
        with pytest.raises(ImageError, match="gone: no image"):
            again.open(name)


def test_a_changed_archive_is_expanded_anew_and_the_old_copy_goes(packed):
    source = open_source(str(packed))
    source.open("0.png")
    before = kept()
    with tarfile.open(packed, "w:gz") as archive:
        add_to_tar(archive, "0.png", PNG + b"new")
    assert source.open("0.png") == PNG + b"new"
    assert len(kept()) == 1 and kept() != before


def test_copies_are_bounded_and_the_last_used_stay(packed, tmp_path, monkeypatch):
    size = 5 * 1024 * 3
    monkeypatch.setattr(kept_tars, "MOST_KEPT", 2 * size)
    paths = []
    for number in range(3):
        path = tmp_path / f"{number}.tar.gz"
        path.write_bytes(packed.read_bytes())
        paths.append(path)
    open_source(str(paths[0])).open("0.png")
    [first] = kept()
    open_source(str(paths[1])).open("0.png")
    open_source(str(paths[0])).open("0.png")
    open_source(str(paths[2])).open("0.png")
    assert first in kept()
    assert sum(path.stat().st_size for path in kept()) <= 2 * size


def test_an_archive_that_is_too_large_to_keep_says_so_at_once(packed, monkeypatch):
    monkeypatch.setattr(kept_tars, "MOST_KEPT", 2000)
    for _ in range(2):
        with pytest.raises(ImageError, match="expands to more than") as caught:
            open_source(str(packed)).open("0.png")
        assert "unpack it and index the folder" in caught.value.hint
    assert kept() == []


def test_indexing_says_that_originals_of_a_large_archive_will_not_be_opened(
    packed, tmp_path, monkeypatch
):
    plain = tmp_path / "plain.tar"
    plain.write_bytes(gzip.decompress(packed.read_bytes()))
    monkeypatch.setattr(kept_tars, "MOST_KEPT", 4000)
    into = str(tmp_path / "x.cbir")
    for exclude in ((), ("0.png",)):
        report = index_images([packed, plain], into, descriptor="classic", exclude=exclude)
        assert report.unopened == [str(packed)]
        assert kept() == []
    with pytest.raises(ImageError, match="expands to more than"):
        open_source(str(packed)).open("1.png")
    answer = call("index", packed, "--into", into)
    assert f"originals in {packed} will not be opened" in answer.out + answer.err
    assert call("index", packed, "--into", into, "--json").json["unopened"] == [str(packed)]
    monkeypatch.setattr(kept_tars, "MOST_KEPT", 100_000)
    assert index_images([packed], into, descriptor="classic").unopened == []


def test_an_archive_that_goes_away_while_it_is_indexed_ends_no_run(packed, tmp_path, monkeypatch):
    monkeypatch.setattr(kept_tars, "MOST_KEPT", 4000)
    into, real = str(tmp_path / "x.cbir"), TarSource._reach
    index_images([packed], into, descriptor="classic")

    def goes(source, end):
        packed.unlink(missing_ok=True)
        real(source, end)

    monkeypatch.setattr(TarSource, "_reach", goes)
    report = index_images([packed], into)
    assert report.unchanged and report.unopened == [] and not packed.exists()


def test_what_lies_before_the_damage_is_opened(tmp_path, packed):
    whole = gzip.decompress(packed.read_bytes())
    path = tmp_path / "cut.tar.gz"
    path.write_bytes(gzip.compress(whole[: len(whole) // 4]))
    source = open_source(str(path))
    assert source.open("0.png") == PNG + b"\0"
    with pytest.raises(CbirError, match=r"cut\.tar\.gz: the archive is damaged"):
        source.open("4.png")


def test_a_full_disk_is_named_and_leaves_nothing(packed, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(kept_tars, "put_in_place", full)
    with pytest.raises(ImageError, match="No space left") as caught:
        open_source(str(packed)).open("0.png")
    assert "CBIR_HOME" in caught.value.hint
    left = {path.suffix for path in (kept_tars.cbir_home() / "archives").iterdir()}
    assert left <= {".lock"}
