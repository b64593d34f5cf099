"""Where the sources of an index lie: found again elsewhere, renamed, one inside another."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cbir.errors import CbirError, QueryError
from cbir.images.folders import FolderSource
from cbir.images.ids import encode_path, make_id
from cbir.images.items import ImageSource, SourceItem, content_hash
from cbir.images.sources import is_away, is_built_in, source_for_uri
from cbir.index.base import Index, Stamp
from cbir.index.confirmed import confirm, confirmed
from cbir.index.source_names import check_known, source_name

_SAMPLE = 8
"""How many images are read to see whether a folder is one that the index knows."""


def without_nested(sources: Sequence[ImageSource]) -> tuple[list[ImageSource], dict[str, str]]:
    """The sources without repetitions, and without what lies in another one of them.

    Also returns the paths of the latter, each with the name of the outer source.
    """
    distinct = list({(source.uri, source.scope): source for source in sources}.values())
    folders = [s for s in distinct if isinstance(s, FolderSource) and not s.scope]
    kept, nested = [], {}
    for source in distinct:
        around = [outer.name for outer in folders if _contains(outer, source)]
        if around:
            nested[_path(source)] = around[0]
        else:
            kept.append(source)
    return kept, nested


def placed(index: Index, source: ImageSource) -> tuple[ImageSource, dict[str, str]]:
    """The source as part of a registered one that it lies in, so that each file has one id.

    Registered folders that lie in it, or in that one, become part too: their records get new ids.
    Also returns the paths of all parts, each with the name of the outer source.
    """
    if not isinstance(source, FolderSource):
        return source, {}
    folders = {n: Path(uri) for n, uri in index.sources().items() if _is_folder(uri)}
    around = [root for root in folders.values() if source.root.is_relative_to(root)]
    outer = min(around, key=lambda root: len(root.parts), default=source.root)
    inner = {n: root for n, root in folders.items() if root != outer and root.is_relative_to(outer)}
    part = source if outer == source.root else source.part_of(outer)
    if (source.scope and not around) or (part is source and not inner):
        return source, {}
    name = index.register_source(part.name, part.uri)
    for inside, root in inner.items():
        _rename(index, inside, name, f"{encode_path(root.relative_to(outer).as_posix())}/")
    paths = [str(root) for root in inner.values()] + ([] if part is source else [_path(source)])
    return part, dict.fromkeys(paths, name)


def names_after(index: Index, sources: Sequence[ImageSource]) -> dict[str, str]:
    """The sources of `index`, name -> URI, when it will have registered these in their order.

    A source is registered when it is read, because a run may end before that.
    """
    names = index.sources()
    for source in sources:
        names[source_name(names, source.name, source.uri)] = source.uri
    return names


def set_apart(index: Index, sources: Sequence[ImageSource]) -> None:
    """Tell the folders among `sources` which links lead into other sources.

    These are the folders that were, or are about to be, indexed as a whole.
    """
    runs = index.runs()
    now = {s.uri for s in sources if isinstance(s, FolderSource) and not s.scope}
    whole = {
        uri: name
        for name, uri in names_after(index, sources).items()
        if uri in now or (name in runs and not is_built_in(uri) and _is_folder(uri))
    }
    for source in sources:
        if isinstance(source, FolderSource):
            source.others = {uri: name for uri, name in whole.items() if uri != source.uri}


def follow_source(index: Index, source: ImageSource) -> str | None:
    """Move a registered source here whose place is gone, if `source` is what it was.

    It is if at least half of the images that the index holds of it are here, under the same names
    and of the same size, and most of the first ones have the same content. Its images keep their
    ids. Returns the source's name, None if nothing moved.
    """
    sources = index.sources()
    if source.scope or source.uri in sources.values():
        return None
    for name, uri in sources.items():
        if is_away(uri) and _holds_same(source, name, index.stamps(name)):
            index.move_source(name, source.uri)
            return name
    return None


def rename_source(index: Index, old: str, new: str) -> int:
    """Give the source `old` the name `new`, and its images the ids that go with it.

    Returns the number of images. Raises `QueryError` if there is no source `old`, or one `new`.
    """
    check_known(index.sources(), old)
    if new in index.sources():
        raise QueryError(f"there is a source '{new}' already", "choose another name")
    if new in ("", ".", "..") or "/" in new or new != encode_path(new):
        raise QueryError(
            f"'{new}' cannot be the name of a source", "write a word without / and white space"
        )
    known = confirmed(index)
    renamed = _rename(index, old, new, "")
    if old in known:
        confirm(index, {new: known[old]})
    return renamed


def relocate_source(index: Index, old: str, new: str | Path) -> dict[str, str]:
    """Tell the index that a source has moved; its images keep their ids.

    `old`: the name of a source, or a path. With a path, every source at or below it moves.
    `new`: where it is now. Returns name -> new URI of each source that moved. Raises `QueryError`
    if there is no such source, if another one is there, or if none of its images are there.
    """
    place = Path(new).resolve()
    if not place.exists():
        raise QueryError(f"{new}: no such file or folder", "give the place where it is now")
    sources = index.sources()
    if old in sources:
        moved = {old: str(place)}
    else:
        before = Path(old).parent.resolve() / Path(old).name  # as the index has it
        moved = {
            name: str(place / Path(uri).relative_to(before))
            for name, uri in sources.items()
            if Path(uri).is_relative_to(before) and ".." not in Path(uri).parts
        }
    if not moved:
        check_known(sources, old)
    for name, uri in moved.items():
        _check_holds_some(index, name, uri)
    for name, uri in moved.items():
        index.move_source(name, uri)
    confirm(index, moved)
    return moved


def confirm_sources(index: Index, names: Sequence[str] = ()) -> dict[str, str]:
    """Let the files of these sources be read on this machine, or of all that are not confirmed.

    Returns their names and URIs. Raises `QueryError` if there is no such source.
    """
    sources = index.sources()
    for name in names:
        check_known(sources, name)
    known = confirmed(index)
    new = {
        name: uri
        for name, uri in sources.items()
        if (name in names or not names) and name not in known and not is_built_in(uri)
    }
    confirm(index, new)
    return new


def _check_holds_some(index: Index, name: str, uri: str) -> None:
    """Raise `QueryError` if a source has images, but none of them are at `uri`."""
    known = index.stamps(name)
    found = source_for_uri(uri).items() if known and Path(uri).exists() else iter(())
    if known and not any(make_id(name, item.key) in known for item in found):
        raise QueryError(
            f"no image of {name} is in {uri}",
            "give the folder or archive that has them under the same names",
        )


def _is_folder(uri: str) -> bool:
    return os.path.isdir(uri)  # noqa: PTH112 - Path raises if the drive of another source fails


def _contains(outer: FolderSource, inner: ImageSource) -> bool:
    """Whether a whole folder contains another source: a folder, or an image in one."""
    if inner is outer or not isinstance(inner, FolderSource):
        return False
    return inner.root.is_relative_to(outer.root)


def _path(source: ImageSource) -> str:
    return (
        str(source.root / source.only)
        if isinstance(source, FolderSource) and source.only
        else (source.uri)
    )


def _rename(index: Index, old: str, new: str, prefix: str) -> int:
    """Rename the source `old`, or make it the part `prefix` of the source `new`."""
    renamed = {
        record.id: replace(
            record,
            id=make_id(new, prefix + _key(old, record.id, record.location)),
            source=new,
            location=prefix + record.location,
        )
        for record in index.records(list(index.stamps(old)))
    }
    tombstones = [
        replace(
            tombstone,
            id=make_id(new, prefix + _key(old, tombstone.id, tombstone.location)),
            source=new,
            location=prefix + tombstone.location,
        )
        for tombstone in index.tombstones().values()
        if tombstone.source == old
    ]
    index.rename(renamed, {old: new}, tombstones)
    return len(renamed)


def _key(source: str, record_id: str, location: str) -> str:
    """The key that the id was made of: the location, which is whole, or else the rest of the id."""
    return location if make_id(source, location) == record_id else record_id[len(source) + 1 :]


def _holds_same(source: ImageSource, name: str, stamps: Mapping[str, Stamp]) -> bool:
    """Whether `source` holds half of the images with these stamps, as far as a sample tells."""
    if not stamps:
        return False
    count, same, read = 0, 0, 0
    try:
        for item in source.items():
            stamp = stamps.get(make_id(name, item.key))
            if stamp is None or stamp.file_size != item.file_size:
                continue
            count += 1
            if read < _SAMPLE:
                read += 1
                same += _has_content(item, stamp.content_hash)
    except CbirError:  # damaged; told when it is indexed
        return False
    return count >= len(stamps) / 2 and same > read / 2


def _has_content(item: SourceItem, content: str) -> bool:
    try:
        return content_hash(item.read()) == content
    except (CbirError, OSError):
        return False
