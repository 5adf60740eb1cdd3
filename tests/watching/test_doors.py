"""What a loop earns, as a command and as metrics tell it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from rankward.cli import app
from rankward.records import LearningMode
from rankward.telemetry import LoopCollector
from rankward.watching.apprentice import Block, windows
from rankward.watching.service import NOTE, WatchingStatus
from tests.evaluation.logs import event, log
from tests.watching.test_figures import NOW_US, Told


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    """A loop that nothing has happened in."""
    made = Told(tmp_path)
    yield made
    made.home.close()


def compare(folder: Path, *arguments: str) -> str:
    """Run the command."""
    environment = {"RANKWARD_DATA": str(folder), "RANKWARD_ENDPOINT": ""}
    result = CliRunner().invoke(app, ["compare", *arguments], env=environment)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_command_says_whether_it_was_worth_it(told: Told, tmp_path: Path) -> None:
    """One line for each policy, one for each difference, and what is known beyond doubt."""
    told.tell([event(n, pmf=(0.2, 0.6, 0.2), chosen=n % 5 % 3, reward=float(n % 5 % 3 == 1)) for n in range(2_000)])
    said = compare(tmp_path, "told")
    assert "2,000 decisions since it was created" in said
    [line] = [line for line in said.splitlines() if line.startswith("online over baseline")]
    assert line.endswith("better beyond doubt")
    assert "exploring" in said
    found = msgspec.json.decode(compare(tmp_path, "told", "--json"))
    assert found["comparison"]["against_baseline"] == "online"
    assert found["apprentice"]["advice"] == "none"


def test_the_command_says_what_an_apprentice_needs(told: Told, tmp_path: Path) -> None:
    """Nothing else is known of it: it has not decided anything yet."""
    settings = msgspec.structs.replace(told.loop.settings, learning_mode=LearningMode.APPRENTICE)
    told.loop = told.home.catalog.update_loop(msgspec.structs.replace(told.loop, settings=settings))
    told.tell([event(n, mode=LearningMode.APPRENTICE, reward=1.0) for n in range(300)])
    said = compare(tmp_path)
    assert "baseline, where it was shown" in said
    assert "300 events of apprentice mode are joined" in said
    assert "exploring" not in said


def test_the_command_sends_whoever_has_no_events_to_the_doctor(told: Told, tmp_path: Path) -> None:
    """An empty table would look like a failure."""
    assert "`rankward doctor told` says what it waits for" in compare(tmp_path, "told")


def test_metrics_are_what_was_last_told(told: Told) -> None:
    """A scrape reads a note and computes nothing: it must not cost decisions their time."""
    told.tell(log(1_000))
    taught = Block(at=0, from_us=NOW_US, to_us=NOW_US, events=100, matched=80.0, rewards=50.0, achieved=45.0)
    status = WatchingStatus(
        offset=1_000,
        joined_end=1_007,
        failure=None,
        comparison=told.figures.comparison(told.loop),
        apprentice=windows([taught])[0],
        time_us=NOW_US,
    )
    told.home.board.post(told.loop.loop_id, NOTE, msgspec.json.encode(status))
    collected = {
        (sample.name, *sample.labels.values()): sample.value
        for metric in LoopCollector(
            told.home.catalog, told.home.board.read, told.home.clock, told.home.standing
        ).collect()
        for sample in metric.samples
    }
    assert collected["rankward_watch_queue", "told"] == 7
    assert status.comparison is not None
    assert status.comparison.online is not None
    assert collected["rankward_reward", "told", "online", "estimate"] == status.comparison.online.value
    low, high = (collected["rankward_reward_over", "told", "baseline", bound] for bound in ("low", "high"))
    assert low < high
    assert collected["rankward_apprentice_match", "told"] == 0.8
    assert collected["rankward_apprentice_achieved", "told"] == 0.9
