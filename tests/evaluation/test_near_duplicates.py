"""Queries that are nearly the same as an indexed picture are found and left out."""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

import cbir
from cbir.errors import CbirError, QueryError
from cbir.evaluation import Queries, describe_queries, evaluate
from cbir.evaluation.near_duplicates import near_duplicates
from cbir.images.thumbnails import thumbnail
from tests.cli.support_cli import call
from tests.descriptors.local.support_textures import texture
from tests.descriptors.support_photos import MeanColour

COUNT = 12


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> cbir.Searcher:
    folder = tmp_path_factory.mktemp("near") / "photos"
    for seed in range(COUNT):
        (folder / f"class{seed % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(texture(seed)).save(folder / f"class{seed % 2}" / f"{seed:02}.png")
    place = folder.parent / "p.cbir"
    cbir.index_images([folder], place, descriptor=MeanColour(), label_from_folder=True)
    return cbir.Searcher.open(place, MeanColour())


def same(picture: Image.Image) -> Image.Image:
    return picture


def compressed(picture: Image.Image) -> Image.Image:
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=40)
    return Image.open(data).convert("RGB")


def brighter(picture: Image.Image) -> Image.Image:
    return ImageEnhance.Contrast(ImageEnhance.Brightness(picture).enhance(1.2)).enhance(0.8)


def shifted(picture: Image.Image) -> Image.Image:
    return Image.fromarray(np.roll(np.asarray(picture), (6, 8), axis=(0, 1)))


def mirrored(picture: Image.Image) -> Image.Image:
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def smaller(picture: Image.Image) -> Image.Image:
    return picture.resize((80, 60))


