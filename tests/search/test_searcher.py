from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cbir
from cbir.errors import CbirError, ImageError, QueryError, RecordGoneError
from cbir.images.decode import decode
from cbir.search.expand import expanded_query
from cbir.search.query import pixels_of
from cbir.types import DescriptorSpec
from tests.descriptors.support_photos import COLOURS, MeanColour, picture, write_photos


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("searched") / "photos", per_colour=6)


@pytest.fixture(scope="module")
def searcher(folder: Path) -> cbir.Searcher:
    place = str(folder.parent / "photos.cbir")
    cbir.index_images([str(folder)], place, descriptor=MeanColour(), label_from_folder=True)
    return cbir.Searcher.open(place, MeanColour())


def test_a_path_its_bytes_and_its_pixels_are_the_same_query(
    searcher: cbir.Searcher, folder: Path
) -> None:
    path = folder / "green" / "2.png"
    pixels = np.asarray(Image.open(path))
    answers = [searcher.search(query) for query in (path, str(path), path.read_bytes(), pixels)]
    assert all(answer == answers[0] for answer in answers)
    first = answers[0][0]
    assert (first.rank, first.id, first.record.label) == (1, "photos/green/2.png", "green")
    assert first.score == pytest.approx(1)
    assert first.path == str(path)


def test_an_opened_file_and_a_pil_image_are_the_same_query(
    searcher: cbir.Searcher, folder: Path
) -> None:
    path = folder / "green" / "2.png"
    expected = searcher.search(path)
    with path.open("rb") as file:
        assert searcher.search(file) == expected
        file.seek(0)
        assert searcher.search(cbir.Query(file), k=10) == expected
    assert searcher.search(io.BytesIO(path.read_bytes())) == expected
    assert searcher.search(bytearray(path.read_bytes())) == expected
    with Image.open(path) as image:
        assert searcher.search(image) == expected
    assert searcher.search(Image.open(path).copy()) == expected


def _pictures() -> Iterator[tuple[str, Image.Image, dict[str, Any]]]:
    rgb = Image.fromarray(picture((200, 120, 10), 5))
    turned = Image.Exif()
    turned[0x0112] = 6
    yield "JPEG", rgb, {"exif": turned}
    yield "JPEG", rgb.convert("CMYK"), {}
    clear = rgb.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(rgb.size))
    yield "PNG", clear, {}
    yield "GIF", rgb.quantize(16), {}
    yield "PNG", Image.fromarray(np.arange(60 * 40, dtype=np.uint16).reshape(40, 60) * 27), {}
    yield "TIFF", Image.fromarray(np.linspace(0, 1, 600, dtype=np.float32).reshape(20, 30)), {}


@pytest.mark.parametrize(("kind", "image", "options"), list(_pictures()))
def test_a_pil_image_has_the_pixels_that_its_file_has(
    kind: str, image: Image.Image, options: dict[str, Any]
) -> None:
    file = io.BytesIO()
    image.save(file, kind, **options)
    with Image.open(file) as opened:
        np.testing.assert_array_equal(pixels_of(opened), decode(file.getvalue()))


def test_objects_that_are_no_picture_are_refused(searcher: cbir.Searcher, folder: Path) -> None:
    for wrong in (io.StringIO("a picture"), 5, ["query.jpg"], object()):
        with pytest.raises(QueryError, match="a file opened in binary mode"):
            searcher.search(wrong)  # type: ignore[arg-type]
    with (
        (folder / "red" / "0.png").open(encoding="utf-8") as text,
        pytest.raises(QueryError, match="a file opened in binary mode"),
    ):
        searcher.search(text)  # type: ignore[arg-type]
    lazy = Image.open(io.BytesIO((folder / "red" / "0.png").read_bytes()[:200]))
    for broken in (Image.new("RGB", (0, 5)), lazy, io.BytesIO()):
        with pytest.raises(ImageError):
            searcher.search(broken)


