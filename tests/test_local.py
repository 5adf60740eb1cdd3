"""A loop in the caller's own process: the same rooms, the same files, learning beside it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

import rankward
from rankward.errors import InvalidRequest, NotFound
from rankward.loops import new_loop_settings
from rankward.settings import LoopSettings
from rankward.wiring import Home
from tests.service import PATIENCE_S, eventually

ACTIONS = {name: {"dish": {"name": name}} for name in ("soup", "salad", "stew")}


@pytest.mark.slow
def test_it_learns_while_it_is_open_and_goes_on_when_opened_again(tmp_path: Path) -> None:
    """No server is needed for any of it."""
    with rankward.open(tmp_path, "playground") as loop:

        def liked() -> bool:
            decision = loop.rank({"visitor": {"device": "phone"}}, ACTIONS)
            loop.reward(decision.event_id, float(decision.action_id == "stew"))
            return dict(decision.ranking)["stew"] > 0.8

        eventually(liked, "the rewarded action is likely")
    with rankward.open(tmp_path, "playground") as loop:
        decision = loop.rank({"visitor": {"device": "phone"}}, ACTIONS)
        assert decision.model_id is not None
        assert dict(decision.ranking)["stew"] > 0.8


@pytest.mark.slow
def test_a_repeated_rank_gets_the_same_decision(tmp_path: Path) -> None:
    """As over HTTP."""
    with rankward.open(tmp_path) as loop:
        first = loop.rank({"hour": 1}, ACTIONS, event_id="mine")
        assert loop.rank({"hour": 1}, ACTIONS, event_id="mine") == first
        assert loop.rank({"hour": 2}, ACTIONS, excluded=["soup"], deferred=True).action_id != "soup"


@pytest.mark.slow
def test_several_slots_are_filled_at_once(tmp_path: Path) -> None:
    """As over HTTP: different actions, rewards by slot, refusals in words."""
    home = Home(tmp_path)
    home.loops.furnish({})
    home.loops.create("page", LoopSettings(policy="--ccb_explore_adf --epsilon 0.2", preset=None))
    home.close()
    slots = [
        rankward.SlotRequest(id="hero", baseline="soup", features={"size": "large"}, excluded=["stew"]),
        rankward.SlotRequest(id="side", baseline="stew"),
    ]
    with rankward.open(tmp_path, "page") as loop:
        decision = loop.rank_slots({"hour": 1}, ACTIONS, slots, event_id="mine")
        assert loop.rank_slots({"hour": 1}, ACTIONS, slots, event_id="mine") == decision
        assert decision.action_ids["hero"] in {"soup", "salad"} - {decision.action_ids["side"]}
        assert [sum(dict(slot.ranking).values()) for slot in decision.slots] == [1.0, 1.0]
        loop.reward("mine", 0.5, slot="hero")
        loop.reward("mine", 0.25)
        with pytest.raises(InvalidRequest, match="no action has the id 'pie'"):
            loop.rank_slots({}, ACTIONS, [rankward.SlotRequest(id="hero", baseline="pie")])
        with pytest.raises(InvalidRequest, match="0 slots"):
            loop.rank_slots({}, ACTIONS, [])
    with rankward.open(tmp_path) as single:
        with pytest.raises(InvalidRequest, match="decides for a single slot"):
            single.rank_slots({}, ACTIONS, slots)
        with pytest.raises(InvalidRequest, match="decides for a single slot"):
            single.reward("mine", 0.5, slot="hero")


@pytest.mark.slow
def test_what_cannot_be_used_is_refused_in_words(tmp_path: Path) -> None:
    """The caller's mistakes are the caller's to mend."""
    with rankward.open(tmp_path) as loop:
        for actions, words in (({}, "0 actions"), ({"": {"a": 1}}, "id"), ({"a": {"tags": ["x"]}}, "number")):
            with pytest.raises(InvalidRequest, match=words):
                loop.rank({}, actions)
        for value in (7.0, float("nan"), "x"):
            with pytest.raises(InvalidRequest, match="outside -1 to 1"):
                loop.reward("e", value)  # type: ignore[arg-type]
        with pytest.raises(InvalidRequest, match="JSON"):
            loop.rank({"a": float("nan")}, ACTIONS)
        with pytest.raises(InvalidRequest, match="mapping from action ids"):
            loop.rank({}, ["a", "b"])  # type: ignore[list-item]
    with pytest.raises(NotFound, match="closed"):
        loop.rank({}, ACTIONS)
    with pytest.raises(NotFound, match="no loop 'nowhere'"):
        rankward.open(tmp_path, "nowhere", create=False)


@pytest.mark.slow
def test_a_loop_that_is_deleted_meanwhile_takes_no_more(tmp_path: Path) -> None:
    """What it would acknowledge would be nowhere, even when another loop has its name by now."""
    with rankward.open(tmp_path, "menu") as loop:
        loop.rank({}, ACTIONS)
        home = Home(tmp_path)
        home.loops.delete("menu")
        home.loops.create("menu", new_loop_settings())
        home.close()

        def refused() -> bool:
            try:
                loop.rank({}, ACTIONS)
            except NotFound:
                return True
            return False

        eventually(refused, "the loop is known to be gone")


@pytest.mark.slow
def test_it_opens_without_its_model_and_takes_it_when_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that cannot be read for a while must not keep an application from starting, nor be given up."""
    monkeypatch.setattr("rankward.local._AGAIN_S", 0.1)
    with rankward.open(tmp_path, "playground") as loop:
        loop.reward(loop.rank({"hour": 1}, ACTIONS).event_id, 1.0)
        eventually(lambda: loop.rank({"hour": 1}, ACTIONS).model_id is not None, "a model serves")
    models = next(tmp_path.glob("loops/*/models/*.vw")).parent
    models.rename(models.with_name("away"))
    with rankward.open(tmp_path, "playground") as loop:
        assert loop.rank({"hour": 1}, ACTIONS).model_id is None
        for path in (models.with_name("away")).iterdir():
            models.mkdir(exist_ok=True)
            path.rename(models / path.name)
        eventually(lambda: loop.rank({"hour": 1}, ACTIONS).model_id is not None, "the model is taken after all")


@pytest.mark.slow
def test_a_worker_that_dies_is_started_again(tmp_path: Path) -> None:
    """Else the loop would go on ranking, and never learn again."""
    with rankward.open(tmp_path, "playground"):

        def workers() -> list[psutil.Process]:
            return [p for p in psutil.Process().children() if _is_worker(p)]

        eventually(lambda: len(workers()) == 1, "the worker runs")
        [first] = workers()
        first.kill()
        eventually(lambda: [p.pid for p in workers() if p.pid != first.pid] != [], "another one runs")


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "worker" in process.cmdline()
    except psutil.Error:  # it has ended
        return False


@pytest.mark.slow
def test_a_new_folder_may_be_opened_by_many_at_once(tmp_path: Path) -> None:
    """A web application starts several processes at the same moment."""
    program = textwrap.dedent("""
        import sys
        from pathlib import Path
        from rankward.wiring import Home
        home = Home(Path(sys.argv[1]))
        home.loops.furnish({})
        print(sorted(loop.name for loop in home.catalog.loops()))
        home.close()
    """)
    command = [sys.executable, "-c", program, str(tmp_path / "new")]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(5)]
    assert {process.communicate(timeout=PATIENCE_S)[0] for process in started} == {"['default', 'playground']\n"}
