"""The label and metadata of an image: from its folder, its file, metadata files and the index."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cbir.index.base import Detail, Stamp
from cbir.types import EXIF_FIELDS, LABEL, ImageRecord, MetadataValue


def merged(
    known: Stamp | ImageRecord | None,
    folder_label: str | None,
    exif: Mapping[str, MetadataValue] | None,
    rows: Iterable[Mapping[str, MetadataValue | None]],
) -> Detail:
    """Label and metadata of an image, as a new index with the same metadata files has them.

    `known`: what the index has. What was read from the picture (`exif`; None: as in `known`) is
    replaced as a whole. What a row of a metadata file gave overrides it, and the folder's label,
    until a file changes it; a value of None takes a field back. A label without a folder's name to
    replace it stays.
    """
    stored, label, given = (
        (known.metadata, known.label, known.given) if known else ({}, None, frozenset[str]())
    )
    # Others can come from nowhere else, such as those of records that a program added.
    told = {name: value for name, value in stored.items() if name not in EXIF_FIELDS}
    told |= {name: value for name, value in stored.items() if name in given}
    read = {name: value for name, value in stored.items() if name not in told}
    if LABEL in given and label is not None:
        told[LABEL], label = label, None
    for row in rows:
        for name, value in row.items():
            if value is not None:
                told[name] = value
            elif name != LABEL:
                told.pop(name, None)
    given = frozenset(told)
    label = str(told.pop(LABEL)) if LABEL in told else folder_label or label
    return Detail(label, {**(read if exif is None else exif), **told}, given)


def handed_over(old: Stamp, new: Stamp) -> tuple[Detail | None, bool]:
    """What `new` becomes with the fields that files gave `old`, both records of the same file.

    None if nothing changes. The second value is False if `new` has other values for some of them.
    """
    fields, own = _given(old), _given(new)
    added = {name: value for name, value in fields.items() if name not in own}
    label = added.get(LABEL, new.label)
    metadata = {name: value for name, value in added.items() if name != LABEL}
    detail = Detail(
        None if label is None else str(label), {**new.metadata, **metadata}, new.given | set(added)
    )
    return detail if added else None, fields.items() <= {**own, **added}.items()


def _given(stamp: Stamp) -> dict[str, MetadataValue]:
    fields = stamp.metadata if stamp.label is None else {**stamp.metadata, LABEL: stamp.label}
    return {name: value for name, value in fields.items() if name in stamp.given}
