"""One decision: which action to show, and with what probability it was drawn."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol
from uuid import UUID

import msgspec

from rankward.errors import InvalidRequest
from rankward.ranking.explore import check_pmf, event_uniform, floored, sample_index
from rankward.records import Action, EventId, Features, Interaction, LearningMode, ModelId, without


class RankRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A checked request for a decision."""

    event_id: EventId
    context: Features
    actions: tuple[Action, ...]  # at least one; ids differ
    excluded: tuple[int, ...] = ()  # indexes into `actions`, ascending; not all of them
    deferred: bool = False
    subject: str | None = None  # opaque: whose event it is; None: nobody said


class Policy(Protocol):
    """What scores actions: a model with its way of exploring."""

    model_id: ModelId

    def pmf(self, context: Features, actions: Sequence[Action]) -> list[float]:
        """Give each action's probability, in the order of `actions`."""


def decide(
    request: RankRequest,
    policy: Policy | None,
    *,
    loop_id: str,
    mode: LearningMode,
    exploration: float,
    reward_wait_us: int,
) -> Interaction:
    """Choose one action for one context.

    The draw is seeded by loop and event id, so that any decision can be made again from its log.

    Args:
        request: what to decide.
        policy: what scores; None: there is no model yet, so every action is as likely as the others.
        loop_id: of the loop that decides.
        mode: who decides. Logging only always takes the baseline, with probability 1.
        exploration: the loop's, within [0, 1]: no probability is below this over the number of actions.
        reward_wait_us: how long rewards will count.

    Raises:
        InvalidPmfError: the policy gave something that is no distribution.
        LearnerRefusedError: the policy cannot score the features.
    """
    rankable = without(request.excluded, len(request.actions))
    actions = [request.actions[index] for index in rankable]
    if mode is LearningMode.LOGGING_ONLY:
        drawn_pmf, drawn = [1.0] + [0.0] * (len(actions) - 1), 0
    else:
        if policy is None or len(actions) == 1:
            drawn_pmf = [1 / len(actions)] * len(actions)
        else:
            drawn_pmf = floored(check_pmf(policy.pmf(request.context, actions), len(actions)), exploration)
        drawn = sample_index(drawn_pmf, event_uniform(loop_id, request.event_id))
    pmf = drawn_pmf
    if request.excluded:
        pmf = [0.0] * len(request.actions)
        for index, probability in zip(rankable, drawn_pmf, strict=True):
            pmf[index] = probability
    return Interaction(
        event_id=request.event_id,
        context=request.context,
        actions=request.actions,
        excluded=request.excluded,
        pmf=tuple(pmf),
        chosen=rankable[drawn],
        learning_mode=mode,
        reward_wait_us=reward_wait_us,
        deferred=request.deferred,
        subject=request.subject,
        model_id=None if policy is None else policy.model_id,
    )


def ranking(interaction: Interaction) -> list[int]:
    """Order the actions as Rank answers them. Returns indexes into `interaction.actions`.

    Excluded actions keep the place they had in the request. Where the model decided, the drawn action
    comes first among the others and the rest descends by probability; else the request's order stays.
    """
    if interaction.learning_mode is not LearningMode.ONLINE:
        return list(range(len(interaction.actions)))
    ranked = sorted(interaction.rankable, key=interaction.pmf.__getitem__, reverse=True)  # ties keep their order
    ranked.remove(interaction.chosen)
    ranked.insert(0, interaction.chosen)
    for index in interaction.excluded:  # ascending, so that each finds its own place
        ranked.insert(index, index)
    return ranked


def excluded_indexes(actions: Sequence[Action], excluded_ids: Sequence[str]) -> tuple[int, ...]:
    """Find the actions that must not be chosen. Ids that no action has are ignored.

    Raises:
        InvalidRequest: nothing would be left to choose.
    """
    if not excluded_ids:
        return ()
    excluded = tuple([index for index, action in enumerate(actions) if action.id in excluded_ids])
    if len(excluded) == len(actions):
        raise InvalidRequest(
            f"all {len(actions)} actions are excluded: leave at least one to choose",
            code="InvalidRankRequest",
            target="excludedActions",
        )
    return excluded


_EPOCH_2017 = datetime(2017, 9, 16, tzinfo=UTC)
_BASE_62 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def new_event_id(unique: UUID, now: datetime) -> EventId:
    """Make an event id as Personalizer made them: 32 hex digits, a dash, and the time in base 62.

    >>> new_event_id(UUID(int=0), datetime(2026, 1, 15, 12, tzinfo=UTC))
    '00000000000000000000000000000000-hNluw'
    """
    seconds = max(0, int((now - _EPOCH_2017).total_seconds()))
    digits = ""
    while seconds or not digits:
        seconds, digit = divmod(seconds, 62)
        digits = _BASE_62[digit] + digits
    return f"{unique.hex}-{digits}"
