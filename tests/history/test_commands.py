"""Logs and policies out and in by command."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
import typer

import rankward
from rankward.cli.logs import moment, run_import
from rankward.errors import InvalidRequest
from rankward.history.files import LogFile
from rankward.history.importing import IMPORTED
from rankward.joining.service import JoiningService
from rankward.settings import LoopSettings
from rankward.wiring import Home
from tests.dsjson.events import TIME_US
from tests.history.loops import lines_of, numbered
from tests.test_cli import Shell, shell

__all__ = ["shell"]


def join(shell: Shell, loop: str) -> None:
    """Join what a loop has, as the worker does."""

    async def run(home: Home) -> None:
        loop_id = home.catalog.loop(loop).loop_id
        log, joined = home.event_log(loop_id), home.joined_log(loop_id)
        service = JoiningService(log, joined, clock=home.clock)
        while await service.step():
            pass
        await log.close()
        await joined.close()

    with closing(Home(shell.data)) as home:
        asyncio.run(run(home))


@pytest.mark.parametrize("name", ["out.json", "out.json.gz", "out.json.zst"])
def test_a_log_goes_from_one_loop_to_another(shell: Shell, tmp_path: Path, name: str) -> None:
    """And is the same log there, line for line."""
    file = tmp_path / "in.json"
    file.write_bytes(lines_of([numbered(number) for number in range(5)]) + b"{\n")
    state = shell.json("logs", "import", "playground", str(file))
    assert state["counts"] == {"imported": 5, "broken": 1}
    assert "line 6" in shell.ok("logs", "import", "default", str(file))
    join(shell, "playground")
    shell.ok("logs", "export", "playground", "-o", str(tmp_path / name))
    exported = LogFile(tmp_path / name)
    assert b"".join(exported.lines(100)) == lines_of([numbered(number) for number in range(5)])
    exported.close()
    assert "exists already" in shell.refused("logs", "export", "playground", "-o", str(tmp_path / name))
    assert "no model that has bins" in shell.refused("logs", "export", "playground", "--with-bins")


def test_an_import_takes_what_the_service_would(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever lets Rank have longer ids has logged them, and wants them back."""
    file = tmp_path / "in.json"
    [line] = lines_of([numbered(0)]).splitlines()
    event_id = json.loads(line)["EventId"]
    file.write_bytes(line.replace(event_id.encode(), b"e" * 300))
    assert shell.json("logs", "import", "default", str(file))["counts"] == {"broken": 1}
    monkeypatch.setenv("RANKWARD_LIMIT_ID_LENGTH", "300")
    assert shell.json("logs", "import", "playground", str(file))["counts"] == {"imported": 1}
    monkeypatch.setenv("RANKWARD_LIMIT_ID_LENGTH", "many")
    assert "RANKWARD_LIMIT_" in shell.refused("logs", "import", "playground", str(file))


def test_binary_logs_in_a_folder_are_said_to_be_left_out(shell: Shell, tmp_path: Path) -> None:
    """Or half a log would pass for the whole."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "30_0000000000.json").write_bytes(lines_of([numbered(0)]))
    (tmp_path / "logs" / "30_0000000001.fb").write_bytes(b"VWFB")
    for command in (["logs", "import", "playground"], ["evaluate"]):
        said = shell(*command, str(tmp_path / "logs")).stderr
        assert "left out: 1 logs" in said
        assert "30_0000000001.fb" in said


def test_a_log_is_a_table_in_python(shell: Shell, tmp_path: Path) -> None:
    """From a loop, from its Parquet, from lines, and from a folder of them."""
    lines = tmp_path / "logs" / "in.json"
    lines.parent.mkdir()
    lines.write_bytes(lines_of([numbered(number) for number in range(5)]))
    shell.ok("logs", "import", "playground", str(lines.parent))
    join(shell, "playground")
    shell.ok("logs", "export", "playground", "-o", str(tmp_path / "out.parquet"))
    tables = [
        rankward.read_log(shell.data, "playground"),
        rankward.read_log(lines),
        rankward.read_log(lines.parent),
        rankward.read_log(tmp_path / "out.parquet"),
    ]
    for table in tables:
        assert table.column("event_id").to_pylist() == [f"e{number}" for number in range(5)]
        assert table.column("reward").to_pylist() == [0.0, 1.0, 0.0, 1.0, 0.0]
    assert rankward.read_log(lines, default_reward=0.5, reward_aggregation="sum").num_rows == 5
    with pytest.raises(InvalidRequest, match="no reward aggregation"):
        rankward.read_log(lines, reward_aggregation="best")
    with pytest.raises(InvalidRequest, match="no data folder"):
        rankward.read_log(lines, "playground")


def test_history_is_trained_on_when_asked(shell: Shell, tmp_path: Path) -> None:
    """A later run may ask for it, too: what was imported before counts."""
    file = tmp_path / "in.json"
    file.write_bytes(lines_of([numbered(number) for number in range(5)]))
    assert "--train" in shell.ok("logs", "import", "playground", str(file))
    said = shell.ok("logs", "import", "playground", str(file), "--train")
    assert "A new epoch learns" in said
    with closing(Home(shell.data)) as home:
        epoch = home.catalog.epochs(home.catalog.loop("playground").loop_id)[-1]
    assert (epoch.since_us, epoch.reason) == (TIME_US, "history was imported")


def test_a_strict_import_fails_in_one_line(shell: Shell, tmp_path: Path) -> None:
    """A script sees it by the exit code, and a person where to look."""
    file = tmp_path / "in.json"
    file.write_bytes(b"{\n")
    assert "line 1" in shell.refused("logs", "import", "playground", "--strict", str(file))
    assert "no file or folder" in shell.refused("logs", "import", "playground", str(tmp_path / "nothing"))


def test_only_one_import_works_on_a_loop(shell: Shell, tmp_path: Path) -> None:
    """Two at once would not see each other's events."""
    file = tmp_path / "in.json"
    file.write_bytes(lines_of([numbered(1)]))
    with closing(Home(shell.data)) as home, home.importing(home.catalog.loop("playground").loop_id):
        assert "another import" in shell.refused("logs", "import", "playground", str(file))
    shell.ok("logs", "import", "playground", str(file))


