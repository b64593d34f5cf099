"""Converts records with vectors, boxes and thumbnails to documents and back."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from cbir.errors import CbirError
from cbir.index.base import Detail, Entry, SourceRun, Stamp
from cbir.index.elasticsearch.bodies import BOX, METADATA, metadata_field, metadata_name
from cbir.types import EXIF_FIELDS, WHOLE, Box, ImageRecord, MetadataValue, Vectors

SOURCES, FAILURES = "cbir sources", "cbir failures"
"""Ids of documents that are not records; record ids contain no white space.

Their rows: name, URI, and time and end of the last run, which older versions left out; source,
location, reason.
"""

_FIELDS = (
    *("id", "source", "location", "label", "content_hash"),
    *("width", "height", "file_size", "mtime_ns", "missing", "stamp", "decoder"),
)
"""The document fields that are attributes of `ImageRecord`; None is left out."""
_OF_RECORD = {*_FIELDS, "phash", "metadata", "given", "checksum"}
_WHOLE_LIMIT = 2**63
_LONGEST_ID = 512


def unfit(ids: Iterable[str]) -> dict[str, str]:
    """Reasons why the server would refuse some of `ids`, and the whole request with them."""
    limit = f"its id is longer than {_LONGEST_ID} bytes"
    return {
        record_id: limit
        for record_id in ids
        if len(record_id) * 4 > _LONGEST_ID and len(record_id.encode()) > _LONGEST_ID
    }


def document(entry: Entry, field: str) -> dict[str, Any]:
    """The document of an entry, with its vectors in `field` (and in `field` of `parts`)."""
    made = {**record_fields(entry.record), "part_count": len(entry.vectors)}
    made[field] = np.ascontiguousarray(entry.vectors[0])
    if len(entry.vectors) > 1:
        made["parts"] = [
            {"number": number, **dict(zip(BOX, box, strict=True)), field: vector}
            for number, (box, vector) in enumerate(
                zip(entry.boxes[1:], np.ascontiguousarray(entry.vectors[1:]), strict=True), 1
            )
        ]
    if entry.thumbnail:
        made["thumbnail"] = base64.b64encode(entry.thumbnail).decode("ascii")
    return made


def record_fields(record: ImageRecord) -> dict[str, Any]:
    """The fields of a document that a record sets."""
    made = {name: value for name in _FIELDS if (value := getattr(record, name)) is not None}
    if record.phash is not None:
        made["phash"] = base64.b64encode(record.phash).decode("ascii")
    return {**made, **metadata_fields(record.id, record)}


def metadata_fields(record_id: str, detail: ImageRecord | Detail) -> dict[str, Any]:
    """The metadata, and what was given, as fields of a document."""
    groups = metadata_groups(record_id, detail.metadata)
    return {"metadata": groups, "given": sorted(detail.given)}


def metadata_groups(
    record_id: str, metadata: Mapping[str, MetadataValue]
) -> dict[str, dict[str, MetadataValue]]:
    """Metadata by kind of value, as a key may be text in one record and a number in another."""
    groups: dict[str, dict[str, MetadataValue]] = {}
    for name, value in metadata.items():
        if isinstance(value, str):
            kind = 0
        elif isinstance(value, int):
            kind, value = 1, int(value)
            if not -_WHOLE_LIMIT <= value < _WHOLE_LIMIT:
                raise CbirError(
                    f"record '{record_id}': metadata {name}={value} is too large",
                    "integers have at most 64 bits",
                )
        else:
            kind, value = 2, float(value)
        groups.setdefault(METADATA[kind], {})[metadata_field(name)] = value
    return groups


def record(source: Mapping[str, Any]) -> ImageRecord:
    """The record of a document."""
    known: dict[str, Any] = {name: source.get(name) for name in _FIELDS}
    known["decoder"] = source.get("decoder", 0)
    phash = base64.b64decode(source["phash"]) if "phash" in source else None
    metadata = _metadata(source)
    return ImageRecord(**known, metadata=metadata, phash=phash, given=_given(source, metadata))


def stamp(source: Mapping[str, Any]) -> Stamp:
    """The stamp of a document."""
    names = ("content_hash", "file_size", "mtime_ns", "missing", "label")
    known: dict[str, Any] = {name: source.get(name) for name in names}
    metadata = _metadata(source)
    return Stamp(
        **known,
        parts=source["part_count"],
        metadata=metadata,
        stamp=source.get("stamp"),
        decoder=source.get("decoder", 0),
        given=_given(source, metadata),
    )


def renamed(found: Mapping[str, Any], new: ImageRecord) -> dict[str, Any]:
    """The document of a hit with the fields of the record `new`, its vectors and thumbnail."""
    kept = {name: value for name, value in found["_source"].items() if name not in _OF_RECORD}
    return changed({**found, "_source": kept}, record_fields(new))


def uris(rows: Iterable[list[Any]]) -> dict[str, str]:
    """Source name -> URI from the rows of `SOURCES`."""
    return {row[0]: row[1] for row in rows}


def runs(rows: Iterable[list[Any]]) -> dict[str, SourceRun]:
    """Source name -> last run from the rows of `SOURCES`."""
    return {row[0]: SourceRun(row[2], row[3]) for row in sorted(rows) if len(row) > 2}


def vectors(source: Mapping[str, Any], field: str) -> Vectors:
    """The vectors of a document (parts, dim)."""
    rows = [source[field], *(part[field] for part in source.get("parts", ()))]
    return np.array([numbers(row) for row in rows], dtype=np.float32)


def numbers(vector: Any) -> Any:
    """A vector (dim,) of a document, unpacked if necessary."""
    return unpacked(vector) if isinstance(vector, str) else vector


def packed(vector: Vectors) -> str:
    """A sparse vector (dim,) in base64: dim, the positions of the non-zero values, the values."""
    (dim,) = vector.shape
    places = np.flatnonzero(vector)
    head = np.array([dim], dtype="<u4").tobytes()
    where, values = places.astype(_places(dim)), vector[places].astype("<f4")
    return base64.b64encode(head + where.tobytes() + values.tobytes()).decode("ascii")


def unpacked(text: str) -> Vectors:
    """The inverse of `packed`, bit-exact: float32 (dim,)."""
    data = base64.b64decode(text)
    dim = int(np.frombuffer(data, "<u4", 1)[0])
    place = np.dtype(_places(dim))
    count = (len(data) - 4) // (place.itemsize + 4)
    vector: Vectors = np.zeros(dim, dtype=np.float32)
    values = np.frombuffer(data, "<f4", count, offset=4 + count * place.itemsize)
    vector[np.frombuffer(data, place, count, offset=4)] = values
    return vector


def changed(found: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The document of a hit with its stored thumbnail and `changes`; None removes a field."""
    new = {**found["_source"], **changes}
    if "thumbnail" in found.get("fields", {}):
        new["thumbnail"] = found["fields"]["thumbnail"][0]
    return {name: value for name, value in new.items() if value is not None}


