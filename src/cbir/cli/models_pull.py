"""`cbir models pull`: fetches a model from the Hugging Face hub."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from cbir.descriptors.hub.offers import Offer


@click.command()
@click.argument("name", required=False)
@click.option("--yes", is_flag=True, help="Fetch without asking.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def pull(name: str | None, yes: bool, as_json: bool) -> int | None:
    """Fetch a model from the Hugging Face hub into the store; without NAME, list the known ones.

    NAME is a known model, or hf:OWNER/NAME[@REVISION] for any other repository with an ONNX
    network of images. Shows licence, files and size, and fetches nothing before a yes. An
    interrupted download continues with the next call. HF_ENDPOINT, HF_TOKEN, HF_HOME and
    HF_HUB_OFFLINE count as they do for huggingface_hub.
    """
    from cbir.cli.models_add import print_imported
    from cbir.cli.output import progress_bar, require_yes, say
    from cbir.descriptors.hub.fetching import fetch
    from cbir.descriptors.hub.offers import offer
    from cbir.descriptors.importing.input_settings import Changes, OpenQuestionsError
    from cbir.descriptors.importing.model_import import import_model, imported_before
    from cbir.errors import CbirError

    if name is None:
        _list_known(as_json)
        return None
    offered = offer(name)
    if before := imported_before(offered.about):
        say(f"{before.spec.name} is in the model store already, at commit {offered.commit}")
        print_imported(before, as_json)
        return None
    for line in _description(offered):
        say(line)
    if not yes and not require_yes("Fetch it?", f"cbir models pull {name} --yes"):
        say("nothing was fetched")
        return 1
    with progress_bar("fetching", "MB") as update:
        folder = fetch(offered, update)
    try:
        imported = import_model(folder, offered.model.name, offered.about, Changes())
    except OpenQuestionsError as open_:
        for question in open_.questions:
            say(question)
        cure = f"cbir models add {folder} --name {offered.model.name}, with these options"
        raise CbirError(open_.message, cure) from open_
    print_imported(imported, as_json)
    return None


def _list_known(as_json: bool) -> None:
    from cbir.cli.output import print_json, print_table
    from cbir.descriptors.hub.known import KNOWN

    fields = ("name", "repository", "licence", "trained_on")
    rows = [[str(getattr(model, field)) for field in fields] for model in KNOWN.values()]
    if as_json:
        print_json([dict(zip(fields, row, strict=True)) for row in rows])
        return
    print_table(["model", "repository", "licence", "trained on"], rows)


def _description(offered: Offer) -> list[str]:
    from cbir.wording import counted

    origin = " (from the cache: no connection to the hub)" if offered.cached else ""
    return [
        f"{offered.model.name}: {offered.model.repository}{origin}",
        f"  revision    {offered.revision}, commit {offered.commit}",
        f"  licence     {offered.licence}",
        f"  trained on  {offered.model.trained_on}",
        f"  words       {'yes' if offered.has_text else 'no: it has no text tower'}",
        f"  size        {offered.size / 1e6:,.1f} MB in {counted(len(offered.files), 'file')}",
        *(f"    {file.name}  {file.size:,} bytes" for file in offered.files),
    ]