def cropped(picture: Image.Image) -> Image.Image:
    width, height = picture.size
    return picture.crop((width // 12, height // 16, width - width // 12, height - height // 10))


def stretched(picture: Image.Image) -> Image.Image:
    width, height = picture.size
    return picture.crop((width // 7, 0, width, height))


def framed(picture: Image.Image) -> Image.Image:
    return ImageOps.expand(picture, 5, (120, 40, 40))


def recoloured(picture: Image.Image) -> Image.Image:
    tinted = np.asarray(picture) * np.array([1.0, 0.7, 0.4])
    return Image.fromarray(tinted.astype(np.uint8))


def asked(pictures: list[Image.Image], ids: list[str] | None = None) -> Queries:
    names = ids or [f"q/{n}" for n in range(len(pictures))]
    vectors = np.ones((len(names), 3), dtype=np.float32)
    shown = [thumbnail(None, np.asarray(p)) for p in pictures]
    return Queries(names, [None] * len(names), vectors, shown)


@pytest.mark.parametrize(
    "edit",
    [
        same,
        compressed,
        brighter,
        shifted,
        mirrored,
        smaller,
        cropped,
        stretched,
        framed,
        recoloured,
    ],
)
def test_an_edited_copy_is_a_near_duplicate(
    searcher: cbir.Searcher, edit: Callable[[Image.Image], Image.Image]
) -> None:
    pictures = [edit(Image.fromarray(texture(seed))) for seed in range(COUNT)]
    assert near_duplicates(searcher.index, asked(pictures)).all()


def test_other_pictures_are_not(searcher: cbir.Searcher) -> None:
    others = [Image.fromarray(texture(seed)) for seed in range(100, 130)]
    flat = Image.new("RGB", (64, 64), (90, 90, 90))
    assert not near_duplicates(searcher.index, asked([*others, flat])).any()


def test_a_turned_picture_is_another(searcher: cbir.Searcher) -> None:
    turned = [Image.fromarray(texture(seed)).rotate(90) for seed in range(COUNT)]
    assert not near_duplicates(searcher.index, asked(turned)).any()


def test_a_query_is_no_near_duplicate_of_itself(searcher: cbir.Searcher) -> None:
    ids = list(searcher.index.ids())
    pictures = [Image.fromarray(texture(int(i[-6:-4]))) for i in ids]
    assert not near_duplicates(searcher.index, asked(pictures, ids)).any()


def test_wide_and_tall_pictures_are_found_too(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    sizes = [(1200, 100), (90, 1100), (2000, 120)]
    panoramas = [
        Image.fromarray(texture(seed, *size))
        for seed, size in zip(range(12), sizes * 4, strict=True)
    ]
    for number, panorama in enumerate(panoramas):
        panorama.save(folder / f"{number}.png")
    cbir.index_images([folder], tmp_path / "p.cbir", descriptor=MeanColour())
    with closing(cbir.Searcher.open(tmp_path / "p.cbir", MeanColour())) as opened:
        cut = [p.crop((p.width // 20, 0, p.width, p.height)) for p in panoramas]
        assert near_duplicates(opened.index, asked(cut)).all()


def test_a_querys_own_record_takes_no_other_pictures_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = Image.fromarray(texture(5))
    negative = ImageOps.invert(picture)  # its edges are the same, yet it is another picture
    folder = tmp_path / "photos"
    folder.mkdir()
    picture.save(folder / "query.png")
    cropped(picture).save(folder / "copy.png")
    for number in range(4):
        ImageEnhance.Brightness(negative).enhance(0.9 + number / 20).save(folder / f"{number}.png")
    cbir.index_images([folder], tmp_path / "p.cbir", descriptor=MeanColour())
    with closing(cbir.Searcher.open(tmp_path / "p.cbir", MeanColour())) as opened:
        query = asked([picture], ["photos/query.png"])
        for size in (1, 3, 100):
            monkeypatch.setattr("cbir.evaluation.near_duplicates._PICTURES_AT_ONCE", size)
            assert near_duplicates(opened.index, query).all()


def queries(folder: Path, copies: int, others: int) -> Path:
    for number in range(copies + others):
        seed = number if number < copies else 200 + number
        (folder / f"class{seed % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(texture(seed)).save(folder / f"class{seed % 2}" / f"q{number}.png")
    return folder


def test_they_are_left_out_of_every_figure_and_named(
    searcher: cbir.Searcher, tmp_path: Path
) -> None:
    source = cbir.open_source(str(queries(tmp_path / "asked", 3, 4)), label_from_folder=True)
    whole = evaluate(searcher, source, ["P@1"])
    result = evaluate(searcher, source, ["P@1"], without_near_duplicates=True)
    assert result.near_duplicates is not None and result.near_duplicates.doubtful
    assert (whole.n_queries, result.n_queries) == (7, 4)
    found = result.to_json()["near_duplicates"]
    assert found["left_out"] == 3
    assert found["ids"] == [i for i in whole.queries.ids if i not in result.queries.ids]
    kept = [i in result.queries.ids for i in whole.queries.ids]
    np.testing.assert_array_equal(result.per_query["P@1"], whole.per_query["P@1"][kept])
    assert whole.to_json()["near_duplicates"] is None


def test_what_is_found_does_not_depend_on_how_many_are_looked_at_at_once(
    searcher: cbir.Searcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = cbir.open_source(str(queries(tmp_path / "asked", 4, 4)), label_from_folder=True)
    described = describe_queries(searcher, source)
    whole = near_duplicates(searcher.index, described)
    assert whole.sum() == 4
    for size in (1, 5):
        monkeypatch.setattr("cbir.evaluation.near_duplicates._PICTURES_AT_ONCE", size)
        np.testing.assert_array_equal(near_duplicates(searcher.index, described), whole)


@pytest.mark.parametrize("same", [True, False])
def test_a_thumbnail_that_cannot_be_read_is_named(
    searcher: cbir.Searcher, tmp_path: Path, same: bool
) -> None:
    """That of the indexed picture, or of a query with its content, which takes the stored one."""
    place = Path(shutil.copytree(searcher.index.url, tmp_path / "p.cbir"))
    damaged = sorted(searcher.index.ids())[0]
    with closing(sqlite3.connect(place / "thumbs.sqlite")) as thumbs, thumbs:
        first = "SELECT min(key) FROM thumbs"
        thumbs.execute(f"UPDATE thumbs SET picture = x'00ff' WHERE key = ({first})")
    asked = queries(tmp_path / "asked", 1, 4)
    if not same:
        Image.fromarray(texture(0) // 4 * 4).save(asked / "class0" / "q0.png")
    source = cbir.open_source(str(asked), label_from_folder=True)
    named = "asked/class0/q0.png" if same else damaged
    with (
        closing(cbir.Searcher.open(place, MeanColour())) as opened,
        pytest.raises(CbirError, match=f"the thumbnail of {named} (cannot be read|has changed)"),
    ):
        evaluate(opened, source, without_near_duplicates=True)


def test_a_few_copies_among_many_queries_are_no_doubt(
    searcher: cbir.Searcher, tmp_path: Path
) -> None:
    source = cbir.open_source(str(queries(tmp_path / "asked", 1, 8)), label_from_folder=True)
    found = evaluate(searcher, source, ["P@1"], without_near_duplicates=True).near_duplicates
    assert found is not None and len(found.ids) == 1 and not found.doubtful


def test_nothing_left_to_ask_is_one_line(searcher: cbir.Searcher, tmp_path: Path) -> None:
    source = cbir.open_source(str(queries(tmp_path / "asked", 3, 0)), label_from_folder=True)
    with pytest.raises(QueryError, match="every query has a near-duplicate"):
        evaluate(searcher, source, without_near_duplicates=True)


def test_the_command_says_how_many(tmp_path: Path) -> None:
    call("index", "digits:train", "--into", tmp_path / "d.cbir", "--descriptor", "cifar10-cnn")
    options = ("--in", tmp_path / "d.cbir", "--queries", "digits:test", "-m", "P@10")
    answer = call("evaluate", *options, "--without-near-duplicates")
    figures = json.loads(call("evaluate", *options, "--without-near-duplicates", "--json").out)
    left_out = figures["near_duplicates"]["left_out"]
    assert figures["n_queries"] + left_out == 1797 - figures["n_indexed"]
    assert f"Left out: {left_out:,} of" in answer.err
    # Digits of 8 x 8 pixels are mistaken for each other, which the notes say.
    assert figures["near_duplicates"]["doubtful"] == (
        left_out > 0.2 * (1797 - figures["n_indexed"])
    )
    assert figures["near_duplicates"]["doubtful"] == ("This many are rarely copies" in answer.err)
