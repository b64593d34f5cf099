"""docs/cli.md is what the commands say of themselves."""

from __future__ import annotations

from tools.cli_pages import PAGE, page


def test_the_page_of_the_command_line_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "run: python -m tools.cli_pages"
