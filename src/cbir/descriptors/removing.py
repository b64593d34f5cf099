"""Removes models from the store."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from cbir.descriptors.models import SHIPPED, stored_folders
from cbir.descriptors.packaged import PACKAGED
from cbir.errors import CbirError
from cbir.wording import did_you_mean, listed


def stored_folder(name: str) -> Path:
    """The folder of the stored model `NAME` or `NAME@FINGERPRINT` (its first digits are enough).

    A damaged model has a folder, too. Raises `CbirError` if there is none, or more than one.
    """
    wanted, at, digits = name.partition("@")
    folders = {folder.name: folder for folder in stored_folders()}
    found = [n for n in folders if n.startswith(f"{wanted}@{digits[:16]}") and (digits or not at)]
    if len(found) == 1:
        return folders[found[0]]
    if found:
        raise CbirError(
            f"{len(found)} models are called '{name}': {listed(found)}",
            f"name one: cbir models remove {found[0]}",
        )
    if wanted in SHIPPED:
        raise CbirError(
            f"'{wanted}' is part of cbir itself", "only models in the store can be removed"
        )
    if "+" in name:
        raise CbirError(
            f"'{name}' is a composition, which the store does not hold",
            "remove its parts one by one",
        )
    if wanted in PACKAGED:
        hint = "it is built at first use"
    else:
        hint = did_you_mean(name, list(folders), "cbir models list shows what there is")
    raise CbirError(f"the model store has no '{name}'", hint)


def remove_model(folder: Path) -> int:
    """Remove a stored model at once and return how many bytes that frees.

    A file that an index shares frees nothing.
    """
    files = [path.stat() for path in folder.rglob("*") if path.is_file()]
    with TemporaryDirectory(dir=folder.parent, prefix=".removed-") as trash:
        folder.rename(Path(trash) / folder.name)
    return sum(facts.st_size for facts in files if facts.st_nlink == 1)
