"""Decisions for slots as the learner reads them: the text of `_slots`, with seeds or labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from rankward.records import Slot, SlotChoice, without

_encode = msgspec.json.Encoder().encode


def with_slots(text: str, slots: Sequence[Slot], action_count: int, heads: Iterable[str] | None = None) -> str:
    """Add the slots to the context object of a decision, as Personalizer's logs have them under `c`.

    Args:
        text: what `parser.context_text` wrote of the context and all of the request's actions.
        slots: in the order in which they choose.
        action_count: how many actions the text has.
        heads: JSON members for each slot to begin with, each with a comma after it; None: none.
    """
    begun = [""] * len(slots) if heads is None else heads
    written = [_slot_text(slot, action_count, head) for slot, head in zip(slots, begun, strict=True)]
    return f'{text[:-1]},"_slots":[{",".join(written)}]}}'


def _slot_text(slot: Slot, action_count: int, head: str) -> str:
    features = slot.features.decode()
    if slot.excluded:
        included = f'{{"_inc":{without(slot.excluded, action_count)}}}'
        features = f"[{included}]" if features == "[]" else f"{features[:-1]},{included}]"
    return f'{{{head}"_id":{_encode(slot.id).decode()},"sj":{features}}}'


def seed_head(seed: int) -> str:
    """Have the learner draw a slot's action by a seed of 64 bits: it takes one from the slot's tag."""
    return f'"_tag":"seed={seed:016x}",'


def label_head(choice: SlotChoice, reward: float) -> str:
    """Tell the learner what a slot's choice earned; the learner is told the cost, which is its negative."""
    return f'"_label_cost":{-reward!r},"_a":{list(choice.actions)},"_p":{list(choice.pmf)},'
