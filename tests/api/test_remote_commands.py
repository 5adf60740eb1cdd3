"""The commands that administer, against a service instead of a data folder."""

from __future__ import annotations

import zipfile
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from typer.testing import CliRunner, Result

from rankward.cli.app import app
from rankward.settings import LoopSettings
from tests.models import learned
from tests.service import ADMIN_KEY, RunningService, eventually, request

if TYPE_CHECKING:
    from pathlib import Path

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


def test_challengers_are_tended_from_elsewhere(service: RunningService) -> None:
    """Added, seen, promoted at one's word only where nothing is certain, removed."""
    loop = service.new_loop(
        LoopSettings(reward_wait=timedelta(milliseconds=100), model_export_frequency=timedelta(milliseconds=100))
    )
    name = loop.loop
    assert "has no challengers" in said(service, "challenger", "list", name)
    assert "learns beside" in said(service, "challenger", "add", name, "ours", "--preset", "balanced")
    assert "learns beside" in said(
        service, "challenger", "add", name, "mine", "--", "--cb_explore_adf", "--epsilon", "1"
    )
    refused = run(service, "challenger", "add", name, "ours", "--preset", "balanced")
    assert (refused.exit_code, "choose another name" in refused.stderr) == (1, True)
    for number in range(10):
        assert loop.rank(request("a", "b", eventId=f"e{number}")).status_code == 201
    eventually(
        lambda: [each["decisions"] for each in told(service, "challenger", "list", name)] == [10, 10], "both are judged"
    )
    assert "undecided" in said(service, "challenger", "list", name)
    refused = run(service, "challenger", "promote", name, "ours")
    assert (refused.exit_code, "not better beyond doubt" in refused.stderr) == (1, True)

    def promotes() -> bool:
        loop.rank(request("a", "b"))  # it learns up to what would have been published by the newest decision
        return run(service, "challenger", "promote", name, "ours", "--yes").exit_code == 0

    eventually(promotes, "what it learned is kept")
    assert told(service, "policy", "show", name)["preset"] == "balanced"
    assert "is gone" in said(service, "challenger", "remove", name, "mine")
    assert told(service, "challenger", "list", name) == []


def test_models_move_and_change_from_elsewhere(service: RunningService, tmp_path: Path) -> None:
    """Whoever has the admin key needs no shell on the machine of the service."""
    with service.passing_loops():
        loop = service.new_loop(LoopSettings(reward_wait=timedelta(milliseconds=100)))
        name, bare, archive = loop.loop, tmp_path / "model.vw", tmp_path / "model.vw.zip"
        assert "has no model yet" in said(service, "model", "list", name)
        assert "has no model yet" in run(service, "model", "export", name, str(bare)).stderr
        (tmp_path / "brought.vw").write_bytes(learned())

        assert f"Loop {name} serves the model" in said(service, "model", "import", name, str(tmp_path / "brought.vw"))
        [found] = told(service, "model", "list", name)
        assert found["serving"]
        said(service, "model", "export", name, str(bare))
        assert bare.read_bytes() == learned()
        assert found["model_id"] in said(service, "model", "export", name, str(archive), "--signed")
        said(service, "model", "import", name, str(archive))
        with zipfile.ZipFile(archive) as opened:
            assert opened.read("model.vw") == learned()

        assert "starts afresh" in said(service, "model", "delete", name, "--yes")
        assert not told(service, "model", "list", name)[0]["serving"]
        assert found["model_id"] in said(service, "model", "rollback", name, found["model_id"])
        assert "no decision" in run(service, "model", "compare", name, found["model_id"], found["model_id"]).stderr
        loop.rank(request("pasta", "ramen"))
        eventually(lambda: bool(service.joined(name)), "it is joined")
        alike = said(service, "model", "compare", name, found["model_id"], found["model_id"])
        assert "100.0%" in alike

        for arguments, why in (
            (["model", "import", name, str(tmp_path / "brought.vw"), "--take-policy"], "policy set"),
            (["model", "rollback", name, "nope"], "keeps no model"),
        ):
            result = run(service, *arguments)
            assert result.exit_code == 1
            assert why in result.stderr


def test_the_doctor_looks_at_a_service_elsewhere(service: RunningService) -> None:
    """The same screen as on the machine itself, and the same figures for scripts."""
    with service.passing_loops():
        name = service.new_loop(LoopSettings()).loop
        screen = said(service, "doctor", name)
        assert f"loop {name}" in screen
        assert "Nothing has been decided yet." in screen
        assert "decisions are uniform" in screen
        unknown = {"name": "model", "value": "none", "remark": "decisions are uniform"}

        def is_well() -> bool:
            report = told(service, "doctor", name)
            assert unknown in report["figures"]
            return bool(report["worker_lives"]) and report["findings"][0]["name"] == "no-decisions"

        eventually(is_well, "the worker has looked at the new loop")
        assert name in [each["loop"] for each in told(service, "doctor")]


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
