"""Replays logged decisions on an old model, in a process of its own.

Which weights the log explains is found by the learner itself: one that has learned nothing, under the model's own
arguments, learns every action that was offered, and whatever weight it moves belongs to a feature, or an
interaction of features, of the log. So there is no second account of how features are hashed, and reductions that
keep several models in one table are no exception.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection

import msgspec

from rankward.errors import RankwardError
from rankward.evaluation.files import LogFiles
from rankward.evaluation.report import Line
from rankward.migration.parity import Comparison, Probabilities, Weights, explained_weights
from rankward.ranking.explore import InvalidPmfError, check_pmf, floored
from rankward.records import (
    Action,
    AnyInteraction,
    Interaction,
    LearningMode,
    MultiSlotInteraction,
    Slot,
    SlotChoice,
    TimeUs,
)
from rankward.vw.arguments import ProblemType
from rankward.vw.learner import Learner, LearnerRefusedError

FLAWS_KEPT = 20
_NICENESS = 10  # serving comes first
_TELL_EVERY_S = 0.5
_FIRST_LOOK = 256  # events until it is looked at which weights have moved; then after twice as many
_REPEATS = 8  # of an event, where a learner passes over one in three at random: it misses 1 in 3,000 then
_GOLDEN = (5**0.5 - 1) / 2  # whose multiples lie everywhere within [0, 1), modulo 1

NO_MODEL = "decided before there was a model"
BASELINE_LOGGED = "the baseline was logged, with probability 1"
OTHER_KIND = "for several slots, and the model is for one"
UNSCORED = "the model cannot score it"


class ReplayFailedError(RankwardError):
    """A replay could not be ended."""


class OldModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model to replay decisions on."""

    model: bytes
    arguments: str  # the learner's, as `vw.presets.learner_arguments` writes them
    epsilon: float  # the floor of probabilities, within [0, 1]
    problem_type: ProblemType


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a replay."""

    decisions: int
    weights: Weights | None  # None: there is no model, or no decision, as for `probabilities`
    probabilities: Probabilities | None
    skipped: dict[str, int]  # lines, by why
    flaws: list[Line]  # the first of them
    first_us: TimeUs | None  # of the decisions; None: there are none
    last_us: TimeUs | None


class Told(msgspec.Struct, kw_only=True):
    """How far a replay has come."""

    read: float = 0.0  # of the log, within [0, 1]
    decisions: int = 0
    done: Replayed | None = None
    failure: str | None = None


def replay(log: LogFiles, old: OldModel | None, told: Callable[[Told], None] = lambda _: None) -> Replayed:
    """Replay a log. Blocks until it is done.

    Args:
        log: what was decided.
        old: the model; None: there is none, and the log is read and checked alone.
        told: hears how far it is, now and then.

    Raises:
        ReplayFailedError: a file is damaged, or the learner broke.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(log, old, theirs), daemon=True)
    process.start()
    theirs.close()
    state = Told()
    try:
        while state.done is None:
            state = msgspec.msgpack.decode(ours.recv_bytes(), type=Told)
            if state.failure is not None:
                raise ReplayFailedError(state.failure)
            told(state)
    except EOFError:
        process.join()
        raise ReplayFailedError(
            f"the process that replayed the log ended with status {process.exitcode} after {state.decisions} decisions"
        ) from None
    finally:
        if process.is_alive():
            process.terminate()
        process.join()
        ours.close()
    return state.done


def _work(log: LogFiles, old: OldModel | None, connection: Connection) -> None:
    with contextlib.suppress(OSError):
        os.nice(_NICENESS)
    state = Told()
    told_s = time.monotonic()
    try:
        replaying = Replay(old)
        skipped: Counter[str] = Counter()
        flaws: list[Line] = []
        first_us: TimeUs | None = None
        last_us: TimeUs | None = None
        for batch in log.batches():
            for event in batch.events:
                replaying.take(event.interaction)
                time_us = event.entry.time_us
                first_us = time_us if first_us is None else min(first_us, time_us)
                last_us = time_us if last_us is None else max(last_us, time_us)
            skipped.update(batch.skipped)
            flaws = [*flaws, *batch.flaws][:FLAWS_KEPT]
            state.read, state.decisions = batch.read, state.decisions + len(batch.events)
            if time.monotonic() - told_s >= _TELL_EVERY_S:
                told_s = time.monotonic()
                connection.send_bytes(msgspec.msgpack.encode(state))
        weights, probabilities = replaying.end() if state.decisions else (None, None)
        state.done = Replayed(
            decisions=state.decisions,
            weights=weights,
            probabilities=probabilities,
            skipped=dict(skipped),
            flaws=flaws,
            first_us=first_us,
            last_us=last_us,
        )
    except (RankwardError, OSError) as error:
        state.failure = str(error)
    connection.send_bytes(msgspec.msgpack.encode(state))


