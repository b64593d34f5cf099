"""A repair with the originals of the pictures, and the model from elsewhere."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from cbir.home import cbir_home
from cbir.index.open import open_index
from cbir.ingest.indexing import index_images
from cbir.search.spares import spares_for
from tests.descriptors.support_photos import MeanColour
from tests.web.support_web import picture


def test_thumbnails_come_from_originals_that_are_still_the_same(tmp_path: Path) -> None:
    photos, place = tmp_path / "photos", tmp_path / "photos.cbir"
    photos.mkdir()
    for number in range(3):
        (photos / f"{number}.png").write_bytes(picture(number, 300))
    index_images([photos], place, descriptor=MeanColour())
    with closing(open_index(place)) as index:
        before = {record: index.thumbnail(record) for record in index.ids()}
    with closing(sqlite3.connect(place / "thumbs.sqlite")) as connection, connection:
        connection.execute("UPDATE thumbs SET picture = randomblob(9)")
    (photos / "1.png").write_bytes(picture(9, 300))
    (photos / "2.png").unlink()
    with closing(open_index(place, write=True)) as index:
        told = index.verify(repair=True, spares=spares_for(index))
        assert told == [
            "3 thumbnails have changed",
            "not repaired: 2 records are to be described again; index their sources again",
        ]
        after = {record: index.thumbnail(record) for record in index.ids()}
    first, *others = before
    assert after == {first: before[first], **dict.fromkeys(others)}


def test_no_thumbnail_is_drawn_from_a_source_that_nobody_confirmed(tmp_path: Path) -> None:
    photos, place = tmp_path / "photos", tmp_path / "photos.cbir"
    photos.mkdir()
    (photos / "0.png").write_bytes(picture(0, 300))
    index_images([photos], place, descriptor=MeanColour())
    (cbir_home() / "sources.json").unlink()
    with closing(sqlite3.connect(place / "thumbs.sqlite")) as connection, connection:
        connection.execute("UPDATE thumbs SET picture = randomblob(9)")
    with closing(open_index(place, write=True)) as index:
        index.verify(repair=True, spares=spares_for(index))
        assert [index.thumbnail(record) for record in index.ids()] == [None]


def test_a_shipped_model_is_restored_from_the_package(tmp_path: Path) -> None:
    photos, place = tmp_path / "photos", tmp_path / "photos.cbir"
    photos.mkdir()
    (photos / "a.png").write_bytes(picture(1))
    index_images([photos], place, descriptor="cifar10-bovw")
    for file in (place / "model").iterdir():
        file.write_bytes(file.read_bytes()[:-1])
    with closing(open_index(place, write=True)) as index:
        assert index.verify()
        index.verify(repair=True, spares=spares_for(index))
        assert index.verify() == []
