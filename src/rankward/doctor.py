"""What is a loop waiting for, and why is it not learning: facts in, findings out, one screen.

`gather` reads the facts from whatever is on record, so that it works whether the service runs or not; `findings` draws
the conclusions; `report` puts both together, and `screen` shows that, wherever it was made.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from rankward.joining.reader import read_joined
from rankward.joining.reward import RewardDefinition, training_reward
from rankward.mirroring.service import NOTE, MirroringStatus
from rankward.records import AnyInteraction, JoinedEvent, LearningMode, ModelId, MultiSlotInteraction, Offset, TimeUs
from rankward.store.ports import Epoch, EventLog, JoinedLog, Loop, ModelVersion, SetAside
from rankward.study_run import NOTE as STUDY
from rankward.study_run import StudyStatus
from rankward.telemetry import find_version, read_statuses
from rankward.training.service import TrainingStatus
from rankward.vw.arguments import ProblemType, problem_type_of
from rankward.vw.rates import describe
from rankward.wiring import Home

ALIVE_US = 10_000_000  # the worker and the trainers leave word every second
SAMPLE = 1_000  # newest joined events that are looked into
LEARNING_LATE_US = 30_000_000  # an event that could have been learned this long ago should have been
_LANE_READ = 2_000
_ENOUGH = 20  # events, before anything is concluded from a share


class Severity(enum.StrEnum):
    """How bad a finding is."""

    PROBLEM = "problem"  # something does not work
    WARNING = "warning"  # it works, and learns less than it could
    WAITING = "waiting"  # nothing is wrong: it takes time
    NOTE = "note"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One conclusion."""

    severity: Severity
    name: str  # short and stable, for scripts
    what: str
    why: str
    do: str = ""  # empty: nothing is to be done


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """What the newest joined events look like."""

    events: int = 0
    rewards: int = 0  # how many different rewards training sees in them; 2 means two or more
    reward_mean: float | None = None  # None: there are no events to learn from
    baseline_chosen: int = 0
    choices_max: int = 0  # the most actions that one event could choose from
    logged_only: int = 0  # decided with nothing left to chance
    other_kind: int = 0  # decided for single slots where the policy is for several, or the other way round


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the doctor looks at, at one moment."""

    loop: Loop
    now_us: TimeUs
    log_first: Offset
    log_end: Offset
    head: Offset  # joining has read the event log up to here
    counts: dict[str, int]  # of joining
    joined_end: Offset
    next_due_us: TimeUs | None  # when the wait of the oldest waiting event ends; None: none waits
    worker_seen_us: TimeUs | None  # None: there has never been one
    epochs: tuple[Epoch, ...]
    training: tuple[TrainingStatus, ...]
    versions: tuple[ModelVersion, ...]
    set_asides: tuple[SetAside, ...]
    sample: Sample
    disk_is_full: bool  # the room set aside for that is used up
    study: StudyStatus | None = None  # how far the evaluation is that runs; None: none does
    mirroring: MirroringStatus | None = None  # None: nothing is mirrored, or the mirror has not begun
    unlearned_since_us: dict[int, TimeUs] = {}  # by epoch: when its oldest joined event not learned could have been

    @property
    def worker_lives(self) -> bool:
        """Whether somebody joins and trains."""
        return self.worker_seen_us is not None and self.now_us - self.worker_seen_us < ALIVE_US

    @property
    def serving(self) -> ModelVersion | None:
        """The model that decides."""
        return find_version(self.versions, self.loop.model_id)

    @property
    def serves_other_kind(self) -> bool:
        """Whether the model decides for single slots and the policy for several, or the other way round."""
        serving = self.serving
        return serving is not None and problem_type_of(serving.policy) is not problem_type_of(self.loop.settings.policy)

    @property
    def ranked(self) -> int:
        """Decisions that joining has read."""
        return self.counts.get("ranked", 0)

    @property
    def waiting(self) -> int:
        """Decisions whose wait is not over."""
        return self.ranked - self.counts.get("joined", 0)

    @property
    def imported(self) -> int:
        """Events that came from other logs."""
        return self.counts.get("imported", 0)

    @property
    def learnable(self) -> int:
        """Joined events of its own that training can use."""
        return self.counts.get("rewarded", 0) + self.counts.get("defaulted", 0)

    def training_of(self, epoch: Epoch) -> TrainingStatus | None:
        """The word that an epoch's trainer left, if it is fresh."""
        for status in self.training:
            if status.epoch_id == epoch.epoch_id and self.now_us - status.time_us < ALIVE_US:
                return status
        return None

    def learned_of(self, epoch: Epoch) -> tuple[int, Offset | None]:
        """How many events an epoch has learned, and the next joined event. None: it has not begun."""
        status = self.training_of(epoch)
        if status is not None:
            return status.learned, status.joined_offset
        newest = max(
            (v for v in self.versions if v.epoch_id == epoch.epoch_id), key=lambda v: v.joined_offset, default=None
        )
        return (newest.learned, newest.joined_offset) if newest else (0, epoch.start)


