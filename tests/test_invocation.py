"""What newcomers are told to type is there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rankward.invocation import command, data_option

if TYPE_CHECKING:
    import pytest


def test_a_checkout_names_the_command_of_its_own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """After `make run` there is no `rankward` on the path: what is copied from a page must run all the same."""
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "rankward").touch()
    monkeypatch.setattr(sys, "executable", str(programs / "python"))

    monkeypatch.chdir(tmp_path)
    assert command() == str(Path(".venv/bin/rankward"))

    monkeypatch.chdir(tmp_path.parent)
    assert command() == "rankward", "where it lies elsewhere, that is nobody's business"


def test_a_data_folder_is_named_where_commands_would_not_find_it() -> None:
    """A command that is copied would look into another folder, and say that there is nothing."""
    assert data_option(Path("data")) == ""
    assert data_option(Path("/srv/two words")) == " --data '/srv/two words'"
