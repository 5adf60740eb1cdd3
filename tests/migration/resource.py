"""An old resource, made with the learner itself: its log, the model it was left with, its settings and policy."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from vowpalwabbit import Workspace

from rankward.dsjson.write import write_line
from rankward.records import (
    Action,
    Interaction,
    JoinedEntry,
    JoinedEvent,
    JoinedObservation,
    LearningMode,
    MultiSlotInteraction,
    Slot,
    SlotChoice,
)
from tests.dsjson.events import EARLIEST, TIME_US, WAIT_US, event, features

if TYPE_CHECKING:
    from collections.abc import Sequence

ORIGINAL = "--cb_explore_adf --epsilon 0.2 --power_t 0 -l 0.001 --cb_type mtr -q ::"
"""The policy that the original starts with."""

SETTINGS = {
    "rewardWaitTime": "PT30M",
    "defaultReward": 0.1,
    "rewardAggregation": "sum",
    "explorationPercentage": 0.2,
    "modelExportFrequency": "PT1M",
    "logMirrorEnabled": True,
    "logMirrorSasUri": "https://old.example/container?sig=x",
    "logRetentionDays": 30,
    "lastConfigurationEditDate": "2026-01-15T12:00:00",
    "learningMode": "Apprentice",
    "inventedLater": 1,
}
_ACTIONS = tuple(
    [
        Action(name, features([{"dish": {"veg": veg}, "price": price}]))
        for name, veg, price in (("pasta", True, 9), ("ramen", False, 11), ("salad", True, 7))
    ]
)


def _context(dice: random.Random) -> dict[str, object]:
    return {"visitor": {"device": dice.choice(("phone", "desktop")), "age": dice.randint(20, 60)}}


def decided(number: int, dice: random.Random, pmf: Sequence[float], *, model_id: str | None) -> JoinedEvent:
    """Make one decision of a shop, with what it earned: phones like salad."""
    context = _context(dice)
    chosen = dice.choices(range(3), pmf)[0]
    interaction = Interaction(
        event_id=f"e{number}",
        context=features([context]),
        actions=_ACTIONS,
        pmf=tuple(pmf),
        chosen=chosen,
        learning_mode=LearningMode.ONLINE,
        reward_wait_us=WAIT_US,
        model_id=model_id,
    )
    reward = round(0.3 + 0.5 * (chosen == 2) + 0.1 * dice.random(), 3)
    time_us = TIME_US + number * 1_000_000
    observations = (JoinedObservation(0, time_us, reward),)
    return JoinedEvent(0, JoinedEntry(0, time_us, time_us + WAIT_US, observations, False), interaction)


class OldLearner:
    """The learner as the original ran it: it reads log lines, and nothing else."""

    def __init__(self, policy: str = ORIGINAL) -> None:
        self._workspace = Workspace(f"{policy} --dsjson --quiet")

    def learn(self, line: str) -> None:
        """Learn a line."""
        examples = self._workspace.parse(line)
        self._workspace.learn(examples)
        self._workspace.finish_example(examples)

    def predict(self, line: str) -> list[float]:
        """Score the decision of a line."""
        examples = self._workspace.parse(line)
        found: list[float] = self._workspace.predict(examples)
        self._workspace.finish_example(examples)
        return found

    def save(self, path: Path) -> bytes:
        """Write the model."""
        self._workspace.save(str(path))
        return path.read_bytes()


class OldResource:
    """Files as they were left: the log in the storage layout of the original, and the rest beside it."""

    def __init__(self, folder: Path, *, learned: int = 120, served: int = 60) -> None:
        """Learn from uniform decisions, then serve what was learned.

        Args:
            folder: where to.
            learned: decisions without a model, which it is then learned from.
            served: decisions by the model, which it has not learned.
        """
        folder.mkdir()
        dice = random.Random(3)
        learner = OldLearner()
        uniform = (1 / 3, 1 / 3, 1 / 3)
        lines = []
        for number in range(learned):
            line = write_line(decided(number, dice, uniform, model_id=None), EARLIEST)
            lines.append(line)
            learner.learn(line)
        learner.save(folder / "model.vw")
        for number in range(learned, learned + served):
            state = dice.getstate()
            pmf = learner.predict(write_line(decided(number, dice, uniform, model_id=None), EARLIEST))
            dice.setstate(state)
            lines.append(write_line(decided(number, dice, pmf, model_id="m-2"), EARLIEST))
        self.decisions = learned + served
        self.logs = folder / "20260115120000"
        file = self.logs / "data" / "2026" / "01" / "15_0000000000.json"
        file.parent.mkdir(parents=True)
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self.log = file
        self.model = folder / "model.vw"
        self.settings = folder / "configuration.json"
        self.settings.write_bytes(msgspec.json.format(msgspec.json.encode(SETTINGS)))
        self.policy = folder / "policy.json"
        self.policy.write_bytes(msgspec.json.encode({"name": "online", "arguments": ORIGINAL}))

    @property
    def files(self) -> list[str]:
        """Everything."""
        return [str(each) for each in (self.policy, self.logs, self.model, self.settings)]


def front_decided(number: int, dice: random.Random, choices: Sequence[SlotChoice], model_id: str | None) -> JoinedEvent:
    """Make one decision for two slots."""
    interaction = MultiSlotInteraction(
        event_id=f"f{number}",
        context=features([_context(dice)]),
        actions=_ACTIONS,
        slots=(
            Slot("hero", features([{"size": "large"}]), baseline=0, excluded=(1,)),
            Slot("side", features([{"size": "small"}]), baseline=1),
        ),
        choices=tuple(choices),
        learning_mode=LearningMode.ONLINE,
        reward_wait_us=WAIT_US,
        model_id=model_id,
    )
    return event(interaction, round(dice.random(), 3), time_us=TIME_US + number)
