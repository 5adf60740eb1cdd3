"""Uploads become records: every encoding, every kind of event, and whatever may be wrong with them."""

from __future__ import annotations

import contextlib
import copy
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankward.errors import InvalidRequest
from rankward.ranking.features import FeatureBounds
from rankward.records import (
    Action,
    Activation,
    AnyInteraction,
    Features,
    Interaction,
    LearningMode,
    MultiSlotInteraction,
    Observation,
    Slot,
)
from rankward.settings import Limits
from rankward.uploads import fields
from rankward.uploads.fields import Encoding, PayloadType
from rankward.uploads.flat import UINT, ULONG, Builder
from rankward.uploads.read import read_interactions, read_observations
from rankward.uploads.write import split_batch, write_batch, write_interaction, write_outcome
from tests.uploads.batches import CONTEXT, NOON_US, batch, cb, ccb, dictionary, event, outcome

if TYPE_CHECKING:
    from collections.abc import Callable

WAIT_US = 600_000_000
ACTIONS = tuple([Action(name, Features(b'[{"dish":{"name":"%s"}}]' % name.encode())) for name in ("a", "b", "c")])


def read(body: bytes, limits: Limits | None = None) -> list[AnyInteraction]:
    """Read decisions as the service does."""
    return read_interactions(body, limits=limits or Limits(), bounds=FeatureBounds(), reward_wait_us=WAIT_US)


def test_a_decision_is_read_as_if_the_service_had_made_it() -> None:
    """Same actions, same features, same order: the learner must not notice where it was decided."""
    [found] = read(batch(cb(mode=1, deferred=True, pass_probability=0.5)))
    assert isinstance(found, Interaction)
    assert msgspec.structs.replace(found, pmf=()) == Interaction(
        event_id="e1",
        context=Features(b'[{"visitor":{"device":"phone"}}]'),
        actions=ACTIONS,
        pmf=(),
        chosen=1,
        learning_mode=LearningMode.APPRENTICE,
        reward_wait_us=WAIT_US,
        deferred=True,
        model_id="m1",
        pass_probability=0.5,
    )
    assert sum(found.pmf) == pytest.approx(1.0, abs=1e-12)
    assert found.pmf == pytest.approx((0.1, 0.8, 0.1), abs=1e-6)


def test_a_decision_for_slots_is_read() -> None:
    """With what each slot may hold, its baseline, and what was drawn."""
    [found] = read(batch(ccb()))
    assert isinstance(found, MultiSlotInteraction)
    assert found.slots == (
        Slot("hero", Features(b'[{"size":"large"}]'), baseline=2, excluded=(1,)),
        Slot("side", Features(b"[]"), baseline=0),
    )
    assert [choice.actions for choice in found.choices] == [(0, 2), (1, 2)]
    assert found.choices[1].pmf == (0.75, 0.25)
    assert (found.learning_mode, found.actions) == (LearningMode.APPRENTICE, ACTIONS)


@pytest.mark.parametrize("encoding", [Encoding.IDENTITY, Encoding.ZSTD])
def test_a_batch_may_share_its_actions(encoding: int) -> None:
    """Actions recur from one decision to the next, so clients send each once."""
    multi = CONTEXT["_multi"]
    shared = {2**64 - 1: multi[0], 7: multi[1]}
    context = {**CONTEXT, "_multi": [{"__aid": 2**64 - 1}, {"__aid": 7}, multi[2]]}
    events = [cb("e1", context=context, encoding=encoding), cb("e2", context=context, encoding=encoding)]
    body = batch(dictionary(shared, encoding=encoding), *events, content_encoding="DEDUP")
    assert read(body) == read(batch(cb("e1"), cb("e2")))


def test_rewards_and_activations_are_read() -> None:
    """As numbers or as text, of the whole event or of a slot by its id or number."""
    body = batch(
        outcome("e1", 0.5),
        outcome("e2", "-0.25", index="hero"),
        outcome("e3", 1.0, index=1),
        outcome("e4", None, activates=True),
        outcome("e5", 0.0),
    )
    found = read_observations(body, limits=Limits())
    bare = [msgspec.structs.replace(each, report=None) if isinstance(each, Observation) else each for each in found]
    assert bare == [
        Observation(event_id="e1", value=0.5),
        Observation(event_id="e2", value=-0.25, slot="hero"),
        Observation(event_id="e3", value=1.0, slot="1"),
        Activation(event_id="e4"),
        Observation(event_id="e5", value=0.0),
    ]


def test_a_report_is_named_by_its_bytes_where_they_tell_it_from_others() -> None:
    """A batch that is sent again must not count twice; two clicks without a time may be two clicks."""

    def names(*events: bytes) -> list[str | None]:
        found = read_observations(batch(*events), limits=Limits())
        return [each.report for each in found if isinstance(each, Observation)]

    same = outcome("e1", 0.5)
    assert len(set(names(same, same))) == 1
    assert len(set(names(same, outcome("e1", 0.5, time_us=NOON_US + 1)))) == 2
    assert names(outcome("e1", 0.5, time_us=None)) == [None]