def test_imported_events_show_in_the_tail(shell: Shell, tmp_path: Path) -> None:
    """And so does how far a file has come."""
    file = tmp_path / "in.json"
    file.write_bytes(lines_of([numbered(1)]))
    shell.ok("logs", "import", "playground", str(file))
    kinds = [json.loads(line)["kind"] for line in shell.ok("tail", "playground", "--json").splitlines()]
    assert kinds == ["history", "import", "import"]
    assert "in.json" in shell.ok("tail", "playground")


@pytest.mark.parametrize(
    ("text", "time_us"),
    [
        ("2026-01-15", TIME_US - 43_200_000_000),
        ("2026-01-15T12:00", TIME_US),
        ("2026-01-15T13:00:00+01:00", TIME_US),
        ("12h", TIME_US - 43_200_000_000),
        ("P1D", TIME_US - 86_400_000_000),
    ],
)
def test_a_moment_is_written_as_people_do(text: str, time_us: int) -> None:
    """A day, a time, or how long ago."""
    assert moment(text, datetime(2026, 1, 15, 12, tzinfo=UTC)) == time_us


def test_a_moment_that_is_none_is_refused() -> None:
    """With what to write instead."""
    with pytest.raises(InvalidRequest, match="2026-01-31"):
        moment("last tuesday", datetime(2026, 1, 15, 12, tzinfo=UTC))


def test_a_policy_goes_out_and_in_as_the_portal_had_it(shell: Shell, tmp_path: Path) -> None:
    """Learning settings that were saved from Personalizer's portal can be used as they are."""
    file = tmp_path / "policy.json"
    arguments = "--cb_explore_adf --epsilon 0.3 --cb_type mtr -q Fj"
    file.write_text(json.dumps({"name": "from the portal", "arguments": f"--dsjson {arguments}"}))
    shell.ok("policy", "import", "playground", str(file))
    assert shell.json("policy", "show", "playground")["policy"] == arguments
    out = tmp_path / "out.json"
    shell.ok("policy", "export", "playground", str(out))
    assert json.loads(out.read_text()) == {"name": "playground", "arguments": arguments}
    assert json.loads(shell.ok("policy", "export", "playground", "-"))["arguments"] == arguments
    assert "exists already" in shell.refused("policy", "export", "playground", str(out))
    file.write_text('{"name": "x"}')
    assert "arguments" in shell.refused("policy", "import", "playground", str(file))
    file.write_bytes(msgspec.json.encode({"name": "x", "arguments": "--cb_explore_adf -f x"}))
    assert "files" in shell.refused("policy", "import", "playground", str(file))


@pytest.fixture
def at_a_terminal() -> Iterator[None]:
    """Let Ctrl-C interrupt, though what was started in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("at_a_terminal")
def test_a_stopped_import_says_how_to_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Half a log in a loop must not look like a whole one."""
    file = tmp_path / "history.json"
    file.write_bytes(lines_of([numbered(number) for number in range(3_000)]))
    pressed: list[bool] = []

    def clock() -> int:
        """Somebody presses Ctrl-C when the import looks at the clock to say how far it is."""
        if not pressed:
            pressed.append(True)
            signal.raise_signal(signal.SIGINT)
        return TIME_US

    pressed.append(True)
    with closing(Home(tmp_path / "data", clock=clock)) as home:
        home.loops.create("shop", LoopSettings())
        pressed.clear()
        with pytest.raises(typer.Exit) as ended:
            run_import(home, home.catalog.loop("shop"), [file])
        assert ended.value.exit_code == 130
        assert "the same command goes on from there" in capsys.readouterr().err
        assert run_import(home, home.catalog.loop("shop"), [file]).counts[IMPORTED] == 3_000
