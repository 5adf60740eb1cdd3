"""What is written down: the entries of the event log and of the joined log.

These records outlive the code that wrote them. A new field has a default, an old field keeps its
meaning, and the name of a retired field is not used again.

Those that come by the thousand are kept from the garbage collector (`gc=False`): they hold nothing that could
hold them, and to look through them again and again took a third of the time of joining.
"""

from __future__ import annotations

import enum
from collections.abc import Container, Sequence
from typing import NewType

import msgspec

EventId = str  # at most 256 characters, chosen by the caller or made by us
ModelId = str
Offset = int  # counts from 0 and grows by 1, in each log of its own
TimeUs = int  # microseconds since 1970-01-01T00:00:00Z, as the log stamped them
Features = NewType("Features", bytes)
"""Checked features: compact JSON text of an array of objects, as `ranking.features` wrote it."""


class LearningMode(enum.StrEnum):
    """Who decides, and what is learned from it."""

    ONLINE = "Online"  # the model decides, and learns from rewards
    APPRENTICE = "Apprentice"  # the baseline is shown; the model learns to match it
    LOGGING_ONLY = "LoggingOnly"  # the baseline is shown and logged as the decision


class Arm(enum.StrEnum):
    """Which part of the traffic a decision belongs to."""

    POLICY = "policy"
    CONTROL = "control"
    UNIFORM = "uniform"