def test_what_our_client_writes_is_read_back() -> None:
    """Excluded actions are left out, as the learner never sees them; all else stays."""
    interaction = Interaction(
        event_id="é/1",
        context=Features(b'[{"hour":12}]'),
        actions=(ACTIONS[0], ACTIONS[1], ACTIONS[2]),
        pmf=(0.25, 0.0, 0.75),
        chosen=2,
        learning_mode=LearningMode.LOGGING_ONLY,
        reward_wait_us=1,
        excluded=(1,),
        model_id=None,
    )
    [found] = read(write_batch([write_interaction(interaction, time_us=NOON_US)]))
    assert found == msgspec.structs.replace(
        interaction,
        actions=(ACTIONS[0], ACTIONS[2]),
        pmf=(0.25, 0.75),
        chosen=1,
        excluded=(),
        reward_wait_us=WAIT_US,
    )
    reports: list[Observation | Activation] = [
        Observation(event_id="e", value=0.5, slot="hero"),
        Activation(event_id="e"),
    ]
    written = [write_outcome(report, time_us=NOON_US) for report in reports]
    [reward, activation] = read_observations(write_batch(written), limits=Limits())
    assert isinstance(reward, Observation)
    assert [msgspec.structs.replace(reward, report=None), activation] == reports
    assert split_batch(write_batch(written)) == written


BAD_DECISIONS = {
    "no bytes": (b"", "8"),
    "only a preamble": (b"\0\0\0\x0d\0\0\0\0", "cannot be read"),
    "an older protocol": (b"\0\0\0\x09" + batch(cb())[4:], "type 9"),
    "a later version": (b"\0\1" + batch(cb())[2:], "version 1"),
    "a size that is wrong": (batch(cb())[:-1], "bytes follow"),
    "another encoding of the batch": (batch(cb(), content_encoding="GZIP"), "GZIP"),
    "no event id": (batch(cb("")), "0 characters"),
    "a long event id": (batch(cb("e" * 257)), "257 characters"),
    "a reward among decisions": (batch(outcome()), "OUTCOME"),
    "slates": (batch(event("e", PayloadType.SLATES, b"")), "SLATES"),
    "an unknown payload": (batch(event("e", 77, b"")), "payload type 77"),
    "an unknown encoding": (batch(cb(encoding=9)), "encoding 9"),
    "no decision in it": (batch(event("e", PayloadType.CB, b"")), "no table"),
    "an unknown mode": (batch(cb(mode=3)), "mode 3"),
    "a pass probability of 0": (batch(cb(pass_probability=0.0)), "outside (0, 1]"),
    "a pass probability above 1": (batch(cb(pass_probability=1.5)), "outside (0, 1]"),
    "a pass probability that is none": (batch(cb(pass_probability=float("nan"))), "outside (0, 1]"),
    "an action number of 0": (batch(cb(actions=(0, 1, 2))), "distinct numbers"),
    "an action number too large": (batch(cb(actions=(4, 1, 2))), "distinct numbers"),
    "an action twice": (batch(cb(actions=(1, 1, 2))), "distinct numbers"),
    "fewer probabilities": (batch(cb(pmf=(0.5, 0.5))), "2 probabilities"),
    "no actions": (batch(cb(actions=(), pmf=())), "0 ranked actions"),
    "a chosen action of probability 0": (batch(cb(pmf=(0.0, 0.5, 0.5))), "probability 0"),
    "a negative probability": (batch(cb(pmf=(1.2, -0.1, -0.1))), "add up"),
    "probabilities that do not add up": (batch(cb(pmf=(0.5, 0.1, 0.1))), "add up"),
    "a probability that is none": (batch(cb(pmf=(float("nan"), 0.5, 0.5))), "it is no log line|add up"),
    "a context that is no JSON": (batch(cb(context=b"{")), "no log line"),
    "a context that is no object": (batch(cb(context=b"[]")), "no log line"),
    "a context without actions": (batch(cb(context={"FromUrl": []})), "no actions"),
    "features that hold text arrays": (batch(cb(context={**CONTEXT, "FromUrl": [{"x": ["y"]}]})), "numbers only"),
    "two actions of one id": (batch(cb(context={**CONTEXT, "_multi": [CONTEXT["_multi"][0]] * 3})), "same id"),
    "too many actions": (
        batch(cb(context={**CONTEXT, "_multi": [{"_tag": str(n), "j": [{"x": 1}]} for n in range(51)]})),
        "51 actions",
    ),
    "a baseline that is not there": (batch(ccb(baselines=(7, 0))), "baseline 7"),
    "a dictionary that was not announced": (batch(dictionary({1: {}}), cb()), "nowhere else"),
    "a dictionary in the middle": (batch(cb(), dictionary({1: {}}), content_encoding="DEDUP"), "nowhere else"),
    "a reference to nothing": (
        batch(dictionary({1: {}}), cb(context={"_multi": [{"__aid": 2}]}), content_encoding="DEDUP"),
        "refers to 2",
    ),
}


