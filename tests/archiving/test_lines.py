"""Lines of an archive: log lines for whoever reads those, and the very events for us."""

from __future__ import annotations

import json

import pytest

from rankward.archiving.lines import events_in, from_line, pack, to_line, unpack, whose
from rankward.dsjson.read import LineReader
from rankward.dsjson.write import write_line
from rankward.errors import StoreUnavailable
from rankward.joining.reward import RewardDefinition
from rankward.ranking.features import FeatureBounds
from rankward.records import (
    Action,
    Arm,
    Features,
    History,
    Interaction,
    JoinedEntry,
    JoinedEvent,
    JoinedObservation,
    LearningMode,
    MultiSlotInteraction,
    Slot,
    SlotChoice,
)
from rankward.settings import Aggregation, Limits

TIME_US = 1_760_000_000_123_456
REWARD = RewardDefinition(0.25, Aggregation.SUM)
CONTEXT = Features('[{"who":{"ågé":0.1,"text":"a \\"b\\" \\u2028"}}]'.encode())


def single_slot() -> JoinedEvent:
    """An event with everything that a log line leaves out."""
    interaction = Interaction(
        event_id='e "1"',
        context=CONTEXT,
        actions=tuple([Action(f"a{index}", Features(b'[{"x":{"k":%d}}]' % index)) for index in range(5)]),
        pmf=(0.0, 0.1, 0.7, 0.0, 0.2),
        chosen=2,
        learning_mode=LearningMode.APPRENTICE,
        reward_wait_us=600_000_000,
        excluded=(0, 3),
        deferred=True,
        model_id="m1",
        repeats=True,
        arm=Arm.CONTROL,
        arm_probability=0.05,
        subject="customer-1",
        pass_probability=0.5,
    )
    observations = (
        JoinedObservation(12, TIME_US + 5, 0.1, {"euros": 2.5}, None, "report-1"),
        JoinedObservation(13, TIME_US + 9, 1 / 3),
    )
    return JoinedEvent(77, JoinedEntry(11, TIME_US, TIME_US + 600_000_000, observations, activated=True), interaction)


def several_slots() -> JoinedEvent:
    """The same of one with slots."""
    interaction = MultiSlotInteraction(
        event_id="e2",
        context=Features(b"[]"),
        actions=tuple([Action(f"a{index}", Features(b'[{"x":{"k":%d}}]' % index)) for index in range(3)]),
        slots=(Slot("top", Features(b'[{"size":{"big":1}}]'), 1, (0,)), Slot("side", Features(b"[]"), 0)),
        choices=(SlotChoice((2, 1), (0.6, 0.4)), SlotChoice((0, 1), (0.9, 0.1))),
        learning_mode=LearningMode.ONLINE,
        reward_wait_us=1_000_000,
    )
    entry = JoinedEntry(20, TIME_US, TIME_US + 1, (JoinedObservation(21, TIME_US, 1.0, slot="side"),), imported=True)
    return JoinedEvent(78, entry, interaction)


@pytest.mark.parametrize("event", [single_slot(), several_slots()], ids=["single", "slots"])
def test_an_event_is_read_as_it_was(event: JoinedEvent) -> None:
    """An evaluation of the archive must find what one of the log would have."""
    line = to_line(event, REWARD)

    assert from_line(line) == event
    assert whose(line) == (event.interaction.event_id, event.interaction.subject, event.entry.interaction)


@pytest.mark.parametrize("event", [single_slot(), several_slots()], ids=["single", "slots"])
def test_a_line_is_a_log_line(event: JoinedEvent) -> None:
    """Whatever reads those reads an archive, without us."""
    line = to_line(event, REWARD)

    members = json.loads(line)
    del members["_rankward"]
    assert members == json.loads(write_line(event, REWARD))
    reader = LineReader(bounds=FeatureBounds(), limits=Limits(), reward_wait_us=1)
    [read] = reader.read([line])
    assert isinstance(read, History)
    assert read.interaction.event_id == event.interaction.event_id


def test_an_object_is_read_whole_or_refused() -> None:
    """Half an hour must not be taken for the whole of it."""
    lines = [to_line(each, REWARD) for each in (single_slot(), several_slots())] * 500
    content = pack(lines)

    assert list(unpack(content, "x")) == lines
    for damaged in (content[:-10], content[: len(content) // 2], b"nonsense" + content, pack([lines[0][:-1]]), b""):
        with pytest.raises(StoreUnavailable, match="x of the archive is damaged"):
            list(unpack(damaged, "x"))
    with pytest.raises(StoreUnavailable, match="x of the archive is damaged"):
        list(events_in(pack([b"{}\n"]), "x"))
