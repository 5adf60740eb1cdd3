"""What earlier versions wrote is still read: the log is for ever."""

from __future__ import annotations

from pathlib import Path

import msgspec

from rankward.records import (
    Action,
    Activation,
    Erased,
    Features,
    History,
    ImportProgress,
    Interaction,
    JoinedEntry,
    JoinedObservation,
    LearningMode,
    MultiSlotInteraction,
    Observation,
    PastObservation,
    Record,
    SettingsChange,
    Slot,
    SlotChoice,
    Tick,
)
from rankward.store.sqlite.codec import to_record
from rankward.store.sqlite.joined_log import decode_entry
from rankward.store.sqlite.sealed import Held, SealedSegment

LOG = Path(__file__).parent.parent / "data" / "log"
"""`VERSION-records.txt` has a line for each record: kind, body, and actions of interactions, in hex. A file once
written is not changed; a new kind of record, or a new field, comes with a new file."""

ACTIONS = (
    Action("pasta", Features(b'[{"dish":{"veg":true,"kcal":640}}]')),
    Action("ramen", Features(b'[{"dish":{"veg":false}}]')),
    Action("salad", Features(b'[{"dish":{"veg":true,"kcal":310}}]')),
)
EXPECTED: dict[str, Record | JoinedEntry] = {
    "erased": Erased(reward_wait_us=600_000_000),
    "erased-history": Erased(decided_us=1_768_478_400_000_000),
    "erased-observation": Erased(),
    "subject": Interaction(
        event_id="e",
        context=Features(b"[]"),
        actions=ACTIONS[:1],
        pmf=(1.0,),
        chosen=0,
        learning_mode=LearningMode.ONLINE,
        reward_wait_us=600_000_000,
        subject="ann",
    ),
    "interaction": Interaction(
        event_id="order-page-0001",
        context=Features(b'[{"visitor":{"device":"phone"}}]'),
        actions=ACTIONS,
        pmf=(0.9, 0.0, 0.1),
        chosen=2,
        learning_mode=LearningMode.APPRENTICE,
        reward_wait_us=600_000_000,
        excluded=(1,),
        deferred=True,
        model_id="3-1200",
        repeats=True,
        subject="s-17",
    ),
    "plain-interaction": Interaction(
        event_id="e",
        context=Features(b"[]"),
        actions=ACTIONS[:1],
        pmf=(1.0,),
        chosen=0,
        learning_mode=LearningMode.ONLINE,
        reward_wait_us=1,
    ),
    "observation": Observation(event_id="order-page-0001", value=0.75, metrics={"seconds": 12.5}, subject="s-17"),
    "activation": Activation(event_id="order-page-0001"),
    "settings": SettingsChange(settings=msgspec.Raw(b'{"exploration":0.2}')),
    "caused-settings": SettingsChange(settings=msgspec.Raw(b'{"exploration":0.2}'), cause="changed by hand"),
    "tick": Tick(),
    "sampled-interaction": Interaction(
        event_id="e",
        context=Features(b"[]"),
        actions=ACTIONS[:1],
        pmf=(1.0,),
        chosen=0,
        learning_mode=LearningMode.ONLINE,
        reward_wait_us=1,
        pass_probability=0.25,
    ),
    "multislot": MultiSlotInteraction(
        event_id="front-0007",
        context=Features(b'[{"visitor":{"device":"phone"}}]'),
        actions=ACTIONS,
        slots=(
            Slot("hero", Features(b'[{"size":"large"}]'), baseline=2, excluded=(1,)),
            Slot("side", Features(b"[]"), baseline=0),
        ),
        choices=(SlotChoice((0, 2), (0.9, 0.1)), SlotChoice((1, 2), (0.25, 0.75))),
        learning_mode=LearningMode.APPRENTICE,
        reward_wait_us=600_000_000,
        deferred=True,
        model_id="3-1200",
        repeats=True,
        subject="s-17",
        pass_probability=0.5,
    ),
    "slot-observation": Observation(event_id="front-0007", value=0.75, slot="hero"),
    "named-observation": Observation(event_id="order-page-0001", value=0.75, report="r-1"),
    "history": History(
        interaction=Interaction(
            event_id="e",
            context=Features(b"[]"),
            actions=ACTIONS[:2],
            pmf=(0.75, 0.25),
            chosen=1,
            learning_mode=LearningMode.APPRENTICE,
            reward_wait_us=600_000_000,
        ),
        time_us=1_500_000_000_000_000,
        observations=(PastObservation(1_500_000_001_000_000, 0.5, {"seconds": 1.0}), PastObservation(2, 1.0)),
        activated=True,
    ),
    "multislot-history": History(
        interaction=MultiSlotInteraction(
            event_id="front-0007",
            context=Features(b"[]"),
            actions=ACTIONS,
            slots=(Slot("hero", Features(b"[]"), baseline=2),),
            choices=(SlotChoice((0, 2), (0.9, 0.1)),),
            learning_mode=LearningMode.ONLINE,
            reward_wait_us=1,
        ),
        time_us=1,
        observations=(PastObservation(1, 1.0, slot="hero"),),
    ),
    "import": ImportProgress(
        digest="ab12", name="05_0000000001.json", lines=7, counts={"imported": 6, "broken": 1}, finished=True
    ),
    "mode-import": ImportProgress(digest="ab12", name="x", lines=0, counts={}, learning_mode=LearningMode.APPRENTICE),
    "joined-import": JoinedEntry(7, 1_000, 601_000, imported=True),
    "joined": JoinedEntry(7, 1_000, 601_000, (JoinedObservation(9, 2_000, 1.0, {"seconds": 1.0}),), activated=True),
    "joined-slot": JoinedEntry(7, 1_000, 601_000, (JoinedObservation(9, 2_000, 1.0, slot="hero"),)),
    "joined-named": JoinedEntry(7, 1_000, 601_000, (JoinedObservation(9, 2_000, 1.0, report="r-1"),)),
}


def test_records_of_every_version_are_read() -> None:
    """A record outlives the code that wrote it."""
    files = sorted(LOG.glob("*-records.txt"))
    assert files
    kinds = set()
    for file in files:
        for line in file.read_text().splitlines():
            kind, body, *actions = line.split()
            kinds.add(kind)
            found = _read(kind, bytes.fromhex(body), bytes.fromhex(actions[0]) if actions else None)
            assert found == EXPECTED[kind] or _settings(found) == _settings(EXPECTED[kind]), (file.name, kind)
    assert kinds == set(EXPECTED)


def _read(kind: str, body: bytes, actions: bytes | None) -> Record | JoinedEntry:
    if kind.startswith("joined"):
        return decode_entry(body)
    return to_record(body, None if actions is None else msgspec.msgpack.decode(actions, type=list[Action]))


def _settings(record: object) -> tuple[bytes, str | None] | None:
    return (bytes(record.settings), record.cause) if isinstance(record, SettingsChange) else None


def test_sealed_segments_of_every_version_are_read() -> None:
    """So that a folder can be taken over by every later version."""
    files = sorted(LOG.glob("*.seg"))
    assert files
    for file in files:
        segment = SealedSegment(file, Held())
        segment.verify()
        entries = segment.read(40, 10)
        assert [(entry.offset, entry.time_us) for entry in entries] == [(40, 1_000), (41, 1_001)]
        assert [entry.record for entry in entries] == [EXPECTED["interaction"], EXPECTED["observation"]]
