"""`cbir cache`: shows the files kept outside indexes, and removes what can be had again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

CLEAR = "cbir cache --clear"
HUB_CACHE = "hub cache"


@dataclass(frozen=True)
class Kept:
    """A folder of files, its size in bytes, and how to remove it."""

    what: str
    place: Path
    size: int
    cure: str


@click.command(short_help="Show the files kept outside indexes, and remove them.")
@click.option("--clear", is_flag=True, help="Remove what can be downloaded or made again.")
@click.option("--yes", is_flag=True, help="With --clear: remove without asking.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(clear: bool, yes: bool, as_json: bool) -> int | None:
    """Show the files kept outside indexes: where, their size, and how to remove them.

    --clear removes downloads, expanded archives, keypoints and the index of the demonstration.
    Models stay, because an Elasticsearch index may need them; `cbir models remove` removes one.
    Checkpoints of unfinished trainings stay, too.
    """
    from cbir.cli.output import print_json, print_table, require_yes, say
    from cbir.home import cbir_home
    from cbir.wording import shown_size

    if yes and not clear:
        raise click.UsageError("--yes is for --clear")
    found = list(kept())
    chosen = [one for one in found if one.cure == CLEAR] if clear else found
    if chosen and not as_json:
        print_table(
            ["what", "size", "place", "to remove"],
            [[one.what, shown_size(one.size), str(one.place), one.cure] for one in chosen],
        )
    if not (found or clear or as_json):
        say(f"{cbir_home()} is empty")
    if clear:
        total = shown_size(sum(one.size for one in chosen))
        if chosen and not yes and not require_yes(f"Remove this ({total})?", f"{CLEAR} --yes"):
            say("nothing was removed")
            return 1
        for one in chosen:
            _remove(one.place)
        if not as_json:
            say(f"{total} removed" if chosen else "there is nothing to remove")
            for one in kept():
                say(f"{one.what}: {shown_size(one.size)} stay; to remove: {one.cure}")
    if as_json:
        rows = [
            {"what": one.what, "bytes": one.size, "place": str(one.place), "cure": one.cure}
            for one in chosen
        ]
        print_json({"removed" if clear else "kept": rows})
    return None


def kept() -> Iterator[Kept]:
    """The folders that are there and hold something."""
    from cbir.home import cbir_home
    from cbir.index.embedded.folder import KEYPOINTS

    home = cbir_home()
    folders = [
        ("models", home / "models", "cbir models remove NAME (cbir models list)"),
        ("downloads", home / "data", CLEAR),
        ("demonstration", home / "demo", CLEAR),
        ("expanded archives", home / "archives", CLEAR),
        ("keypoints", home / KEYPOINTS, CLEAR),
        ("checkpoints", home / "training", "delete the folder if you will resume no training"),
        *((HUB_CACHE, folder, CLEAR) for folder in _hub_folders()),
    ]
    for what, folder, cure in folders:
        if size := _size(folder):
            yield Kept(what, folder, size, cure)


def _hub_folders() -> list[Path]:
    """The repositories in the cache of huggingface_hub that cbir has fetched."""
    from cbir.registry import installed

    if not installed("huggingface_hub"):
        return []
    from cbir.descriptors.hub.fetching import fetched

    return fetched()


def _size(folder: Path) -> int:
    """The size in bytes of the files in `folder`; what links lead to counts where it is."""
    files = (path.lstat() for path in folder.rglob("*") if path.is_file())
    return sum(facts.st_size for facts in files)


def _remove(folder: Path) -> None:
    """Remove `folder`; empty it if it is a link, perhaps to another disk."""
    if not folder.is_symlink():
        shutil.rmtree(folder)
        return
    for member in folder.iterdir():
        if member.is_dir() and not member.is_symlink():
            shutil.rmtree(member)
        else:
            member.unlink()
