"""Opens and makes Elasticsearch indexes: the server's version, the index's spec, type and state."""

from __future__ import annotations

from cbir.errors import IndexStateError
from cbir.index.elasticsearch import lifecycle as life
from cbir.index.elasticsearch.address import Address
from cbir.index.elasticsearch.client import OPENING, Client
from cbir.index.elasticsearch.index import ElasticIndex
from cbir.types import DescriptorSpec


def open_elastic(address: Address, *, write: bool = False) -> ElasticIndex:
    """The index at `address`; raises `IndexStateError` if there is none."""
    client = Client(address)
    try:
        client.version()
        facts = life.read_facts(client, address.url, address.name, patience=OPENING)
        if facts is None:
            raise IndexStateError(
                f"no index at {address.url}", f"cbir index FOLDER --into '{address.url}'"
            )
        _require_type(address, facts)
        return ElasticIndex(client, address, facts, alias=address.name, write=write)
    except BaseException:
        client.close()
        raise


def create_elastic(
    address: Address, spec: DescriptorSpec, *, rebuild: bool = False, fast_load: bool = False
) -> ElasticIndex:
    """The index at `address`, open for writing; made if there is none.

    With `rebuild` an index that is there goes on answering until `refresh`, which puts the new one
    in its place; only then may `spec` be another one, which `open.create_index` sees to.
    """
    client = Client(address)
    try:
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
    except BaseException:
        client.close()
        raise


def elastic_exists(address: Address) -> bool:
    """Whether an index was made at `address`."""
    client = Client(address)
    try:
        facts = life.read_facts(client, address.url, address.name, patience=OPENING)
        return facts is not None
    finally:
        client.close()


def _require_type(address: Address, facts: life.Facts) -> None:
    if address.options.type not in (None, facts.kind):
        raise IndexStateError(
            f"{address.url}: the index is of type {facts.kind}",
            "leave the type out, or build it anew: cbir index SOURCE --rebuild",
        )
