"""The doctor's conclusions follow from the facts, and the facts from what is on record."""

from __future__ import annotations

import asyncio
import io
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from rich.console import Console

from rankward.archiving.service import ArchivingStatus
from rankward.doctor.facts import ALIVE_US, Facts, Sample, gather
from rankward.doctor.findings import Severity, findings
from rankward.doctor.report import report, screen
from rankward.joining.service import JoiningService
from rankward.loops import new_loop_settings
from rankward.mirroring.service import MirroringStatus
from rankward.records import Action, Features, Interaction, LearningMode, Observation, Rate, Record, TimeUs
from rankward.settings import LoopSettings
from rankward.store.optimizations import Optimization, OptimizationState
from rankward.store.ports import Epoch, Loop, ModelVersion, SetAside
from rankward.store.studies import StudyKind
from rankward.study_run import StudyStatus
from rankward.training.service import TrainingStatus
from rankward.watching.apprentice import Advice, Apprenticeship
from rankward.watching.comparison import LiveComparison, Side, Value
from rankward.watching.exploration import Amount, Exploration
from rankward.watching.service import WatchingStatus
from rankward.wiring import Home
from tests.loop.circle import Circle

if TYPE_CHECKING:
    from pathlib import Path

NOW_US: TimeUs = 1_800_000_000_000_000
SECOND_US = 1_000_000
LOOP = Loop(
    name="shop", loop_id="0" * 32, created_us=NOW_US - 3_600 * SECOND_US, settings=LoopSettings(), model_id="1-100"
)
EPOCH = Epoch(
    epoch_id=1,
    loop_id=LOOP.loop_id,
    state="serving",
    reason="the loop was created",
    created_us=LOOP.created_us,
    policy=LOOP.settings.policy,
    derives_interactions=False,
    default_reward=0.0,
    reward_aggregation="earliest",
    since_us=0,
    start=0,
)
VERSION = ModelVersion(
    model_id="1-100",
    loop_id=LOOP.loop_id,
    epoch_id=1,
    created_us=NOW_US - 60 * SECOND_US,
    joined_offset=100,
    learned=100,
    learned_to_us=NOW_US - 700 * SECOND_US,
    policy=LOOP.settings.policy,
    interactions=None,
    resumable=True,
    size_bytes=1_000,
    digest="",
)
COUNTS = {"ranked": 120, "joined": 100, "rewarded": 60, "defaulted": 40, "observed": 80, "baseline_chosen": 25}
UNARCHIVED = ArchivingStatus(
    place="s3://bucket",
    offset=40,
    joined_end=100,
    keep_from=80,
    events=40,
    missed=0,
    failure="it does not answer",
    failing_since_us=NOW_US - 7_200 * SECOND_US,
    time_us=NOW_US,
)
FAILING = MirroringStatus(offset=40, joined_end=100, missed=0, failure="the mirror does not take x", time_us=NOW_US)
WELL = Facts(
    loop=LOOP,
    now_us=NOW_US,
    log_first=0,
    log_end=200,
    head=200,
    counts=COUNTS,
    joined_end=100,
    next_due_us=NOW_US + 90 * SECOND_US,
    worker_seen_us=NOW_US - SECOND_US,
    epochs=(EPOCH,),
    training=(
        TrainingStatus(
            epoch_id=1, joined_offset=100, joined_end=100, learned=100, rate_per_s=0.0, time_us=NOW_US - SECOND_US
        ),
    ),
    versions=(VERSION,),
    set_asides=(),
    sample=Sample(events=100, rewards=2, reward_mean=0.4, baseline_chosen=25, choices_max=5),
    disk_is_full=False,
)
"""A loop at which nothing is wrong."""
RATE = TrainingStatus(epoch_id=2, joined_offset=50, joined_end=100, learned=40, rate_per_s=10, time_us=NOW_US)


def but(**changes: Any) -> Facts:
    """The loop at which nothing is wrong, but for this."""
    settings = {name: changes.pop(name) for name in list(changes) if name in LoopSettings.__struct_fields__}
    counts = {**COUNTS, **changes.pop("counts", {})}
    loop = msgspec.structs.replace(LOOP, settings=msgspec.structs.replace(LOOP.settings, **settings))
    return msgspec.structs.replace(WELL, **{"loop": loop, "counts": counts, **changes})


def names(facts: Facts) -> dict[str, Severity]:
    """Each finding's name with its severity."""
    return {finding.name: finding.severity for finding in findings(facts)}


