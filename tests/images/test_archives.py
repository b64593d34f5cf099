"""Archives give what unpacking gives; `unzip` and GNU tar are the reference."""

import io
import os
import posixpath
import shutil
import struct
import subprocess
import tarfile
import tempfile
import zipfile
import zlib
from itertools import accumulate, count
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cbir.errors import ImageError
from cbir.images.ids import decode_path
from cbir.images.sources import open_source
from tests.images.support_images import add_to_tar, encoded, noise, write

PNG = encoded(noise(1), "PNG")
OTHER = encoded(noise(2), "PNG")
NUMBERS = count()
IMAGES = [encoded(noise(seed, 2, 2), "PNG") for seed in range(6)]
UTF8 = {**os.environ, "LC_ALL": "C.UTF-8"}


def has_gnu_tar():
    if not shutil.which("tar"):
        return False
    return b"GNU tar" in subprocess.run(["tar", "--version"], capture_output=True).stdout


needs_gnu_tar = pytest.mark.skipif(not has_gnu_tar(), reason="needs GNU tar")
needs_unzip = pytest.mark.skipif(not shutil.which("unzip"), reason="needs unzip")


def unpacked(archive):
    """The folder that `unzip` or `tar` makes of an archive, named like it."""
    folder = archive.parent / "unpacked" / archive.stem
    folder.mkdir(parents=True)
    if archive.suffix == ".zip":
        command = ["unzip", "-q", "-o", "-d", str(folder), str(archive)]
    else:
        command = ["tar", "-x", "-C", str(folder), "-f", str(archive)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=UTF8)
    # unzip warns with status 1 about names that it changes.
    assert done.returncode == 0 or (archive.suffix == ".zip" and done.returncode == 1), done.stderr
    return folder


def content_of(item):
    try:
        return item.read()
    except ImageError:
        return None


def shown(path):
    """Key -> label and content of each image of a source; the last of a name counts."""
    source = open_source(str(path), label_from_folder=True)
    found = {item.key: (item.label, content_of(item)) for item in source.items()}
    for key, (_, content) in found.items():
        if content is not None:
            assert source.open(key) == content
    return found


class Raw(zipfile.ZipInfo):
    """A member whose name is written as these bytes, with flags as they are set."""

    __slots__ = ("raw",)

    def _encodeFilenameFlags(self):  # noqa: N802
        return self.raw, self.flag_bits


def member(name, *, system=3, flags=0, link=False, extra=b"", date=(2020, 1, 2, 3, 4, 6)):
    info = Raw(f"placeholder {next(NUMBERS)}", date)
    info.raw = name.encode() if isinstance(name, str) else name
    info.create_system, info.flag_bits, info.extra = system, flags, extra
    info.external_attr = (0o120777 if link else 0o100644) << 16
    return info


def zip_of(path, *members):
    """A zip of pairs (member or name, content)."""
    with zipfile.ZipFile(path, "w") as archive:
        for info, content in members:
            archive.writestr(member(info) if isinstance(info, (str, bytes)) else info, content)
    return path


def unicode_path(raw, text):
    field = struct.pack("<BI", 1, zlib.crc32(raw)) + text.encode()
    return struct.pack("<HH", 0x7075, len(field)) + field


# ---- against the programs

FOLDERS = ["a", "b", "é b", ".", "", "..."]


def names(tops, folders):
    return st.builds(
        lambda top, parts, name: top + "/".join([*parts, name]),
        st.sampled_from(tops),
        st.lists(st.sampled_from(folders), max_size=3),
        st.sampled_from(["x.png", "y.png", "50%.png", "z\\w.png"]),
    )


@needs_unzip
@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            names(["", "", "./", "/", "../"], [*FOLDERS, ".."]),
            st.sampled_from([0, 3]),
            st.sampled_from([0, 0x800]),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_a_zip_has_the_ids_labels_and_images_of_what_unzip_makes(members):
    with tempfile.TemporaryDirectory() as place:
        pairs = [
            (member(name, system=system if name.isascii() else 3, flags=flags), IMAGES[number])
            for number, (name, system, flags) in enumerate(members)
        ]
        path = zip_of(Path(place, "x.zip"), *pairs)
        assert shown(path) == shown(unpacked(path))


