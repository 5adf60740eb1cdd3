"""The learner: one Vowpal Wabbit instance, fed with examples as its JSON parser reads them.

The binding's own lower layer (`_parse`, `predict_multi`, `learn_multi`, `_finish_example_multi_ex`) is used:
it gives the same numbers as the upper one in a third of the time, most of which goes into Python objects.
An instance holds the interpreter lock while it works and must not be used by two threads at once.

Parsing is most of what a decision costs the learner (three quarters at 50 actions): see `vw.parser` for what is kept of
it, and for learners that share it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from vowpalwabbit import Workspace

from rankward.errors import RankwardError
from rankward.records import Action, Bins, Features, Slot, SlotChoice
from rankward.vw.explain import Contribution, Terms, explain
from rankward.vw.parser import Lesson, Parser, context_text
from rankward.vw.slots import label_head, seed_head, with_slots

_encode = msgspec.json.Encoder().encode


class _Weight(msgspec.Struct, frozen=True):
    index: int
    value: float


class _Table(msgspec.Struct, frozen=True):
    """The weights that are not 0, as the learner lists them."""

    weights: list[_Weight]


_decode_table = msgspec.json.Decoder(_Table).decode


class LearnerRefusedError(RankwardError):
    """The learner cannot use an example, a model or its arguments."""


class Learner:
    """A Vowpal Wabbit instance, for decisions of one slot or of several as its arguments have it."""

    def __init__(
        self,
        arguments: str,
        model: bytes | None = None,
        *,
        bins: Bins | None = None,
        parser: Parser | None = None,
    ) -> None:
        """Start the learner.

        Args:
            arguments: options that passed `vw.arguments`.
            model: a model's bytes to go on from; None: start afresh.
            bins: that the model was learned with; None: it sees numbers as they are.
            parser: shared with other learners that parse alike (`PolicyArguments.parsing_text`), and open for as long
                as they are, with the same bins; None: one of its own.

        Raises:
            LearnerRefusedError: the arguments or the model cannot be used.
        """
        self.arguments = arguments
        self._terms = Terms.of(arguments)
        self._workspace = _start(arguments, model)
        self._bins = bins
        self._owns_parser = parser is None
        self._parser = Parser(self._workspace, arguments, bins) if parser is None else parser

    def __reduce__(self) -> tuple[Callable[..., Learner], tuple[object, ...]]:
        """Keep what is learned, to go on from where the learner is kept with what it belongs to."""
        parser = None if self._owns_parser else self._parser
        return _gone_on, (self.arguments, self.save(), self._bins, parser)

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
        try:
            examples = self._parser.offered(context, actions)
            self._workspace.predict_multi(examples)
        except RuntimeError as error:
            self._parser.forget()
            raise LearnerRefusedError(f"the learner cannot score the features: {error}") from error
        scores: list[float] = examples[0].get_action_scores()
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
        self.learn_from(Lesson(context, actions, chosen, probability, reward, pass_probability))

    def learn_from(self, lesson: Lesson) -> None:
        """Learn what one decision earned: as `learn`, for a lesson that others may be told as well."""
        try:
            self._workspace.learn_multi(self._parser.labelled(lesson))
        except RuntimeError as error:
            self._parser.forget()
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
        context, actions = self._parser.seen(context, actions)
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
        offered, shown = context_text(*self._parser.seen(context, actions)), self._parser.seen_slots(slots)
        text = with_slots(offered, shown, len(actions), map(seed_head, seeds))
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
        text, count = context_text(*self._parser.seen(context, actions)), len(actions)
        slots = self._parser.seen_slots(slots)
        heads = map(label_head, choices, rewards)
        try:
            if pass_probability < 1.0:
                parser = self._parser.weigher()
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

    def save(self) -> bytes:
        """Return the model's bytes."""
        with tempfile.TemporaryDirectory(prefix="rankward-") as folder:
            path = Path(folder) / "model.vw"
            self._workspace.save(str(path))
            return path.read_bytes()

    def weights(self) -> dict[int, float]:
        """Return every weight that is not 0, by index, without the update rule's own statistics."""
        workspace = self._workspace
        try:
            listed = _decode_table(workspace.json_weights())
        except msgspec.DecodeError:  # the learner's list breaks off at a weight that is not finite
            values = ((index, workspace.get_weight(index)) for index in range(workspace.num_weights()))
            return {index: value for index, value in values if value != 0}
        return {each.index: each.value for each in listed.weights}

    def close(self) -> None:
        """Let go of the learner's memory."""
        if self._owns_parser:
            self._parser.close()  # and the workspace, which they share
        else:
            self._workspace.finish()


def _gone_on(arguments: str, model: bytes, bins: Bins | None, parser: Parser | None) -> Learner:
    return Learner(arguments, model, bins=bins, parser=parser)


def shared_parser(arguments: str, bins: Bins | None = None) -> Parser:
    """Make a parser for several learners.

    Args:
        arguments: of one of them.
        bins: of all of them.

    Raises:
        LearnerRefusedError: the arguments cannot be used.
    """
    return SharedParser(_start(arguments, None), arguments, bins)


class SharedParser(Parser):
    """A parser that belongs to no learner, and can be kept with those that share it."""

    def __reduce__(self) -> tuple[Callable[..., Parser], tuple[object, ...]]:
        """Keep what it was made with: what is parsed can be parsed again."""
        return shared_parser, (self._arguments, self._bins)


def _start(arguments: str, model: bytes | None) -> Workspace:
    command = f"{arguments} --json --quiet"
    try:
        if model is None:
            return Workspace(command)
        with tempfile.NamedTemporaryFile(prefix="rankward-", suffix=".vw") as file:
            file.write(model)
            file.flush()
            return Workspace(f"{command} -i {file.name}")
    except (RuntimeError, ValueError) as error:
        raise LearnerRefusedError(f"the learner does not start with {arguments!r}: {error}") from error
