"""Parses the URL of an Elasticsearch index: nodes, path prefix, name, and options."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import TypeVar
from urllib.parse import parse_qsl

from cbir.errors import CbirError
from cbir.index.filters import as_number
from cbir.wording import did_you_mean

N = TypeVar("N", int, float)

PLAIN, ENCRYPTED = "elasticsearch", "elasticsearch+https"
SCHEMES = (PLAIN, ENCRYPTED)
PORT = 9200
WORDS = "words"
TYPES = ("flat", "hnsw", "int8_hnsw", "bbq_hnsw", WORDS)
EXAMPLE = f"write {PLAIN}://HOST:{PORT}/NAME"

# Leaves room for the number in the underlying index's name; the limit is 255 bytes.
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,199}")
# A part of the path under which a proxy offers the server; "." and ".." would name another one.
_STEP = re.compile(r"(?!\.{1,2}$)([A-Za-z0-9._~-]|%[0-9A-Fa-f]{2})+")
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\],]+)(:(?P<port>\d{1,5}))?")


@dataclass(frozen=True, slots=True)
class Options:
    """The query parameters of the URL; None selects the default.

    Index creation uses `type` (index_options.type, or `words`: see the module `words`), `shards`
    and `replicas`. The defaults are `flat`, one shard, and one replica once there are two nodes.
    Searches use `num_candidates` (per shard) and `oversample` (for quantised vectors, which are
    rescored).
    """

    type: str | None = None
    shards: int | None = None
    replicas: int | None = None
    num_candidates: int | None = None
    oversample: float | None = None


@dataclass(frozen=True, slots=True)
class Address:
    """The parts of an index URL: nodes as `http(s)://HOST:PORT[/PREFIX]`, name and options.

    `url`, without the options and a closing slash, names the index in messages.
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
    """Parse `url`: `elasticsearch://HOST[:PORT][,HOST...][/PREFIX...]/NAME[/][?OPTIONS]`.

    Raises `CbirError` if it is invalid; the message does not repeat possible secrets.
    """
    scheme, _, rest = url.partition("://")
    place, _, query = rest.partition("?")
    if "@" in place:
        raise CbirError(
            "the Elasticsearch URL contains a user or a password",
            "remove them; set CBIR_ELASTICSEARCH_USER and _PASSWORD, or _API_KEY",
        )
    hosts, _, path = place.rstrip("/").partition("/")
    *steps, name = path.split("/")
    # Options may hold secrets that were meant as credentials.
    shown = "/".join((f"{scheme}://{hosts}", *steps, name)).rstrip("/")
    if not _NAME.fullmatch(name):
        raise CbirError(
            f"{shown}: '{name}' is not a valid index name" if name else f"{shown} names no index",
            f"{EXAMPLE}; names are lower-case letters, digits, '.', '_' and '-'",
        )
    for step in steps:
        if not _STEP.fullmatch(step):
            raise CbirError(
                f"{shown}: '{step}' cannot be part of the path before the index name",
                f"write {PLAIN}://HOST:{PORT}/PREFIX/NAME, with special characters %-encoded",
            )
    protocol = "https" if scheme.lower() == ENCRYPTED else "http"
    prefix = "".join(f"/{step}" for step in steps)
    nodes = tuple(_node(shown, protocol, host) + prefix for host in hosts.split(","))
    return Address(shown, nodes, name, _options(shown, query))


def _node(url: str, protocol: str, text: str) -> str:
    match = _HOST.fullmatch(text.strip())
    port = int(match["port"] or PORT) if match else 0
    if match is None or not 0 < port < 65536:
        raise CbirError(f"{url}: '{text}' is not a valid host", EXAMPLE)
    return f"{protocol}://{match['host'].lower()}:{port}"


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
        shards=_number(url, given, "shards", int, 1, 1024),
        replicas=_number(url, given, "replicas", int, 0, 100),
        num_candidates=_number(url, given, "num_candidates", int, 1, 10_000),
        oversample=_number(url, given, "oversample", float, 1, 10),
    )


def _number(
    url: str, given: dict[str, str], name: str, kind: type[N], low: int, high: int
) -> N | None:
    if name not in given:
        return None
    value = as_number(given[name])
    if value is None or not low <= value <= high or kind(value) != value:
        raise CbirError(f"{url}: {name} is '{given[name]}'", f"give a number from {low} to {high}")
    return kind(value)
