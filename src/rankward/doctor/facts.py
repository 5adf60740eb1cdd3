"""What the doctor looks at: facts about a loop at one moment, from whatever is on record.

They are read from the files, so that it works whether the service runs or not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from rankward.archiving.layout import shown
from rankward.archiving.service import NOTE as ARCHIVING
from rankward.archiving.service import ArchivingStatus, read_status
from rankward.challengers import ChallengerService, Position
from rankward.cluster.standing import Standing
from rankward.joining.reader import read_joined
from rankward.joining.reward import RewardDefinition, training_reward
from rankward.mirroring.service import NOTE, MirroringStatus
from rankward.records import AnyHeader, HeaderEntry, JoinedEvent, MultiSlotInteraction, Offset, TimeUs
from rankward.store.optimizations import Optimization
from rankward.store.ports import Epoch, EventLog, JoinedLog, Lead, Loop, ModelVersion, SetAside
from rankward.study_run import NOTE as STUDY
from rankward.study_run import StudyStatus
from rankward.telemetry import find_version, read_statuses, read_watching
from rankward.training.service import TrainingStatus
from rankward.vw.arguments import ProblemType, problem_type_of
from rankward.watching.apprentice import Apprenticeship
from rankward.watching.comparison import LiveComparison
from rankward.watching.exploration import Exploration
from rankward.watching.service import WatchingStatus
from rankward.wiring import Home

ALIVE_US = 10_000_000  # the worker and the trainers leave word every five seconds at least
SAMPLE = 1_000  # newest joined events that are looked into
_LANE_READ = 2_000  # entries of a lane, before its oldest waiting event is given up
_AT_ONCE = 100  # of them: mostly it is the first


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
    archiving: ArchivingStatus | None = None  # None: nothing is archived, or nobody has said how far it is
    challengers: tuple[Position, ...] = ()
    optimization: Optimization | None = None  # the newest run; None: there was none
    younger: int = 0  # models that learn beside the one that serves, to take over when they do better
    watching: WatchingStatus | None = None  # None: nobody has kept figures of it yet
    comparison: LiveComparison | None = None  # None: nothing is joined
    apprenticeship: Apprenticeship | None = None  # the same
    exploring: Exploration | None = None  # the same
    standing: Standing | None = None  # of the node, in a cluster
    waits_here: bool = False  # whether events wait on this node for the servers of the cluster
    lead: Lead | None = None  # who leads the loop there; None: nobody ever did
    unlearned_since_us: dict[int, TimeUs] = {}  # by epoch: when its oldest joined event not learned could have been

    @property
    def worker_lives(self) -> bool:
        """Whether somebody joins and trains."""
        return self.worker_seen_us is not None and self.now_us - self.worker_seen_us < ALIVE_US

    @property
    def replica_queue(self) -> int:
        """Messages of the loop that the node's replica lacks; 0 where the installation is embedded."""
        return 0 if self.standing is None else self.standing.behind.get(self.loop.loop_id, 0)

    @property
    def leader(self) -> str | None:
        """The node whose worker leads the loop, in a cluster. None: nobody does, or it is dead."""
        if self.lead is None or self.standing is None or self.lead.holder not in self.standing.workers:
            return None
        return self.lead.holder

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

    @property
    def export_s(self) -> float:
        """How often a model is published, in seconds."""
        return self.loop.settings.model_export_frequency.total_seconds()

    def learned_of(self, epoch: Epoch) -> tuple[int, Offset | None]:
        """How many events an epoch has learned, and the next joined event. None: it has not begun."""
        status = self.training_of(epoch)
        if status is not None:
            return status.learned, status.joined_offset
        newest = max(
            (v for v in self.versions if v.epoch_id == epoch.epoch_id), key=lambda v: v.joined_offset, default=None
        )
        return (newest.learned, newest.joined_offset) if newest else (0, epoch.start)


async def gather(home: Home, loop: Loop) -> Facts:
    """Read the facts about a loop."""
    async with home.logs(loop.loop_id) as (log, joined):
        state = await joined.state()
        first, joined_end = await joined.extent()
        extent = await log.extent()
        notes = home.board.read(loop.loop_id)
        challengers = ChallengerService(home, home.trail)
        status, training = read_statuses(notes)
        figures = home.figures()
        url = home.archives.url
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
            optimization=next(iter(home.optimizations.listed(loop.loop_id)), None),
            study=msgspec.json.decode(notes[STUDY], type=StudyStatus) if STUDY in notes else None,
            watching=read_watching(notes),
            comparison=figures.comparison(loop) if joined_end else None,
            apprenticeship=figures.apprentice(loop) if joined_end else None,
            exploring=figures.exploration(loop) if joined_end else None,
            mirroring=msgspec.json.decode(notes[NOTE], type=MirroringStatus) if NOTE in notes else None,
            archiving=None if url is None else read_status(notes.get(ARCHIVING), shown(url)),
            challengers=tuple(await challengers.listed(loop)),
            younger=challengers.younger(loop),
            standing=home.standing(),
            waits_here=home.waiting(loop.loop_id),
            lead=home.catalog.leads().get(loop.loop_id),
        )
        return msgspec.structs.replace(facts, unlearned_since_us=await _unlearned(facts, joined))


async def _next_due(log: EventLog, lanes: Sequence[tuple[int | None, Offset]]) -> TimeUs | None:
    """Find when the oldest waiting interaction is due: the first of each lane, or of what joining has not read."""
    found = []
    for wait_us, start in lanes:
        position, end, due_us = start, start + _LANE_READ, None
        while due_us is None and position < end:
            entries = await log.read_headers(position, limit=min(_AT_ONCE, end - position))
            if not entries:
                break
            due_us = next(_due(entries, wait_us), None)
            position = entries[-1].offset + 1
        if due_us is not None:
            found.append(due_us)
    return min(found, default=None)


def _due(entries: Sequence[HeaderEntry], wait_us: int | None) -> Iterator[TimeUs]:
    """Tell when interactions are due, of one reward wait or, if that is None, of any."""
    for entry in entries:
        record = entry.record
        if isinstance(record, AnyHeader) and wait_us in (None, record.reward_wait_us):
            yield entry.time_us + record.reward_wait_us


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
    choices = [each.choices for each in interactions]
    rewards = [
        training_reward(event, definition, slot)
        for event, slots in zip(usable, choices, strict=True)
        for slot in range(len(slots))
    ]
    several = problem_type_of(settings.policy) is ProblemType.MULTI_SLOT
    return Sample(
        events=len(usable),
        rewards=min(2, len(set(rewards))),
        reward_mean=sum(rewards) / len(rewards) if rewards else None,
        baseline_chosen=sum(each.chose_baseline for each in interactions),
        choices_max=max((len(choice.actions) for slots in choices for choice in slots), default=0),
        logged_only=sum(all(choice.probability >= 1.0 for choice in slots) for slots in choices),
        other_kind=sum(isinstance(each, MultiSlotInteraction) is not several for each in interactions),
    )


# Findings
