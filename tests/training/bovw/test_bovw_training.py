"""Fitting Bag-of-Visual-Words models, with scikit-learn as the reference."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

import cbir
from cbir.errors import CbirError
from tests.training.support_patterns import PATTERNS, pattern, write_patterns

pytest.importorskip("sklearn", reason="needs the `bovw` extra")

from cbir.descriptors.bovw import BovwDescriptor
from cbir.descriptors.local.sift import keypoint_sift
from cbir.machine import keep_blas_on_one_thread
from cbir.training.bovw.fit import fit_embedding, train_bovw
from cbir.training.bovw.heads import compare_heads
from cbir.training.bovw.linear import fit_heads, standard_of
from cbir.training.bovw.recipes import (
    RECIPES,
    Filters,
    HeadPlan,
    Plan,
    Projection,
    Recipe,
    Words,
    recipe_called,
)
from cbir.training.bovw.rows import Encoder
from cbir.training.bovw.sample import fit_block, fit_words, sample_local
from cbir.training.bovw.sweep import davies_bouldin, sweep
from cbir.training.choose import choose_weights
from cbir.training.classification import classification_of
from cbir.training.labelled import Labelled, read_labelled, split

SIFT = Plan("sift", {"root": False, "idf": True}, power=0.5, words=Words(8))
PATCHES = Plan("patches", filters=Filters(12))
HEADED = Recipe(
    "headed",
    "HOG and grey, a head",
    (Plan("hog", projection=Projection(6, 0.5)), Plan("gray", weight=0.5)),
    HeadPlan("ridge", (1e-2, 1e-1)),
)


def some_rows(classes: int = 3, count: int = 150) -> tuple[np.ndarray, np.ndarray]:
    """Rows of 10 numbers of very different scales, one of them always the same, and classes."""
    random = np.random.default_rng(3)
    labels = random.integers(0, classes, count)
    rows = random.normal(size=(count, 10)) + 0.8 * random.normal(size=(classes, 10))[labels]
    rows = rows * 10.0 ** random.integers(-3, 2, 10) + random.normal(size=10)
    rows[:, 4] = 0.37
    return rows.astype(np.float32), labels.astype(np.int64)


def one_head(kind: str, rows: np.ndarray, labels: np.ndarray, strength: float) -> np.ndarray:
    """The logits of our head of one strength, on the rows that it was fitted on."""
    classes = int(labels.max()) + 1
    [(_, head)] = fit_heads(kind, rows, labels, classes, [strength], seed=0)
    return head.logits(rows)


def standardised(rows: np.ndarray) -> np.ndarray:
    from sklearn.preprocessing import StandardScaler

    return StandardScaler().fit_transform(rows.astype(np.float64))


def patterns(each: int) -> Labelled:
    images = [pattern(kind, number) for kind in PATTERNS for number in range(each)]
    labels = np.repeat(np.arange(len(PATTERNS)), each)
    return Labelled(images, labels, PATTERNS, "patterns")


def test_a_folded_ridge_head_decides_as_scikit_learns() -> None:
    from sklearn.linear_model import RidgeClassifier

    rows, labels = some_rows()
    ready = standardised(rows)
    reference = RidgeClassifier(alpha=0.05 * len(rows)).fit(ready, labels)
    ours = one_head("ridge", rows, labels, 0.05)
    np.testing.assert_allclose(ours, reference.decision_function(ready), atol=2e-4)


def test_a_folded_lda_head_decides_as_scikit_learns() -> None:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    rows, labels = some_rows()
    ready = standardised(rows)
    reference = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.2).fit(ready, labels)
    ours = one_head("lda", rows, labels, 0.2)
    np.testing.assert_allclose(ours, reference.decision_function(ready), atol=1e-3)


@pytest.mark.parametrize("classes", [2, 3])
def test_logistic_regression_is_folded(classes: int) -> None:
    from sklearn.linear_model import LogisticRegression

    rows, labels = some_rows(classes)
    ready = standardised(rows)
    reference = LogisticRegression(C=1 / (0.01 * len(rows))).fit(ready, labels)
    logits = one_head("logistic", rows, labels, 0.01).astype(np.float64)
    posterior = np.exp(logits - logits.max(axis=1, keepdims=True))
    posterior /= posterior.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(posterior, reference.predict_proba(ready), atol=5e-3)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_linear_svm_is_folded(classes: int) -> None:
    from sklearn.svm import LinearSVC

    rows, labels = some_rows(classes)
    ready = standardised(rows)
    reference = LinearSVC(C=1 / (1.0 * len(rows)), dual="auto", random_state=0).fit(ready, labels)
    ours = one_head("svm", rows, labels, 1.0)
    np.testing.assert_array_equal(ours.argmax(axis=1), reference.predict(ready))


@pytest.mark.parametrize("kind", ["ridge", "lda", "logistic", "svm"])
def test_a_class_that_was_not_seen_is_never_predicted(kind: str) -> None:
    rows, labels = some_rows(2)
    [(_, head)] = fit_heads(kind, rows, 2 * labels + 1, 5, [0.1], seed=0)
    assert head.weights.shape == (10, 5)
    assert set(head.logits(rows).argmax(axis=1)) == {1, 3}
    assert np.isfinite(head.weights).all() and np.isfinite(head.bias).all()


def test_standardisation_is_of_whole_columns_however_they_are_batched() -> None:
    rows = np.random.default_rng(0).normal(3, 2, (5000, 3)).astype(np.float32)
    standard = standard_of(rows)
    np.testing.assert_allclose(standard.mean, rows.mean(axis=0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(standard.deviation, rows.std(axis=0, dtype=np.float64), rtol=1e-5)


def test_our_pca_is_scikit_learns() -> None:
    from sklearn.decomposition import PCA

    random = np.random.default_rng(5)
    rows = (random.normal(size=(200, 12)) @ random.normal(size=(12, 12))).astype(np.float32)
    plan = Plan("gray", projection=Projection(5))
    embedding = fit_embedding(Recipe("r", "", (plan,)), rows, [slice(0, 12)], seed=0)
    reference = PCA(5, svd_solver="full").fit_transform(rows)
    ours = (rows - embedding.parts[0]["mean"]) @ embedding.parts[0]["projection"]
    same_sign = np.sign((ours * reference).sum(axis=0))
    # The projection is kept in float16.
    np.testing.assert_allclose(ours, reference * same_sign, atol=2e-2)
    unit = reference / np.linalg.norm(reference, axis=1, keepdims=True)
    np.testing.assert_allclose(embedding.vectors(rows), unit * same_sign, atol=5e-3)


def test_words_find_the_clusters_that_are_there_and_the_index_says_how_many() -> None:
    random = np.random.default_rng(0)
    centres = random.normal(size=(6, 16)) * 10
    rows = (centres[random.integers(0, 6, 900)] + random.normal(size=(900, 16))).astype(np.float32)
    words = fit_words(rows, 6, seed=0)
    nearest = np.linalg.norm(words[:, None] - centres[None], axis=2)
    assert sorted(nearest.argmin(axis=1)) == list(range(6))
    assert nearest.min(axis=1).max() < 1
    indices = {k: davies_bouldin(rows, fit_words(rows, k, seed=0))[0] for k in (3, 6, 12)}
    assert min(indices, key=indices.__getitem__) == 6


def test_the_index_is_scikit_learns_for_the_same_words() -> None:
    from sklearn.cluster import KMeans
    from sklearn.metrics import davies_bouldin_score

    rows = np.random.default_rng(1).normal(size=(400, 8)).astype(np.float32)
    model = KMeans(7, n_init=1, random_state=0).fit(rows)
    index, unused = davies_bouldin(rows, model.cluster_centers_.astype(np.float32))
    assert index == pytest.approx(davies_bouldin_score(rows, model.labels_), rel=1e-5)
    assert unused == 0


def test_a_sample_is_of_local_descriptors_of_the_images_and_no_larger_than_asked() -> None:
    images = patterns(10).images
    everything = sample_local(SIFT.block(), images, 10**6, seed=0)
    some = sample_local(SIFT.block(), images, 50, seed=0)
    assert some.shape == (50, 128) and len(everything) > 200
    known = {row.tobytes() for row in everything}
    assert {row.tobytes() for row in some} <= known
    np.testing.assert_array_equal(some, sample_local(SIFT.block(), images, 50, seed=0))
    assert not np.array_equal(some, sample_local(SIFT.block(), images, 50, seed=1))


def test_idf_is_of_the_images_that_have_a_word() -> None:
    from cbir.descriptors.local.sift import keypoint_sift
    from cbir.descriptors.vocabulary import Vocabulary

    images = [*patterns(6).images, np.zeros((32, 32, 3), dtype=np.uint8)]
    fitted = fit_block(SIFT, images, seed=0, sample=None, say=lambda _: None)
    words = Vocabulary(fitted["words"].astype(np.float32))
    seen = [set(words.hard(keypoint_sift(i).descriptors).words.ravel().tolist()) for i in images]
    for word in range(8):
        count = max(1, sum(word in found for found in seen))
        assert fitted["idf"][word] == pytest.approx(np.log(len(images) / count), abs=1e-6)


def test_too_few_local_descriptors_for_the_words_say_so() -> None:
    flat = [np.full((32, 32, 3), level, dtype=np.uint8) for level in (10, 90, 200)]
    with pytest.raises(CbirError, match="0 local descriptors are too few for 8 words"):
        fit_block(SIFT, flat, seed=0, sample=None, say=lambda _: None)
    with pytest.raises(CbirError, match="too few for 5,000"):
        many = replace(PATCHES, filters=Filters(5000))
        fit_block(many, patterns(1).images, seed=0, sample=None, say=lambda _: None)


def test_filters_are_unit_rows_of_whitened_patches() -> None:
    from cbir.descriptors.local.patches import normalised_patches

    images = patterns(10).images
    fitted = fit_block(PATCHES, images, seed=0, sample=3000, say=lambda _: None)
    filters = fitted["filters"].astype(np.float32)
    assert filters.shape == (12, 108)
    np.testing.assert_allclose(np.linalg.norm(filters, axis=1), 1, atol=1e-3)
    patches = normalised_patches(np.stack(images), 6).reshape(-1, 108)
    white = (patches - fitted["whitening-mean"]) @ fitted["whitening"]
    white /= np.linalg.norm(white, axis=1, keepdims=True)
    assert (filters @ white.T).max(axis=1).min() > 0.999


def test_rows_of_many_images_are_those_of_each() -> None:
    images = patterns(30).images
    plans = (SIFT, Plan("lab", {"grid": 2}, power=0.5), Plan("hog"))
    arrays = [fit_block(plan, images, 0, None, lambda _: None) for plan in plans]
    encoder = Encoder([plan.block() for plan in plans], arrays, (32, 32))
    rows = encoder.rows(images)
    assert rows.shape == (90, 8 + 784 + 324)
    for number in (0, 63, 64, 89):
        np.testing.assert_allclose(rows[number], encoder.rows(images[number : number + 1])[0])


def test_a_share_goes_to_the_block_that_ranks_better() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 300)
    telling = np.eye(4, dtype=np.float32)[labels]
    noise = random.normal(size=(300, 8)).astype(np.float32)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    shares, best = choose_weights([noise, telling], labels, [0.9, 0.1])
    assert shares[1] > 0.1 and sum(shares) == pytest.approx(1)
    assert best > choose_weights([noise], labels, [1.0])[1]


def test_a_class_of_one_image_is_never_held_out() -> None:
    images = patterns(10)
    lonely = replace(images, labels=np.array([0] * 29 + [1]))
    for seed in range(40):
        held_out, training = split(lonely, seed)
        assert 1 in training.labels
        assert len(held_out.images) + len(training.images) == 30


def test_images_that_cannot_be_read_are_left_out_and_named(tmp_path: Path) -> None:
    folder = write_patterns(tmp_path / "patterns", 4)
    (folder / "checks" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    said: list[str] = []
    images = read_labelled(
        cbir.open_source(str(folder), True), lambda image: image, say=said.append
    )
    assert len(images.images) == 12
    assert len(said) == 1 and "checks/bad.png" in said[0]


def test_the_same_images_recipe_and_seed_give_the_same_files(tmp_path: Path) -> None:
    # The first description of a process leaves BLAS on one thread, which rounds differently.
    keep_blas_on_one_thread()
    source = cbir.open_source(str(write_patterns(tmp_path / "patterns", 12)), True)
    recipe = replace(HEADED, plans=(*HEADED.plans, SIFT, PATCHES), tune_weights=True)
    one, two, other = (train_bovw(source, "m", recipe, seed=seed) for seed in (0, 0, 1))
    assert one == two
    assert one["model.npz"] != other["model.npz"]


def test_a_model_learns_patterns_and_its_card_says_how_well(tmp_path: Path) -> None:
    source = cbir.open_source(str(write_patterns(tmp_path / "patterns", 30)), True)
    test = cbir.open_source(str(write_patterns(tmp_path / "test", 10, first=500)), True)
    files = train_bovw(source, "learnt", replace(HEADED, tune_weights=True), test=test, sample=99)
    descriptor = BovwDescriptor(files)
    card = descriptor.card
    assert card.classes == PATTERNS
    assert card.trained_on == "patterns, 81 images"
    assert card.licence == "not stated"
    assert card.training["recipe"] == "headed" and card.training["seed"] == 0
    assert card.training["head"]["strength"] in HEADED.head.strengths
    predicted = classification_of(card)
    assert predicted is not None and predicted.images == 9
    right = np.trace(predicted.counts(PATTERNS)) / 9
    assert right == pytest.approx(card.quality["held_out_accuracy"], abs=1e-5)
    assert set(card.training["versions"]) >= {"numpy", "scikit-learn"}
    assert set(card.quality) == {
        *("training_accuracy", "held_out_accuracy", "test_accuracy", "held_out_nAP@100"),
    }
    images = [pattern(kind, 500 + n) for kind in PATTERNS for n in range(10)]
    predicted = descriptor.predicted(descriptor.describe(images))
    if predicted is not None:
        truth = np.repeat(np.arange(3), 10)
        right = float(np.mean(predicted == truth))
        assert right == pytest.approx(card.quality["test_accuracy"], abs=1e-5)
    assert card.quality["test_accuracy"] > 0.8


def test_without_labels_a_model_has_no_head_and_no_figures(tmp_path: Path) -> None:
    source = cbir.open_source(str(write_patterns(tmp_path / "patterns", 10, size=50)))
    recipe = Recipe("plain", "", (SIFT, Plan("hog", {"size": [32, 32]})), size=48)
    descriptor = BovwDescriptor(train_bovw(source, "plain", recipe))
    assert descriptor.card.posterior is None and descriptor.card.classes == ()
    assert descriptor.card.quality == {}
    assert descriptor.describe([pattern("checks", 0, 70)]).shape == (1, 8 + 324)


def test_a_test_without_a_head_is_refused_before_anything_is_fitted(tmp_path: Path) -> None:
    source = cbir.open_source(str(write_patterns(tmp_path / "patterns", 2)), True)
    with pytest.raises(CbirError, match="no head"):
        train_bovw(source, "m", RECIPES["hog"], test=source)
    with pytest.raises(CbirError, match="6 images are too few"):
        train_bovw(source, "m", HEADED)


def test_other_test_classes_are_refused(tmp_path: Path) -> None:
    source = cbir.open_source(str(write_patterns(tmp_path / "patterns", 10)), True)
    folder = write_patterns(tmp_path / "test", 2)
    (folder / "checks").rename(folder / "spots")
    with pytest.raises(CbirError, match="different classes"):
        train_bovw(source, "m", HEADED, test=cbir.open_source(str(folder), True))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_fitted_and_describes(name: str, tmp_path: Path) -> None:
    """With fewer words and numbers, the images being few; all else as it is."""
    recipe = recipe_called(name)
    plans = tuple(
        replace(
            plan,
            words=replace(plan.words, count=4) if plan.words else None,
            filters=replace(plan.filters, count=10) if plan.filters else None,
            projection=replace(plan.projection, dims=3) if plan.projection else None,
        )
        for plan in recipe.plans
    )
    source = cbir.open_source(str(write_patterns(tmp_path / "patterns", 10)), True)
    files = train_bovw(source, "m", replace(recipe, plans=plans), sample=2000)
    descriptor = BovwDescriptor(files)
    vectors = descriptor.describe([pattern("stripes", 99), np.zeros((32, 32, 3), np.uint8)])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert (descriptor.card.posterior is not None) == (recipe.head is not None)
    assert json.loads(files["model.json"])["training"]["recipe"] == name


@pytest.mark.parametrize(
    ("name", "dims"), [("seed-histogram-hog", 580), ("seed-hog-sift", 724), ("seed-all", 980)]
)
def test_the_seeds_pipelines_are_its_features_and_a_logistic_regression(
    name: str, dims: int
) -> None:
    """Grey histogram by NumPy, HOG by scikit-image, words by OpenCV and brute force."""
    feature = pytest.importorskip("skimage.feature")
    images = patterns(40).images
    recipe = recipe_called(name)
    assert recipe.head is not None and recipe.head.kind == "logistic"
    arrays = [fit_block(plan, images, 0, None, lambda _: None) for plan in recipe.plans]
    rows = Encoder([plan.block() for plan in recipe.plans], arrays, recipe.size).rows(images[:20])
    assert rows.shape == (20, dims)
    for row, image in zip(rows, images, strict=False):
        parts = [unit(feature.hog(image, 9, (8, 8), (2, 2), "L2-Hys", channel_axis=-1))]
        if name != "seed-hog-sift":
            grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
            parts.insert(0, unit(np.histogram(grey, 256, (0, 256))[0]))
        if name != "seed-histogram-hog":
            parts.append(unit(np.sqrt(word_counts(image, arrays[-1]))))
        np.testing.assert_allclose(row, np.concatenate(parts), atol=2e-5)


def unit(row: np.ndarray) -> np.ndarray:
    """The row at unit length; nothing to describe is the first axis."""
    return row / np.linalg.norm(row) if row.any() else np.eye(len(row))[0]


def word_counts(image: np.ndarray, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """The 400 words of the image's SIFT descriptors, counted and weighted by idf."""
    words, idf = arrays["words"].astype(np.float32), arrays["idf"]
    assert words.shape == (400, 128) and idf.shape == (400,)
    found = keypoint_sift(image, 0).descriptors
    nearest = np.linalg.norm(found[:, None] - words[None], axis=2).argmin(axis=1)
    return np.bincount(nearest, minlength=400) * idf


