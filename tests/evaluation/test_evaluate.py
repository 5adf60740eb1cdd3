"""`rankward evaluate`: files of log lines in, a verdict out."""

from __future__ import annotations

import gzip
import re
import shlex
from pathlib import Path

import msgspec
import pytest
import zstandard
from typer.testing import CliRunner

from rankward.cli.app import app
from rankward.dsjson.write import write_line
from rankward.evaluation.files import LogFiles
from rankward.evaluation.report import Report, Verdict
from rankward.joining.reward import RewardDefinition
from rankward.records import JoinedEvent
from rankward.settings import Aggregation
from tests.evaluation.logs import MINUTE_US, POLICY, event, log, named

pytestmark = pytest.mark.slow  # each starts processes

DEFINITION = RewardDefinition(0.0, Aggregation.EARLIEST)


def text(events: list[JoinedEvent]) -> bytes:
    """Write events as log lines."""
    return "".join(write_line(each, DEFINITION) + "\n" for each in events).encode()


def run(*arguments: str | Path, stdin: bytes = b"", status: int = 0) -> str:
    """Run the command."""
    result = CliRunner().invoke(app, ["evaluate", *map(str, arguments)], input=stdin)
    assert result.exit_code == status, result.output
    return result.stdout


def reported(*arguments: str | Path, stdin: bytes = b"", status: int = 0) -> Report:
    """Run the command for its report."""
    return msgspec.json.decode(run(*arguments, "--json", stdin=stdin, status=status), type=Report)


def test_files_of_all_kinds_are_one_log(tmp_path: Path) -> None:
    """Logs come compressed, in pieces, and through pipes."""
    events = log(300)
    (tmp_path / "1.dsjson").write_bytes(text(events[:100]))
    (tmp_path / "2.dsjson.gz").write_bytes(gzip.compress(text(events[100:200])))
    (tmp_path / "3.dsjson.zst").write_bytes(zstandard.compress(text(events[200:])))
    (tmp_path / "all.dsjson").write_bytes(text(events))
    pieces = reported(*(tmp_path / name for name in ("1.dsjson", "2.dsjson.gz", "3.dsjson.zst")), "-p", f"m={POLICY}")
    whole = reported(tmp_path / "all.dsjson", "-p", f"m={POLICY}")
    piped = reported("-", "-p", f"m={POLICY}", stdin=text(events))
    assert pieces == whole == piped
    assert whole.counts.judged == 300
    assert [result.name for result in whole.policies] == ["m", "online", "baseline1", "baselineRand"]


def test_the_table_says_who_is_better(tmp_path: Path) -> None:
    """It is what most people read, and nothing else."""
    (tmp_path / "log").write_bytes(text(log(4_000)))
    page = tmp_path / "page.html"
    printed = run(tmp_path / "log", "--policy", "mine=balanced", "--html", page)
    assert "mine is better than the policy that acted" in printed
    assert "baselineRand" in printed
    assert "<svg" in page.read_text()


def test_a_search_says_what_it_found_and_how_to_apply_it(tmp_path: Path) -> None:
    """It changes nothing by itself."""
    (tmp_path / "log").write_bytes(text(log(1_200)))
    page = tmp_path / "page.html"
    printed = run(tmp_path / "log", "--search", "--seed", "3", "--processes", "2", "--html", page)
    assert "Search: " in printed
    assert "To apply it: rankward policy set LOOP --cb_explore_adf" in printed
    assert "own among them, seed 3: 32 along 50 % of the log" in printed
    assert "rankward policy set LOOP --cb_explore_adf" in page.read_text()
    hurried = reported(tmp_path / "log", "--search", "--search-minutes", "0", "-p", f"m={POLICY}")
    assert hurried.search is not None
    assert (hurried.search.own, hurried.search.finalists) == ("m", ())
    assert "time ran out" in hurried.search.stopped


@pytest.mark.slow
def test_features_are_weighed_on_request(tmp_path: Path) -> None:
    """With what each loses, its interval, and what is odd: in the table, in JSON and on the page."""
    (tmp_path / "log").write_bytes(text(log(400)))
    asked = ("evaluate", str(tmp_path / "log"), "-p", f"m={POLICY}", "--importance", "--html", str(tmp_path / "page"))
    shown = CliRunner().invoke(app, asked, env={"COLUMNS": "200"})
    found = msgspec.json.decode(CliRunner().invoke(app, [*asked, "--json"]).stdout, type=Report)
    assert shown.exit_code == 0
    assert "guest.is" in shown.stdout
    assert "goes with" in shown.stdout
    assert {(each.namespace, each.name) for each in found.features} == {("guest", "is"), ("j", "dish"), ("i", "id")}
    assert all(each.left_out and each.permuted for each in found.features)
    assert len(found.facts) == 3
    page = (tmp_path / "page").read_text()
    assert "<h2>Features</h2>" in page
    assert "guest.is" in page


