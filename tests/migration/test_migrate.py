"""A resource moves over by one command, and the report says how much of it is the same."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest

from rankward.records import LearningMode
from rankward.settings import Aggregation, LoopSettings
from rankward.store.ports import Loop
from rankward.wiring import Home
from tests.migration.resource import ORIGINAL, SETTINGS, OldResource
from tests.models import learned, original
from tests.test_cli import Shell, shell

__all__ = ["shell"]


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> OldResource:
    """An old resource, whole."""
    return OldResource(tmp_path_factory.mktemp("old") / "resource")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports go where a command is run."""
    monkeypatch.chdir(tmp_path)


def loop_of(shell: Shell, name: str) -> Loop | None:
    """Look for a loop."""
    with closing(Home(shell.data)) as home:
        return next((loop for loop in home.catalog.loops() if loop.name == name), None)


class _Page(HTMLParser):
    """What a page shows, and what it would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = ""
        self.fetched: list[str] = []
        self.feed(text)

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [f"{tag} {value}" for name, value in attrs if name in {"src", "href"} and value]


@pytest.mark.slow
def test_a_whole_resource_moves_over_and_is_found_the_same(shell: Shell, old: OldResource) -> None:
    """Every weight is one of the log's features, and every decision gets the probabilities that were logged."""
    report = shell.json("migrate", "azure", *old.files, "--loop", "shop")

    weights, probabilities = report["weights"], report["probabilities"]
    assert weights["explained"] == weights["count"] > 40
    assert weights["largest_unexplained"] == []
    assert (probabilities["decisions"], probabilities["same"]) == (60, 60)
    assert probabilities["difference_max"] < 1e-4
    assert [each["model_id"] for each in probabilities["models"]] == ["m-2"]
    assert probabilities["not_compared"] == {"decided before there was a model": 120}
    assert report["lines"] == {"imported": old.decisions}
    assert report["settings_left_out"].keys() == {
        *("logMirrorEnabled", "logMirrorSasUri", "lastConfigurationEditDate", "inventedLater")
    }
    assert report["policy"] == ORIGINAL
    assert not report["model"]["policy_taken"]
    assert len(report["differences"]) > 20

    loop = loop_of(shell, "shop")
    assert loop is not None
    assert loop.model_id == report["model"]["model_id"]
    settings = loop.settings
    assert settings.reward_wait == timedelta(minutes=30)
    assert (settings.default_reward, settings.reward_aggregation) == (0.1, Aggregation.SUM)
    assert settings.learning_mode is LearningMode.APPRENTICE
    assert not settings.log_mirror_enabled

    page = _Page(Path("migration-shop.html").read_text(encoding="utf-8"))
    assert page.fetched == []
    assert all(sentence in page.text for sentence in report["verdict"])
    assert "a retried Rank" in page.text


@pytest.mark.slow
def test_run_again_it_changes_nothing_and_says_so(shell: Shell, old: OldResource) -> None:
    """Whoever is not sure whether it went through runs it once more."""
    shell.ok("migrate", "azure", *old.files, "--loop", "shop")
    before = loop_of(shell, "shop")
    assert "--into" in shell.refused("migrate", "azure", *old.files, "--loop", "shop")
    report = shell.json("migrate", "azure", *old.files, "--loop", "shop", "--into")
    assert report["lines"] == {"imported": old.decisions}
    assert loop_of(shell, "shop") == before