tar_members = st.lists(
    st.tuples(
        names(["", "", "./", "/"], FOLDERS),
        st.sampled_from(["file", "file", "hard", "soft", "soft"]),
        st.integers(0, 5),
        st.sampled_from(["", "./", "../", "../b/", "a/"]),
    ),
    min_size=1,
    max_size=6,
)


@needs_gnu_tar
@settings(max_examples=60, deadline=None)
@given(tar_members)
def test_a_tar_has_the_ids_labels_and_images_of_what_tar_makes(members):
    files, links = [], set()
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "x.tar")
        with tarfile.open(path, "w") as archive:
            for number, (name, kind, which, detour) in enumerate(members):
                info = tarfile.TarInfo(name)
                place_of = posixpath.normpath(name.lstrip("/"))
                assume(place_of not in links)  # GNU tar makes some links last, over later files
                if kind == "hard" and files:
                    info.type, info.linkname = tarfile.LNKTYPE, files[which % len(files)]
                    if name != info.linkname:
                        archive.addfile(info)
                elif kind == "soft":
                    info.type = tarfile.SYMTYPE
                    info.linkname = detour + posixpath.basename(members[which % len(members)][0])
                    archive.addfile(info)
                    links.add(place_of)
                else:
                    add_to_tar(archive, name, IMAGES[number])
                    files.append(name)
        assert shown(path) == shown(unpacked(path))


@settings(max_examples=30, deadline=None)
@given(st.lists(names(["", "./"], [*FOLDERS, ".."]), min_size=1, max_size=4))
def test_parent_segments_of_a_tar_lead_where_tarfile_unpacks_them(members):
    """GNU tar refuses such names; tarfile takes them if the folders on the way exist."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "x.tar")
        with tarfile.open(path, "w") as archive:
            for number, name in enumerate(members):
                assume(not posixpath.normpath(name.lstrip("/")).startswith(".."))
                add_to_tar(archive, name, IMAGES[number])
        folder = Path(place, "unpacked", "x")
        for name in members:
            for way in accumulate(name.split("/")[:-1], posixpath.join, initial=""):
                (folder / posixpath.normpath(way)).mkdir(parents=True, exist_ok=True)
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")
        assert shown(path) == shown(folder)


@needs_gnu_tar
@pytest.mark.parametrize(
    ("form", "sparse"),
    [
        ("gnu", ["--sparse"]),
        *(("posix", ["--sparse", f"--sparse-version={version}"]) for version in (0.0, 0.1, 1.0)),
        ("v7", []),
    ],
)
def test_long_names_holes_and_links_of_tar_itself(tmp_path, form, sparse):
    root = tmp_path / "root"
    long = "l" * (40 if form == "v7" else 150)
    hole = f"hole-{long}.png"
    write(root / long / "Zürich" / f"{long}.png", PNG)
    with (root / hole).open("wb") as file:
        file.write(PNG)
        file.truncate(2**20)
        file.seek(2**20)
        file.write(b"end")
    (root / "again").mkdir()
    os.link(root / hole, root / "again" / hole)
    (root / "latest.png").symlink_to(f"{long}/Zürich/{long}.png")
    (root / "folder").symlink_to(long)
    subprocess.run(
        ["tar", "-c", f"--format={form}", *sparse, "-f", "root.tar", "-C", "root", "."],
        cwd=tmp_path,
        check=True,
        env=UTF8,
    )
    expected = shown(root)
    assert set(expected) == {
        f"{long}/Zürich/{long}.png",
        hole,
        f"again/{hole}",
        "latest.png",
    }
    assert shown(tmp_path / "root.tar") == expected


# ---- names


@pytest.mark.parametrize(
    ("info", "key"),
    [
        (member("cats\\a.png", system=0), "cats/a.png"),
        (member("..\\cats\\.\\a.png", system=0), "cats/a.png"),
        (member("cats\\a.png", system=3), "cats\\a.png"),
        (member("cats/a\\b.png", system=0), "cats/a\\b.png"),
        (member("Zürich/a.png"), "Zürich/a.png"),
        (member("Zürich/a.png", flags=0x800), "Zürich/a.png"),
        (
            member(b"Z_rich/a.png", extra=unicode_path(b"Z_rich/a.png", "Zürich/a.png")),
            "Zürich/a.png",
        ),
        (member(b"cats/a.png", extra=unicode_path(b"other", "Zürich/a.png")), "cats/a.png"),
        (member("./cats//./a.png"), "cats/a.png"),
        (member("/cats/../a.png"), "cats/a.png"),
    ],
)
def test_the_names_of_a_zip_are_read_as_unzip_reads_them(tmp_path, info, key):
    path = zip_of(tmp_path / "x.zip", (info, PNG))
    assert shown(path) == {key: (posixpath.basename(posixpath.dirname(f"x/{key}")), PNG)}
    if shutil.which("unzip"):
        assert shown(unpacked(path)) == shown(path)


def test_old_names_that_are_not_utf8_are_cp437(tmp_path):
    """zipfile reads them so, too; unzip makes Latin-1 of them, whatever the system's encoding."""
    info = member("Zürich/a.png".encode("cp437"), system=0)
    assert shown(zip_of(tmp_path / "x.zip", (info, PNG))) == {"Zürich/a.png": ("Zürich", PNG)}


