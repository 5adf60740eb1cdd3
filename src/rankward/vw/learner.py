"""The learner: one Vowpal Wabbit instance, fed with examples as its JSON parser reads them.

The binding's own lower layer (`_parse`, `predict_multi`, `learn_multi`, `_finish_example_multi_ex`) is used:
it gives the same numbers as the upper one in a third of the time, most of which goes into Python objects.
An instance holds the interpreter lock while it works and must not be used by two threads at once.

Parsing is most of what a decision costs the learner (three quarters at 50 actions), and actions recur from one
decision to the next. So actions that were parsed to be scored are kept as the learner has them.
"""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import msgspec
import pylibvw
from vowpalwabbit import Workspace

from rankward.errors import RankwardError
from rankward.records import Action, Features, Slot, SlotChoice
from rankward.vw.explain import Contribution, Terms, explain
from rankward.vw.slots import label_head, seed_head, with_slots

_encode = msgspec.json.Encoder().encode


class LearnerRefusedError(RankwardError):
    """The learner cannot use an example, a model or its arguments."""


_PARSED_KEPT = 512  # actions that an instance keeps parsed; each takes 29 kB, so these take 15 MB
_REMEMBERED_BYTES = 2_048  # features longer than this are not remembered: the cache is bounded in bytes, too


def _written(action: Action) -> str:
    action_id = _encode(action.id).decode()
    return f'{{"_tag":{action_id},"i":{{"constant":1,"id":{action_id}}},"j":{action.features.decode()}}}'


_remembered = lru_cache(maxsize=16_384)(_written)


def _action_text(action: Action) -> str:
    return _remembered(action) if len(action.features) <= _REMEMBERED_BYTES else _written(action)


def context_text(context: Features, actions: Sequence[Action]) -> str:
    """Write the context object of a decision, as Personalizer's logs have it under `c`.

    Args:
        context: the shared features.
        actions: those that can be chosen, in request order.
    """
    return f'{{"FromUrl":{context.decode()},"_multi":[{",".join([_action_text(action) for action in actions])}]}}'