@pytest.mark.slow
def test_another_log_does_not_explain_the_model(shell: Shell, old: OldResource, tmp_path: Path) -> None:
    """A feature that was renamed, and probabilities that were not the model's, show in the report."""
    lines = old.log.read_text(encoding="utf-8").replace('"visitor"', '"customer"').splitlines()
    changed = []
    for line in map(json.loads, lines):
        p = line["p"]
        line["p"] = [p[0] * 0.9, *(each + p[0] * 0.1 / (len(p) - 1) for each in p[1:])]
        line["_label_probability"] = line["p"][0]
        changed.append(json.dumps(line))
    changed[10] = changed[10][:50]
    file = tmp_path / "changed.json.gz"
    file.write_bytes(gzip.compress("\n".join([*changed, '{"RewardValue":1,"EventId":"x"}']).encode()))

    said = shell.ok("migrate", "azure", str(file), str(old.model), "--loop", "shop", "--report", "told.html")
    report = shell.json("migrate", "azure", str(file), str(old.model), "--loop", "shop", "--into")

    weights, probabilities = report["weights"], report["probabilities"]
    assert 0 < weights["explained"] < weights["count"]
    assert len(weights["largest_unexplained"]) == 10
    assert probabilities["same"] == 0
    assert probabilities["difference_max"] > 0.01
    assert "No model of the log gets its own throughout" in said
    assert report["lines"] == {"imported": old.decisions - 1, "skipped, broken": 1, "skipped, dangling reward": 1}
    assert [flaw["place"] for flaw in report["flaws"]] == ["changed.json.gz, line 11", "changed.json.gz, line 181"]
    assert "changed.json.gz, line 11" in _Page(Path("told.html").read_text(encoding="utf-8")).text


@pytest.mark.slow
def test_a_model_under_other_arguments_takes_its_policy_along(shell: Shell, old: OldResource, tmp_path: Path) -> None:
    """It cannot go on under others. Its exploration does not count, where the settings say another."""
    policy = "--cb_explore_adf --epsilon 0.3 --cb_type dr -q Fj"
    model = tmp_path / "model"
    model.write_bytes(original(learned(policy)))

    report = shell.json("migrate", "azure", str(model), str(old.policy), str(old.settings), "--loop", "shop")

    assert report["model"]["policy_taken"]
    assert report["model"]["learner"] == "9.1.0"
    assert "other arguments than policy.json has" in report["notes"][0]
    loop = loop_of(shell, "shop")
    assert loop is not None
    assert "--cb_type dr" in loop.settings.policy
    assert loop.settings.exploration == SETTINGS["explorationPercentage"]
    again = shell.json("migrate", "azure", str(model), str(old.policy), str(old.settings), "--loop", "shop", "--into")
    assert loop_of(shell, "shop") == loop
    assert again["weights"] is None


@pytest.mark.slow
def test_a_signed_model_moves_on_to_another_loop(shell: Shell, old: OldResource, tmp_path: Path) -> None:
    """Its archive needs no unpacking; and a loop that explores otherwise is told what was replayed."""
    shell.ok("migrate", "azure", str(old.model), "--loop", "first")
    archive, settings = tmp_path / "model.vw.zip", tmp_path / "settings.json"
    shell.ok("model", "export", "first", str(archive), "--signed")
    settings.write_text('{"explorationPercentage": 0.1}', encoding="utf-8")

    report = shell.json("migrate", "azure", str(archive), str(old.log), str(settings), "--loop", "second")

    assert report["model"]["origin"] == "trusted"
    assert report["weights"]["explained"] == report["weights"]["count"]
    assert report["probabilities"]["same"] == 60
    assert "saved with 0.2" in report["notes"][0]
    loop = loop_of(shell, "second")
    assert loop is not None
    assert "--epsilon 0.1" in loop.settings.policy


@pytest.mark.slow
def test_a_log_alone_is_learned(shell: Shell, old: OldResource) -> None:
    """Without a model, all of the log is what there is to go on from."""
    said = shell.ok("migrate", "azure", str(old.logs))
    assert "No model was given" in said
    assert "learns from all of the log" in said
    with closing(Home(shell.data)) as home:
        loop = home.catalog.loop("personalizer")
        newest = home.catalog.epochs(loop.loop_id)[-1]
    assert newest.reason == "a log was taken over"
    assert loop.settings == LoopSettings()


