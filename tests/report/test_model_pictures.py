"""What `cbir models show --pictures` draws: real PNG files that show what is there."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageColor

from cbir.descriptors.blocks import Block
from cbir.descriptors.bovw import model_files
from cbir.descriptors.local.hog import hog_picture
from cbir.descriptors.local.sift import keypoint_sift
from cbir.descriptors.vocabulary import vocabulary_of
from cbir.errors import how_to_install
from cbir.report import pictures as drawing
from cbir.report.model_pictures import (
    filter_pictures,
    image_pictures,
    parts_of,
    word_pictures,
)
from cbir.report.plot_style import SERIES, pixels, png
from cbir.report.plots import bars_plot, sweep_plot
from cbir.report.word_patches import count_words, local_of, nearest_words
from cbir.types import RgbImage
from tests.cli.support_cli import call
from tests.descriptors.support_bovw import BLOCKS, arrays_for, card, descriptor
from tests.images.support_images import four_colours, noise

BLUE = SERIES[0]


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CBIR_HOME", str(tmp_path / "home"))


def blobs(side: int = 96) -> RgbImage:
    """Three bright discs on a dark ground: SIFT finds them."""
    image = np.full((side, side, 3), 40, dtype=np.uint8)
    for x, y, radius in ((24, 30, 6), (70, 24, 4), (50, 68, 9)):
        cv2.circle(image, (x, y), radius, (220, 210, 190), -1)
    return image


def saved_model(folder: Path, *blocks: Block, head: bool = False) -> Path:
    made = card(*blocks, head=head)
    folder.mkdir()
    for name, data in model_files(made, arrays_for(made)).items():
        (folder / name).write_bytes(data)
    return folder


def saved_image(path: Path, image: RgbImage) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def read(path: Path) -> RgbImage:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def holds(picture: RgbImage, part: RgbImage) -> bool:
    """Whether `part` stands somewhere in `picture`, pixel by pixel."""
    if any(p < q for p, q in zip(picture.shape, part.shape, strict=True)):
        return False
    scores = cv2.matchTemplate(picture, part, cv2.TM_SQDIFF)
    y, x = np.unravel_index(np.argmin(scores), scores.shape)
    height, width = part.shape[:2]
    return bool(np.array_equal(picture[y : y + height, x : x + width], part))


def bar_heights(chart: RgbImage, colour: str = BLUE) -> list[int]:
    """The heights of the bars of `colour`, from left to right."""
    columns = np.all(chart == ImageColor.getrgb(colour), axis=2).sum(axis=0)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], columns])))
    return [int(columns[edge]) for edge in edges if columns[edge]]


# --- Drawing ---------------------------------------------------------------------------------


def test_keypoints_are_drawn_where_they_were_found_and_nowhere_else() -> None:
    image = blobs()
    points = keypoint_sift(image).points
    assert len(points) >= 3
    large, factor = drawing.enlarged(image, 500)
    assert (factor, large.shape) == (5, (480, 480, 3))
    drawn = drawing.with_keypoints(large, points, factor, (255, 221, 51))
    changed = np.any(drawn != large, axis=2)
    y, x = np.mgrid[:480, :480]
    near = np.zeros_like(changed)
    for px, py, size, _ in points:
        distance = np.hypot(x - ((px + 0.5) * factor - 0.5), y - ((py + 0.5) * factor - 0.5))
        radius = size / 2 * factor
        ring = np.abs(distance - radius) < 1
        assert changed[ring].all()
        near |= distance < radius + 6
    assert not changed[~near].any()


def test_the_line_of_a_keypoint_points_along_its_angle() -> None:
    image = np.zeros((101, 101, 3), dtype=np.uint8)
    point = np.array([[50, 50, 60, 90]], dtype=np.float32)  # down: y grows downwards
    drawn = drawing.with_keypoints(image, point, 1, (255, 255, 255))
    assert drawn[65, 50].min() > 100
    assert not drawn[35, 50].any()
    assert not drawn[50, 65].any()


def test_a_cut_out_is_turned_to_the_angle_of_its_point() -> None:
    image = np.asarray(four_colours(64, 64))
    centre = (31.5, 31.5)
    straight = drawing.cut_out(image, np.array([*centre, 4, 0], np.float32), 32, 32)
    np.testing.assert_array_equal(straight, image[16:48, 16:48])
    turned = drawing.cut_out(image, np.array([*centre, 4, 90], np.float32), 32, 32)
    # What pointed down in the image points right in the patch.
    inner = (slice(2, -2), slice(2, -2))
    np.testing.assert_allclose(turned[inner], np.rot90(straight)[inner], atol=1)


def test_what_lies_outside_of_the_image_is_light_grey() -> None:
    image = np.zeros((20, 20, 3), dtype=np.uint8)
    patch = drawing.cut_out(image, np.array([0, 0, 4, 0], np.float32), 20, 20)
    assert (patch[:9, :9] == drawing.FAINT).all()
    assert not patch[11:, 11:].any()


def test_bars_are_as_high_as_their_counts() -> None:
    counts = np.array([4.0, 0, 1, 3, 2])
    heights = bar_heights(pixels(bars_plot(counts, "counts", BLUE)))
    assert len(heights) == 4  # nothing where the count is zero
    assert heights[0] > 100
    np.testing.assert_allclose(heights, counts[counts > 0] / 4 * heights[0], atol=2)


def test_the_least_bar_is_seen_and_many_bars_fit() -> None:
    values = np.zeros(9000)
    values[[0, 4500, 8999]] = 1, 1e-9, 0.5
    chart = pixels(bars_plot(values, "many", BLUE))
    assert chart.shape[1] < 5000
    highest, least, half = bar_heights(chart)
    assert 1 <= least < highest / 20 and half == pytest.approx(highest / 2, abs=2)


def test_names_of_bars_do_not_overlap_and_the_first_named_have_theirs() -> None:
    (axes,) = bars_plot(np.arange(1.0, 101), "named", BLUE, named=[50, 51, 90]).axes
    assert [text.get_text() for text in axes.texts] == ["50", "90"]


def test_a_chart_of_nothing_is_empty() -> None:
    assert bar_heights(pixels(bars_plot(np.zeros(5), "nothing", BLUE))) == []


def test_a_sheet_shows_each_patch_behind_its_label() -> None:
    patches = [noise(seed, 24, 24) for seed in range(3)]
    rows = [drawing.Row("two", patches[:2]), drawing.Row("one", patches[2:])]
    sheet = drawing.sheet(rows, 24)
    assert sheet.shape[0] == 2 * 28
    inner = (slice(1, -1), slice(1, -1))  # an outline is drawn around it
    assert all(holds(sheet, np.ascontiguousarray(patch[inner])) for patch in patches)


# --- Words -----------------------------------------------------------------------------------


def test_words_are_counted_and_their_nearest_patches_come_first() -> None:
    model = descriptor(BLOCKS["dense words"])
    (part,) = parts_of(model)
    vocabulary = vocabulary_of(part.arrays, "words")
    images = [noise(seed) for seed in range(5)]
    counted = count_words(part.block, vocabulary, images, each=3)
    found = [local_of(part.block, image) for image in images]
    distances = [
        np.linalg.norm(local.descriptors[:, None] - vocabulary.words[None], axis=2)
        for local in found
    ]
    words = [np.argmin(row, axis=1) for row in distances]
    np.testing.assert_array_equal(
        counted.counts, np.bincount(np.concatenate(words), minlength=vocabulary.size)
    )
    for word, patches in counted.patches.items():
        of_images = sum(word in own for own in words)
        assert len(patches) == min(3, of_images)
        nearest = min(
            (float(distance[number, word]), image, number)
            for image, (distance, own) in enumerate(zip(distances, words, strict=True))
            for number in np.flatnonzero(own == word)
        )
        local = found[nearest[1]]
        point = local.points[nearest[2]]
        np.testing.assert_array_equal(
            patches[0], drawing.cut_out(local.image, point, 6 * float(point[2]), len(patches[0]))
        )


def test_nearest_words_are_those_by_brute_force() -> None:
    (part,) = parts_of(descriptor(BLOCKS["sift words"]))
    vocabulary = vocabulary_of(part.arrays, "words")
    found = local_of(part.block, blobs())
    words, squares = nearest_words(vocabulary, found.descriptors)
    distances = np.linalg.norm(found.descriptors[:, None] - vocabulary.words[None], axis=2)
    np.testing.assert_array_equal(words, distances.argmin(axis=1))
    np.testing.assert_allclose(np.sqrt(squares), distances.min(axis=1), rtol=1e-4)


def test_a_sheet_of_words_holds_the_nearest_patches_of_the_most_frequent() -> None:
    model = descriptor(BLOCKS["dense words"])
    (part,) = parts_of(model)
    images = [noise(seed) for seed in range(5)]
    counted = count_words(part.block, vocabulary_of(part.arrays, "words"), images, each=10)
    ((name, picture),) = word_pictures(model, images, "noise").items()
    assert name == "words-0-dense-sift"
    nearest = counted.patches[int(counted.counts.argmax())][0]
    assert holds(picture, np.ascontiguousarray(nearest[1:-1, 1:-1]))


# --- Views of a model ------------------------------------------------------------------------


def test_a_histogram_of_words_shows_shares_and_tf_idf() -> None:
    model = descriptor(BLOCKS["dense words"])
    (part,) = parts_of(model)
    vocabulary = vocabulary_of(part.arrays, "words")
    assert vocabulary.idf is not None
    image = noise(1)
    words, _ = nearest_words(vocabulary, local_of(part.block, image).descriptors)
    counts = np.bincount(words, minlength=vocabulary.size)
    picture = image_pictures(model, image, "noise")["words"]
    columns = np.all(picture == ImageColor.getrgb(part.colour), axis=2)
    rows = np.flatnonzero(columns.any(axis=1))
    (gap,) = np.flatnonzero(np.diff(rows) > 20)  # between the two charts
    first, second = picture[: rows[gap] + 1], picture[rows[gap] + 1 :]
    for chart, weights in ((first, counts), (second, counts * vocabulary.idf)):
        expected = weights[weights > 0] / weights.max()
        heights = np.array(bar_heights(chart, part.colour))
        assert len(heights) == len(expected)
        np.testing.assert_allclose(heights / heights.max(), expected, atol=0.03)


def test_the_hog_picture_is_that_of_the_blocks_settings() -> None:
    model = descriptor(BLOCKS["hog at its own size"])
    image = blobs()
    (kind, picture), *rest = image_pictures(model, image, "blobs").items()
    assert (kind, rest) == ("hog", [])
    small = np.asarray(
        Image.fromarray(model.prepare(image)).resize((24, 16), Image.Resampling.BICUBIC)
    )
    expected, _ = drawing.enlarged(hog_picture(small, orientations=6, cell=4), 384)
    assert holds(picture, expected)


def test_an_image_without_keypoints_has_an_empty_histogram() -> None:
    model = descriptor(BLOCKS["sift words"])
    flat = np.full((40, 20, 3), 77, dtype=np.uint8)
    drawn = image_pictures(model, flat, "flat")
    assert set(drawn) == {"keypoints", "words"}
    assert not bar_heights(drawn["words"])
    assert holds(drawn["keypoints"], np.full((768, 768, 3), 77, dtype=np.uint8))


@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (5, 900)])
@pytest.mark.parametrize("kind", list(BLOCKS))
def test_every_block_can_be_drawn_on_odd_images(kind: str, shape: tuple[int, int]) -> None:
    for picture in image_pictures(descriptor(BLOCKS[kind]), noise(3, *shape), "odd").values():
        assert picture.dtype == np.uint8
        assert picture.shape[2] == 3


def test_filters_are_shown_as_the_pixels_that_they_come_from() -> None:
    made = card(BLOCKS["patches"])
    arrays = arrays_for(made)
    draw = np.random.default_rng(0)
    patches = draw.standard_normal((10, 27)).astype(np.float32)
    half = draw.standard_normal((27, 27)).astype(np.float32)
    whitening = half @ half.T / 27 + np.eye(27, dtype=np.float32)
    arrays["0/whitening"] = whitening
    white = patches @ whitening
    arrays["0/filters"] = white / np.linalg.norm(white, axis=1, keepdims=True)
    from cbir.descriptors.bovw import BovwDescriptor

    ((name, picture),) = filter_pictures(BovwDescriptor(model_files(made, arrays))).items()
    assert name == "filters-0"
    shades = np.rint(127.5 + 127.5 * patches / np.abs(patches).max(axis=1, keepdims=True))
    large = np.repeat(np.repeat(shades[0].reshape(3, 3, 3), 5, axis=0), 5, axis=1)
    scores = cv2.matchTemplate(picture, large.astype(np.uint8), cv2.TM_SQDIFF)
    assert scores.min() <= 1 * large.size  # rounding: a shade a pixel


def test_the_curve_marks_the_lowest_index() -> None:
    (axes,) = sweep_plot([100, 200, 300], [3.0, 1.0, 2.0], "sweep").axes
    line, mark = axes.lines
    assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == ([100, 200, 300], [3, 1, 2])
    assert (mark.get_xdata().tolist(), mark.get_ydata().tolist()) == ([200], [1])
    assert mark.get_label() == "200 words: 1.000"


# --- The command -----------------------------------------------------------------------------


def test_pictures_are_written_and_their_paths_printed(tmp_path: Path) -> None:
    model = saved_model(tmp_path / "model", BLOCKS["sift words"], BLOCKS["hog"], BLOCKS["patches"])
    image = saved_image(tmp_path / "a" / "blobs.png", blobs())
    other = saved_image(tmp_path / "b" / "blobs.png", noise(1))
    for number in range(4):
        saved_image(tmp_path / "photos" / f"{number}.png", noise(number, 64, 64))
    out = tmp_path / "drawn" / "here"
    answer = call(
        *("models", "show", model, "--pictures", out, "--image", image, "--image", other),
        *("--words", tmp_path / "photos", "--limit", 3),
    )
    assert answer.code == 0, answer.err
    names = [Path(line).name for line in answer.out.splitlines()]
    assert names == [
        *("blobs-keypoints.png", "blobs-hog.png", "blobs-words.png"),
        *("blobs-2-keypoints.png", "blobs-2-hog.png", "blobs-2-words.png"),
        *("words-0-sift.png", "filters-2.png"),
    ]
    assert sorted(path.name for path in out.iterdir()) == sorted(names)
    for line in answer.out.splitlines():
        assert min(read(Path(line)).shape[:2]) > 100
    assert "--sweep" in answer.err
    small = np.asarray(Image.fromarray(blobs()).resize((32, 32), Image.Resampling.BICUBIC))
    drawn = read(out / "blobs-hog.png")
    assert holds(drawn, drawing.enlarged(hog_picture(small), 384)[0])


def test_a_card_with_a_sweep_or_a_file_of_one_gives_its_curve(tmp_path: Path) -> None:
    rows = [{"words": words, "davies_bouldin": 300 / words} for words in (100, 200, 300)]
    sweep = {"feature": "sift", "rows": rows}
    made = card(BLOCKS["sift words"])
    folder = saved_model(tmp_path / "model", BLOCKS["sift words"])
    file = tmp_path / "sweep.json"
    file.write_text(json.dumps(sweep))
    answer = call("models", "show", folder, "--pictures", tmp_path / "file", "--sweep", file)
    assert Path(answer.out.strip()).name == "sweep.png"
    fields = json.loads((folder / "model.json").read_text())
    fields["training"] = {**made.training, "sweep": sweep}
    (folder / "model.json").write_text(json.dumps(fields))
    call("models", "show", folder, "--pictures", tmp_path / "card")
    expected = png(sweep_plot([100, 200, 300], [3.0, 1.5, 1.0], "sift: vocabulary size"))
    for where in ("file", "card"):
        assert (tmp_path / where / "sweep.png").read_bytes() == expected


def test_json_lists_the_pictures_beside_the_card(tmp_path: Path) -> None:
    model = saved_model(tmp_path / "model", BLOCKS["patches"])
    shown = call("models", "show", model, "--json", "--pictures", tmp_path / "out").json
    assert shown["pictures"] == [str(tmp_path / "out" / "filters-0.png")]
    plain = call("models", "show", model, "--json").json
    assert {**plain, "pictures": shown["pictures"]} == shown


def test_only_charts_need_a_plotting_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    for name in ("matplotlib", "matplotlib.figure", "sklearn", "skimage"):
        monkeypatch.setitem(sys.modules, name, None)
    image = saved_image(tmp_path / "photos" / "noise.png", noise(5))
    model = saved_model(tmp_path / "model", BLOCKS["hog"], BLOCKS["lab"])
    answer = call("models", "show", model, "--pictures", tmp_path / "out", "--image", image)
    assert (answer.code, len(answer.out.splitlines())) == (0, 1), answer.err
    words = saved_model(tmp_path / "words", BLOCKS["sift words"], BLOCKS["patches"])
    asked = ("models", "show", words, "--pictures", tmp_path / "out")
    saved_image(tmp_path / "photos" / "blobs.png", blobs())
    assert call(*asked, "--words", image.parent).code == 0
    message, hint = call(*asked, "--image", image).error
    assert message == "a chart of visual words needs the 'bovw' extra"
    assert hint == how_to_install("bovw")
    sweep = tmp_path / "sweep.json"
    sweep.write_text('{"feature": "sift", "rows": [{"words": 1, "davies_bouldin": 2}]}')
    message, _ = call(*asked, "--sweep", sweep).error
    assert message == "the curve of a sweep needs the 'bovw' extra"


def test_what_cannot_be_drawn_is_said_in_one_line(tmp_path: Path) -> None:
    words = saved_model(tmp_path / "words", BLOCKS["sift words"])
    colours = saved_model(tmp_path / "colours", BLOCKS["lab"])
    text = tmp_path / "notes.png"
    text.write_text("no image")
    image = saved_image(tmp_path / "photos" / "noise.png", noise(5))
    flat = saved_image(tmp_path / "flat" / "flat.png", np.zeros((32, 32, 3), np.uint8)).parent
    out = tmp_path / "out"

    def error(model: object, *options: object, to: Path = out) -> str:
        return call("models", "show", model, "--pictures", to, *options).error[0]

    assert error(words, "--image", text).startswith(f"{text}: not an image")
    assert error(words, "--image", tmp_path / "none.png").startswith(f"{tmp_path / 'none.png'}: No")
    assert error(words, "--image", image, to=text) == f"{text} is a file"
    assert error(words, "--sweep", text).startswith(f"{text} is not JSON")
    assert "no image has a keypoint" in error(words, "--words", flat)
    assert error(colours, "--words", image.parent) == "words has no visual words to draw"
    assert "no keypoints" in error(colours, "--image", image)
    assert error("cifar10-cnn").startswith("cifar10-cnn has no local features")
    for bad in ("[]", "{}", '{"feature": "sift", "rows": []}', '{"rows": [{"words": 1}]}'):
        text.write_text(bad)
        assert error(words, "--sweep", text).startswith(f"{text} holds ")
    assert not out.exists()
    asked = call("models", "show", words, "--image", image)
    assert asked.code == 2
    assert "--pictures DIR" in asked.err


def test_without_a_picture_a_model_is_drawn_on_a_test_picture(tmp_path: Path) -> None:
    for model in (saved_model(tmp_path / "words", BLOCKS["sift words"], BLOCKS["hog"]), "classic"):
        out = tmp_path / f"of {Path(model).name}"
        answer = call("models", "show", model, "--pictures", out)
        assert (answer.code, "--image FILE" in answer.err) == (0, True), answer.err
        names = [Path(line).name for line in answer.out.splitlines()]
        assert {"test-keypoints.png", "test-words.png"} <= set(names)
        assert all(min(read(out / name).shape[:2]) > 100 for name in names)


def test_with_nothing_to_draw_it_is_said_what_would_help(tmp_path: Path) -> None:
    words = saved_model(tmp_path / "words", BLOCKS["sift words"])
    colours = saved_model(tmp_path / "colours", BLOCKS["lab"])
    nothing = call("models", "show", colours, "--pictures", tmp_path / "out")
    assert nothing.code == 1 and not (tmp_path / "out").exists()
    assert "these options draw nothing" in nothing.err
    answer = call("models", "show", words, "--pictures", tmp_path / "out")
    assert "--image FILE" in answer.err
    assert "--words SOURCE" in answer.err
    assert "cbir train bovw" in answer.err
