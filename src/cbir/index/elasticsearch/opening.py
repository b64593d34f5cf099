"""Opens and creates Elasticsearch indexes: the server's version, the index's spec and type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager

from cbir.errors import IndexStateError
from cbir.index.elasticsearch import lifecycle as life
from cbir.index.elasticsearch.address import Address, parse
from cbir.index.elasticsearch.client import OPENING, Client
from cbir.index.elasticsearch.index import ElasticIndex
from cbir.types import DescriptorSpec


def open_index(url: str, *, write: bool) -> ElasticIndex:
    """The index at `url`; raises `IndexStateError` if there is none."""
    address = parse(url)
    with _connected(address) as client:
        client.version()
        facts = life.read_facts(client, address.url, address.name, patience=OPENING)
        if facts is None:
            raise IndexStateError(
                f"no index at {address.url}", f"cbir index FOLDER --into '{address.url}'"
            )
        _require_type(address, facts)
        return ElasticIndex(client, address, facts, alias=address.name, write=write)


def create_index(
    url: str,
    spec: DescriptorSpec,
    model_files: Mapping[str, bytes],  # noqa: ARG001 - the model store keeps them
    *,
    rebuild: bool,
    fast_load: bool,
) -> ElasticIndex:
    """The index at `url`, open for writing; a new one where there is none.

    With `rebuild` an existing index answers searches until `refresh` puts the new one in its
    place; only then may `spec` be another one, which `index.open.create_index` sees to.
    """
    address = parse(url)
    with _connected(address) as client:
        version = client.version()
        facts = life.read_facts(client, address.url, address.name, patience=OPENING)
        alias = address.name
        if facts is None:
            facts = life.make(client, address, spec, alias, version=version, fast_load=fast_load)
        elif rebuild:
            alias = life.draft_name(address.name)
            facts = life.draft(client, address, spec, version=version, fast_load=fast_load)
        else:
            _require_type(address, facts)
        return ElasticIndex(client, address, facts, alias=alias, write=True)


def index_exists(url: str) -> bool:
    """Whether an index was made at `url`."""
    address = parse(url)
    with closing(Client(address)) as client:
        found = life.read_facts(client, address.url, address.name, patience=OPENING)
        return found is not None


@contextmanager
def _connected(address: Address) -> Iterator[Client]:
    """A client that is closed if the block raises."""
    client = Client(address)
    try:
        yield client
    except BaseException:
        client.close()
        raise


def _require_type(address: Address, facts: life.Facts) -> None:
    if address.options.type not in (None, facts.kind):
        raise IndexStateError(
            f"{address.url}: the index is of type {facts.kind}",
            "leave the type out, or rebuild the index: cbir index SOURCE --rebuild",
        )