# Facts


async def gather(home: Home, loop: Loop) -> Facts:
    """Read the facts about a loop."""
    log, joined = home.event_log(loop.loop_id), home.joined_log(loop.loop_id)
    try:
        state = await joined.state()
        first, joined_end = await joined.extent()
        extent = await log.extent()
        notes = home.board.read(loop.loop_id)
        status, training = read_statuses(notes)
        facts = Facts(
            loop=loop,
            now_us=home.clock(),
            log_first=extent.first,
            log_end=extent.end,
            head=state.head,
            counts=state.counts,
            joined_end=joined_end,
            next_due_us=await _next_due(log, [*state.lanes.items(), (None, state.head)]),
            worker_seen_us=status.time_us if status else None,
            epochs=tuple(home.catalog.epochs(loop.loop_id)),
            training=tuple(training),
            versions=tuple(home.catalog.versions(loop.loop_id)),
            set_asides=tuple(home.catalog.set_asides(loop.loop_id)),
            sample=await _sample(log, joined, loop, max(first, joined_end - SAMPLE)),
            disk_is_full=not home.folder.reserve.exists(),
            study=msgspec.json.decode(notes[STUDY], type=StudyStatus) if STUDY in notes else None,
            mirroring=msgspec.json.decode(notes[NOTE], type=MirroringStatus) if NOTE in notes else None,
        )
        return msgspec.structs.replace(facts, unlearned_since_us=await _unlearned(facts, joined))
    finally:
        await log.close()
        await joined.close()


async def _next_due(log: EventLog, lanes: Sequence[tuple[int | None, Offset]]) -> TimeUs | None:
    """Find when the oldest waiting interaction is due: the first of each lane, or of what joining has not read."""
    found = []
    for wait_us, start in lanes:
        for entry in await log.read(start, limit=_LANE_READ):
            record = entry.record
            if isinstance(record, AnyInteraction) and wait_us in (None, record.reward_wait_us):
                found.append(entry.time_us + record.reward_wait_us)
                break
    return min(found, default=None)


async def _unlearned(facts: Facts, joined: JoinedLog) -> dict[int, TimeUs]:
    since = {}
    for epoch in facts.epochs:
        entries = await joined.read(facts.learned_of(epoch)[1] or 0, limit=1)
        if entries:
            since[epoch.epoch_id] = entries[0][1].due_us
    return since


async def _sample(log: EventLog, joined: JoinedLog, loop: Loop, start: Offset) -> Sample:
    events: list[JoinedEvent] = []
    while True:
        more, following = await read_joined(log, joined, start, limit=SAMPLE)
        if following == start:
            break
        events, start = (events + more)[-SAMPLE:], following
    settings = loop.settings
    definition = RewardDefinition(settings.default_reward, settings.reward_aggregation)
    usable = [event for event in events if not event.skip_learn]
    interactions = [event.interaction for event in usable]
    rewards = [
        training_reward(event, definition, slot) for event in usable for slot in range(len(event.interaction.choices))
    ]
    choices = [choice for each in interactions for choice in each.choices]
    several = problem_type_of(settings.policy) is ProblemType.MULTI_SLOT
    return Sample(
        events=len(usable),
        rewards=min(2, len(set(rewards))),
        reward_mean=sum(rewards) / len(rewards) if rewards else None,
        baseline_chosen=sum(each.chose_baseline for each in interactions),
        choices_max=max((len(choice.actions) for choice in choices), default=0),
        logged_only=sum(all(choice.probability >= 1.0 for choice in each.choices) for each in interactions),
        other_kind=sum(isinstance(each, MultiSlotInteraction) is not several for each in interactions),
    )


