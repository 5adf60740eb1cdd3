"""Decisions for several slots at once: which action each of them shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from rankward.errors import InvalidRequest
from rankward.ranking.decide import RankRequest
from rankward.ranking.explore import InvalidPmfError, as_uniform, check_pmf, sample_index, slot_seed
from rankward.records import (
    UNNAMED_SLOT,
    Action,
    EventId,
    Features,
    Interaction,
    LearningMode,
    ModelId,
    MultiSlotInteraction,
    Slot,
    SlotChoice,
)


class SlotsRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A checked request for the decisions of several slots."""

    event_id: EventId
    context: Features
    actions: tuple[Action, ...]  # at least one; ids differ
    slots: tuple[Slot, ...]  # at least one, not more than actions; passed `check_slots`
    deferred: bool = False
    subject: str | None = None  # opaque: whose event it is; None: nobody said


class SlotAsked(msgspec.Struct, frozen=True, kw_only=True):
    """A slot as it was asked for, actions by id."""

    id: str
    features: Features
    baseline: str
    excluded: Sequence[str] = ()


class SlotPolicy(Protocol):
    """What draws for slots: a model with its way of exploring."""

    model_id: ModelId

    def choices(
        self, context: Features, actions: Sequence[Action], slots: Sequence[Slot], seeds: Sequence[int]
    ) -> list[SlotChoice]:
        """Draw an action for each slot, in order, out of those that earlier slots left."""


def decide_slots(
    request: SlotsRequest,
    policy: SlotPolicy | None,
    *,
    loop_id: str,
    mode: LearningMode,
    reward_wait_us: int,
) -> MultiSlotInteraction:
    """Choose an action for each slot, none of them twice.

    The draws are seeded by loop, event id and the slot's index, so that any decision can be made again from its
    log. A model draws by itself, slot by slot, so its floor is its own `--epsilon`.

    Args:
        request: what to decide.
        policy: what draws; None: there is no model yet, so each slot draws uniformly from what is left for it.
        loop_id: of the loop that decides.
        mode: who decides. Logging only always takes each slot's baseline, with probability 1.
        reward_wait_us: how long rewards will count.

    Raises:
        InvalidPmfError: the policy gave something that is no distribution over what a slot may show.
        LearnerRefusedError: the policy cannot score the features.
    """
    if mode is LearningMode.LOGGING_ONLY:
        choices = _baselines(request)
    else:
        seeds = [slot_seed(loop_id, request.event_id, index) for index in range(len(request.slots))]
        if policy is None:
            choices = _uniform(request, seeds)
        else:
            drawn = policy.choices(request.context, request.actions, request.slots, seeds)
            choices = _check_choices(drawn, request)
    return MultiSlotInteraction(
        event_id=request.event_id,
        context=request.context,
        actions=request.actions,
        slots=request.slots,
        choices=tuple(choices),
        learning_mode=mode,
        reward_wait_us=reward_wait_us,
        deferred=request.deferred,
        subject=request.subject,
        model_id=None if policy is None else policy.model_id,
    )


def _baselines(request: SlotsRequest) -> list[SlotChoice]:
    taken: set[int] = set()
    choices = []
    for slot in request.slots:
        others = [index for index in _left(request, slot, taken) if index != slot.baseline]
        choices.append(SlotChoice((slot.baseline, *others), (1.0, *[0.0] * len(others))))
        taken.add(slot.baseline)
    return choices


def _uniform(request: SlotsRequest, seeds: Sequence[int]) -> list[SlotChoice]:
    taken: set[int] = set()
    choices = []
    for slot, seed in zip(request.slots, seeds, strict=True):
        left = _left(request, slot, taken)
        pmf = [1 / len(left)] * len(left)
        chosen = left.pop(sample_index(pmf, as_uniform(seed)))
        choices.append(SlotChoice((chosen, *left), tuple(pmf)))
        taken.add(chosen)
    return choices


def _left(request: SlotsRequest, slot: Slot, taken: set[int]) -> list[int]:
    """List the actions that a slot may still show, in request order."""
    return [index for index in range(len(request.actions)) if index not in taken and index not in slot.excluded]


def _check_choices(drawn: Sequence[SlotChoice], request: SlotsRequest) -> list[SlotChoice]:
    """Make sure of what a learner drew, and bring each distribution's sum to 1."""
    if len(drawn) != len(request.slots):
        raise InvalidPmfError(f"the learner drew for {len(drawn)} slots instead of {len(request.slots)}")
    taken: set[int] = set()
    checked = []
    for slot, choice in zip(request.slots, drawn, strict=True):
        if sorted(choice.actions) != _left(request, slot, taken):
            raise InvalidPmfError(f"the learner drew for slot {slot.id!r} from actions that it may not show")
        pmf = check_pmf(choice.pmf, len(choice.actions))
        if pmf[0] <= 0.0:
            raise InvalidPmfError(f"the learner drew an action of probability 0 for slot {slot.id!r}")
        checked.append(SlotChoice(choice.actions, tuple(pmf)))
        taken.add(choice.chosen)
    return checked


