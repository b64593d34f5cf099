"""What docs/elasticsearch.md says of snapshots: one restores an index whole."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest

from cbir.index.open import create_index, index_exists, open_index
from cbir.testing import sample_entries, unit
from tests.index.elasticsearch.support_elasticsearch import own_server
from tests.index.embedded.support_index import SPEC, answers

pytestmark = [pytest.mark.elasticsearch, pytest.mark.slow]
QUERIES = unit(np.random.default_rng(5).normal(size=(5, 8)))


def test_a_snapshot_restores_records_vectors_thumbnails_and_spec() -> None:
    entries = sample_entries(60, parts=3, metadata={"year": 1999})
    with own_server(heap="512m") as server:
        url, request = server.index_url("photos"), server.address.request
        with closing(create_index(url, SPEC)) as index:
            index.add(entries)
            index.refresh()
            before = answers(index, QUERIES, 10)
        place = {"type": "fs", "settings": {"location": str(server.folder / "snapshots")}}
        request("PUT", "/_snapshot/backup", place)
        wanted = {"indices": "photos*", "include_global_state": False}
        done = request("PUT", "/_snapshot/backup/monday?wait_for_completion=true", wanted)
        assert done["snapshot"]["state"] == "SUCCESS"
        for name in request("GET", "/photos*"):
            request("DELETE", f"/{name}")
        assert not index_exists(url)

        request("POST", "/_snapshot/backup/monday/_restore?wait_for_completion=true")
        with closing(open_index(url)) as index:
            assert index.spec == SPEC
            assert index.verify() == []
            assert answers(index, QUERIES, 10) == before
            assert [each.record for each in index.entries()] == [each.record for each in entries]
            assert index.thumbnail("a/0007") == entries[7].thumbnail