def figures(facts: Facts) -> dict[str, tuple[str, str]]:
    """The value and the remark of each line of the table, by its name."""
    return {each.name.strip(): (each.value, each.remark) for each in report(facts, findings(facts)).figures}


def test_a_loop_that_learns_is_said_to_learn() -> None:
    """Nobody trusts a doctor who always finds something."""
    assert names(WELL) == {"learning": Severity.NOTE}


def test_a_policy_of_another_kind_leaves_decisions_uniform() -> None:
    """Whoever has gone over to slots has to know why nothing looks learned yet."""
    policy = "--ccb_explore_adf --epsilon 0.2"
    building = msgspec.structs.replace(EPOCH, epoch_id=2, state="building", policy=policy)
    facts = but(policy=policy, epochs=(EPOCH, building))

    said = {finding.name: finding for finding in findings(facts)}

    assert said.keys() == {"other-kind", "building"}
    assert "--ccb_explore_adf" in said["other-kind"].why
    assert "decisions are uniform" in said["building"].why


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sample": Sample(events=100, rewards=2, choices_max=5, other_kind=100)}, {"other-kind", "building"}),
        ({}, {"building"}),
        ({"training": (RATE,), "joined_end": 50}, {"building", "no-model"}),
    ],
    ids=["decided before", "not begun", "learned and not published"],
)
def test_the_first_model_is_missed_once_the_policys_own_epoch_has_learned(
    changes: dict[str, Any], expected: set[str]
) -> None:
    """A loop may go over to slots before it has a model: the epoch that serves cannot make one then."""
    policy = "--ccb_explore_adf --epsilon 0.2"
    created_us = NOW_US - 1_800 * SECOND_US
    building = msgspec.structs.replace(EPOCH, epoch_id=2, state="building", policy=policy, created_us=created_us)
    facts = but(**{"policy": policy, "epochs": (EPOCH, building), "versions": (), "training": (), **changes})

    assert names(facts).keys() == expected


@pytest.mark.slow
def test_what_was_decided_before_a_change_of_kind_is_told_apart(tmp_path: Path) -> None:
    """It is joined, and nobody will ever learn it."""

    async def look() -> Facts:
        circle = Circle(tmp_path, LoopSettings(reward_wait=timedelta(seconds=10)))
        await circle.play(5)
        await circle.configuration.set_policy("circle", "--ccb_explore_adf --epsilon 0.2")
        circle.pass_time(3_600)
        await circle.join()
        facts = await gather(circle.home, circle.loop)
        await circle.close()
        return facts

    facts = asyncio.run(look())

    assert (facts.sample.events, facts.sample.other_kind) == (5, 5)
    assert names(facts).keys() == {"no-worker", "other-kind", "building"}


def test_rewards_for_slots_that_events_do_not_have_are_pointed_out() -> None:
    """A misspelled slot learns nothing, silently."""
    assert names(but(counts={"unknown_slot": 8})) == {"unknown-slots": Severity.WARNING}
    assert figures(but(counts={"unknown_slot": 8}))["rewards reported"] == ("80", "8 found no slot")


NONE_YET: dict[str, Any] = {"versions": (), "training": (), "joined_end": 0, "sample": Sample()}
EMPTY: dict[str, Any] = {
    **NONE_YET,
    "counts": dict.fromkeys(COUNTS, 0),
    "log_end": 0,
    "head": 0,
    "next_due_us": None,
}
DELETED: dict[str, Any] = {
    "loop": msgspec.structs.replace(LOOP, model_id=None, forgotten_before=200),
    "epochs": (msgspec.structs.replace(EPOCH, epoch_id=2),),
    "training": (),
}
ASIDE = SetAside(
    loop_id=LOOP.loop_id, interaction=7, event_id="e7", reason="the learner died of SIGSEGV", time_us=NOW_US
)