class Action(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An option with its features."""

    id: str
    features: Features


UNNAMED_SLOT = ""
"""Id of the one slot of a decision that was asked for without slots."""


class Slot(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A place to fill with an action."""

    id: str
    features: Features  # `[]`: it has none
    baseline: int  # index into the interaction's `actions`: what the application would show here by itself
    excluded: tuple[int, ...] = ()  # indexes into `actions`, ascending: what must not be chosen here


class SlotChoice(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What was drawn for one slot, out of the actions that earlier slots had left."""

    actions: tuple[int, ...]  # indexes into the interaction's `actions`; the drawn one first
    pmf: tuple[float, ...]  # as drawn from, one for each of `actions`; sums to 1

    @property
    def chosen(self) -> int:
        """Index into the interaction's `actions`: what was drawn, whatever was shown."""
        return self.actions[0]

    @property
    def probability(self) -> float:
        """Of the drawn action."""
        return self.pmf[0]


class Interaction(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="interaction"):
    """A decision, as the event log keeps it. Offset and time are the log's to give, on append."""

    event_id: EventId
    context: Features
    actions: tuple[Action, ...]  # in the order the caller sent them: the first not excluded is the baseline
    pmf: tuple[float, ...]  # as drawn from, one for each action, 0 for an excluded one; sums to 1
    chosen: int  # index into `actions`: what was drawn, whatever was shown
    learning_mode: LearningMode
    reward_wait_us: int  # the wait it was decided with
    excluded: tuple[int, ...] = ()  # indexes into `actions`, ascending
    deferred: bool = False  # counts only once an activation has come
    model_id: ModelId | None = None  # None: decided before any model was published
    repeats: bool = False  # its event id was known when it came; set by the log
    arm: Arm = Arm.POLICY
    arm_probability: float = 1.0  # of this arm being the one that chose
    subject: str | None = None  # opaque: whose event this is; None: nobody said
    pass_probability: float = 1.0  # of a client that uploads a sample having kept this event: weight is its inverse

    @property
    def rankable(self) -> list[int]:
        """Indexes of the actions that could have been drawn, in request order."""
        return without(self.excluded, len(self.actions))

    @property
    def baseline(self) -> int:
        """Index of the action that the application would show by itself: the first not excluded."""
        return first_without(self.excluded)

    @property
    def shown(self) -> int:
        """Index of the action that the caller was told to show."""
        return self.chosen if self.learning_mode is LearningMode.ONLINE else self.baseline

    @property
    def chose_baseline(self) -> bool:
        """Whether the baseline was drawn."""
        return self.chosen == self.baseline

    @property
    def slots(self) -> tuple[Slot]:
        """What was to be filled, as one slot."""
        return (Slot(UNNAMED_SLOT, Features(b"[]"), self.baseline, self.excluded),)

    @property
    def choices(self) -> tuple[SlotChoice]:
        """The decision as that of one slot, the drawn action first and the others in request order."""
        order = [self.chosen, *(index for index in self.rankable if index != self.chosen)]
        return (SlotChoice(tuple(order), tuple([self.pmf[index] for index in order])),)

    def same_request(self, other: AnyInteraction) -> bool:
        """Whether both were asked the same question, whatever the answers were."""
        return _same_request(self, other)


class MultiSlotInteraction(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="multislot"):
    """Decisions for several slots at once. Fields that `Interaction` has too mean the same here."""

    event_id: EventId
    context: Features
    actions: tuple[Action, ...]  # in the order the caller sent them
    slots: tuple[Slot, ...]  # in the order in which they chose
    choices: tuple[SlotChoice, ...]  # one for each slot
    learning_mode: LearningMode
    reward_wait_us: int
    deferred: bool = False
    model_id: ModelId | None = None
    repeats: bool = False
    arm: Arm = Arm.POLICY
    arm_probability: float = 1.0
    subject: str | None = None
    pass_probability: float = 1.0

    @property
    def shown(self) -> list[int]:
        """Index of the action that the caller was told to show, for each slot."""
        if self.learning_mode is LearningMode.ONLINE:
            return [choice.chosen for choice in self.choices]
        return [slot.baseline for slot in self.slots]

    @property
    def chose_baseline(self) -> bool:
        """Whether every slot's baseline was drawn."""
        return chose_baselines(self.slots, self.choices)

    def same_request(self, other: AnyInteraction) -> bool:
        """Whether both were asked the same question, whatever the answers were."""
        return _same_request(self, other)


AnyInteraction = Interaction | MultiSlotInteraction
"""A decision of either kind."""


def _same_request(one: AnyInteraction, other: AnyInteraction) -> bool:
    return (
        one.event_id == other.event_id
        and one.context == other.context
        and one.actions == other.actions
        and one.slots == other.slots
        and one.deferred == other.deferred
    )


class Observation(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="observation"):
    """One reward reported for an event id."""

    event_id: EventId
    value: float
    metrics: dict[str, float] = {}  # named figures beside the reward; never learned
    subject: str | None = None
    slot: str | None = None  # id of the slot it is about; None: the whole event
    report: str | None = None  # its reporter's name for it: what is sent again counts once; None: it has no name


class Activation(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="activation"):
    """Word that a deferred decision was really shown."""

    event_id: EventId


class SettingsChange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="settings"):
    """The settings of a loop from here on."""

    settings: msgspec.Raw  # JSON of the whole `settings.LoopSettings`
    cause: str | None = None  # what changed them, for people; None: an earlier version, which did not say


class PastObservation(msgspec.Struct, frozen=True, gc=False, array_like=True, omit_defaults=True):
    """An observation that was made elsewhere, before."""

    time_us: TimeUs  # that of the decision, where the log that it came from does not say
    value: float
    metrics: dict[str, float] = {}
    slot: str | None = None


class History(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="history"):
    """A joined event from another log: decided, observed and joined elsewhere, or earlier."""

    interaction: AnyInteraction
    time_us: TimeUs  # of the decision, as its own log had it
    observations: tuple[PastObservation, ...] = ()  # in the order in which they came
    activated: bool = False

    def joined(self, offset: Offset, due_us: TimeUs) -> JoinedEntry:
        """Say what was joined, for a place in a log.

        Args:
            offset: of this record in the event log.
            due_us: when it was appended there: imported events come in the order of their import.
        """
        observations = tuple(
            [JoinedObservation(offset, each.time_us, each.value, each.metrics, each.slot) for each in self.observations]
        )
        return JoinedEntry(offset, self.time_us, due_us, observations, self.activated, imported=True)


class ImportProgress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="import"):
    """How far the import of a file has come: appended together with the `History` that it has given so far."""

    digest: str  # SHA-256 of the file, hex: what it is known by, whatever it is called
    name: str  # of the file, for people
    lines: int  # read so far
    counts: dict[str, int]  # what became of them
    learning_mode: LearningMode | None = None  # of the newest line that showed it; None: none has
    finished: bool = False


class Erased(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="erased"):
    """What stands where a record was that had to be forgotten: only what joining needs to do as it did before."""

    reward_wait_us: int | None = None  # of the interaction that was here; None: it was none
    decided_us: TimeUs | None = None  # when the imported event that was here was decided; None: it was none


class Tick(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="tick"):
    """Time has passed: appended when nothing else was, so that waiting events can be joined."""


Record = (
    Interaction
    | MultiSlotInteraction
    | Observation
    | Activation
    | SettingsChange
    | Tick
    | History
    | ImportProgress
    | Erased
)


