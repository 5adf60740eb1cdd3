"""A logged decision as a question that can be asked again: which of these actions, here?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rankward.records import AnyInteraction, Interaction

_SUM_SLACK = 0.01  # of logged probabilities: some logs round them to two digits


class Question(NamedTuple):
    """What was to be decided for one slot, and what was. Decisions without slots have one, without a name."""

    number: int  # of the slot, from 0
    slot_id: str  # empty: there are no slots
    actions: Sequence[int]  # indexes of those that could be drawn, given what the slots before had taken
    p_log: Sequence[float]  # one for each of `actions`
    chosen: int  # index into `actions`
    baseline: int | None  # index into `actions`; None: a slot before has taken it

    @property
    def flaw(self) -> str | None:
        """Why its probabilities cannot be true. None: they can."""
        total = sum(self.p_log)
        if not abs(total - 1) <= _SUM_SLACK:
            return f"its probabilities add up to {total:.6g}, not to 1"
        if not min(self.p_log) >= 0:
            return "it has a probability below 0"
        if not self.p_log[self.chosen] > 0:
            return "what was chosen has probability 0"
        return None


def questions(interaction: AnyInteraction) -> list[Question]:
    """Take a decision apart, slot by slot, in the order in which they chose."""
    if isinstance(interaction, Interaction):
        rankable = interaction.rankable
        p_log = [interaction.pmf[index] for index in rankable]
        return [Question(0, "", rankable, p_log, rankable.index(interaction.chosen), 0)]
    return [
        Question(
            number,
            slot.id,
            choice.actions,
            choice.pmf,
            0,
            choice.actions.index(slot.baseline) if slot.baseline in choice.actions else None,
        )
        for number, (slot, choice) in enumerate(zip(interaction.slots, interaction.choices, strict=True))
    ]