@pytest.mark.parametrize(
    ("name", "severity", "facts"),
    [
        ("no-worker", Severity.PROBLEM, but(worker_seen_us=None)),
        ("no-worker", Severity.PROBLEM, but(worker_seen_us=NOW_US - 2 * ALIVE_US)),
        ("disk-full", Severity.PROBLEM, but(disk_is_full=True)),
        ("mirror-fails", Severity.WARNING, but(mirroring=FAILING)),
        ("archive-fails", Severity.WARNING, but(archiving=UNARCHIVED)),
        ("no-trainer", Severity.PROBLEM, but(training=(), unlearned_since_us={1: NOW_US - 60 * SECOND_US})),
        (
            "building",
            Severity.WAITING,
            but(epochs=(EPOCH, msgspec.structs.replace(EPOCH, epoch_id=2, state="building"))),
        ),
        ("set-aside", Severity.WARNING, but(set_asides=(ASIDE,))),
        ("no-decisions", Severity.WAITING, but(**EMPTY)),
        ("reward-wait", Severity.WAITING, but(**{**NONE_YET, "counts": dict.fromkeys(COUNTS, 0) | {"ranked": 3}})),
        ("behind", Severity.WAITING, but(log_end=50_000)),
        (
            "first-model",
            Severity.WAITING,
            but(epochs=(msgspec.structs.replace(EPOCH, created_us=NOW_US),), versions=()),
        ),
        ("no-model", Severity.PROBLEM, but(versions=())),
        ("forgotten", Severity.WAITING, but(**DELETED)),
        ("no-rewards", Severity.PROBLEM, but(counts={"rewarded": 0, "defaulted": 100, "observed": 0})),
        (
            "constant-reward",
            Severity.PROBLEM,
            but(sample=Sample(events=100, rewards=1, reward_mean=1.0, choices_max=5)),
        ),
        ("unknown-events", Severity.WARNING, but(counts={"unknown": 20})),
        ("late-rewards", Severity.WARNING, but(counts={"late": 20})),
        ("never-activated", Severity.WARNING, but(counts={"never_activated": 30})),
        ("repeated-ids", Severity.WARNING, but(counts={"repeats": 30})),
        ("one-action", Severity.PROBLEM, but(sample=Sample(events=100, rewards=2, reward_mean=0.4, choices_max=1))),
        ("apprentice", Severity.NOTE, but(learning_mode=LearningMode.APPRENTICE)),
        ("logging-only", Severity.WARNING, but(learning_mode=LearningMode.LOGGING_ONLY)),
        ("no-exploration", Severity.WARNING, but(exploration=0.0)),
    ],
)
def test_each_cause_is_found(name: str, severity: Severity, facts: Facts) -> None:
    """Whoever asks why it is not learning is told, and nothing else is blamed for it."""
    assert names(facts).get(name) is severity
    assert [found for found in names(facts) if found not in {name, "learning"}] == []


def test_the_worst_comes_first() -> None:
    """Whoever reads only the first line must read the right one."""
    found = findings(but(worker_seen_us=None, exploration=0.0, learning_mode=LearningMode.ONLINE, counts={"late": 20}))
    order = [list(Severity).index(finding.severity) for finding in found]
    assert order == sorted(order)
    assert found[0].name == "no-worker"


def test_the_first_learnable_event_has_a_time() -> None:
    """The most frequent answer of all: the reward wait is not over."""
    facts = but(**{**NONE_YET, "counts": dict.fromkeys(COUNTS, 0) | {"ranked": 3}})
    [finding] = findings(facts)
    assert "in 1 min 30 s" in finding.what
    assert "10 min" in finding.why


def test_a_new_epoch_has_its_progress_and_an_estimate() -> None:
    """A rebuild that takes an hour must not look like one that hangs."""
    building = msgspec.structs.replace(EPOCH, epoch_id=2, state="building", reason="changed: default_reward")
    [finding] = findings(but(epochs=(EPOCH, building), training=(*WELL.training, RATE)))
    assert "changed: default_reward" in finding.what
    assert "50% done, about 5 s left" in finding.what


def test_a_derived_rate_is_on_the_screen() -> None:
    """Whoever reads a model's arguments must find where they are from."""
    rate = Rate(name="steady", options="--power_t 0.25", learned=500, events=500, errors={"quick": 0.9, "steady": 0.2})
    shown = figures(but(epochs=(msgspec.structs.replace(EPOCH, rate=rate),)))["rate, epoch 1"]
    assert shown == ("steady", "steady: --power_t 0.25; squared error 0.9 quick, 0.2 steady, over 500 events")


RUN = Optimization(
    optimization_id="0123456789ab",
    loop_id=LOOP.loop_id,
    created_us=NOW_US,
    due_us=None,
    dry_run=False,
    start_us=0,
    end_us=NOW_US,
)


