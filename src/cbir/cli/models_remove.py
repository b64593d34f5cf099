"""`cbir models remove`: removes a model from the store."""

from __future__ import annotations

import click


@click.command()
@click.argument("name", metavar="NAME[@FINGERPRINT]")
@click.option("--yes", is_flag=True, help="Remove without asking.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def remove(name: str, yes: bool, as_json: bool) -> int | None:
    """Remove a model from the model store.

    Embedded indexes keep their own copy of their model. An Elasticsearch index that was built with
    it can no longer be searched, until the model is added again.
    """
    from cbir.cli.cache import CLEAR, HUB_CACHE, kept
    from cbir.cli.output import print_json, require_yes, say, show
    from cbir.descriptors.removing import remove_model, stored_folder
    from cbir.wording import shown_size

    folder = stored_folder(name)
    say("an Elasticsearch index that names this model can no longer be searched without it")
    if not yes and not require_yes(f"Remove {folder.name}?", f"cbir models remove {name} --yes"):
        say("nothing was removed")
        return 1
    freed = remove_model(folder)
    if as_json:
        print_json({"removed": folder.name, "bytes": freed})
    else:
        show(f"{folder.name} removed, {freed:,} bytes freed")
        if downloads := sum(one.size for one in kept() if one.what == HUB_CACHE):
            say(f"downloads from the hub stay ({shown_size(downloads)}); to remove: {CLEAR}")
    return None