class Learner:
    """A Vowpal Wabbit instance, for decisions of one slot or of several as its arguments have it."""

    def __init__(self, arguments: str, model: bytes | None = None) -> None:
        """Start the learner.

        Args:
            arguments: options that passed `vw.arguments`.
            model: a model's bytes to go on from; None: start afresh.

        Raises:
            LearnerRefusedError: the arguments or the model cannot be used.
        """
        self.arguments = arguments
        self._terms = Terms.of(arguments)
        command = f"{arguments} --json --quiet"
        try:
            if model is None:
                self._workspace = Workspace(command)
            else:
                with tempfile.NamedTemporaryFile(prefix="rankward-", suffix=".vw") as file:
                    file.write(model)
                    file.flush()
                    self._workspace = Workspace(f"{command} -i {file.name}")
        except (RuntimeError, ValueError) as error:
            raise LearnerRefusedError(f"the learner does not start with {arguments!r}: {error}") from error
        self._parsed: OrderedDict[Action, pylibvw.example] = OrderedDict()
        self._weighing: Workspace | None = None  # parses what weighs more than 1; None: nothing has yet

    def pmf(self, context: Features, actions: Sequence[Action]) -> list[float]:
        """Give each action's probability, in request order, as the learner says it.

        It is not checked, and the floor is not applied: `ranking.explore` does both.

        Raises:
            LearnerRefusedError: the features cannot be parsed or scored.
        """
        return self._predict(context, actions)

    def estimates(self, context: Features, actions: Sequence[Action]) -> list[float]:
        """Give the reward expected of each action, in request order, where the arguments name no explorer.

        Raises:
            LearnerRefusedError: the features cannot be parsed or scored.
        """
        return [-cost for cost in self._predict(context, actions)]

    def _predict(self, context: Features, actions: Sequence[Action]) -> list[float]:
        workspace, parsed = self._workspace, self._parsed
        # Taken out while they are in use: so the least recently used stay in front, and none is used twice at once.
        kept = [parsed.pop(action, None) for action in actions]
        missing = [action for action, example in zip(actions, kept, strict=True) if example is None]
        try:
            shared, *found = workspace._parse(context_text(context, missing))
            following = iter(found)
            examples = [next(following) if example is None else example for example in kept]
            workspace.predict_multi([shared, *examples])
            scores: list[float] = shared.get_action_scores()
            done = [shared]
            for action, example in zip(actions, examples, strict=True):
                if parsed.setdefault(action, example) is not example:
                    done.append(example)
            while len(parsed) > _PARSED_KEPT:
                done.append(parsed.popitem(last=False)[1])
            workspace._finish_example_multi_ex(done)
        except RuntimeError as error:
            raise LearnerRefusedError(f"the learner cannot score the features: {error}") from error
        return scores

    def learn(
        self,
        context: Features,
        actions: Sequence[Action],
        *,
        chosen: int,
        probability: float,
        reward: float,
        pass_probability: float = 1.0,
    ) -> None:
        """Learn what one decision earned.

        Args:
            context: the shared features.
            actions: those that could have been chosen, in request order.
            chosen: index into `actions`.
            probability: of the chosen action when it was drawn, in (0, 1].
            reward: what it earned; the learner is told the cost, which is its negative.
            pass_probability: of the event having been kept by a client that uploads a sample, in (0, 1]. It weighs
                as much as its inverse.

        Raises:
            LearnerRefusedError: the example cannot be parsed or learned. The learner must not be used any more.
        """
        label = (
            f'{{"_label_cost":{-reward!r},"_label_probability":{probability!r},'
            f'"_label_Action":{chosen + 1},"_labelIndex":{chosen},'
        )
        text = context_text(context, actions)
        try:
            if pass_probability < 1.0:
                parser = self._weigher()
                examples = parser._parse(
                    f'{label}"pdrop":{1.0 - pass_probability!r},"a":[{chosen + 1}],"p":[{probability!r}],"c":{text}}}'
                )
            else:
                parser = self._workspace
                examples = parser._parse(label + text[1:])
            self._workspace.learn_multi(examples)
            parser._finish_example_multi_ex(examples)
        except RuntimeError as error:
            raise LearnerRefusedError(f"the learner cannot learn the event: {error}") from error

    def explain(self, context: Features, actions: Sequence[Action], index: int) -> list[Contribution] | None:
        """Take the score of one action apart: see `vw.explain`.

        Args:
            context: the shared features.
            actions: those that can be chosen, in request order.
            index: of the action that is asked about.

        Raises:
            LearnerRefusedError: the features cannot be parsed or scored.
        """
        workspace = self._workspace
        try:
            examples = workspace._parse(context_text(context, actions))
            workspace.predict_multi(examples)
            contributions = explain(
                workspace,
                examples,
                self._terms,
                stride=workspace.get_stride(),
                context=context,
                action=actions[index],
                index=index,
            )
            workspace._finish_example_multi_ex(examples)
        except RuntimeError as error:
            raise LearnerRefusedError(f"the learner cannot score the features: {error}") from error
        return contributions

    def choices(
        self, context: Features, actions: Sequence[Action], slots: Sequence[Slot], seeds: Sequence[int]
    ) -> list[SlotChoice]:
        """Let the learner draw an action for each slot, out of those that earlier slots left.

        The arguments must name `--ccb_explore_adf`. The draws are the learner's own, each by the seed given, and
        nothing else: the same call on the same model gives the same answer.

        Args:
            context: the shared features.
            actions: all of the request, in its order.
            slots: in the order in which they choose.
            seeds: 64 bits for each slot.

        Returns:
            A choice for each slot, as the learner says it: not checked. Without actions: none was left.

        Raises:
            LearnerRefusedError: the features cannot be parsed or scored.
        """
        workspace = self._workspace
        text = with_slots(context_text(context, actions), slots, len(actions), map(seed_head, seeds))
        try:
            examples = workspace._parse(text)
            workspace.predict_multi(examples)
            scored: list[list[tuple[int, float]]] = examples[0].get_decision_scores()
            workspace._finish_example_multi_ex(examples)
        except RuntimeError as error:
            raise LearnerRefusedError(f"the learner cannot score the features: {error}") from error
        return [SlotChoice(tuple([index for index, _ in slot]), tuple([share for _, share in slot])) for slot in scored]

    def learn_slots(
        self,
        context: Features,
        actions: Sequence[Action],
        slots: Sequence[Slot],
        choices: Sequence[SlotChoice],
        rewards: Sequence[float],
        pass_probability: float = 1.0,
    ) -> None:
        """Learn what the decisions for several slots earned. The arguments must name `--ccb_explore_adf`.

        Args:
            context: the shared features.
            actions: all of the request, in its order.
            slots: in the order in which they chose.
            choices: what each drew.
            rewards: what each earned.
            pass_probability: see `learn`.

        Raises:
            LearnerRefusedError: the example cannot be parsed or learned. The learner must not be used any more.
        """
        text, count = context_text(context, actions), len(actions)
        heads = map(label_head, choices, rewards)
        try:
            if pass_probability < 1.0:
                parser = self._weigher()
                outcomes = ",".join(
                    [f'{{{head}"_id":{_encode(slot.id).decode()}}}' for slot, head in zip(slots, heads, strict=True)]
                )
                line = (
                    f'"c":{with_slots(text, slots, count)},"_outcomes":[{outcomes}],"pdrop":{1.0 - pass_probability!r}'
                )
                examples = parser._parse(f"{{{line}}}")
            else:
                parser = self._workspace
                examples = parser._parse(with_slots(text, slots, count, heads))
            self._workspace.learn_multi(examples)
            parser._finish_example_multi_ex(examples)
        except RuntimeError as error:
            raise LearnerRefusedError(f"the learner cannot learn the event: {error}") from error

    def _weigher(self) -> Workspace:
        """Return what parses log lines: they alone can say what an event weighs, and the learner learns it as well."""
        if self._weighing is None:
            self._weighing = Workspace(f"{self.arguments} --dsjson --quiet")
        return self._weighing

    def save(self) -> bytes:
        """Return the model's bytes."""
        with tempfile.TemporaryDirectory(prefix="rankward-") as folder:
            path = Path(folder) / "model.vw"
            self._workspace.save(str(path))
            return path.read_bytes()

    def weights(self) -> dict[int, float]:
        """Return every weight that is not 0, by index, without the update rule's own statistics."""
        workspace = self._workspace
        values = ((index, workspace.get_weight(index)) for index in range(workspace.num_weights()))
        return {index: value for index, value in values if value != 0}

    def close(self) -> None:
        """Let go of the learner's memory."""
        self._workspace.finish()
        if self._weighing is not None:
            self._weighing.finish()