@pytest.mark.parametrize(
    ("facts", "severity", "what", "why"),
    [
        (but(is_auto_optimization_enabled=True), Severity.NOTE, "due in", "There was none so far."),
        (but(optimization=RUN), Severity.NOTE, "under way", "searching: the log is searched."),
        (
            but(optimization=msgspec.structs.replace(RUN, state=OptimizationState.WATCHING, why="better by 0.1.")),
            Severity.NOTE,
            "is watched",
            "watching: better by 0.1.",
        ),
        (
            but(is_auto_optimization_enabled=True, learning_mode=LearningMode.APPRENTICE),
            Severity.WARNING,
            "finds nothing",
            "Apprentice",
        ),
        (
            but(is_auto_optimization_enabled=True, exploration=0.0),
            Severity.WARNING,
            "finds nothing",
            "exploration is 0",
        ),
    ],
)
def test_automatic_optimization_has_its_line(facts: Facts, severity: Severity, what: str, why: str) -> None:
    """When it is due, what it is at, and why it finds nothing."""
    [found] = [finding for finding in findings(facts) if finding.name.startswith("optimization")]
    assert (found.severity, what in found.what, why in found.why) == (severity, True, True), found
    assert not [finding for finding in findings(WELL) if finding.name.startswith("optimization")]


def test_an_evaluation_that_runs_is_on_the_screen() -> None:
    """With its pace and the time that is left, as it may take hours."""
    status = StudyStatus(
        kind=StudyKind.EVALUATION, study_id="e1", done=0.25, rate_per_s=1_000.0, remaining_s=120.0, time_us=NOW_US
    )
    assert figures(but(study=status))["evaluation runs"] == ("25%", "1,000 events/s, 2 min left")
    assert "evaluation runs" not in figures(but(study=status, worker_seen_us=None)), "its note outlived it"
    assert "evaluation runs" not in figures(WELL)


def test_every_figure_is_on_the_screen() -> None:
    """From Rank to the model, each event is somewhere."""
    facts = but(set_asides=(ASIDE,), counts={"late": 3, "unknown": 2})
    shown = figures(facts)
    assert shown["ranked"][0] == "120"
    assert shown["waiting for rewards"][0] == "20"
    assert shown["joined"][0] == "100"
    assert shown["with the default"] == ("40", "40.0%")
    assert shown["rewards reported"] == ("80", "2 found no event, 3 came too late")
    assert shown["same as first action"] == ("25.0%", "25.0% of the newest 100")
    assert shown["set aside"] == ("1", "the learner died of SIGSEGV")
    assert shown["model"][0] == "1-100"
    assert "made 1 min ago from 100 events" in shown["model"][1]

    assert "imported" not in shown
    assert figures(but(counts={"imported": 7}))["imported"] == ("7", "joined elsewhere")

    console = Console(file=io.StringIO(), width=100, height=40)
    console.print(screen(report(facts, findings(facts))))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert len(text.splitlines()) < 40
    assert "SIGSEGV" in text


def test_a_report_can_be_read_by_a_script() -> None:
    """An alert needs figures and stable names."""
    found = msgspec.json.decode(msgspec.json.encode(report(WELL, findings(WELL))))
    assert found["findings"][0]["name"] == "learning"
    assert found["match_rate"] == 0.25
    assert found["default_share"] == 0.4
    assert found["worker_lives"] is True


def test_facts_are_read_whether_the_service_runs_or_not(tmp_path: Path) -> None:
    """A service that does not start is when the doctor is asked."""
    clock_us = NOW_US
    actions = (Action("a", Features(b'[{"x":1}]')), Action("b", Features(b'[{"x":2}]')))
    records: list[Record] = [
        Interaction(
            event_id=f"e{number}",
            context=Features(b"[]"),
            actions=actions,
            pmf=(0.5, 0.5),
            chosen=number % 2,
            learning_mode=LearningMode.ONLINE,
            reward_wait_us=10 * SECOND_US,
        )
        for number in range(4)
    ]
    with closing(Home(tmp_path / "data", clock=lambda: clock_us)) as home:
        home.loops.furnish({})
        loop = home.catalog.loop("playground")

        async def run() -> tuple[Facts, Facts]:
            nonlocal clock_us
            log, joined = home.event_log(loop.loop_id), home.joined_log(loop.loop_id)
            await log.append([*records, Observation(event_id="e0", value=1.0)])
            before = await gather(home, loop)
            clock_us += 20 * SECOND_US
            joining = JoiningService(log, joined, clock=home.clock)
            while await joining.step():
                pass
            after = await gather(home, loop)
            await log.close()
            await joined.close()
            return before, after

        before, after = asyncio.run(run())

    assert before.next_due_us == NOW_US + 10 * SECOND_US
    assert before.log_end - before.head == 5
    assert "no-worker" in names(before)
    assert "reward-wait" in names(before)
    assert after.counts["joined"] == 4
    assert after.next_due_us is None
    assert after.unlearned_since_us == {1: NOW_US + 10 * SECOND_US}
    assert after.sample == Sample(events=4, rewards=2, reward_mean=0.25, baseline_chosen=2, choices_max=2)


