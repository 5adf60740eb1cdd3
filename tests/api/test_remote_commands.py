"""The commands that administer, against a service instead of a data folder."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner, Result

from rankward.cli.app import app
from tests.service import ADMIN_KEY, RunningService

pytestmark = pytest.mark.slow


def run(service: RunningService, *arguments: str, key: str = ADMIN_KEY) -> Result:
    """Run a command from nowhere near the data folder."""
    environment = {
        "RANKWARD_DATA": "/nowhere",
        "RANKWARD_ENDPOINT": service.url,
        "RANKWARD_ADMIN_KEY": key,
        "RANKWARD_API_KEY": "",
    }
    return CliRunner().invoke(app, list(arguments), env=environment)


def told(service: RunningService, *arguments: str) -> Any:
    """What a command that works says to a script."""
    result = run(service, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return msgspec.json.decode(result.stdout)


def said(service: RunningService, *arguments: str) -> str:
    """What a command that works says to people."""
    result = run(service, *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_loop_is_administered_from_elsewhere(service: RunningService) -> None:
    """From its making to its end, by the commands that work on a data folder too."""
    with service.passing_loops():
        created = told(service, "loop", "create", "from-afar")
        assert len(created["keys"][0]["key"]) == 32
        assert "from-afar" in said(service, "loop", "list")
        assert told(service, "loop", "show", "from-afar")["preset"] == "balanced"

        changed = said(service, "settings", "set", "from-afar", "reward_wait=20m")
        assert "10m" in changed
        assert "20m" in changed
        assert told(service, "settings", "show", "from-afar")["reward_wait"] == "PT20M"
        assert "a new one learns" in said(service, "policy", "set", "from-afar", "--preset", "personalizer")
        assert told(service, "policy", "show", "from-afar")["preset"] == "personalizer"
        assert "balanced" in said(service, "policy", "show", "from-afar"), "the presets are listed"

        renewed = said(service, "loop", "keys", "from-afar", "--regenerate", "2").strip()
        assert len(renewed) == 32
        assert renewed[:4] in said(service, "loop", "keys", "from-afar")
        assert renewed not in said(service, "loop", "keys", "from-afar", "--show"), "it was shown once"
        assert "is gone" in said(service, "loop", "delete", "from-afar", "--yes")
        assert "from-afar" not in said(service, "loop", "list")


def test_what_the_service_refuses_is_one_line(service: RunningService) -> None:
    """With where it was refused, and why."""
    for arguments, key, why in (
        (["loop", "show", "none"], ADMIN_KEY, "there is no loop"),
        (["loop", "list"], "wrong", "the key is wrong"),
        (["loop", "list"], service.key("default"), "admin key"),
        (["loop", "list"], "", "RANKWARD_ADMIN_KEY"),
        (["settings", "set", "default", "reward_wait=soon"], ADMIN_KEY, "cannot be read"),
        (["loop", "keys", "--admin"], ADMIN_KEY, "leave out --endpoint"),
    ):
        result = run(service, *arguments, key=key)
        assert result.exit_code == 1
        [line] = result.stderr.splitlines()
        assert line.startswith("error: ")
        assert why in line


def test_a_service_that_does_not_answer_is_named() -> None:
    """Nobody should have to guess which."""
    environment = {"RANKWARD_ENDPOINT": "http://127.0.0.1:9", "RANKWARD_ADMIN_KEY": "x"}
    result = CliRunner().invoke(app, ["loop", "list"], env=environment)

    assert result.exit_code == 1
    assert "no answer from http://127.0.0.1:9" in result.stderr