def boxes(source: Mapping[str, Any]) -> list[Box]:
    """The boxes of a document, the whole image first."""
    return [WHOLE, *(box(part) for part in source.get("parts", ()))]


def box(part: Mapping[str, Any]) -> Box:
    """The box of one part."""
    left, top, right, bottom = (float(part[edge]) for edge in BOX)
    return (left, top, right, bottom)


def thumbnail(hit: Mapping[str, Any]) -> bytes:
    """The thumbnail in a hit's stored fields, empty if there is none."""
    kept = hit.get("fields", {}).get("thumbnail")
    return base64.b64decode(kept[0]) if kept else b""


def entry(hit: Mapping[str, Any], field: str) -> Entry:
    """The entry of a hit requested with `bodies.EVERYTHING`."""
    source = hit["_source"]
    return Entry(record(source), vectors(source, field), boxes(source), thumbnail(hit))


def values(answer: Mapping[str, Any], most: int) -> list[MetadataValue]:
    """The values in the answer to `bodies.values`: the most frequent first, numbers before text."""
    counts = [
        (-bucket["doc_count"], isinstance(value, str), value)
        for counted in answer["aggregations"].values()
        for bucket in counted["buckets"]
        for value in [_value(bucket)]
    ]
    return [value for _, _, value in sorted(counts)[:most]]


def _value(bucket: Mapping[str, Any]) -> MetadataValue:
    if "key_as_string" in bucket:  # a flag
        return int(bucket["key"])
    value: MetadataValue = bucket["key"]
    return value


def _places(dim: int) -> str:
    return "<u2" if dim <= 1 << 16 else "<u4"


def _given(source: Mapping[str, Any], metadata: Iterable[str]) -> frozenset[str]:
    """The fields that were given; in documents of older versions, those that are not EXIF."""
    return frozenset(source.get("given", set(metadata).difference(EXIF_FIELDS)))


def _metadata(source: Mapping[str, Any]) -> dict[str, MetadataValue]:
    groups: Mapping[str, Mapping[str, MetadataValue]] = source["metadata"]
    found: dict[str, MetadataValue] = {}
    for kind, values in groups.items():
        for name, value in values.items():
            found[metadata_name(name)] = float(value) if kind == METADATA[2] else value
    return found