@pytest.mark.slow
def test_what_stops_half_way_says_what_was_done_and_goes_on(shell: Shell, old: OldResource) -> None:
    """Whatever the reason, here another import into the same loop, it costs nothing but the time."""
    shell.ok("loop", "create", "shop", "--preset", "personalizer")
    with closing(Home(shell.data)) as home, home.importing(home.catalog.loop("shop").loop_id):
        said = shell.refused("migrate", "azure", *old.files, "--loop", "shop", "--into")
    assert "another import" in said
    assert "it serves the model import-" in said
    assert "Run it again with --into" in said
    report = shell.json("migrate", "azure", *old.files, "--loop", "shop", "--into")
    assert report["lines"] == {"imported": old.decisions}
    assert (report["weights"]["explained"], report["probabilities"]["same"]) == (report["weights"]["count"], 60)


def _out_of_bounds(folder: Path) -> None:
    (folder / "settings.json").write_text('{"rewardWaitTime": "P99D"}', encoding="utf-8")


def _of_another_type(folder: Path) -> None:
    (folder / "settings.json").write_text('{"defaultReward": "much"}', encoding="utf-8")


def _refused_policy(folder: Path) -> None:
    (folder / "policy.json").write_text('{"name":"x","arguments":"--cb_explore_adf -f x"}', encoding="utf-8")


def _clashing(folder: Path) -> None:
    (folder / "policy.json").write_text('{"name":"x","arguments":"--ccb_explore_adf"}', encoding="utf-8")
    (folder / "settings.json").write_text('{"isAutoOptimizationEnabled": true}', encoding="utf-8")


def _broken_zip(folder: Path) -> None:
    (folder / "model.vw.zip").write_bytes(b"PK\3\4 and no more")


def _damaged_model(folder: Path) -> None:
    (folder / "model.vw").write_bytes(learned()[:-7])


def _two_models(folder: Path) -> None:
    for events in (3, 4):
        (folder / f"model-{events}.vw").write_bytes(learned(events=events))


def _unknown(folder: Path) -> None:
    (folder / "notes.txt").write_text("hello", encoding="utf-8")


def _empty(folder: Path) -> None:
    (folder / "log.json").touch()


def _damaged_log(folder: Path) -> None:
    whole = gzip.compress(b'{"_label_cost":0}\n' * 100_000)
    (folder / "log.json.gz").write_bytes(whole[: len(whole) - 20])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "why"),
    [
        (_out_of_bounds, "settings.json: rewardWaitTime .* out of bounds"),
        (_of_another_type, "settings.json: defaultReward cannot be"),
        (_refused_policy, "policy.json: -f is refused"),
        (_clashing, "auto-optimization does not go with"),
        (_broken_zip, "model.vw.zip: .*not a valid zip"),
        (_damaged_model, "model.vw: the model cannot be imported"),
        (_two_models, "more than one file is a model"),
        (_unknown, "notes.txt cannot be taken over"),
        (_empty, "nothing to take over"),
        (_damaged_log, "log.json.gz is damaged"),
    ],
)
def test_what_cannot_be_taken_over_changes_nothing(
    make: Callable[[Path], None], why: str, shell: Shell, old: OldResource, tmp_path: Path
) -> None:
    """Not even together with files that are good."""
    folder = tmp_path / "files"
    folder.mkdir()
    make(folder)
    files = sorted(map(str, folder.iterdir()))
    if make is not _empty:
        files = [str(old.logs), *files]
    assert re.search(why, shell.refused("migrate", "azure", *files, "--loop", "shop"))
    assert loop_of(shell, "shop") is None
    assert not Path("migration-shop.html").exists()


def test_a_report_has_somewhere_to_go(shell: Shell, old: OldResource) -> None:
    """Found out before anything is done, rather than after all of it."""
    assert "no folder" in shell.refused("migrate", "azure", *old.files, "--report", "nowhere/report.html")
    assert loop_of(shell, "personalizer") is None