def read_slots(asked: Sequence[SlotAsked], actions: Sequence[Action]) -> tuple[Slot, ...]:
    """Bring slots and the actions that they name together.

    Raises:
        InvalidRequest: there are none or more than actions, two share an id or a baseline, one names an action that is
            not offered, excludes its baseline, or may come out empty.
    """
    if not 1 <= len(asked) <= len(actions):
        raise InvalidRequest(
            f"there are {len(asked)} slots and {len(actions)} actions: send at least one slot, and not more slots than "
            "actions",
            code=_CODE,
            target="slots",
            reason="SlotCountOutOfBounds",
        )
    indexes = {action.id: index for index, action in enumerate(actions)}
    slots: list[Slot] = []
    for place, slot in enumerate(asked):
        read = Slot(
            slot.id,
            slot.features,
            _index(indexes, slot.baseline, f"slots[{place}].baselineAction"),
            tuple(sorted({_index(indexes, each, f"slots[{place}].excludedActions") for each in slot.excluded})),
        )
        if any(other.id == read.id for other in slots):
            raise _refused(
                f"slots[{place}].id",
                f"another slot has the id {_shown(slot.id)}, too: give each its own",
                "DuplicateSlotId",
            )
        if read.baseline in read.excluded:
            raise _refused(
                f"slots[{place}].baselineAction", f"{_shown(slot.baseline)} is excluded in the same slot: name another"
            )
        if any(other.baseline == read.baseline for other in slots):
            raise _refused(
                f"slots[{place}].baselineAction",
                f"{_shown(slot.baseline)} is the baseline of another slot, too: give each its own",
                "DuplicateBaselineAction",
            )
        slots.append(read)
    check_slots(slots, len(actions))
    return tuple(slots)


_CODE = "InvalidRankRequest"


def _index(indexes: Mapping[str, int], action_id: str, target: str) -> int:
    index = indexes.get(action_id)
    if index is None:
        raise _refused(target, f"no action has the id {_shown(action_id)}: name actions of the request only")
    return index


def _shown(text: str) -> str:
    return repr(text[:80])


def _refused(target: str, message: str, reason: str | None = None) -> InvalidRequest:
    return InvalidRequest(f"{target}: {message}", code=_CODE, target=target, reason=reason)


def check_slots(slots: Sequence[Slot], action_count: int) -> None:
    """Make sure that every slot finds an action, whatever the slots before it choose.

    Each slot is known to have a baseline of its own, so an assignment exists; but slots choose one after the other,
    and earlier ones may take all that a later one allows.

    Raises:
        InvalidRequest: a slot may come out empty.
    """
    for place, slot in enumerate(slots):
        allowed = [index for index in range(action_count) if index not in slot.excluded]
        if len(allowed) <= place and _can_take(allowed, slots[:place]):
            raise InvalidRequest(
                f"slot {_shown(slot.id)} may be left without an action: the {place} slots before it can take all "
                f"{len(allowed)} that it does not exclude. Exclude fewer there, or send it earlier",
                code=_CODE,
                target=f"slots[{place}].excludedActions",
            )


def _can_take(actions: Sequence[int], slots: Sequence[Slot]) -> bool:
    """Whether each of these actions can go to a slot of its own (a matching, by augmenting paths)."""
    holder: dict[int, int] = {}  # action by slot

    def place(action: int, tried: set[int]) -> bool:
        for index, slot in enumerate(slots):
            if index in tried or action in slot.excluded:
                continue
            tried.add(index)
            if index not in holder or place(holder[index], tried):
                holder[index] = action
                return True
        return False

    return all(place(action, set()) for action in actions)


def one_slot(request: RankRequest) -> SlotsRequest:
    """Turn a request without slots into one of a single slot, for a loop that decides for slots."""
    baseline = next(index for index in range(len(request.actions)) if index not in request.excluded)
    return SlotsRequest(
        event_id=request.event_id,
        context=request.context,
        actions=request.actions,
        slots=(Slot(UNNAMED_SLOT, Features(b"[]"), baseline, request.excluded),),
        deferred=request.deferred,
        subject=request.subject,
    )


def without_slots(interaction: MultiSlotInteraction) -> Interaction:
    """Turn the decision for the one slot of `one_slot` back, to be answered as it was asked for."""
    [slot], [choice] = interaction.slots, interaction.choices
    pmf = [0.0] * len(interaction.actions)
    for index, probability in zip(choice.actions, choice.pmf, strict=True):
        pmf[index] = probability
    return Interaction(
        event_id=interaction.event_id,
        context=interaction.context,
        actions=interaction.actions,
        pmf=tuple(pmf),
        chosen=choice.chosen,
        learning_mode=interaction.learning_mode,
        reward_wait_us=interaction.reward_wait_us,
        excluded=slot.excluded,
        deferred=interaction.deferred,
        model_id=interaction.model_id,
        repeats=interaction.repeats,
        arm=interaction.arm,
        arm_probability=interaction.arm_probability,
        subject=interaction.subject,
        pass_probability=interaction.pass_probability,
    )