@pytest.mark.parametrize("name", BAD_DECISIONS)
def test_a_batch_with_something_wrong_is_refused_in_words(name: str) -> None:
    """With the event that is at fault, so that its sender can find it."""
    body, words = BAD_DECISIONS[name]
    with pytest.raises(InvalidRequest, match=words.replace("(", r"\(").replace("[", r"\[")) as refused:
        read(body)
    assert refused.value.code == "InvalidRequest"


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (outcome("e", 1.5), "outside -1 to 1"),
        (outcome("e", float("nan")), "outside -1 to 1"),
        (outcome("e", "much"), "no number"),
        (outcome("e", None), "neither a value"),
        (outcome("", 1.0), "0 characters"),
        (cb(), "holds CB"),
    ],
)
def test_a_report_with_something_wrong_is_refused_in_words(bad: bytes, words: str) -> None:
    """As over the other way in, and with its place in the batch."""
    with pytest.raises(InvalidRequest, match=words) as refused:
        read_observations(batch(outcome(), bad), limits=Limits())
    assert refused.value.target == "events[1]"


def test_what_a_batch_unpacks_to_is_bounded() -> None:
    """A few bytes can stand for gigabytes, by compression and by reference."""
    limits = Limits(upload_unpacked_bytes=20_000, upload_events=20)
    large = {**CONTEXT, "FromUrl": [{f"x{n}": "y" * 2_000 for n in range(50)}]}
    for body in (
        batch(cb(context=large, encoding=Encoding.ZSTD)),
        batch(*[cb(f"e{n}", context={**CONTEXT, "FromUrl": [{"x": "y" * 2_000}]}) for n in range(15)]),
        batch(
            dictionary({1: {"_tag": "a", "j": [{"x": "y" * 2_000}]}}),
            cb(context={"_multi": [{"__aid": 1}] * 20}),
            content_encoding="DEDUP",
        ),
    ):
        with pytest.raises(InvalidRequest, match="unpack to more than 20000"):
            read(body, limits)
    with pytest.raises(InvalidRequest, match="21 of what may be 20"):
        read(batch(*[cb(f"e{n}") for n in range(21)]), limits)


def test_parts_that_lie_one_upon_the_other_stay_small() -> None:
    """A megabyte that a thousand values, or fifty slots, all refer to would be a gigabyte once it is read."""
    values, slots = Builder(), Builder()
    text = values.text("x" * 100_000)
    root = values.table(
        len(fields.DedupInfo),
        offsets=[
            (fields.DedupInfo.IDS, values.numbers(range(1_000), ULONG)),
            (fields.DedupInfo.VALUES, values.offsets([text] * 1_000)),
        ],
    )
    upon = event("", PayloadType.DEDUP_INFO, values.finish(root))
    with pytest.raises(InvalidRequest, match="has a text of 100000 bytes"):
        read(batch(upon, cb(), content_encoding="DEDUP"))

    numbers, name = slots.numbers(range(100_000), UINT), slots.text("x" * 100_000)
    for field, part, words in (
        (fields.SlotEvent.ACTION_IDS, numbers, "holds 100000 of what may be 50"),
        (fields.SlotEvent.ID, name, "has a text of 100000 bytes"),
    ):
        slot = slots.table(len(fields.SlotEvent), offsets=[(field, part)])
        root = slots.table(
            len(fields.MultiSlotEvent), offsets=[(fields.MultiSlotEvent.SLOTS, slots.offsets([slot] * 50))]
        )
        with pytest.raises(InvalidRequest, match=words):
            read(batch(event("p1", PayloadType.CCB, copy.deepcopy(slots).finish(root))))


@settings(max_examples=300)
@given(st.data())
def test_bytes_that_were_damaged_are_read_or_refused(data: st.DataObject) -> None:
    """The library follows any offset; a service must not fall over one."""
    readers: list[tuple[bytes, Callable[[bytes], object]]] = [
        (batch(dictionary({1: CONTEXT["_multi"][0]}), cb(), ccb(), content_encoding="DEDUP"), read),
        (
            batch(outcome("e1", 1.0, index="hero"), outcome("e2", "0.5")),
            lambda body: read_observations(body, limits=Limits()),
        ),
    ]
    good, reader = data.draw(st.sampled_from(readers))
    body = bytearray(good)
    for place in data.draw(st.lists(st.integers(fields.PREAMBLE.size, len(body) - 1), min_size=1, max_size=4)):
        body[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InvalidRequest):
        reader(bytes(body))
