"""Where an Elasticsearch index is, and how it is to be made and searched: what its URL says."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from urllib.parse import parse_qsl

from cbir.errors import CbirError
from cbir.wording import did_you_mean

PLAIN, ENCRYPTED = "elasticsearch", "elasticsearch+https"
SCHEMES = (PLAIN, ENCRYPTED)
PORT = 9200
WORDS = "words"
TYPES = ("flat", "hnsw", "int8_hnsw", "bbq_hnsw", WORDS)
EXAMPLE = f"write {PLAIN}://HOST:{PORT}/NAME"

# Room for the number that follows the name in the index behind it; 255 bytes are the limit.
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,199}")
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\],]+)(:(?P<port>\d{1,5}))?")


@dataclass(frozen=True, slots=True)
class Options:
    """What may follow `?` in the URL; None is the default.

    `type` (index_options.type, or `words`: see `elastic_words`), `shards` and `replicas` are for a
    new index: the default is `flat`, one shard, and a replica as soon as there are two nodes.
    `num_candidates` (a shard) and `oversample` (of quantised vectors, scored again) are for
    searching.
    """

    type: str | None = None
    shards: int | None = None
    replicas: int | None = None
    num_candidates: int | None = None
    oversample: float | None = None


@dataclass(frozen=True, slots=True)
class Address:
    """The parts of an index's URL: its nodes as `http(s)://HOST:PORT`, its name, its options.

    `url` is what messages call it: without the options.
    """

    url: str
    nodes: tuple[str, ...]
    name: str
    options: Options

    @property
    def encrypted(self) -> bool:
        return self.nodes[0].startswith("https")

    @property
    def shown_nodes(self) -> str:
        return ", ".join(node.partition("://")[2] for node in self.nodes)


def parse(url: str) -> Address:
    """The address that `url` is.

    Raises `CbirError` where it cannot be one; what may be a secret is not repeated.
    """
    scheme, _, rest = url.partition("://")
    place, _, query = rest.partition("?")
    hosts, _, name = place.partition("/")
    if "@" in hosts:
        raise CbirError(
            "the address of an Elasticsearch index holds a user or a password",
            "leave them out; set CBIR_ELASTICSEARCH_USER and _PASSWORD, or _API_KEY",
        )
    if not _NAME.fullmatch(name):
        raise CbirError(
            f"{url}: '{name}' is no name for an index" if name else f"{url} names no index",
            f"{EXAMPLE}; names are lower-case letters, digits, '.', '_' and '-'",
        )
    protocol = "https" if scheme.lower() == ENCRYPTED else "http"
    nodes = tuple(_node(url, protocol, host) for host in hosts.split(","))
    return Address(f"{scheme}://{place}", nodes, name, _options(url, query))


def _node(url: str, protocol: str, text: str) -> str:
    match = _HOST.fullmatch(text.strip())
    port = int(match["port"] or PORT) if match else 0
    if match is None or not 0 < port < 65536:
        raise CbirError(f"{url}: '{text}' is no host", EXAMPLE)
    return f"{protocol}://{match['host']}:{port}"


def _options(url: str, query: str) -> Options:
    given = dict(parse_qsl(query, keep_blank_values=True))
    known = [field.name for field in fields(Options)]
    for name in given:
        if name not in known:
            raise CbirError(f"{url}: unknown option '{name}'", did_you_mean(name, known))
    kind = given.get("type")
    if kind is not None and kind not in TYPES:
        raise CbirError(f"{url}: unknown type '{kind}'", f"choose one of {', '.join(TYPES)}")
    return Options(
        type=kind,
        shards=_whole(url, "shards", given, 1, 1024),
        replicas=_whole(url, "replicas", given, 0, 100),
        num_candidates=_whole(url, "num_candidates", given, 1, 10_000),
        oversample=_factor(url, given),
    )


def _whole(url: str, name: str, given: dict[str, str], low: int, high: int) -> int | None:
    text = given.get(name)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
        raise CbirError(f"{url}: {name} is '{text}'", f"give a number from {low} to {high}")
    return int(text)


def _factor(url: str, given: dict[str, str]) -> float | None:
    text = given.get("oversample")
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1 <= value <= 10:
        raise CbirError(f"{url}: oversample is '{text}'", "give a number from 1 to 10")
    return value
