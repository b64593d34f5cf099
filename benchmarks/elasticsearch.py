"""Elasticsearch through cbir, compared with the bare client: same documents, mapping and server.

Starts its own server (see tools.elasticsearch_server). A load begins with creating the index and
ends with the refresh that makes its records searchable. The bare client (`helpers.bulk`, with the
same serialiser) already has its documents in memory as dicts; `cbir` makes its own from records and
vectors. Slow, so it runs only if named.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.setting import CHUNK, cifar10_index, load_seconds
from benchmarks.vgg16 import UntrainedVgg16
from cbir.descriptors.contract import Descriptor
from cbir.descriptors.models import load_descriptor
from cbir.evaluation import Evaluation, describe_queries, evaluate
from cbir.evaluation.recall import recall_of
from cbir.images.sources import open_source
from cbir.index.base import SCORE_TOLERANCE, Entry, Index, Matches
from cbir.index.elasticsearch import bodies as elastic_queries
from cbir.index.elasticsearch.address import Options
from cbir.index.open import open_index
from cbir.ingest.indexing import index_images
from cbir.search.searcher import Searcher
from cbir.types import Vectors
from tools.elasticsearch_server import Server, start_server

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

TYPES = ("flat", "hnsw", "int8_hnsw", "bbq_hnsw")
RUNS = 3
QUERIES = 1000
DEPTH = 100
LARGE_SIZE, LARGE_SAMPLE = 224, 64


def main() -> None:
    """Print every figure with its target."""
    place = cifar10_index()
    with start_server(heap="2g") as server, closing(Searcher.open(place)) as embedded:
        print(f"one node on the same machine, heap 2 GB; loads: medians of n={RUNS}")
        source = open_source("cifar10:test")
        queries = describe_queries(embedded, source, sample=QUERIES).vectors
        right = embedded.index.search(queries, DEPTH, exact=True)
        entries = list(embedded.index.entries())
        for kind in TYPES:
            _one_type(server, kind, embedded.index, entries, queries)
        del entries
        _equality(embedded, server.index_url("ours-flat"), queries, right)
        _end_to_end(server)


def _one_type(
    server: Server,
    kind: str,
    embedded: Index,
    entries: list[Entry],
    queries: Vectors,
) -> None:
    name = f"ours-{kind}"
    url = f"{server.index_url(name)}?type={kind}"
    print(f"\n{kind}: {len(entries):,} records of {embedded.spec.dim} dimensions")
    with closing(_client(server)) as client:
        load_seconds(url, embedded.spec, entries)
        body, documents = _creation(client, name), list(_documents(client, name))
        assert len(documents) == len(entries)
        ours, bare = [], []
        for _ in range(RUNS):
            _drop(client, name)
            ours.append(load_seconds(url, embedded.spec, entries))
            _drop(client, "bare")
            bare.append(_bare_load(client, body, documents))
        rates = [len(entries) / statistics.median(times) for times in (ours, bare)]
        print(f"  load, cbir            {rates[0]:,.0f} records/s")
        print(f"  load, bare client     {rates[1]:,.0f} records/s")
        print(f"  ratio                 {rates[0] / rates[1]:.2f} (target 0.8)")
        with closing(open_index(url)) as index:
            _single_searches(index, client, kind, queries)
        _drop(client, "bare")


def _bare_load(
    client: Elasticsearch, body: dict[str, Any], documents: list[dict[str, Any]]
) -> float:
    """Seconds for a new index called `bare`."""
    from elasticsearch import helpers

    started = time.perf_counter()
    client.indices.create(index="bare", body=body)
    actions = ({"_index": "bare", "_id": each["id"], "_source": each} for each in documents)
    loaded, failed = helpers.bulk(client, actions, chunk_size=CHUNK, stats_only=True)
    client.indices.refresh(index="bare")
    seconds = time.perf_counter() - started
    assert (loaded, failed) == (len(documents), 0)
    return seconds


def _single_searches(index: Index, client: Elasticsearch, kind: str, queries: Vectors) -> None:
    """Search one query at a time, k=10, alternating with the bare client; print times, recall."""
    body = _search_body(client, kind)
    ours, bare = [], []
    for query in queries:
        started = time.perf_counter()
        index.search(query[None], 10)
        between = time.perf_counter()
        body["knn"]["query_vector"] = query
        client.search(index="bare", body=body)
        bare.append(time.perf_counter() - between)
        ours.append(between - started)
    for name, times in (("cbir", ours), ("bare client", bare)):
        median, late = np.percentile(times, [50, 99]) * 1000
        print(f"  search, {name:<13} median {median:.2f} ms, p99 {late:.2f} ms, n={len(queries)}")
    ratio = statistics.median(ours) / statistics.median(bare)
    print(f"  ratio                 {ratio:.2f} (target 1.3)")
    recall = recall_of(index, queries, 10).to_json()
    print(f"  recall@10             {recall['recall']:.4f} against exact (target 0.98), ", end="")
    print(f"all ten for {recall['complete']:.1%}, worst {recall['worst']:.1f}")


def _search_body(client: Elasticsearch, kind: str) -> dict[str, Any]:
    """A search for the ten nearest, with the same server parameters as ours."""
    fields = _mappings(client, "bare")["properties"]
    (field,) = (name for name, each in fields.items() if each.get("type") == "dense_vector")
    placeholder = np.zeros(fields[field]["dims"], dtype=np.float32)
    return elastic_queries.knn(field, placeholder, 10, [], kind, Options())


def _equality(embedded: Searcher, url: str, queries: Vectors, right: Sequence[Matches]) -> None:
    """Compare the exact results of both engines, and their evaluation."""
    with closing(open_index(url)) as index:
        different = swapped = 0
        worst = 0.0
        found = index.search(queries, DEPTH, exact=True)
        for ours, theirs in zip(found, right, strict=True):
            worst = max(worst, float(np.abs(ours.scores - theirs.scores).max()))
            swapped += ours.ids != theirs.ids
            different += set(ours.ids) != set(theirs.ids)
        print(f"\nexact top {DEPTH} of {len(queries):,} queries, both engines")
        print(f"  largest difference of a score at the same rank: {worst:.1e}", end="")
        print(f" (tolerance {SCORE_TOLERANCE:.0e})")
        print(f"  other order: {swapped} queries; another set: {different} (equal scores only)")
    source = open_source("cifar10:test")
    searcher = Searcher(open_index(url), embedded.descriptor)
    with closing(searcher):
        for name, each in (("embedded", embedded), ("elasticsearch", searcher)):
            print(f"  {name:<14} {_measures(evaluate(each, source, sample=QUERIES))}")


def _measures(evaluation: Evaluation) -> str:
    return ", ".join(f"{name} {evaluation.measures[name]:.4f}" for name in ("nAP@100", "AP@100"))


def _end_to_end(server: Server) -> None:
    """Files to a searchable index: the only figures comparable with the predecessor's."""
    print("\nfiles to Elasticsearch, 50,000 images (the system this follows: 2 h 31 min)")
    trained = load_descriptor("cifar10-cnn")
    for descriptor, size in ((trained, 32), (UntrainedVgg16(32), 32)):
        name = descriptor.spec.name
        report = index_images(
            ["cifar10:train"], server.index_url(f"whole-{name}"), descriptor=descriptor
        )
        rate = report.added / report.seconds
        print(f"  {name:<20} {size} px: {report.seconds:.0f} s, {rate:,.0f} images/s", end="")
        print(f", n={report.added:,}")
    _large_network()


