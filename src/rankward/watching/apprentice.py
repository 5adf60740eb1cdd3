"""How well an apprentice has learned what the application does, over rolling windows, and whether it is time to switch.

The contract's measures (reference §14): how often the model's own draw is the baseline that was shown, and how much of
the baseline's reward falls to those events. The application's rewards belong to what it showed, so what the model
would have earned elsewhere is not known, and counts as nothing: what is achieved is the least that is sure.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence

import msgspec

from rankward.evaluation.judge import RewardRange
from rankward.records import LearningMode, Offset, TimeUs
from rankward.watching.seen import Seen

BLOCK_EVENTS = 100
WINDOW_BLOCKS = 10  # 1,000 events, as the contract has it
WINDOW_EVENTS = BLOCK_EVENTS * WINDOW_BLOCKS
SWITCH_AT = 0.75  # of what is within reach: published guidance for the original was 60 to 80 %
_STALLED_BLOCKS = 5 * WINDOW_BLOCKS
_RISE = 0.02  # of the match rate, below which it has not risen
_Z = 1.96


class Block(msgspec.Struct, array_like=True):
    """Sums over successive events of apprentice mode. Of several slots, an event counts by their share."""

    at: Offset  # in the joined log, of the first event
    from_us: TimeUs  # when that was decided
    to_us: TimeUs  # when the last one was
    events: int = 0
    matched: float = 0.0  # in which the model drew what was shown
    preferred: float = 0.0  # in which no action was likelier to the model than what was shown
    reachable: float = 0.0  # sum of the largest probabilities: how many could have matched, exploring as it does
    rewards: float = 0.0  # sum, above reward_min
    achieved: float = 0.0  # sum over what matched, above reward_min

    def add(self, seen: Seen, rewards: RewardRange) -> None:
        """Take an event in."""
        self.to_us = max(self.to_us, seen.time_us)
        self.events += 1
        self.matched += seen.matched
        self.preferred += seen.preferred
        slots = len(seen.asked)
        for question, reward in zip(seen.asked, seen.rewards, strict=True):
            above = max(0.0, reward - rewards.low) / slots
            self.reachable += max(question.p_log) / slots
            self.rewards += above
            if question.chosen == question.baseline:
                self.achieved += above


class ApprenticeWindow(msgspec.Struct, frozen=True, kw_only=True):
    """The last 1,000 events of apprentice mode up to a moment, or as many as there were. Shares are within [0, 1]."""

    from_us: TimeUs  # decisions
    to_us: TimeUs
    events: int
    match: float  # share of events in which the model drew what was shown
    match_low: float  # 95 % interval of the share, of this window by itself
    match_high: float
    preferred: float  # share of events in which no action was likelier to the model than what was shown
    reachable: float  # the largest match that is possible while it explores as it does
    achieved: float | None  # share of the baseline's reward, above reward_min, in events that match; None: it had none


class Advice(enum.StrEnum):
    """What to do about the learning mode."""

    NONE = "none"  # it is not an apprentice
    WAIT = "wait"  # there are too few events to tell
    GO_ON = "go on"  # it is still learning
    SWITCH = "switch"  # it does well enough to be let loose
    STALLED = "stalled"  # it does not get better any more


class Apprenticeship(msgspec.Struct, frozen=True, kw_only=True):
    """How an apprentice does."""

    windows: tuple[ApprenticeWindow, ...]  # one for every 100 events, ascending; empty: there were none
    now: ApprenticeWindow | None  # the newest
    bound: float | None  # `achieved` from which on to switch: 0.75 of what is reachable; None: there were no events
    advice: Advice
    words: str  # the advice, for people


def windows(blocks: Sequence[Block]) -> list[ApprenticeWindow]:
    """Tell the window that ends with each block.

    Args:
        blocks: successive ones, ascending. All but the last are full.
    """
    found = []
    for end in range(1, len(blocks) + 1):
        within = blocks[max(0, end - WINDOW_BLOCKS) : end]
        events = sum(block.events for block in within)
        match = sum(block.matched for block in within) / events
        low, high = _wilson(match, events)
        rewards = sum(block.rewards for block in within)
        found.append(
            ApprenticeWindow(
                from_us=within[0].from_us,
                to_us=max(block.to_us for block in within),
                events=events,
                match=match,
                match_low=low,
                match_high=high,
                preferred=sum(block.preferred for block in within) / events,
                reachable=sum(block.reachable for block in within) / events,
                achieved=sum(block.achieved for block in within) / rewards if rewards > 0 else None,
            )
        )
    return found


def _wilson(share: float, events: int) -> tuple[float, float]:
    """Bound a share. Source: Wilson, JASA 1927."""
    middle = (share + _Z**2 / (2 * events)) / (1 + _Z**2 / events)
    half = _Z / (1 + _Z**2 / events) * math.sqrt(share * (1 - share) / events + _Z**2 / (4 * events**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def apprenticeship(blocks: Sequence[Block], mode: LearningMode, loop_name: str) -> Apprenticeship:
    """Tell how an apprentice does, and what to do.

    Args:
        blocks: the newest ones, ascending.
        mode: of the loop now.
        loop_name: for the command that is advised.
    """
    found = windows(blocks)
    now = found[-1] if found else None
    advice, words = _advice(found, mode, loop_name)
    return Apprenticeship(
        windows=tuple(found),
        now=now,
        bound=None if now is None else SWITCH_AT * now.reachable,
        advice=advice,
        words=words,
    )


def _advice(found: Sequence[ApprenticeWindow], mode: LearningMode, loop_name: str) -> tuple[Advice, str]:
    if mode is not LearningMode.APPRENTICE:
        return Advice.NONE, f"the loop is not an apprentice: its learning mode is {mode}"
    if not found or found[-1].events < WINDOW_EVENTS:
        events = found[-1].events if found else 0
        return Advice.WAIT, (
            f"{events} events of apprentice mode are joined: {WINDOW_EVENTS:,} are needed to tell how it does"
        )
    now = found[-1]
    command = f"rankward settings set {loop_name} learning_mode=Online"
    matched = f"over the last {now.events:,} events it drew what was shown in {now.match:.0%}"
    if now.achieved is None:
        return Advice.WAIT, f"{matched}; none of them was rewarded: without rewards nobody can tell what that is worth"
    bound = SWITCH_AT * now.reachable
    measured = (
        f"{matched}, and these events earned {now.achieved:.0%} of the baseline's reward; the bound is {bound:.0%}, "
        f"{SWITCH_AT:.0%} of the {now.reachable:.0%} that are within reach while it explores as it does"
    )
    if now.achieved >= bound:
        return Advice.SWITCH, f"{measured}: let it decide, with `{command}`"
    earlier = found[-1 - _STALLED_BLOCKS] if len(found) > _STALLED_BLOCKS else None
    if earlier is not None and earlier.events == WINDOW_EVENTS and now.match < earlier.match + _RISE:
        return Advice.STALLED, (
            f"{measured}. {_STALLED_BLOCKS * BLOCK_EVENTS:,} events ago it matched {earlier.match:.0%}: it gets no "
            "better. Its features may not tell what the application goes by: send those, or let rewards decide, with "
            f"`{command}`, and watch whether it beats the baseline"
        )
    return Advice.GO_ON, f"{measured}: let it go on learning"