@pytest.mark.parametrize("rewards", [99, 100, 250])
def test_the_oldest_waiting_event_is_found_behind_rewards(tmp_path: Path, rewards: int) -> None:
    """A few entries are looked at, which mostly do; where they do not, it must not seem that nothing waits."""
    decision = Interaction(
        event_id="e",
        context=Features(b"[]"),
        actions=(Action("a", Features(b"[]")),),
        pmf=(1.0,),
        chosen=0,
        learning_mode=LearningMode.ONLINE,
        reward_wait_us=10 * SECOND_US,
    )
    with closing(Home(tmp_path / "data", clock=lambda: NOW_US)) as home:
        loop = home.loops.create("waiting", new_loop_settings())

        async def look() -> Facts:
            log = home.event_log(loop.loop_id)
            await log.append([*[Observation(event_id="f", value=1.0)] * rewards, decision])
            await log.close()
            return await gather(home, loop)

        assert asyncio.run(look()).next_due_us == NOW_US + 10 * SECOND_US


def compared(over: float) -> LiveComparison:
    """A comparison in which the loop is better than its baseline by so much, give or take 0.02."""
    value = Value(value=over, low=over - 0.02, high=over + 0.02)
    side = Side.UNDECIDED if abs(over) < 0.02 else Side.ONLINE if over > 0 else Side.OTHER
    return LiveComparison(
        since_us=0,
        newest_us=NOW_US,
        events=4_000,
        online=value,
        baseline=value,
        uniform=value,
        over_baseline=value,
        over_uniform=value,
        shown_events=0,
        shown=None,
        against_baseline=side,
        against_uniform=side,
    )


@pytest.mark.parametrize(
    ("over", "expected"),
    [
        (-0.05, {"below-baseline": Severity.WARNING}),
        (0.01, {"learning": Severity.NOTE}),
        (0.05, {"learning": Severity.NOTE, "above-baseline": Severity.NOTE}),
    ],
)
def test_a_loop_that_earns_less_than_before_is_called_so(over: float, expected: dict[str, Severity]) -> None:
    """It learns, and nothing else is wrong: only what it is for does not work."""
    facts = but(comparison=compared(over))
    assert names(facts) == expected
    remark = f"from {over - 0.02:+.4f} to {over + 0.02:+.4f} beyond doubt"
    assert figures(facts)["over first action"] == (f"{over:+.4f}", remark)
    apprentice = but(comparison=compared(over), learning_mode=LearningMode.APPRENTICE)
    assert not names(apprentice).keys() & {"below-baseline", "above-baseline"}


@pytest.mark.parametrize(
    ("advice", "expected"),
    [
        (Advice.GO_ON, set()),
        (Advice.SWITCH, {"apprentice-ready"}),
        (Advice.STALLED, {"apprentice-stalled"}),
    ],
)
def test_an_apprentice_that_can_do_it_is_pointed_out(advice: Advice, expected: set[str]) -> None:
    """It would go on being an apprentice for ever: nobody looks at a page every day."""
    does = Apprenticeship(windows=(), now=None, bound=0.6, advice=advice, words="over the last 1,000 events …")
    facts = but(learning_mode=LearningMode.APPRENTICE, apprenticeship=does)
    assert names(facts).keys() - {"apprentice", "learning"} == expected
    assert not names(but(apprenticeship=does)).keys() & {"apprentice-ready", "apprentice-stalled"}


@pytest.mark.parametrize(
    ("advice", "expected"),
    [(Amount.LESS, {"explores-much"}), (Amount.MORE, {"explores-little"}), (Amount.KEEP, set())],
)
def test_what_exploring_costs_is_said_where_it_could_be_better(advice: Amount, expected: set[str]) -> None:
    """It is paid every day, by whoever does not ask."""
    exploring = Exploration(
        events=2_000, mass=0.3, cost=None, share=0.1, degrees=(), low=0.01, high=0.1, advice=advice, words="it costs"
    )
    assert names(but(exploring=exploring)).keys() - {"learning"} == expected


def test_figures_that_lag_are_said_to() -> None:
    """A chart that ends an hour ago looks as if nothing happened since."""
    behind = WatchingStatus(offset=0, joined_end=6_000, failure=None, time_us=NOW_US)
    assert names(but(watching=behind)) == {"figures-behind": Severity.WARNING}
    assert names(but(watching=msgspec.structs.replace(behind, offset=5_990))) == {"learning": Severity.NOTE}
    failing = msgspec.structs.replace(behind, offset=6_000, failure="the disk does not answer")
    [finding] = findings(but(watching=failing))
    assert "the disk does not answer" in finding.why