def _large_network() -> None:
    """The network alone at the input size of VGG-16; not a whole run."""
    descriptor: Descriptor = UntrainedVgg16(LARGE_SIZE)
    draw = np.random.default_rng(0)
    images = list(draw.integers(0, 256, (LARGE_SAMPLE, 32, 32, 3), dtype=np.uint8))
    descriptor.describe(images[:1])
    started = time.perf_counter()
    descriptor.describe(images)
    seconds = time.perf_counter() - started
    print(f"  {descriptor.spec.name}, network alone on one core: ", end="")
    print(f"{LARGE_SAMPLE / seconds:.1f} images/s, n={LARGE_SAMPLE} (no whole run)")


def _client(server: Server) -> Elasticsearch:
    from elasticsearch import Elasticsearch, OrjsonSerializer

    return Elasticsearch(server.url, serializer=OrjsonSerializer(), request_timeout=120)


def _creation(client: Elasticsearch, name: str) -> dict[str, Any]:
    """The body that creates an index like `name` while loading."""
    settings = {"number_of_shards": 1, "number_of_replicas": 0, "refresh_interval": "-1"}
    return {"mappings": _mappings(client, name), "settings": settings}


def _mappings(client: Elasticsearch, name: str) -> dict[str, Any]:
    (found,) = client.indices.get_mapping(index=name).body.values()
    mappings: dict[str, Any] = found["mappings"]
    return mappings


def _documents(client: Elasticsearch, name: str) -> Iterator[dict[str, Any]]:
    """The document of every record as it was sent, read back from the server."""
    after = [""]
    while True:
        page = client.search(
            index=name,
            query={"exists": {"field": "id"}},
            sort=[{"id": "asc"}],
            search_after=after,
            size=CHUNK,
            source=True,
            stored_fields=["thumbnail"],
        )["hits"]["hits"]
        for hit in page:
            yield {**hit["_source"], "thumbnail": hit["fields"]["thumbnail"][0]}
        if len(page) < CHUNK:
            return
        after = page[-1]["sort"]


def _drop(client: Elasticsearch, name: str) -> None:
    for index in client.indices.get(index=f"{name}*", expand_wildcards="all").body:
        client.indices.delete(index=index)


if __name__ == "__main__":
    main()