def test_a_seed_pipeline_learns_patterns(tmp_path: Path) -> None:
    source = cbir.open_source(str(write_patterns(tmp_path / "patterns", 20)), True)
    files = train_bovw(source, "m", RECIPES["seed-histogram-hog"])
    descriptor = BovwDescriptor(files)
    assert descriptor.spec.dim == 580 + 3  # and the posterior of three classes
    assert descriptor.card.training["head"]["kind"] == "logistic"
    assert descriptor.card.quality["held_out_accuracy"] > 0.8


@pytest.mark.slow
def test_classifiers_are_compared_by_what_they_say_of_images_they_have_not_seen() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 120)
    telling = (np.eye(3)[labels] * 6 + random.normal(size=(120, 3))).astype(np.float32)
    noise = random.normal(size=(120, 3)).astype(np.float32)
    results = compare_heads(telling, labels)
    assert {r.name for r in results} == {
        *("naive-bayes", "logistic", "knn", "svm", "random-forest", "lda", "ridge"),
    }
    assert [r.accuracy for r in results] == sorted((r.accuracy for r in results), reverse=True)
    for result in results:
        confusion = np.array(result.confusion)
        np.testing.assert_array_equal(confusion.sum(axis=1), np.bincount(labels))
        assert result.accuracy == pytest.approx(np.trace(confusion) / 120)
        assert result.recall == pytest.approx(np.mean(np.diag(confusion) / confusion.sum(axis=1)))
        assert result.accuracy > 0.9
    # A classifier that were measured on what it learnt would be right here too.
    assert max(r.accuracy for r in compare_heads(noise, labels)) < 0.6
    assert {r.name for r in results if not r.may_be_head} == {
        *("knn", "random-forest", "naive-bayes"),
    }