class Replay:
    """Replays decisions on a model, one after the other."""

    def __init__(self, old: OldModel | None) -> None:
        """Load the model.

        Raises:
            LearnerRefusedError: it cannot be loaded.
        """
        self._old = old
        self._comparison = Comparison()
        if old is not None:
            self._learner = Learner(old.arguments, old.model)
            self._weights = self._learner.weights()
            self._probe = _Probe(old, self._weights)

    def take(self, interaction: AnyInteraction) -> None:
        """Replay a decision."""
        if self._old is None:
            return
        several = self._old.problem_type is ProblemType.MULTI_SLOT
        if isinstance(interaction, MultiSlotInteraction) and not several:
            self._comparison.pass_over(OTHER_KIND)
            return
        self._probe.take(interaction)
        if interaction.model_id is None:
            self._comparison.pass_over(NO_MODEL)
        elif interaction.learning_mode is LearningMode.LOGGING_ONLY:
            self._comparison.pass_over(BASELINE_LOGGED)
        else:
            try:
                if isinstance(interaction, MultiSlotInteraction) or several:
                    differences = list(self._differences_of_slots(interaction))
                else:
                    differences = self._differences(interaction, self._old.epsilon)
            except (LearnerRefusedError, InvalidPmfError):
                self._comparison.pass_over(UNSCORED)
                return
            self._comparison.note(interaction.model_id, differences)

    def _differences(self, interaction: Interaction, epsilon: float) -> list[float]:
        rankable = interaction.rankable
        pmf = self._learner.pmf(interaction.context, [interaction.actions[index] for index in rankable])
        served = floored(check_pmf(pmf, len(rankable)), epsilon)
        return [abs(interaction.pmf[index] - share) for index, share in zip(rankable, served, strict=True)]

    def _differences_of_slots(self, interaction: AnyInteraction) -> Iterator[float]:
        """Compare slot by slot; the slots before are made to choose what they did choose."""
        actions, count = interaction.actions, len(interaction.actions)
        decided: list[Slot] = []
        for slot, choice in zip(interaction.slots, interaction.choices, strict=True):
            asked = [*decided, slot]
            answered = self._learner.choices(interaction.context, actions, asked, range(len(asked)))[-1]
            shares = dict(zip(answered.actions, check_pmf(answered.pmf, len(answered.actions)), strict=True))
            yield from (abs(p - shares.get(index, 0.0)) for index, p in zip(choice.actions, choice.pmf, strict=True))
            others = tuple([index for index in range(count) if index != choice.chosen])
            decided.append(Slot(slot.id, slot.features, slot.baseline, others))

    def end(self) -> tuple[Weights | None, Probabilities | None]:
        """Say what came of it. None: there is no model."""
        if self._old is None:
            return None, None
        self._learner.close()
        return explained_weights(self._weights, self._probe.end()), self._comparison.end()


class _Probe:
    """Finds the weights that belong to features of decisions."""

    def __init__(self, old: OldModel, wanted: Sequence[int] | dict[int, float]) -> None:
        self._old = old
        self._missing = set(wanted)
        self._learner = Learner(old.arguments)
        self._repeats = _REPEATS if "--bag" in old.arguments.split() else 1
        self._taken = 0
        self._next_look = _FIRST_LOOK
        self._lessons = 0

    def take(self, interaction: AnyInteraction) -> None:
        """Learn every action that was offered, unless all weights have been found."""
        if not self._missing:
            return
        try:
            for _ in range(self._repeats):
                if self._old.problem_type is ProblemType.MULTI_SLOT:
                    self._learn_slots(interaction)
                else:
                    self._learn(interaction)
        except LearnerRefusedError:
            self._look()
            self._learner = Learner(self._old.arguments)  # one that has refused must not be used any more
        self._taken += 1
        if self._taken >= self._next_look:
            self._look()
            self._next_look *= 2

    def _learn(self, interaction: AnyInteraction) -> None:
        """Learn each action beside the next: some learners learn nothing where there is no choice."""
        actions = interaction.actions
        for index, action in enumerate(actions):
            pair: list[Action] = [action, actions[(index + 1) % len(actions)]][: len(actions)]
            probability = 1 / len(pair)
            self._learner.learn(
                interaction.context, pair, chosen=0, probability=probability, reward=self._next_reward()
            )

    def _learn_slots(self, interaction: AnyInteraction) -> None:
        """Learn each action in each slot that may have it."""
        actions, slots = interaction.actions, interaction.slots
        for place, action in itertools.product(range(len(slots)), range(len(actions))):
            choices = _choices(slots[: place + 1], action, len(actions))
            if choices is not None:
                rewards = [self._next_reward() for _ in choices]
                self._learner.learn_slots(interaction.context, actions, slots[: place + 1], choices, rewards)

    def _next_reward(self) -> float:
        """Return a reward that was not there before, above 0 and below in turns.

        So it is none that the learner has come to expect, and no two updates of a weight undo each other.
        """
        self._lessons += 1
        size = 1.0 + self._lessons * _GOLDEN % 1.0
        return size if self._lessons % 2 else -size

    def _look(self) -> None:
        self._missing -= self._learner.weights().keys()

    def end(self) -> set[int]:
        """Return the weights that were not found."""
        if self._missing:
            self._look()
        self._learner.close()
        return self._missing


def _choices(slots: Sequence[Slot], last: int, action_count: int) -> list[SlotChoice] | None:
    """Choose any actions for slots, but a certain one for the last. None: that is not possible."""
    left = list(range(action_count))
    choices = []
    for slot in slots:
        possible = [index for index in left if index not in slot.excluded]
        wanted = [index for index in possible if (index == last) == (slot is slots[-1])]
        if not wanted:
            return None
        chosen = wanted[0]
        left.remove(chosen)
        ranked = (chosen, *(index for index in possible if index != chosen))
        choices.append(SlotChoice(ranked, (1 / len(ranked),) * len(ranked)))
    return choices
