"""From text to the learner's examples, which is most of what a decision costs: what was parsed is used again.

Actions recur from one decision to the next, so those that were parsed to be scored are kept as the learner has them.
And where several learners go along one log, what one of them has parsed serves them all: the examples of a decision are
kept until another is asked for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import msgspec
import pylibvw
from vowpalwabbit import Workspace

from rankward.records import Action, Bins, Features, Slot
from rankward.vw.bins import Binner

_encode = msgspec.json.Encoder().encode

_PARSED_KEPT = 512  # actions that a parser keeps; each takes 29 kB, so these take 15 MB
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


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a learner is told of one decision for one slot."""

    context: Features
    actions: Sequence[Action]  # those that could have been chosen, in request order
    chosen: int  # index into `actions`
    probability: float  # of the chosen action when it was drawn, in (0, 1]
    reward: float
    pass_probability: float = 1.0  # of the event having been kept where only a sample is, in (0, 1]

    @cached_property
    def text(self) -> str:
        """The lesson as it is parsed: a log line where it weighs more than 1, since only those can say so."""
        return self.written(self.context, self.actions)

    def written(self, context: Features, actions: Sequence[Action]) -> str:
        """Write it as it is parsed, with what the learner sees of its context and its actions."""
        label = (
            f'{{"_label_cost":{-self.reward!r},"_label_probability":{self.probability!r},'
            f'"_label_Action":{self.chosen + 1},"_labelIndex":{self.chosen},'
        )
        text = context_text(context, actions)
        if self.pass_probability == 1.0:
            return label + text[1:]
        dropped = f'"pdrop":{1.0 - self.pass_probability!r}'
        return f'{label}{dropped},"a":[{self.chosen + 1}],"p":[{self.probability!r}],"c":{text}}}'


class Parser:
    """Makes examples for one learner, or for several that parse alike. Not to be used by two threads at once."""

    def __init__(self, workspace: Workspace, arguments: str, bins: Bins | None = None) -> None:
        """Prepare.

        Args:
            workspace: that parses. It is closed with the parser.
            arguments: it was made with.
            bins: to cut numbers by; None: they are seen as they are.
        """
        self._binner = None if bins is None or not bins.edges else Binner(bins)
        self._workspace = workspace
        self._arguments = arguments
        self._bins = bins
        self._weighing: Workspace | None = None  # parses what weighs more than 1; None: nothing has yet
        self._kept: OrderedDict[Action, pylibvw.example] = OrderedDict()  # the least recently used in front
        self._offered: tuple[Features, Sequence[Action]] | None = None  # what `_examples` are of, if it is to be scored
        self._lesson: Lesson | None = None  # what they are of, if it is to be learned
        self._examples: list[pylibvw.example] = []

    def seen(self, context: Features, actions: Sequence[Action]) -> tuple[Features, Sequence[Action]]:
        """Return what learners see of a context and of actions: with bins, intervals beside numbers."""
        if self._binner is None:
            return context, actions
        return self._binner.context(context), [self._binner.action(action) for action in actions]

    def seen_slots(self, slots: Sequence[Slot]) -> Sequence[Slot]:
        """Return the same of slots."""
        return slots if self._binner is None else [self._binner.slot(slot) for slot in slots]

    def offered(self, context: Features, actions: Sequence[Action]) -> list[pylibvw.example]:
        """Make examples to be scored: the shared one, then one for each action. They hold until the next call.

        Raises:
            RuntimeError: the features cannot be parsed.
        """
        if self._offered is not None and self._offered[0] is context and self._offered[1] == actions:
            return self._examples
        self.release()
        # Taken out while they are in use: an action that is offered twice is parsed twice.
        kept = [self._kept.pop(action, None) for action in actions]
        missing = [action for action, example in zip(actions, kept, strict=True) if example is None]
        shared, *found = self._workspace._parse(context_text(*self.seen(context, missing)))
        following = iter(found)
        self._examples = [shared, *[next(following) if example is None else example for example in kept]]
        self._offered = context, actions
        return self._examples

    def labelled(self, lesson: Lesson) -> list[pylibvw.example]:
        """Make examples to be learned. They hold until the next call.

        Raises:
            RuntimeError: the features cannot be parsed.
        """
        if lesson is not self._lesson:
            self.release()
            parser = self._workspace if lesson.pass_probability == 1.0 else self.weigher()
            plain = self._binner is None
            text = lesson.text if plain else lesson.written(*self.seen(lesson.context, lesson.actions))
            self._examples = parser._parse(text)
            self._lesson = lesson
        return self._examples

    def release(self) -> None:
        """Give the last examples back; of those that were scored, actions are kept."""
        done = self._examples
        if self._offered is not None:
            shared, *of_actions = done
            done = [shared]
            for action, example in zip(self._offered[1], of_actions, strict=True):
                if self._kept.setdefault(action, example) is not example:
                    done.append(example)
            while len(self._kept) > _PARSED_KEPT:
                done.append(self._kept.popitem(last=False)[1])
        if done:
            weighed = self._lesson is not None and self._lesson.pass_probability != 1.0
            parser = self.weigher() if weighed else self._workspace
            parser._finish_example_multi_ex(done)
        self.forget()

    def forget(self) -> None:
        """Let the last examples be: a learner broke on them, and nobody knows what they are like now."""
        self._offered = self._lesson = None
        self._examples = []

    def weigher(self) -> Workspace:
        """Return what parses log lines: they alone can say what an event weighs, and the learner learns it as well."""
        if self._weighing is None:
            self._weighing = Workspace(f"{self._arguments} --dsjson --quiet")
        return self._weighing

    def close(self) -> None:
        """Let go of what was parsed, and of what has parsed it."""
        self.release()
        self._workspace.finish()
        if self._weighing is not None:
            self._weighing.finish()