# Findings


def findings(facts: Facts) -> list[Finding]:
    """Draw the conclusions, the worst first."""
    found = [*_machinery(facts), *_progress(facts), *_rewards(facts), *_choices(facts)]
    order = list(Severity)
    if not any(finding.severity is not Severity.NOTE for finding in found):
        found.insert(
            0,
            Finding(
                severity=Severity.NOTE,
                name="learning",
                what="The loop learns.",
                why="Events are joined and learned as they become due, and models are published.",
            ),
        )
    return sorted(found, key=lambda finding: order.index(finding.severity))


def _machinery(facts: Facts) -> list[Finding]:
    """Whether the parts that learn are at work."""
    found = []
    if not facts.worker_lives:
        seen = (
            "has never run here"
            if facts.worker_seen_us is None
            else f"was last seen {_ago(facts.worker_seen_us, facts)}"
        )
        found.append(
            Finding(
                severity=Severity.PROBLEM,
                name="no-worker",
                what="Nobody joins and learns.",
                why=f"The worker {seen}. Decisions go on being made and kept; nothing is learned from them.",
                do="Start `rankward serve` on this folder; if it runs, read what it says on standard error.",
            )
        )
    if facts.mirroring is not None and facts.mirroring.failure is not None:
        behind = facts.mirroring.joined_end - facts.mirroring.offset
        found.append(
            Finding(
                severity=Severity.WARNING,
                name="mirror-fails",
                what=f"The log is not mirrored: {behind:,} joined events wait.",
                why=f"{facts.mirroring.failure}. It is tried again, and nothing is left out; learning is not touched.",
                do=f"Look after the place, or set another: `rankward settings set {facts.loop.name} "
                "log_mirror_sas_uri=…`.",
            )
        )
    if facts.disk_is_full and facts.worker_lives:
        found.append(
            Finding(
                severity=Severity.PROBLEM,
                name="disk-full",
                what="The disk is full.",
                why="The room that was set aside for such a case has been given up.",
                do="Free some room, or shorten log_retention_days.",
            )
        )
    for epoch in facts.epochs:
        learned, following = facts.learned_of(epoch)
        status = facts.training_of(epoch)
        since_us = facts.unlearned_since_us.get(epoch.epoch_id)
        late = since_us is not None and facts.now_us - since_us > LEARNING_LATE_US
        if status is None and late and facts.worker_lives:
            found.append(
                Finding(
                    severity=Severity.PROBLEM,
                    name="no-trainer",
                    what=f"The trainer of epoch {epoch.epoch_id} gives no sign of life.",
                    why=f"{facts.joined_end - (following or 0):,} joined events are not learned, and no trainer has "
                    f"left word for {ALIVE_US // 1_000_000} s.",
                    do="Look for `trainer` in what the service says on standard error.",
                )
            )
        if epoch.state == "building":
            found.append(_building(facts, epoch, learned))
    if facts.set_asides:
        reasons = Counter(event.reason for event in facts.set_asides)
        [(reason, count)] = reasons.most_common(1)
        found.append(
            Finding(
                severity=Severity.WARNING,
                name="set-aside",
                what=f"{_count(len(facts.set_asides), 'event')} set aside.",
                why=f"The learner cannot use them; mostly ({count:,}): {reason}.",
                do="Nothing else is lost by it. Look at the features of these events: "
                + ", ".join(event.event_id or f"offset {event.interaction}" for event in facts.set_asides[:3])
                + ".",
            )
        )
    return found