def test_what_cannot_be_used_is_named_by_line(tmp_path: Path) -> None:
    """A number from a half-read log would be wrong without anybody seeing it."""
    good = text([event(number) for number in range(3)]).decode().splitlines()
    lines = [
        good[0],
        "{broken",
        good[1].replace('"p":[0.6,0.2,0.2]', '"p":[0.6,0.2,0.1]'),
        good[1].replace('"p":[0.6,0.2,0.2]', '"p":[0.0,0.8,0.2]'),
        good[1].replace('"_label_Action":1', '"_label_Action":7'),
        '{"RewardValue":1,"EventId":"x","Observations":[]}',
        good[2],
    ]
    (tmp_path / "log").write_text("\n".join(lines))
    report = reported(tmp_path / "log")
    assert report.counts.judged == 2
    assert sum(report.counts.skipped.values()) == 5
    assert [flaw.place for flaw in report.flaws] == [f"log, line {number}" for number in range(2, 7)]


def test_the_table_of_the_page_is_read_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its command and its file mean the same, and the rows are judged."""
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()
    blocks = {kind: re.search(rf"```{kind}\n(.*?)```", page, re.DOTALL) for kind in ("csv", "toml")}
    assert all(blocks.values())
    rows = [found[1] for found in blocks.values() if found is not None]
    Path("offers.csv").write_text(rows[0])
    Path("offers.toml").write_text(rows[1])
    [command] = re.findall(r"```sh\n(rankward evaluate offers.csv .*?)```", page, re.DOTALL)
    _, _, *arguments = shlex.split(command.replace("\\\n", ""))
    found = reported(*arguments)
    assert (found.counts.judged, found.counts.skipped, found.flaws) == (2, {}, ())
    assert reported("offers.csv", "-p", "ours=balanced", "--map", "offers.toml") == found


def test_a_table_is_judged_by_what_can_be_used_of_it(tmp_path: Path) -> None:
    """Rows are named as such, and what a lone probability means is said."""
    table = "a,p,r\n" + "x,0.5,1\ny,0.25,0\n" * 50 + "x,2,1\n"
    (tmp_path / "t.csv").write_text(table)
    mapping = [f"--map={each}" for each in ("chosen=a", "probability=p", "reward=r", "actions=x,y,z")]
    found = reported(tmp_path / "t.csv", *mapping)
    assert (found.counts.judged, found.counts.skipped) == (100, {"broken": 1})
    assert [flaw.place for flaw in found.flaws] == ["the mapping", "t.csv, row 101"]
    refused = CliRunner().invoke(app, ["evaluate", str(tmp_path / "t.csv")])
    assert refused.exit_code == 1
    assert "is a table: say what its columns mean" in refused.stderr


def test_a_span_is_cut_out(tmp_path: Path) -> None:
    """An evaluation is of a week, or a day."""
    (tmp_path / "log").write_bytes(text([event(number) for number in range(100)]))
    report = reported(tmp_path / "log", "--from", "2026-01-01T00:10", "--to", "2026-01-01T00:30")
    assert report.counts.judged == 20
    assert report.counts.skipped == {"outside the span": 80}
    assert report.end_us - report.start_us == 19 * MINUTE_US
    assert reported(tmp_path / "log", "--from", "2027-01-01", status=3).verdict == "There is no event to judge by."


def test_a_log_without_exploration_ends_with_a_status_of_its_own(tmp_path: Path) -> None:
    """A script must not go on with estimates that are made up."""
    (tmp_path / "log").write_bytes(text([event(number, pmf=(1.0, 0.0, 0.0), reward=0.5) for number in range(30)]))
    report = reported(tmp_path / "log", "-p", f"m={POLICY}", status=3)
    assert named(report, "m").verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-p", f"m={POLICY}", "-p", f"m={POLICY}"], "two policies called 'm'"),
        (["-p", "m=--cb_explore_adf -f file"], "-f is refused"),
        (["-p", POLICY], "has no name"),
        (["--reward-min", "1"], "is not below"),
        (["--reward-wait", "soon"], "is no duration"),
        (["--export-frequency", "0s"], "is not above 0"),
        (["--from", "yesterday"], "is no moment"),
        (["--search-minutes", "5"], "add --search"),
    ],
)
def test_what_is_refused_is_refused_before_anything_is_read(tmp_path: Path, arguments: list[str], says: str) -> None:
    """With one line that says what, and what to do."""
    (tmp_path / "log").write_bytes(text([event(0)]))
    result = CliRunner().invoke(app, ["evaluate", str(tmp_path / "log"), *arguments])
    assert result.exit_code == 1
    assert says in result.stderr


def test_a_log_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    """As any command does."""
    result = CliRunner().invoke(app, ["evaluate", str(tmp_path / "none")])
    assert result.exit_code == 1
    assert "there is no file or folder" in result.stderr


def test_batches_know_how_far_they_are(tmp_path: Path) -> None:
    """The time that is left is told by it."""
    (tmp_path / "log").write_bytes(text([event(number) for number in range(1_500)]))
    batches = list(LogFiles(paths=(tmp_path / "log",), reward_wait_us=MINUTE_US).batches())
    assert sum(len(batch.events) for batch in batches) == 1_500
    assert batches[-1].read == 1.0
    assert [batch.read for batch in batches] == sorted(batch.read for batch in batches)