def test_a_searcher_closes_its_index_at_the_end_of_a_with_block(
    folder: Path, searcher: cbir.Searcher
) -> None:
    with cbir.Searcher.open(searcher.index.url, MeanColour()) as own:
        assert own.search(folder / "red" / "0.png", k=1)
        closed = []
        own.index.close = lambda close=own.index.close: (closed.append(True), close())  # type: ignore[method-assign]
    assert closed == [True]
    with pytest.raises(CbirError, match="was closed"):
        own.search(folder / "red" / "0.png", k=1)


def test_the_package_tells_its_version_and_has_types() -> None:
    assert cbir.__version__ == version("cbir")
    assert files("cbir").joinpath("py.typed").is_file()


def test_scores_and_order_are_those_of_a_matrix_product(
    searcher: cbir.Searcher, folder: Path
) -> None:
    query = picture((200, 180, 60), 77)
    ids, matrix = searcher.index.matrix()
    scores = matrix.astype(np.float64) @ MeanColour().describe([query])[0].astype(np.float64)
    expected = sorted(zip(-scores, ids, strict=True))[:7]
    hits = searcher.search(query, k=7)
    assert [hit.id for hit in hits] == [i for _, i in expected]
    np.testing.assert_allclose([-s for s, _ in expected], [h.score for h in hits], atol=1e-6)


def test_an_indexed_id_leaves_itself_out(searcher: cbir.Searcher, folder: Path) -> None:
    asked = cbir.IndexedId("photos/red/1.png")
    hits = searcher.search(asked, k=5)
    assert asked.id not in [hit.id for hit in hits]
    by_path = searcher.search(folder / "red" / "1.png", k=6)
    assert [hit.id for hit in hits] == [hit.id for hit in by_path if hit.id != asked.id]


def test_a_search_answers_as_a_batch_of_vectors_does(searcher: cbir.Searcher, folder: Path) -> None:
    queries = sorted(folder.rglob("*.png"))
    vectors = MeanColour().describe([np.asarray(Image.open(query)) for query in queries])
    together = [searcher.hits(found) for found in searcher.index.search(vectors, 4)]
    assert together == [searcher.search(query, k=4) for query in queries]
    assert together == [searcher.search(query, k=4) for query in queries]


def test_filters_hold_for_every_hit(searcher: cbir.Searcher, folder: Path) -> None:
    hits = searcher.search(folder / "red" / "0.png", k=50, where=["label=green,blue"])
    assert len(hits) == 12
    assert {hit.record.label for hit in hits} == {"green", "blue"}
    assert hits == searcher.search(folder / "red" / "0.png", k=50, where="label=green,blue")
    options = cbir.SearchOptions(k=50, where="label=green,blue")
    assert hits == searcher.search(folder / "red" / "0.png", options=options)


def test_a_region_of_the_query_is_what_is_searched(searcher: cbir.Searcher) -> None:
    left, right = picture(COLOURS["red"], 1), picture(COLOURS["blue"], 2)
    both = np.hstack([left, right])
    hits = searcher.search(cbir.Query(both, region=(0.5, 0, 1, 1)), k=6)
    assert {hit.record.label for hit in hits} == {"blue"}
    assert hits == searcher.search(np.ascontiguousarray(right), k=6)


def test_a_region_of_an_indexed_image_is_cut_from_the_original(
    searcher: cbir.Searcher, folder: Path
) -> None:
    pixels = np.asarray(Image.open(folder / "blue" / "4.png"))
    asked = cbir.IndexedId("photos/blue/4.png")
    hits = searcher.search(cbir.Query(asked, region=(0, 0, 0.5, 1)), k=3)
    by_pixels = searcher.search(np.ascontiguousarray(pixels[:, :20]), k=4)
    assert [h.id for h in hits] == [h.id for h in by_pixels if h.id != asked.id][:3]