def _building(facts: Facts, epoch: Epoch, learned: int) -> Finding:
    progress = building_progress(facts, epoch)
    status = facts.training_of(epoch)
    eta = "it has not begun" if progress is None else f"{progress:.0%} done"
    if progress is not None and status is not None and status.rate_per_s > 0:
        left_s = max(0, status.joined_end - status.joined_offset) / status.rate_per_s
        eta += f", about {_span(left_s)} left"
    return Finding(
        severity=Severity.WAITING,
        name="building",
        what=f"A new model is being built ({epoch.reason}): {eta}.",
        why=f"{learned:,} events learned so far. Until it has caught up, "
        + (
            "the old model decides."
            if facts.loop.model_id and not facts.serves_other_kind
            else "decisions are uniform."
        ),
    )


def building_progress(facts: Facts, epoch: Epoch) -> float | None:
    """How much of the joined log an epoch has gone through, within [0, 1]. None: it has not begun."""
    _, following = facts.learned_of(epoch)
    if following is None:
        return None
    start = epoch.start or 0
    return min(1.0, max(0.0, (following - start) / max(1, facts.joined_end - start)))


def _progress(facts: Facts) -> list[Finding]:
    """How far the way from Rank to the model has been gone."""
    loop = facts.loop
    unread = facts.log_end - facts.head
    if facts.ranked == 0 and facts.next_due_us is None:
        if unread and facts.worker_lives:
            return [_reading(unread)]
        if facts.counts.get("observed", 0):
            why = (
                "Rewards have come, but not one decision they could belong to: Rank is called with another loop's key."
            )
        else:
            why = "No Rank has been called with a key of this loop."
            if facts.imported:
                why += f" {_count(facts.imported, 'event')} of other logs are there to learn from and to evaluate by."
        return [
            Finding(
                severity=Severity.WAITING,
                name="no-decisions",
                what="Nothing has been decided yet.",
                why=why,
                do=f"Try `rankward rank --loop {loop.name} --context '{{\"hour\": 9}}' --action a --action b`, or "
                f"`rankward simulate grocery --loop {loop.name}`.",
            )
        ]
    found = []
    if unread > 1_000:
        found.append(_reading(unread))
    serving = facts.serving
    if serving is not None and facts.serves_other_kind:
        now, before = problem_type_of(loop.settings.policy), problem_type_of(serving.policy)
        found.append(
            Finding(
                severity=Severity.WAITING,
                name="other-kind",
                what="Decisions are uniform until there is a model of the new policy's kind.",
                why=f"The policy decides with --{now}, the model with --{before}: it cannot serve. The new one learns "
                "from events of its own kind.",
            )
        )
    starts_afresh = loop.forgotten_before > 0 and not any(facts.learned_of(epoch)[0] for epoch in facts.epochs)
    if facts.counts.get("joined", 0) == 0 and facts.next_due_us is not None:
        wait = _span(loop.settings.reward_wait.total_seconds())
        left = (
            f"in {_span((facts.next_due_us - facts.now_us) / 1e6)}"
            if facts.next_due_us > facts.now_us
            else "as soon as somebody joins it"
        )
        found.append(
            Finding(
                severity=Severity.WAITING,
                name="reward-wait",
                what=f"The first event becomes learnable at {_moment(facts.next_due_us)}, {left}.",
                why=f"A reward may come for {wait} (reward_wait) after the decision. To learn earlier from those "
                "that were rewarded already would bias the model.",
                do=f"To see it learn sooner: `rankward settings set {loop.name} reward_wait=10s`. It holds for "
                "decisions from then on."
                if loop.settings.reward_wait > timedelta(seconds=10)
                else "",
            )
        )
    elif serving is None and facts.learnable and not starts_afresh:
        found += _first_model(facts)
    if starts_afresh and serving is None:
        found.append(
            Finding(
                severity=Severity.WAITING,
                name="forgotten",
                what="The model was deleted, and decisions are uniform.",
                why="What was decided before that is never learned again; what is decided from now on is.",
            )
        )
    return found


