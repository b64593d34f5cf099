"""Opens and creates Elasticsearch indexes; checks the server version, spec and type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager

from cbir.errors import IndexStateError
from cbir.index.elasticsearch import bodies
from cbir.index.elasticsearch import lifecycle as life
from cbir.index.elasticsearch.address import parse
from cbir.index.elasticsearch.client import OPENING, Client
from cbir.index.elasticsearch.index import ElasticIndex
from cbir.index.elasticsearch.server_errors import IndexMissingError
from cbir.types import DescriptorSpec, ModelFile


def open_index(url: str, *, write: bool) -> ElasticIndex:
    """Open the index at `url`; raises `IndexStateError` if there is none."""
    with _connected(url) as client:
        client.version()
        facts = life.read_facts(client, client.address.name, patience=OPENING)
        if facts is None:
            raise IndexMissingError(client.url)
        _require_type(client, facts)
        return ElasticIndex(client, client.address.name, facts, write=write)


def create_index(
    url: str,
    spec: DescriptorSpec,
    model_files: Mapping[str, ModelFile],  # noqa: ARG001 - the model store keeps them
    *,
    rebuild: bool,
    fast_load: bool,
) -> ElasticIndex:
    """Open the index at `url` for writing; create it if it is missing.

    With `rebuild`, an existing index serves searches until `refresh` replaces it with the new one.
    Only a rebuild may change `spec`; `index.open.create_index` checks this.
    """
    with _connected(url) as client:
        version, alias = client.version(), client.address.name
        facts = life.read_facts(client, alias, patience=OPENING)
        if facts is not None and rebuild:
            alias = life.draft_name(alias)
            facts = life.draft(client, spec)
        if facts is None:
            options = client.address.options
            body = bodies.creation(spec, options, alias, version=version, fast_load=fast_load)
            facts = life.make(client, alias, body)
        else:
            _require_type(client, facts)
        return ElasticIndex(client, alias, facts, write=True)


def index_exists(url: str) -> bool:
    """Whether an index was created at `url`."""
    with closing(Client(parse(url))) as client:
        return life.read_facts(client, client.address.name, patience=OPENING) is not None


def check_place(url: str) -> None:
    """Raise `CbirError` for an invalid URL; an index can be created under any name."""
    parse(url)


def same_place(one: str, other: str) -> bool:
    """Whether both have the name and a node in common."""
    mine, theirs = parse(one), parse(other)
    return mine.name == theirs.name and not set(mine.nodes).isdisjoint(theirs.nodes)


def mend(url: str) -> list[str]:  # noqa: ARG001 - both engines have the same functions
    """Nothing: the server repairs its own files."""
    return []


@contextmanager
def _connected(url: str) -> Iterator[Client]:
    """A client that closes if the block raises."""
    client = Client(parse(url))
    try:
        yield client
    except BaseException:
        client.close()
        raise


def _require_type(client: Client, facts: life.Facts) -> None:
    if client.address.options.type not in (None, facts.kind):
        raise IndexStateError(
            f"{client.url}: the index is of type {facts.kind}",
            "omit the type, or rebuild the index: cbir index SOURCE --rebuild",
        )