def test_query_expansion_searches_with_the_weighted_mean(
    searcher: cbir.Searcher, folder: Path
) -> None:
    asked = picture((120, 120, 40), 3)
    query = MeanColour().describe([asked])
    [first] = searcher.index.search(query, 3)
    neighbours = np.stack([searcher.index.vectors(i)[0] for i in first.ids])
    mixed = query[0] + (first.scores**3) @ neighbours
    [expected] = searcher.index.search((mixed / np.linalg.norm(mixed))[None], 5)
    found = searcher.search(asked, k=5, expand=3)
    assert [hit.id for hit in found] == expected.ids
    np.testing.assert_allclose([hit.score for hit in found], expected.scores, atol=1e-6)
    np.testing.assert_allclose(
        expanded_query(query[0], neighbours, first.scores), mixed / np.linalg.norm(mixed), atol=1e-6
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": "a"}, "k is 'a'"),
        ({"k": 2.5}, "k is 2.5"),
        ({"where": 3}, "filter 3 is not text"),
        ({"where": ["label=red", None]}, "filter None is not text"),
        ({"expand": "2"}, "expand is '2'"),
        ({"text_weight": "half"}, "text_weight is 'half'"),
        ({"region": 7}, "7 is not a valid region"),
        ({"region": (0, 0, 1)}, r"\(0, 0, 1\) is not a valid region"),
    ],
)
def test_an_option_of_the_wrong_type_is_refused(
    searcher: cbir.Searcher, folder: Path, options: dict[str, Any], message: str
) -> None:
    region = {name: value for name, value in options.items() if name == "region"}
    others = {name: value for name, value in options.items() if name != "region"}
    with pytest.raises(QueryError, match=message):
        searcher.search(cbir.Query(folder / "red" / "0.png", **region), **others)


@pytest.mark.parametrize("k", [0, -1, 10_001])
def test_a_senseless_k_is_refused(searcher: cbir.Searcher, folder: Path, k: int) -> None:
    with pytest.raises(QueryError, match=f"k is {k}"):
        searcher.search(folder / "red" / "0.png", k=k)


@pytest.mark.parametrize("region", [(0, 0, 0, 1), (0, 0, 2, 1), (0.5, 0, 0.4, 1)])
def test_a_region_outside_the_picture_is_refused(
    searcher: cbir.Searcher, region: tuple[float, float, float, float]
) -> None:
    with pytest.raises(QueryError, match="is not a valid region"):
        cbir.Query(picture(COLOURS["red"], 1), region=region)


def test_bad_queries_are_one_clear_error(searcher: cbir.Searcher, tmp_path: Path) -> None:
    text = tmp_path / "text.jpg"
    text.write_text("no picture")
    with pytest.raises(ImageError, match=r"text\.jpg: not an image"):
        searcher.search(text)
    with pytest.raises(ImageError, match=r"gone\.jpg: No such file"):
        searcher.search(tmp_path / "gone.jpg")
    with pytest.raises(QueryError, match="float64"):
        searcher.search(np.zeros((4, 4, 3)))  # type: ignore[arg-type]
    with pytest.raises(QueryError, match="nobody"):
        searcher.search(cbir.IndexedId("photos/nobody"))