def _first_model(facts: Facts) -> list[Finding]:
    """When the first model is due, or why there is none. Only an epoch of the policy's kind can make it."""
    loop, sample = facts.loop, facts.sample
    kind = problem_type_of(loop.settings.policy)
    if sample.events and sample.other_kind == sample.events:
        return [
            Finding(
                severity=Severity.WAITING,
                name="other-kind",
                what="There is nothing yet that the policy can learn from, and decisions are uniform.",
                why=f"It decides with --{kind}, and the {_count(sample.events, 'event')} looked at "
                f"{'was' if sample.events == 1 else 'were'} decided under a policy of the other kind. The first model "
                "comes of what is decided now.",
            )
        ]
    epoch = next((epoch for epoch in facts.epochs if problem_type_of(epoch.policy) is kind), None)
    if epoch is None:
        return []
    due_us = epoch.created_us + round(_export_s(loop) * 1e6)
    if epoch.state == "serving" and due_us > facts.now_us:
        return [
            Finding(
                severity=Severity.WAITING,
                name="first-model",
                what=f"The first model is due at {_moment(due_us)}.",
                why=f"Models are published every {_span(_export_s(loop))} (model_export_frequency); until then "
                "decisions are uniform.",
                do=f"To see it sooner: `rankward settings set {loop.name} model_export_frequency=10s`.",
            )
        ]
    learned = facts.learned_of(epoch)[0]
    if learned and facts.now_us - due_us > LEARNING_LATE_US and facts.worker_lives:
        return [
            Finding(
                severity=Severity.PROBLEM,
                name="no-model",
                what="There is no model yet, though there are events to learn from.",
                why=f"{_count(learned, 'event')} learned, and the first model was due {_ago(due_us, facts)}.",
                do="Look for `trainer` in what the service says on standard error.",
            )
        ]
    return []


def _reading(unread: int) -> Finding:
    return Finding(
        severity=Severity.WAITING,
        name="behind",
        what=f"Joining is {_count(unread, 'entry', 'entries')} behind.",
        why="They have been logged and not been read by the worker.",
        do="If the number does not fall, the machine is too small for the traffic.",
    )


def _rewards(facts: Facts) -> list[Finding]:
    """Whether rewards come, and find their events."""
    counts, loop = facts.counts, facts.loop
    observed, unknown, late = (counts.get(name, 0) for name in ("observed", "unknown", "late"))
    found = []
    if facts.learnable >= _ENOUGH and counts.get("rewarded", 0) == 0:
        why = (
            "No reward has been reported."
            if not observed
            else f"{observed:,} rewards came, and none found its event in time."
        )
        found.append(
            Finding(
                severity=Severity.PROBLEM,
                name="no-rewards",
                what=f"Every event gets the default reward, {loop.settings.default_reward:g}.",
                why=f"{why} So no action looks better than another.",
                do="Call Reward with the event id that Rank answered, within "
                f"{_span(loop.settings.reward_wait.total_seconds())}, with a key of this loop.",
            )
        )
    elif facts.sample.events >= _ENOUGH and facts.sample.rewards == 1:
        found.append(
            Finding(
                severity=Severity.PROBLEM,
                name="constant-reward",
                what=f"The last {facts.sample.events:,} events all have the reward {facts.sample.reward_mean:g}.",
                why="Where every choice earns the same, there is nothing to learn.",
                do="Report what differs between a good and a bad choice, and mind that no reward means "
                f"{loop.settings.default_reward:g} (default_reward).",
            )
        )
    if unknown and unknown >= 0.01 * max(observed, _ENOUGH):
        found.append(
            Finding(
                severity=Severity.WARNING,
                name="unknown-events",
                what=f"{_count(unknown, 'reward')} found no event ({unknown / max(1, observed):.1%}).",
                why="No decision of this loop has the event id that was reported, or it is longer ago than a day "
                "after its wait.",
                do="Check that Reward is called with the id that Rank answered, on the same loop.",
            )
        )
    unknown_slot = counts.get("unknown_slot", 0)
    if unknown_slot and unknown_slot >= 0.01 * max(observed, _ENOUGH):
        found.append(
            Finding(
                severity=Severity.WARNING,
                name="unknown-slots",
                what=f"{_count(unknown_slot, 'reward')} found no slot ({unknown_slot / max(1, observed):.1%}).",
                why="Their events have no slot of the id that was reported.",
                do="Check that Reward names slots as Rank was given them.",
            )
        )
    if late and late >= 0.01 * max(observed, _ENOUGH):
        found.append(
            Finding(
                severity=Severity.WARNING,
                name="late-rewards",
                what=f"{_count(late, 'reward')} came too late ({late / max(1, observed):.1%}).",
                why=f"They came after the reward wait of {_span(loop.settings.reward_wait.total_seconds())}, when the "
                "event had been learned with the default reward.",
                do=f"Report rewards sooner, or wait longer: `rankward settings set {loop.name} reward_wait=…`.",
            )
        )
    never = counts.get("never_activated", 0)
    if never and never >= 0.05 * max(counts.get("joined", 0), _ENOUGH):
        found.append(
            Finding(
                severity=Severity.WARNING,
                name="never-activated",
                what=f"{_count(never, 'decision')} deferred and never activated.",
                why="With deferActivation, a decision counts once Activate is called: without, nothing is learned "
                "from it.",
                do="Call Activate when the action is really shown, or leave deferActivation out.",
            )
        )
    repeats = counts.get("repeats", 0)
    if repeats and repeats >= 0.01 * max(facts.ranked, _ENOUGH):
        found.append(
            Finding(
                severity=Severity.WARNING,
                name="repeated-ids",
                what=f"{_count(repeats, 'decision')} under an event id that was used before.",
                why="A reward goes to the first decision whose wait holds it, so the others look unrewarded.",
                do="Give every decision an id of its own, or leave eventId out.",
            )
        )
    return found