def test_a_class_of_one_image_cannot_be_cross_validated() -> None:
    rows, labels = some_rows()
    with pytest.raises(CbirError, match="only one image"):
        compare_heads(rows, np.where(np.arange(len(rows)) == 0, 3, labels))


def test_a_sweep_names_the_lowest_index() -> None:
    result = sweep(SIFT, patterns(15).images, [2, 4, 8])
    assert [row.words for row in result.rows] == [2, 4, 8]
    assert result.best.davies_bouldin == min(row.davies_bouldin for row in result.rows)
    assert result.to_json()["best"] == result.best.words
    with pytest.raises(CbirError, match="are too few for"):
        sweep(SIFT, patterns(1).images, [2, 4000])


def test_fitting_words_loads_no_torch() -> None:
    code = (
        "import sys, cbir.training.bovw.fit, cbir.training.bovw.heads, cbir.training.bovw.sweep\n"
        "assert not {'torch', 'sklearn', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_filters_by_k_means_are_nearer_to_the_patches_than_patches_taken_at_random() -> None:
    images = patterns(30).images
    likeness = {}
    for kind in ("random", "kmeans"):
        plan = replace(PATCHES, filters=Filters(12, kind=kind))
        arrays = fit_block(plan, images, 0, None, lambda _: None)
        patches = sample_local(plan.block(), images, 2000, 1)
        white = (patches - arrays["whitening-mean"]) @ arrays["whitening"]
        distances = np.linalg.norm(
            white[:, None] - arrays["filters"].astype(np.float32)[None], axis=2
        )
        likeness[kind] = -float(distances.min(axis=1).mean())
    assert likeness["kmeans"] > likeness["random"]
