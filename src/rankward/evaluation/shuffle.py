"""Permutes features along a log: each decision is shown with the values that an earlier one had.

So a policy can be asked what it would have chosen had it not known a feature, without learning anything anew and
without writing the log again. Whose values a decision gets is drawn from those before it: the policy that is asked so
depends on nothing that comes later, and is judged like any other.

Sources: permutation: Breiman, "Random forests", Machine Learning 2001, and Fisher, Rudin and Dominici, JMLR 2019; a
fair sample of what has passed: Vitter's algorithm R, ACM TOMS 1985.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np

from rankward.evaluation.features import (
    ACTION_ID,
    OUTERMOST_ACTION,
    OUTERMOST_CONTEXT,
    OUTERMOST_SLOT,
    Excerpt,
    Feature,
    excerpt,
    exchanged,
)
from rankward.records import Action, AnyInteraction, Features, JoinedEvent, MultiSlotInteraction

SAMPLE = 1_000  # of contexts, of actions and of slots, that values are drawn from


class _Sample:
    """A fair sample of what has passed, of bounded size."""

    def __init__(self) -> None:
        self._kept: list[Excerpt] = []
        self._seen = 0

    def exchange(self, own: Excerpt, chances: Iterator[float]) -> Excerpt:
        """Draw what stands in for one's own, and put that in for those to come.

        Args:
            own: what is to be replaced.
            chances: within [0, 1), two of which are taken.
        """
        draw, stay = next(chances), next(chances)
        drawn = self._kept[int(draw * len(self._kept))] if self._kept else own
        self._seen += 1
        if len(self._kept) < SAMPLE:
            self._kept.append(own)
        elif (place := int(stay * self._seen)) < SAMPLE:
            self._kept[place] = own
        return drawn


class Shuffle:
    """Permutes some features together, so that what they tell of each other stays as it is."""

    def __init__(self, features: frozenset[Feature], *, seed: Sequence[int]) -> None:
        """Begin.

        Args:
            features: that go together.
            seed: of the draws.
        """
        self._features = features
        self._rng = np.random.default_rng(seed)
        self._contexts, self._actions, self._slots = _Sample(), _Sample(), _Sample()

    def take(self, event: JoinedEvent) -> JoinedEvent:
        """Return the next event as others would have had it. One that has no other before it stays as it is."""
        interaction = event.interaction
        slots = interaction.slots if isinstance(interaction, MultiSlotInteraction) else ()
        chances = iter(self._rng.random(2 * (1 + len(interaction.actions) + len(slots))).tolist())
        context = self._exchanged(interaction.context, OUTERMOST_CONTEXT, self._contexts, chances)
        actions = tuple([self._action(action, chances) for action in interaction.actions])
        shuffled: AnyInteraction = msgspec.structs.replace(interaction, context=context, actions=actions)
        if isinstance(shuffled, MultiSlotInteraction):
            asked = [(slot, self._exchanged(slot.features, OUTERMOST_SLOT, self._slots, chances)) for slot in slots]
            shown = tuple([msgspec.structs.replace(slot, features=features) for slot, features in asked])
            shuffled = msgspec.structs.replace(shuffled, slots=shown)
        return JoinedEvent(event.offset, event.entry, shuffled)

    def _action(self, action: Action, chances: Iterator[float]) -> Action:
        named = ACTION_ID in self._features
        own = Excerpt(excerpt(action.features, self._features, OUTERMOST_ACTION), action.id if named else "")
        drawn = self._actions.exchange(own, chances)
        features = exchanged(action.features, self._features, OUTERMOST_ACTION, drawn.text)
        return Action(drawn.action_id if named else action.id, features)

    def _exchanged(self, features: Features, outermost: str, sample: _Sample, chances: Iterator[float]) -> Features:
        own = Excerpt(excerpt(features, self._features, outermost))
        return exchanged(features, self._features, outermost, sample.exchange(own, chances).text)