def _choices(facts: Facts) -> list[Finding]:
    """Whether there is something to choose, and something left to chance."""
    settings, sample = facts.loop.settings, facts.sample
    found = []
    if sample.events >= _ENOUGH and sample.choices_max == 1:
        found.append(
            Finding(
                severity=Severity.PROBLEM,
                name="one-action",
                what=f"The last {sample.events:,} decisions had one action each.",
                why="Where there is no choice, there is nothing to learn.",
                do="Send every action that could be shown, and let Rank choose.",
            )
        )
    if settings.learning_mode is LearningMode.APPRENTICE:
        found.append(
            Finding(
                severity=Severity.NOTE,
                name="apprentice",
                what="Apprentice: the first action is shown, and the model learns to match it.",
                why=f"It would have chosen the same in {_share(sample.baseline_chosen, sample.events)} of the newest "
                "events.",
                do=f"Once that is high enough: `rankward settings set {facts.loop.name} learning_mode=Online`.",
            )
        )
    elif settings.learning_mode is LearningMode.LOGGING_ONLY:
        found.append(
            Finding(
                severity=Severity.WARNING,
                name="logging-only",
                what="LoggingOnly: the first action is always shown.",
                why="The model has no say, and learns nothing about actions that are never shown.",
                do=f"To let it decide: `rankward settings set {facts.loop.name} learning_mode=Online`.",
            )
        )
    elif settings.exploration == 0.0:
        found.append(
            Finding(
                severity=Severity.WARNING,
                name="no-exploration",
                what="exploration is 0.",
                why="Nothing new is tried, so a wrong first impression is never put right, and no other policy can be "
                "evaluated from the log.",
                do=f"`rankward settings set {facts.loop.name} exploration=0.02`.",
            )
        )
    return found


# Words


def _export_s(loop: Loop) -> float:
    return loop.settings.model_export_frequency.total_seconds()


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "—"


def _moment(time_us: TimeUs) -> str:
    """Write a time of day, as the clock on the wall has it."""
    return f"{datetime.fromtimestamp(time_us / 1e6).astimezone():%H:%M:%S}"