class Interactions(msgspec.Struct, frozen=True, array_like=True):
    """Which namespaces a model pairs with which, by first letter."""

    pairs: tuple[str, ...]
    ignore_linear: tuple[str, ...]  # letters that get no weights of their own


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """How fast a model learns, chosen for the noise of a loop's rewards, and what it was chosen by."""

    name: str
    options: str  # of the learner, in place of the policy's; "": those of the policy
    learned: int  # events that had been learned by then
    events: int  # that it was measured on
    errors: dict[str, float]  # mean weighted squared error of each rate, by name


class Bins(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model cuts the numbers among its features into intervals, and what that was found by."""

    edges: dict[str, dict[str, tuple[float, ...]]]  # by namespace and name, ascending; an edge is its interval's least
    events: int  # decisions that they were found in


class LogEntry(msgspec.Struct, frozen=True, gc=False):
    """A record with its place in the event log."""

    offset: Offset
    time_us: TimeUs  # never less than that of the entry before
    record: Record


class InteractionHeader(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="interaction"):
    """What joining needs of an interaction: read from the same bytes, without the features."""

    event_id: EventId
    chosen: int
    reward_wait_us: int
    excluded: tuple[int, ...] = ()
    deferred: bool = False
    repeats: bool = False

    @property
    def chose_baseline(self) -> bool:
        """See `Interaction.chose_baseline`."""
        return self.chosen == first_without(self.excluded)


class MultiSlotHeader(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="multislot"):
    """The same of an interaction for several slots."""

    event_id: EventId
    slots: tuple[Slot, ...]
    choices: tuple[SlotChoice, ...]
    reward_wait_us: int
    deferred: bool = False
    repeats: bool = False

    @property
    def chose_baseline(self) -> bool:
        """See `MultiSlotInteraction.chose_baseline`."""
        return chose_baselines(self.slots, self.choices)


AnyHeader = InteractionHeader | MultiSlotHeader
Header = AnyHeader | Observation | Activation | SettingsChange | Tick | History | ImportProgress | Erased
"""Of `History`, the interaction comes without its actions."""


class HeaderEntry(msgspec.Struct, frozen=True, gc=False):
    """A record with its place in the event log, as far as joining needs it."""

    offset: Offset
    time_us: TimeUs  # never less than that of the entry before
    record: Header


class JoinedObservation(msgspec.Struct, frozen=True, gc=False, array_like=True, omit_defaults=True):
    """An observation that fell into an interaction's window."""

    offset: Offset  # in the event log
    time_us: TimeUs
    value: float
    metrics: dict[str, float] = {}
    slot: str | None = None
    report: str | None = None


class JoinedEntry(msgspec.Struct, frozen=True, gc=False, array_like=True, omit_defaults=True):
    """An interaction, by reference, with all that was observed of it before its wait was over."""

    interaction: Offset  # in the event log
    time_us: TimeUs  # of the interaction
    due_us: TimeUs  # when its wait was over: entries stand in the order of (due_us, interaction)
    observations: tuple[JoinedObservation, ...] = ()  # in log order
    activated: bool = False  # whether an activation fell into the window
    imported: bool = False  # what it refers to is a `History`, which has its interaction


class JoinedEvent(msgspec.Struct, frozen=True, gc=False):
    """An interaction with the observations that its reward is computed from."""

    offset: Offset  # in the joined log
    entry: JoinedEntry
    interaction: AnyInteraction

    @property
    def skip_learn(self) -> bool:
        """Deferred and never activated: it was not shown, so nothing can be learned from it."""
        return self.interaction.deferred and not self.entry.activated


class Appended(msgspec.Struct, frozen=True):
    """The record is in the log. Where, is said by reading it: in a cluster, a node may not have it yet."""


class Known(msgspec.Struct, frozen=True):
    """The record was not stored: the log already holds the same interaction."""

    entry: LogEntry


AppendResult = Appended | Known


def without(excluded: Sequence[int], count: int) -> list[int]:
    """List the indexes below `count` that are not excluded, ascending."""
    if not excluded:
        return list(range(count))
    return [index for index in range(count) if index not in excluded]


def first_without(excluded: Container[int]) -> int:
    """Return the lowest index that is not excluded.

    >>> first_without((0, 1, 3))
    2
    """
    index = 0
    while index in excluded:
        index += 1
    return index


def chose_baselines(slots: Sequence[Slot], choices: Sequence[SlotChoice]) -> bool:
    """Tell whether every slot's baseline was drawn."""
    return all(choice.chosen == slot.baseline for slot, choice in zip(slots, choices, strict=True))


def interactions(entries: Sequence[LogEntry]) -> list[tuple[LogEntry, AnyInteraction]]:
    """Pick the interactions out of a stretch of the log, in log order."""
    return [(entry, entry.record) for entry in entries if isinstance(entry.record, AnyInteraction)]
