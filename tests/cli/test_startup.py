"""What a start costs: `cbir --help` and `import cbir` load nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from cbir.cli.main import COMMANDS, cli
from tests.cli.support_cli import call

HEAVY = {"torch", "cv2", "faiss", "onnxruntime", "sklearn", "onnx", "ray", "scipy"}
EVEN_FOR_HELP = HEAVY | {"numpy", "PIL", "rich", "flask", "waitress", "sqlite3", "ir_measures"}


def loaded(code: str) -> set[str]:
    """The top-level modules that are there after `code` ran in a new process."""
    ended = subprocess.run(
        [sys.executable, "-c", f"import json, sys\n{code}\nprint(json.dumps(list(sys.modules)))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {name.partition(".")[0] for name in json.loads(ended.stdout.splitlines()[-1])}


def test_help_loads_nothing_heavy() -> None:
    modules = loaded(
        "from cbir.cli.main import cli\n"
        "assert cli.main(['--help'], prog_name='cbir', standalone_mode=False) in (0, None)"
    )
    assert "click" in modules
    assert not modules & EVEN_FOR_HELP


def test_importing_cbir_loads_nothing_heavy() -> None:
    modules = loaded("import cbir")
    assert "cbir" in modules
    assert not modules & EVEN_FOR_HELP


def test_importing_every_public_name_still_loads_no_training_library() -> None:
    modules = loaded("import cbir\nfor name in cbir.__all__: getattr(cbir, name)")
    assert "numpy" in modules
    assert not modules & {"torch", "cv2", "sklearn", "onnx", "ray", "scipy"}


def test_help_lists_every_command_in_one_whole_line() -> None:
    answer = call("--help")
    assert (answer.code, answer.err) == (0, "")
    listed = answer.out.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in listed] == list(COMMANDS)
    assert all(len(line) <= 80 and line.endswith(".") for line in listed)
    assert "..." not in answer.out.partition("Commands:\n")[2]
    assert call().code == 2


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_and_all_its_options(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None and command.help
    answer = call(name, "--help")
    assert (answer.code, answer.err) == (0, "")
    assert call(name, "-h").out == answer.out
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
            assert all(option in answer.out for option in parameter.opts)
    assert all(len(line) <= 80 for line in answer.out.splitlines())


def _every_command(group: click.Group, *above: str) -> Iterator[tuple[list[str], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield [*above, name], command
        if isinstance(command, click.Group):
            yield from _every_command(command, *above, name)


def test_an_option_with_one_value_is_given_once() -> None:
    tried = 0
    for path, command in _every_command(cli):
        for option in command.params:
            if not isinstance(option, click.Option) or option.is_flag or option.multiple:
                continue
            for spelling in option.opts:
                values = ["1"] * option.nargs  # OLD NEW
                answer = call(*path, spelling, *values, spelling, *values)
                assert (answer.code, answer.out) == (2, ""), answer
                assert f"{option.opts[-1]} is given twice; give it once" in answer.err
                tried += 1
    assert tried > 50
    mixed = call("search", "x", "--in=a.cbir", "-k3", "--in", "b.cbir")
    assert (mixed.code, "--in is given twice" in mixed.err) == (2, True)
    assert call("--debug", "models", "show", "classic", "--json", "--json").code == 0


def test_the_version_is_the_packages() -> None:
    from importlib.metadata import version

    assert call("--version").out.split()[-1] == version("cbir")