def test_a_gone_original_is_said_and_the_thumbnail_stays(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", per_colour=1)
    large = photos / "large.png"
    Image.fromarray(picture((9, 99, 199), 1, (300, 200))).save(large)
    assert large.stat().st_size > 8192
    place = str(tmp_path / "p.cbir")
    cbir.index_images([str(photos)], place, descriptor=MeanColour())
    searcher = cbir.Searcher.open(place, MeanColour())
    assert searcher.original("photos/large.png") == large.read_bytes()
    small = (photos / "red" / "0.png").read_bytes()
    shutil.rmtree(photos)
    with pytest.raises(ImageError, match=r"photos/large\.png is gone"):
        searcher.original("photos/large.png")
    assert searcher.index.thumbnail("photos/large.png")
    assert searcher.original("photos/red/0.png") == small  # kept whole in the index
    searcher.close()


def test_an_index_refuses_another_descriptor(searcher: cbir.Searcher, folder: Path) -> None:
    class Other(MeanColour):
        spec = DescriptorSpec("other", 4, "cd" * 32)

    with pytest.raises(CbirError, match="was built with mean-colour@abababab"):
        cbir.Searcher.open(searcher.index.url, Other())
    with pytest.raises(CbirError, match=r"mean-colour@abababab \(4-d\); you gave other@cdcdcdcd"):
        cbir.index_images([str(folder)], searcher.index.url, descriptor=Other())


def test_an_index_finds_its_own_descriptor(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", per_colour=2)
    place = str(tmp_path / "p.cbir")
    cbir.index_images([str(photos)], place, descriptor="cifar10-cnn:embedding")
    searcher = cbir.Searcher.open(place)
    assert searcher.descriptor.spec.name == "cifar10-cnn:embedding"
    assert searcher.search(photos / "red" / "0.png")[0].id == "photos/red/0.png"
    searcher.close()


def test_an_index_never_chooses_code_to_import(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", per_colour=1)
    place = tmp_path / "p.cbir"

    class Named(MeanColour):
        spec = DescriptorSpec("tests.descriptors.support_photos:MeanColour", 4, "ab" * 32)

    cbir.index_images([photos], place, descriptor=Named())
    searcher = cbir.Searcher.open(place)
    with pytest.raises(CbirError, match="is not installed") as caught:
        searcher.search(photos / "red" / "0.png")
    assert "--descriptor" in caught.value.hint
    searcher.close()
    told = cbir.Searcher.open(place, "tests.descriptors.support_photos:MeanColour")
    assert told.search(photos / "red" / "0.png", k=1)[0].id == "photos/red/0.png"
    told.close()


def test_expansion_uses_the_part_that_matched(tmp_path: Path) -> None:
    folder = tmp_path / "mosaics"
    folder.mkdir()
    colours = list(COLOURS.values())
    for number in range(3):
        four = [picture(colours[(number + c) % 3], number) for c in range(4)]
        mosaic = np.vstack([np.hstack(four[:2]), np.hstack(four[2:])])
        Image.fromarray(mosaic).save(folder / f"{number}.png")
    place = tmp_path / "m.cbir"
    cbir.index_images([folder], place, descriptor=MeanColour(), regions=5)
    searcher = cbir.Searcher.open(place, MeanColour())
    plain = searcher.search(picture(colours[0], 9), k=3)
    expanded = searcher.search(picture(colours[0], 9), k=3, expand=2)
    assert all(hit.score > 0.99 for hit in plain)
    assert all(hit.score > 0.99 for hit in expanded)  # whole pictures would pull it to the middle
    searcher.close()


def test_pixels_are_decoded_once_whatever_is_asked(
    searcher: cbir.Searcher, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    monkeypatch.setattr(
        "cbir.search.query.decode", lambda data: decoded.append(len(data)) or decode(data)
    )
    data = (folder / "green" / "2.png").read_bytes()
    assert searcher.search(data, k=3, any_orientation=True, expand=2, verify=True)
    assert decoded == [len(data)]


def test_options_by_name_and_as_a_value_are_the_same_search(
    searcher: cbir.Searcher, folder: Path
) -> None:
    path = folder / "green" / "2.png"
    options = cbir.SearchOptions(k=4, where=["label=red"], expand=1)
    assert searcher.search(path, options=options) == searcher.search(
        path, k=4, where=["label=red"], expand=1
    )
    assert searcher.search(cbir.Query(path), options=options, k=2) == searcher.search(
        path, k=2, where=["label=red"], expand=1
    )
    with pytest.raises(TypeError, match="kk"):
        searcher.search(path, kk=3)  # type: ignore[call-arg]


def test_a_wrong_filter_is_parsed_once_and_a_gone_record_is_outrun(
    searcher: cbir.Searcher, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "green" / "2.png"
    searched: list[tuple[str, ...]] = []
    search, records = searcher.index.search, searcher.index.records

    def counted(*args: object, **options: object) -> object:
        searched.append(tuple(options["where"]))
        return search(*args, **options)

    monkeypatch.setattr(searcher.index, "search", counted)
    with pytest.raises(QueryError, match="nonsense"):
        searcher.search(path, where=["nonsense"])
    assert searched == [("nonsense",)]

    gone = iter([RecordGoneError("no record 'x' in the index")] * 2)

    def removed_twice(ids: list[str]) -> object:
        error = next(gone, None)
        if error is not None:
            raise error
        return records(ids)

    monkeypatch.setattr(searcher.index, "records", removed_twice)
    assert searcher.search(path, k=1)[0].id == "photos/green/2.png"
    assert len(searched) == 1 + 3
