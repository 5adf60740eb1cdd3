"""Lines as the learner itself reads them: what we export teaches it what we learned."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from vowpalwabbit import Workspace

from rankward.archiving.lines import to_line
from rankward.dsjson.read import LineReader
from rankward.dsjson.write import write_line
from rankward.records import Action, Features, History, Interaction, JoinedEvent, LearningMode, SlotChoice
from rankward.settings import Limits
from rankward.store.ports import Epoch
from rankward.training.fold import Checkpoint, Fold
from rankward.vw.arguments import ProblemType
from rankward.vw.presets import PERSONALIZER, learner_arguments
from tests.dsjson.events import BOUNDS, EARLIEST, WAIT_US, event, features, front

Make = Callable[[int, LearningMode], list[JoinedEvent]]
SLOTS = PERSONALIZER.policy(ProblemType.MULTI_SLOT).text


def traffic(count: int, mode: LearningMode) -> list[JoinedEvent]:
    """Make events, some of them with excluded actions, some never activated."""
    rng = random.Random(3)
    return [_event(number, rng, mode) for number in range(count)]


def _event(number: int, rng: random.Random, mode: LearningMode) -> JoinedEvent:
    actions = tuple([Action(f"à{k}", features([{"dish": {"kind": f"k{k}", "kcal": 100 * k}}])) for k in range(4)])
    excluded = (rng.randrange(4),) if number % 3 == 0 else ()
    rankable = [index for index in range(4) if index not in excluded]
    weights = [rng.random() + 0.1 if index in rankable else 0.0 for index in range(4)]
    chosen = rng.choice(rankable)
    interaction = Interaction(
        event_id=f"e{number}",
        context=Features(msgspec.json.encode([{"visitor": {"who": f"v{number % 3}", "age": number % 7}}])),
        actions=actions,
        pmf=tuple([weight / sum(weights) for weight in weights]),
        chosen=chosen,
        excluded=excluded,
        learning_mode=mode,
        reward_wait_us=WAIT_US,
        deferred=number % 5 == 0,
    )
    values = [float(chosen == number % 3)] if number % 2 else []
    return event(interaction, *values, activated=number % 10 == 0)


def pages(count: int, mode: LearningMode) -> list[JoinedEvent]:
    """Make events of two slots, some of them rewarded, some never activated."""
    rng = random.Random(5)
    events = []
    for number in range(count):
        drawn = rng.choice([0, 2])
        left = [index for index in range(3) if index != drawn]
        rng.shuffle(left)
        rewards = [(float(number % 3 == drawn), "hero"), (float(left[0] == 1), "side")][: number % 3]
        changes: dict[str, object] = {
            "event_id": f"e{number}",
            "context": features([{"visitor": {"who": f"v{number % 3}"}}]),
            "choices": (SlotChoice((drawn, 2 - drawn), (0.75, 0.25)), SlotChoice(tuple(left), (0.6, 0.4))),
            "learning_mode": mode,
            "deferred": number % 5 == 0,
        }
        events.append(front(*rewards, activated=number % 10 == 0, **changes))
    return events


def folded(events: list[JoinedEvent], policy: str = PERSONALIZER.arguments) -> dict[int, float]:
    """Learn events as a loop does. Returns the weights."""
    epoch = Epoch(
        epoch_id=1,
        loop_id="0",
        state="building",
        reason="",
        created_us=0,
        policy=policy,
        derives_interactions=False,
        default_reward=0.0,
        reward_aggregation="earliest",
        since_us=0,
    )
    start = Checkpoint(joined_offset=0, learned=0, learned_to_us=0, model=None)
    fold = Fold(epoch, start, exploration=0.2, set_aside=())
    for number, each in enumerate(events):
        fold.take(msgspec.structs.replace(each, offset=number), before=lambda _: None)
    weights = fold.weights()
    fold.close()
    return weights


KINDS = [
    (traffic, PERSONALIZER.arguments, LearningMode.ONLINE),
    (traffic, PERSONALIZER.arguments, LearningMode.APPRENTICE),
    (pages, SLOTS, LearningMode.ONLINE),
    (pages, SLOTS, LearningMode.APPRENTICE),
]


def exported(event: JoinedEvent) -> bytes:
    """Write an event as an export has it."""
    return write_line(event, EARLIEST).encode() + b"\n"


def archived(event: JoinedEvent) -> bytes:
    """Write an event as an archive has it."""
    return to_line(event, EARLIEST)


@pytest.mark.parametrize("line", [exported, archived])
@pytest.mark.parametrize(("make", "policy", "mode"), KINDS)
def test_the_learner_learns_from_lines_what_we_learn_from_events(
    make: Make, policy: str, mode: LearningMode, line: Callable[[JoinedEvent], bytes], tmp_path: Path
) -> None:
    """So a log can leave for any tool of the learner's, and every feature hashes as when it was ranked."""
    events = make(300, mode)
    file = tmp_path / "log.json"
    file.write_bytes(b"".join(map(line, events)))
    workspace = Workspace(f"{learner_arguments(policy, None, 0.2)} --dsjson --quiet -d {file}")
    weights = {each["index"]: each["value"] for each in json.loads(workspace.json_weights())["weights"]}
    workspace.finish()
    assert weights == folded(events, policy) != {}


@pytest.mark.parametrize(("make", "policy", "mode"), KINDS)
def test_a_log_that_is_read_back_teaches_the_same(make: Make, policy: str, mode: LearningMode) -> None:
    """Exported and imported, the events make the model that they made before."""
    events = make(300, mode)
    reader = LineReader(bounds=BOUNDS, limits=Limits(), reward_wait_us=WAIT_US)
    found = reader.read([write_line(each, EARLIEST).encode() for each in events])
    again = [
        JoinedEvent(offset, each.joined(offset, offset), each.interaction)
        for offset, each in enumerate(found)
        if isinstance(each, History)
    ]
    assert len(again) == len(events)
    assert folded(again, policy) == folded(events, policy)