def test_a_tar_of_parent_folders_has_the_labels_of_its_folders(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name in ("../cats/a.png", "/dogs/./b.png", "a/../../c.png"):
            add_to_tar(archive, name, PNG)
    assert shown(tmp_path / "x.tar") == {
        "cats/a.png": ("cats", PNG),
        "dogs/b.png": ("dogs", PNG),
        "c.png": ("x", PNG),
    }


def test_a_member_whose_two_headers_name_it_differently_is_read(tmp_path):
    path = zip_of(tmp_path / "x.zip", ("cats/a.png", PNG))
    path.write_bytes(path.read_bytes().replace(b"cats/a.png", b"cats\\a.png", 1))
    assert shown(path) == {"cats/a.png": ("cats", PNG)}


def test_folders_and_backslash_folders_are_no_files(tmp_path):
    path = zip_of(
        tmp_path / "x.zip", ("cats/", b""), (member("dogs\\", system=0), b""), ("cats/a.png", PNG)
    )
    source = open_source(str(path))
    assert [item.key for item in source.items()] == ["cats/a.png"]
    assert source.ignored.total() == 0


@pytest.mark.parametrize("name", ["..zip", "...tar", ".zip", "..tar.gz"])
def test_no_id_has_a_segment_that_browsers_change(tmp_path, name):
    path = tmp_path / name
    if "zip" in name:
        zip_of(path, ("a.png", PNG))
    else:
        with tarfile.open(path, "w") as archive:
            add_to_tar(archive, "a.png", PNG)
    source = open_source(str(path))
    assert [item.key for item in source.items()] == ["a.png"]
    assert source.name not in ("", ".", "..")


# ---- links, duplicates, passwords


def test_links_of_a_zip_lead_to_their_files(tmp_path):
    path = zip_of(
        tmp_path / "x.zip",
        (member("new/latest.png", link=True), b"../old/a.png"),
        (member("chain.png", link=True), b"new/latest.png"),
        (member("current", link=True), b"old"),
        (member("through.png", link=True), b"current/a.png"),
        (member("hidden.png", link=True), b".store/b"),
        (member("out.png", link=True), b"../../etc/passwd"),
        (member("absolute.png", link=True), b"/etc/passwd"),
        (member("loop.png", link=True), b"loop.png"),
        (member("nowhere", link=True), b"gone"),
        ("old/a.png", PNG),
        (".store/b", OTHER),
    )
    found = shown(path)
    assert found == {
        "old/a.png": ("old", PNG),
        "new/latest.png": ("new", PNG),
        "chain.png": ("x", PNG),
        "through.png": ("x", PNG),
        "hidden.png": ("x", OTHER),
        "out.png": ("x", None),
        "absolute.png": ("x", None),
        "loop.png": ("x", None),
    }
    source = open_source(str(path))
    assert source.count == len(list(source.items())) == 8
    assert source.ignored.total() == 1
    with pytest.raises(ImageError, match=r"a link to /etc/passwd, which is not in the archive"):
        source.open("absolute.png")


def test_a_hard_link_keeps_the_content_that_its_target_had(tmp_path):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        add_to_tar(archive, "a.png", PNG)
        link = tarfile.TarInfo("b.png")
        link.type, link.linkname = tarfile.LNKTYPE, "./a.png"
        archive.addfile(link)
        add_to_tar(archive, "a.png", OTHER)
        gone = tarfile.TarInfo("gone.png")
        gone.type, gone.linkname = tarfile.LNKTYPE, "nothing.png"
        archive.addfile(gone)
    assert shown(path) == {"a.png": ("x", OTHER), "b.png": ("x", PNG), "gone.png": ("x", None)}
    [item] = (item for item in open_source(str(path)).items() if item.key == "b.png")
    assert (item.file_size, item.mtime_ns) == (len(PNG), 1_600_000_000 * 10**9)


def test_the_last_member_of_a_name_is_opened(tmp_path):
    path = zip_of(tmp_path / "x.zip", ("a.png", OTHER), ("./a.png", PNG))
    assert open_source(str(path)).open("a.png") == PNG
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        add_to_tar(archive, "a.png", OTHER)
        add_to_tar(archive, "./a.png", PNG)
    assert open_source(str(tmp_path / "x.tar")).open("a.png") == PNG


def test_a_pipe_in_a_tar_is_passed_over(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        pipe = tarfile.TarInfo("pipe.png")
        pipe.type = tarfile.FIFOTYPE
        archive.addfile(pipe)
    source = open_source(str(tmp_path / "x.tar"))
    assert list(source.items()) == []
    assert source.ignored.total() == 1


def test_encrypted_members_fail_one_by_one(tmp_path):
    path = zip_of(
        tmp_path / "x.zip",
        ("a.png", PNG),
        (member("b.png", link=True), b"a.png"),
        ("c.png", OTHER),
    )
    data = bytearray(path.read_bytes())
    starts = [n for n in range(len(data)) if data[n : n + 4] == b"PK\x01\x02"]
    for start in starts[:2]:
        data[start + 8] |= 1
    path.write_bytes(data)
    source = open_source(str(path))
    items = {item.key: item for item in source.items()}
    for key in ("a.png", "b.png"):
        with pytest.raises(ImageError, match="password"):
            items[key].read()
    assert items["c.png"].read() == OTHER


# ---- dates


@pytest.mark.parametrize("seconds", [10_413_792_000, 1e30, float("nan"), float("-inf"), -(2**62)])
def test_a_date_of_a_tar_that_is_none_costs_nothing(tmp_path, seconds):
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("a.png", "b.png"):
            info = tarfile.TarInfo(name)
            info.size = len(PNG)
            if name == "a.png":
                info.pax_headers = {"mtime": str(seconds)}
            archive.addfile(info, io.BytesIO(PNG))
    first, second = open_source(str(tmp_path / "x.tar")).items()
    assert (first.mtime_ns, first.read()) == (None, PNG)
    assert (second.mtime_ns, second.read()) == (0, PNG)


def test_a_date_of_a_zip_that_is_none_costs_nothing(tmp_path):
    path = zip_of(tmp_path / "x.zip", ("a.png", PNG), ("b.png", OTHER))
    data = bytearray(path.read_bytes())
    start = data.index(b"PK\x01\x02") + 12
    data[start : start + 4] = bytes(4)
    path.write_bytes(data)
    first, second = open_source(str(path)).items()
    assert (first.mtime_ns, first.read()) == (None, PNG)
    assert second.mtime_ns == 1_577_934_246 * 10**9


def test_every_segment_of_a_key_is_a_name(tmp_path):
    path = zip_of(
        tmp_path / "x.zip", *((name, PNG) for name in ("a/./b.png", "a//c.png", "..", "a/..", "/"))
    )
    for key in shown(path):
        assert not {"", ".", ".."} & set(decode_path(key).decode().split("/"))
