"""Joined events as log lines, key by key as Personalizer wrote them.

A line does not hold everything: excluded actions are not in it, nor the reward wait, the learning mode, when
observations came, or their metrics.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from rankward.joining.reward import RewardDefinition, observed_reward, training_reward
from rankward.records import AnyInteraction, Interaction, JoinedEvent, JoinedObservation, MultiSlotInteraction, TimeUs
from rankward.settings import as_datetime
from rankward.vw.parser import context_text
from rankward.vw.slots import with_slots

NO_MODEL = "N/A"
"""What a line has for the model of a decision that was made before there was any."""

_encode = msgspec.json.Encoder().encode


def write_line(event: JoinedEvent, definition: RewardDefinition) -> str:
    """Write a joined event as one line, without its end.

    Args:
        event: of any kind, learned or not.
        definition: how its observations become the reward that the line states.
    """
    match event.interaction:
        case Interaction() as interaction:
            return _single_slot(event, interaction, definition)
        case MultiSlotInteraction() as interaction:
            return _multi_slot(event, interaction, definition)


def _single_slot(event: JoinedEvent, interaction: Interaction, definition: RewardDefinition) -> str:
    rankable = interaction.rankable
    # Indexes into `rankable`, as excluded actions are not in the line.
    order = sorted(range(len(rankable)), key=lambda index: -interaction.pmf[rankable[index]])
    chosen = rankable.index(interaction.chosen)
    order.remove(chosen)
    order.insert(0, chosen)
    probability = interaction.pmf[interaction.chosen]
    observed = _observed(interaction.event_id, event.entry.observations, activated=event.entry.activated)
    pmf = [interaction.pmf[rankable[index]] for index in order]
    actions = [interaction.actions[index] for index in rankable]
    return (
        f'{{"_label_cost":{-training_reward(event, definition)!r},'
        f'"_label_probability":{probability * interaction.pass_probability!r},'
        f'"_label_Action":{chosen + 1},"_labelIndex":{chosen},'
        f"{_SKIP_LEARN if event.skip_learn else ''}"
        f'"o":{observed},'
        f'"Timestamp":"{_timestamp(event.entry.time_us)}","Version":"1","EventId":{_text(interaction.event_id)},'
        f'"a":{_text([index + 1 for index in order])},'
        f'"c":{context_text(interaction.context, actions)},'
        f'"p":{_text(pmf)},'
        f'"VWState":{{"m":{_text(interaction.model_id or NO_MODEL)}}},'
        f"{_dropped(interaction)}"
        f'"_original_label_cost":{-observed_reward(event, definition)!r}}}'
    )


def _multi_slot(event: JoinedEvent, interaction: MultiSlotInteraction, definition: RewardDefinition) -> str:
    actions, slots = interaction.actions, interaction.slots
    outcomes = [_outcome(event, interaction, definition, index) for index in range(len(slots))]
    return (
        f'{{"Timestamp":"{_timestamp(event.entry.time_us)}","Version":"1","EventId":{_text(interaction.event_id)},'
        f"{_SKIP_LEARN if event.skip_learn else ''}"
        f'"c":{with_slots(context_text(interaction.context, actions), slots, len(actions))},'
        f'"_outcomes":[{",".join(outcomes)}],'
        f'"_ba":{_text([slot.baseline for slot in slots])},'
        f"{_dropped(interaction)}"
        f'"VWState":{{"m":{_text(interaction.model_id or NO_MODEL)}}}}}'
    )


def _outcome(event: JoinedEvent, interaction: MultiSlotInteraction, definition: RewardDefinition, index: int) -> str:
    """Write what became of one slot.

    What was observed of the whole event stands with each slot, an activation with the first.
    """
    slot, choice = interaction.slots[index], interaction.choices[index]
    event_id, slot_id = _text(interaction.event_id), _text(slot.id)
    observed = [
        f'{{"v":{each.value!r},"EventId":{event_id},"Index":{slot_id},"ActionTaken":false}}'
        for each in event.entry.observations
        if each.slot in (None, slot.id)
    ]
    if event.entry.activated and index == 0:
        observed.append(f'{{"EventId":{event_id},"ActionTaken":true}}')
    reward = observed_reward(event, definition, index)
    # Where there are none, the key is left out, unless the cost would then be taken for one.
    reported = f'"_o":[{",".join(observed)}],' if observed or reward else ""
    return (
        f'{{"_label_cost":{-training_reward(event, definition, index)!r},"_id":{slot_id},'
        f'"_a":{_text(choice.actions)},"_p":{_text(choice.pmf)},{reported}"_original_label_cost":{-reward!r}}}'
    )


_SKIP_LEARN = '"_skipLearn":true,'


def _observed(event_id: str, observations: Sequence[JoinedObservation], *, activated: bool) -> str:
    named = _text(event_id)
    written = [f'{{"v":{each.value!r},"EventId":{named},"ActionTaken":false}}' for each in observations]
    if activated:
        written.append(f'{{"EventId":{named},"ActionTaken":true}}')
    return f"[{','.join(written)}]"


def _dropped(interaction: AnyInteraction) -> str:
    passed = interaction.pass_probability
    return f'"pdrop":{1.0 - passed!r},' if passed < 1.0 else ""


def _timestamp(time_us: TimeUs) -> str:
    return f"{as_datetime(time_us):%Y-%m-%dT%H:%M:%S.%f}Z"


def _text(value: object) -> str:
    return _encode(value).decode()
