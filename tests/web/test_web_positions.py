"""The bytes of pictures hold no position for visitors who may not see positions."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest
from PIL import Image
from werkzeug.test import TestResponse

from cbir.images.decode import decode
from cbir.ingest.indexing import index_images
from cbir.search.searcher import Searcher
from cbir.web.app import create_app
from tests.images.support_images import encoded, noise
from tests.web.support_web import Grid, open_searcher, served

XMP = b'<x:xmpmeta><rdf:Description exif:GPSLatitude="47,22.5N" exif:GPSLongitude="8,32E"/>'
FORMS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "tif": "TIFF"}
REMOTE = "192.168.1.7"


def exif() -> bytes:
    block = Image.Exif()
    block[0x010F], block[0x0112] = "Maker", 6
    gps = {1: "N", 2: (47.0, 22.0, 30.0), 3: "E", 4: (8.0, 32.0, 0.0)}
    block.get_ifd(0x8825).update(gps)
    return block.tobytes()


def files() -> dict[str, bytes]:
    """Small files, which are their own thumbnails, and larger ones."""
    made = {}
    for seed, (suffix, form) in enumerate(FORMS.items()):
        made[f"small.{suffix}"] = encoded(noise(seed, 20, 30), form, exif=exif())
        made[f"large.{suffix}"] = encoded(noise(seed, 300, 400), form, exif=exif())
    made["xmp.jpg"] = encoded(noise(7, 20, 30), xmp=XMP)
    made["plain.jpg"] = encoded(noise(8, 20, 30))
    made["broken.tif"] = encoded(noise(9, 20, 30), "TIFF", exif=exif())
    return made


FILES = files()
HELD = sorted(set(FILES) - {"plain.jpg", "broken.tif"})


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searcher]:
    folder = tmp_path_factory.mktemp("placed") / "pictures"
    folder.mkdir()
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    place = str(folder.with_suffix(".cbir"))
    report = index_images([folder], place, descriptor=Grid())
    assert report.added == len(FILES)
    with open_searcher(place) as opened:
        yield opened


def get(
    searcher: Searcher, path: str, address: str = REMOTE, on_loopback: bool = False, **headers: str
) -> TestResponse:
    client = create_app(searcher, on_loopback=on_loopback).test_client()
    named: dict[str, Any] = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.get(path, headers=named, environ_overrides={"REMOTE_ADDR": address})


def position(data: bytes) -> dict[int, Any]:
    """What Pillow reads, and XMP."""
    with Image.open(io.BytesIO(data)) as image:
        held = dict(image.getexif().get_ifd(0x8825))
        return held | ({0: image.info["xmp"]} if b"GPS" in image.info.get("xmp", b"") else {})


@pytest.mark.parametrize("name", HELD)
def test_originals_leave_this_machine_without_their_position(searcher: Searcher, name: str) -> None:
    assert position(FILES[name])
    answer = get(searcher, f"/image/pictures/{name}")
    assert answer.status_code == 200
    assert not position(answer.data)
    assert b"Maker" not in answer.data
    shown, before = decode(answer.data), decode(FILES[name])
    assert shown.shape == before.shape  # upright
    kept = answer.headers["Content-Disposition"]
    if name.endswith(".tif"):
        assert answer.mimetype == "image/jpeg"
        assert kept == f"inline; filename*=UTF-8''{name}.jpg"
    else:
        assert np.array_equal(shown, before)
        assert kept.endswith(f"''{name}")


@pytest.mark.parametrize("name", HELD)
def test_thumbnails_leave_this_machine_without_a_position(searcher: Searcher, name: str) -> None:
    answer = get(searcher, f"/thumb/pictures/{name}")
    assert answer.status_code == 200
    assert not position(answer.data)
    stored = searcher.index.thumbnail(f"pictures/{name}")
    assert stored is not None
    assert np.array_equal(decode(answer.data), decode(stored))


def test_this_machine_gets_every_file_byte_for_byte(searcher: Searcher) -> None:
    for name, data in FILES.items():
        answer = get(searcher, f"/image/pictures/{name}", "127.0.0.1", on_loopback=True)
        assert answer.data == data
    small = get(searcher, "/thumb/pictures/small.jpg", "127.0.0.1", on_loopback=True)
    assert small.data == FILES["small.jpg"]


def test_a_file_without_a_position_is_served_byte_for_byte(searcher: Searcher) -> None:
    for kind in ("image", "thumb"):
        assert get(searcher, f"/{kind}/pictures/plain.jpg").data == FILES["plain.jpg"]


@pytest.mark.parametrize("header", ["Forwarded", "X-Forwarded-For", "X-Real-IP", "Via"])
def test_the_server_itself_hears_of_a_proxy(searcher: Searcher, header: str) -> None:
    with served(searcher) as address:
        path = address.rstrip("/") + "/image/pictures/small.jpg"
        with urlopen(path, timeout=10) as answer:
            assert answer.read() == FILES["small.jpg"]
        with urlopen(Request(path, headers={header: "10.0.0.7"}), timeout=10) as answer:
            assert not position(answer.read())


def test_caches_never_mix_the_two_forms(searcher: Searcher) -> None:
    (record,) = searcher.index.records(["pictures/small.jpg"])
    path = f"/image/{record.id}?v={record.content_hash[:16]}"
    remote, local = get(searcher, path), get(searcher, path, "127.0.0.1", on_loopback=True)
    assert remote.headers["ETag"] != local.headers["ETag"]
    for answer in (remote, local):
        assert "private" in answer.headers["Cache-Control"]
    again = get(searcher, path, If_None_Match=local.headers["ETag"])
    assert (again.status_code, again.data) == (200, remote.data)
    assert get(searcher, path, If_None_Match=remote.headers["ETag"]).status_code == 304


def test_no_part_of_the_original_is_served(searcher: Searcher) -> None:
    for asked in ({"Range": "bytes=0-2000"}, {"Range": "bytes=0-2000", "If_Range": '"x"'}):
        answer = get(searcher, "/image/pictures/small.jpg", **asked)
        assert answer.status_code in (200, 206)
        assert not position(answer.data)


def test_what_cannot_be_shown_without_its_position_is_refused(
    searcher: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = FILES["broken.tif"]
    cut = broken.replace(b"\x03\x01\x03\0\x01\0\0\0\x01\0", b"\x03\x01\x03\0\x01\0\0\0\x09\0")
    assert cut != broken  # the compression is unknown
    monkeypatch.setattr(type(searcher), "original", lambda *_: cut)
    answer = get(searcher, "/image/pictures/broken.tif", Accept="application/json")
    assert answer.status_code == 403
    assert answer.json is not None
    assert answer.json["error"] == {
        "message": "pictures/broken.tif says where it was taken, and cannot be shown without that",
        "hint": "Open it on the machine that serves it.",
    }
