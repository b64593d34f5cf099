"""Fits what follows a trained network: centring, PCA, whitening, fusion with its posterior.

Mean and principal components come from the training images, without their labels. What to do with
them is chosen on held-out images, half as index and half as queries, never on training images: the
network has fitted those, so among them any vectors rank well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cbir.descriptors.arrays import npz_bytes
from cbir.descriptors.fusion import Components, Posterior, principal_components, projected
from cbir.descriptors.onnx import BESIDE_POSTERIOR, NETWORK_FILE, PROJECTION_FILE
from cbir.files import sha256_of
from cbir.measures.significance import SIGNIFICANT, randomisation_p
from cbir.training.choose import MEASURE, Labels, choose_fusion, cosines, per_query
from cbir.training.labelled import Say
from cbir.types import Floats, OnStage, Vectors

WHITENINGS = (0.0, 0.25, 0.5, 1.0)
LEAST_DIMS = 64
"""A network's embedding varies most in as many dimensions as it has classes. Held-out images of
these classes rank best by those alone, but images of other classes, and copies of an image, are
told apart by the others."""
MOST = 10_000
"""Held-out images to choose with: the cosines of half of them with the other half are in memory."""


@dataclass(frozen=True)
class Form:
    """How an embedding becomes a unit vector: minus `mean` (dim,), times `projection` (dim, fewer).

    None skips a step; a projection has a mean.
    """

    name: str
    mean: Floats | None = None
    projection: Floats | None = None

    def vectors(self, embeddings: Floats) -> Vectors:
        """The unit rows (n, dim or fewer) of `embeddings` (n, dim)."""
        return projected(embeddings, self.mean, self.projection)


@dataclass(frozen=True)
class AfterNetwork:
    """How vectors are made from a network's embedding (`dim` dimensions) and logits.

    `score` is the held-out nAP@100. `tried` are the scores of all forms by name, and `p` is the
    corrected p of the best form other than centring against it.
    """

    dim: int
    form: Form
    posterior: Posterior
    score: float
    tried: Mapping[str, float] = field(default_factory=dict)
    p: float = 1.0

    def vectors(self, embeddings: Floats, logits: Floats) -> Vectors:
        """The unit vectors (n, dim + classes) that a descriptor of the model computes."""
        return self.posterior.fused(self.form.vectors(embeddings), logits)

    def files(self, network: bytes) -> dict[str, bytes]:
        """The model's files without its card: `network`, and a projection if there is one."""
        if self.form.projection is None:
            return {NETWORK_FILE: network}
        assert self.form.mean is not None
        arrays = {"mean": self.form.mean, BESIDE_POSTERIOR: self.form.projection}
        return {NETWORK_FILE: network, PROJECTION_FILE: npz_bytes(arrays)}

    def card_fields(self, files: Mapping[str, bytes]) -> dict[str, Any]:
        """The fields of `OnnxCard` that make these vectors, for `files` as `files` returns them."""
        fields: dict[str, Any] = {
            "temperature": self.posterior.temperature,
            "posterior_weight": self.posterior.weight,
            "posterior_power": self.posterior.power,
        }
        if self.form.projection is not None:
            digests = {name: sha256_of(data) for name, data in files.items()}
            return {**fields, "dim": self.dim, "files": digests}
        if self.form.mean is not None:
            return {**fields, "mean": tuple(self.form.mean.tolist())}
        return {**fields, "dim": self.dim}

    def recorded(self) -> dict[str, Any]:
        """The choice as JSON, for the card's `training`."""
        tried = {name: round(score, 5) for name, score in self.tried.items()}
        return {"form": self.form.name, "p": round(self.p, 5), f"held_out_{MEASURE}": tried}


def fit_after_network(
    training: Floats,
    held_out: Floats,
    logits: Floats,
    labels: Labels,
    say: Say = lambda _: None,
    on_stage: OnStage = lambda _s, _d, _t: None,
) -> AfterNetwork:
    """Fit centring and PCA to `training` embeddings (m, dim), and choose on the held-out images.

    `held_out` embeddings (n, dim), `logits` (n, classes) and `labels` (n,) are of images that
    trained nothing, in random order; the first 10,000 are used. The forms are the embedding as it
    is, centred, and projected to each of some dimensions with each of some degrees of whitening.

    Temperature and weight of the posterior are chosen for the centred embedding; then the weight
    for each other form; then both for the best of these. It replaces plain centring only if its
    queries are better by a paired randomisation test, p < .05 after Bonferroni's correction for the
    number of forms. Otherwise the difference may be noise, and centring, which needs no file and
    drops no dimension, stays.
    """
    held_out, logits, labels = held_out[:MOST], logits[:MOST], labels[:MOST]
    components = principal_components(training, training.shape[1])
    centred = Form("centred", components.mean)
    posterior, score = choose_fusion(centred.vectors(held_out), logits, labels)
    plain = AfterNetwork(training.shape[1], centred, posterior, score)
    others = list(_others(components))
    scores = {centred.name: score}
    for number, form in enumerate(others):
        on_stage("choosing how vectors are made", number, len(others))
        vectors, temperatures = form.vectors(held_out), [plain.posterior.temperature]
        scores[form.name] = choose_fusion(vectors, logits, labels, temperatures)[1]
    best = max(others, key=lambda form: scores[form.name])
    posterior, score = choose_fusion(best.vectors(held_out), logits, labels)
    scores[best.name] = score
    other = replace(plain, form=best, posterior=posterior, score=score)
    values = [per_query(cosines(one.vectors(held_out, logits)), labels) for one in (other, plain)]
    p = min(1.0, len(others) * randomisation_p(values[0] - values[1]))
    better = score > plain.score and p < SIGNIFICANT
    after = replace(other if better else plain, tried=scores, p=p)
    say(
        f"vectors: {after.form.name}, {after.posterior}; held-out {MEASURE}: "
        f"centred {plain.score:.4f}, {best.name} {score:.4f} (p = {p:.2g} for {len(others)} forms)"
    )
    return after


def _others(components: Components) -> Iterator[Form]:
    """The forms beside the centred embedding."""
    yield Form("as it is")
    dim, rank = components.axes.shape
    if not rank:
        return
    fewer = (2**power for power in range(rank.bit_length(), 0, -1))
    for dims in (rank, *(dims for dims in fewer if LEAST_DIMS <= dims < rank)):
        for whitening in WHITENINGS:
            if (dims, whitening) == (dim, 0):
                continue  # a rotation: cosines stay as they are
            name = f"PCA {dims}" + (f", whitened {whitening:g}" if whitening else "")
            yield Form(name, components.mean, components.projection(dims, whitening))