def _ago(time_us: TimeUs, facts: Facts) -> str:
    return f"{_span((facts.now_us - time_us) / 1e6)} ago"


def _span(seconds: float) -> str:
    """Write a length of time in at most two units.

    >>> _span(3723)
    '1 h 2 min'
    """
    seconds = max(0.0, seconds)
    if seconds < 10:
        return f"{seconds:.3g} s"
    rest = timedelta(seconds=round(seconds))
    days, (hours, minutes) = rest.days, divmod(rest.seconds // 60, 60)
    units = [(days, "d"), (hours, "h"), (minutes, "min"), (rest.seconds % 60, "s")]
    while units[0][0] == 0:
        units.pop(0)
    return " ".join(f"{number} {unit}" for number, unit in units[:2] if number)


# The report


class Figure(msgspec.Struct, frozen=True):
    """A line of the screen's table."""

    name: str
    value: str
    remark: str  # empty: there is nothing to add


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Facts and findings, for scripts and for the screen."""

    loop: str
    learning_mode: LearningMode
    preset: str | None  # None: a policy of its own
    time_us: TimeUs
    findings: tuple[Finding, ...]
    counts: dict[str, int]
    waiting: int
    unread: int
    learned: dict[int, int]  # by epoch
    match_rate: float | None  # share of draws equal to the baseline; None: nothing is joined
    default_share: float | None
    set_aside: dict[str, int]  # by reason
    model_id: ModelId | None
    model_created_us: TimeUs | None
    model_learned: int | None
    next_due_us: TimeUs | None
    worker_lives: bool
    figures: tuple[Figure, ...]  # where the events are, from Rank to the model: for people


def report(facts: Facts, found: Sequence[Finding]) -> Report:
    """Put the findings and the figures behind them together."""
    serving = facts.serving
    return Report(
        loop=facts.loop.name,
        learning_mode=facts.loop.settings.learning_mode,
        preset=facts.loop.settings.preset,
        time_us=facts.now_us,
        findings=tuple(found),
        counts=facts.counts,
        waiting=facts.waiting,
        unread=facts.log_end - facts.head,
        learned={epoch.epoch_id: facts.learned_of(epoch)[0] for epoch in facts.epochs},
        match_rate=facts.counts.get("baseline_chosen", 0) / facts.learnable if facts.learnable else None,
        default_share=facts.counts.get("defaulted", 0) / facts.learnable if facts.learnable else None,
        set_aside=dict(Counter(event.reason for event in facts.set_asides)),
        model_id=facts.loop.model_id,
        model_created_us=serving.created_us if serving else None,
        model_learned=serving.learned if serving else None,
        next_due_us=facts.next_due_us,
        worker_lives=facts.worker_lives,
        figures=tuple([Figure(*row) for row in _rows(facts)]),
    )


def _rows(facts: Facts) -> list[tuple[str, str, str]]:
    """Say where the events are, from Rank to the model: name, number, remark."""
    counts = facts.counts
    joined = counts.get("joined", 0)
    serving = facts.serving
    made = [("ranked", f"{facts.ranked:,}", _unless_zero("under a repeated event id", counts.get("repeats", 0)))]
    unread = facts.log_end - facts.head
    if unread:
        made.append(("not read yet", f"{unread:,}", "log entries that joining has not reached"))
    due = "" if facts.next_due_us is None else f"the next is due at {_moment(facts.next_due_us)}"
    made += [
        ("waiting for rewards", f"{facts.waiting:,}", due if facts.waiting or unread else ""),
        ("joined", f"{joined:,}", _unless_zero("never activated", counts.get("never_activated", 0))),
        *([("imported", f"{facts.imported:,}", "joined elsewhere")] if facts.imported else []),
        ("  with a reward", f"{counts.get('rewarded', 0):,}", _share(counts.get("rewarded", 0), facts.learnable)),
        ("  with the default", f"{counts.get('defaulted', 0):,}", _share(counts.get("defaulted", 0), facts.learnable)),
        (
            "rewards reported",
            f"{counts.get('observed', 0):,}",
            ", ".join(
                part
                for part in (
                    _unless_zero("found no event", counts.get("unknown", 0)),
                    _unless_zero("found no slot", counts.get("unknown_slot", 0)),
                    _unless_zero("came too late", counts.get("late", 0)),
                )
                if part
            ),
        ),
        (
            "same as first action",
            _share(counts.get("baseline_chosen", 0), facts.learnable),
            f"{_share(facts.sample.baseline_chosen, facts.sample.events)} of the newest {facts.sample.events:,}"
            if facts.sample.events
            else "",
        ),
        ("set aside", f"{len(facts.set_asides):,}", facts.set_asides[-1].reason if facts.set_asides else ""),
    ]
    if facts.sample.reward_mean is not None:
        made.append(("mean reward", f"{facts.sample.reward_mean:.4f}", f"of the newest {facts.sample.events:,}"))
    for epoch in facts.epochs:
        learned, following = facts.learned_of(epoch)
        behind = facts.joined_end - following if following is not None else facts.joined_end
        where = epoch.state if epoch.state == "serving" else f"building, {building_progress(facts, epoch) or 0:.0%}"
        behind_text = f", {behind:,} joined events behind" if behind else ""
        made.append((f"learned, epoch {epoch.epoch_id}", f"{learned:,}", f"{where}{behind_text}"))
        if epoch.rate is not None:
            made.append((f"rate, epoch {epoch.epoch_id}", epoch.rate.name, describe(epoch.rate)))
    made.append(_model_row(facts, serving))
    if facts.study is not None and facts.worker_lives:
        left = facts.study.remaining_s
        pace = f"{facts.study.rate_per_s:,.0f} events/s" + ("" if left is None else f", {_span(left)} left")
        made.append((f"{facts.study.kind} runs", f"{facts.study.done:.0%}", pace))
    worker = "at work" if facts.worker_lives else "not running"
    seen = "" if facts.worker_seen_us is None else f"last seen {_ago(facts.worker_seen_us, facts)}"
    made.append(("worker", worker, "" if facts.worker_lives else seen))
    return made


def _model_row(facts: Facts, serving: ModelVersion | None) -> tuple[str, str, str]:
    if serving is None:
        return ("model", "none", "decisions are uniform")
    remark = f"made {_ago(serving.created_us, facts)} from {serving.learned:,} events"
    newer = any(facts.learned_of(epoch)[0] > serving.learned for epoch in facts.epochs if epoch.state == "serving")
    due_us = serving.created_us + round(_export_s(facts.loop) * 1e6)
    if newer and due_us > facts.now_us:
        remark += f"; the next is due at {_moment(due_us)}"
    elif not newer:
        remark += f"; the next when there is more to learn, at most every {_span(_export_s(facts.loop))}"
    return ("model", serving.model_id, remark)


def _unless_zero(what: str, number: int) -> str:
    return f"{number:,} {what}" if number else ""


# The screen

_MARKS = {
    Severity.PROBLEM: ("✗", "bold red"),
    Severity.WARNING: ("!", "bold yellow"),
    Severity.WAITING: ("…", "bold cyan"),
    Severity.NOTE: ("✓", "bold green"),
}


def screen(made: Report) -> RenderableType:
    """Draw one loop on one screen."""
    title = Text.assemble(
        ("loop ", "dim"), (made.loop, "bold"), (f"   {made.learning_mode}, preset {made.preset or 'none'}", "dim")
    )
    return Panel(Group(_conclusions(made.findings), "", _table(made.figures)), title=title, title_align="left")


def _conclusions(found: Sequence[Finding]) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(width=1)
    table.add_column()
    for finding in found:
        mark, style = _MARKS[finding.severity]
        text = Text(finding.what, style="bold")
        text.append(f" {finding.why}", style="not bold")
        if finding.do:
            text.append(f" → {finding.do}", style="not bold cyan")
        table.add_row(Text(mark, style=style), text)
    return table


def _table(figures: Sequence[Figure]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(justify="right")
    table.add_column()
    for figure in figures:
        table.add_row(figure.name, Text(figure.value), Text(figure.remark))
    return table
