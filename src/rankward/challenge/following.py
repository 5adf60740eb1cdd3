"""How a challenger begins, and how it goes on when its loop is changed."""

from __future__ import annotations

import msgspec

from rankward.challenge.contest import Progress, relearns
from rankward.challenge.measure import Measure
from rankward.evaluation.asking import changes
from rankward.evaluation.judge import RewardRange
from rankward.records import Offset, TimeUs
from rankward.store.challengers import Challenger, ChallengerKind, ChallengerState
from rankward.store.ports import Epoch, Loop
from rankward.training.service import next_epoch
from rankward.vw.arguments import problem_type_of


def epoch_of(loop: Loop, policy: str, preset: str | None, *, now_us: TimeUs) -> Epoch:
    """Describe what a challenger of a loop learns: the newest part of its log, as an epoch of its own would."""
    settings = msgspec.structs.replace(loop.settings, policy=policy, preset=preset)
    return next_epoch(msgspec.structs.replace(loop, settings=settings), now_us=now_us, reason="a challenger")


def begun(challenger: Challenger, *, asked_to: Offset, start: Offset) -> Progress:
    """Describe how far a challenger is that has learned nothing yet.

    Args:
        challenger: that begins.
        asked_to: the first joined event that it is judged by.
        start: the first joined event that it learns.
    """
    settings = challenger.settings
    return Progress(
        asked_to=asked_to,
        decided_us=challenger.judged_from_us,
        learned_offset=start,
        learned=0,
        learned_to_us=0,
        model_id=None,
        measure=Measure(RewardRange(settings.reward_min, settings.reward_max)).state(),
        time_us=challenger.judged_from_us,
    )


def followed(challenger: Challenger, loop: Loop, *, now_us: TimeUs) -> Challenger:
    """Return a challenger as it goes on after its loop was changed: itself, if nothing concerns it.

    What was found under other settings does not hold: it is judged anew, by decisions from now on. What it has learned
    stays, unless rewards are defined otherwise or the loop's model was deleted: then its epoch is another.
    """
    epoch = challenger.epoch
    if problem_type_of(loop.settings.policy) is not problem_type_of(epoch.policy):
        return failed(challenger, "the loop decides for several slots now, or no longer does: remove it")
    reasons = changes(challenger.settings, loop.settings)
    forgotten = loop.forgotten_before != epoch.first_interaction
    if forgotten:
        reasons.append("model (it was deleted)")
    if not reasons:
        return challenger
    learns_anew = forgotten or relearns(challenger.settings, loop.settings)
    return msgspec.structs.replace(
        challenger,
        settings=loop.settings,
        judged_from_us=now_us,
        epoch=epoch_of(loop, epoch.policy, challenger.preset, now_us=now_us) if learns_anew else epoch,
        description=f"begun anew, as the loop was changed: {', '.join(reasons)}",
    )


def failed(challenger: Challenger, why: str) -> Challenger:
    """Return a challenger that does not go on."""
    return msgspec.structs.replace(challenger, state=ChallengerState.FAILED, description=why)


def gone_on(before: Progress, challenger: Challenger) -> Progress:
    """Describe how far a challenger is that keeps what it has learned and is judged anew."""
    fresh = begun(challenger, asked_to=before.asked_to, start=before.learned_offset)
    return msgspec.structs.replace(
        fresh,
        decided_us=before.decided_us,
        learned=before.learned,
        learned_to_us=before.learned_to_us,
        model_id=before.model_id,
        digest=before.digest,
    )


def learning_anew(before: Progress, *, start: Offset) -> Progress:
    """Describe how far a challenger is whose learner is lost. It learns again up to where it is judged."""
    return msgspec.structs.replace(before, learned_offset=start, learned=0, learned_to_us=0, model_id=None, digest="")


def younger_of(loop: Loop, epoch: Epoch, *, key: str, start: Offset, now_us: TimeUs) -> Challenger:
    """Describe a model that learns what the loop's own does, from a place in the log on.

    Args:
        loop: whose policy it is.
        epoch: that serves; what it has settled holds for the younger model, too.
        key: of the challenger.
        start: the first joined event that it learns.
        now_us: the time.
    """
    return Challenger(
        key=key,
        loop_id=loop.loop_id,
        name=f"younger:{start}",  # no name that somebody can ask for
        created_us=now_us,
        preset=loop.settings.preset,
        exploration=None,
        settings=loop.settings,
        epoch=msgspec.structs.replace(
            epoch, epoch_id=0, reason="a younger model", created_us=now_us, base=None, start=start
        ),
        judged_from_us=now_us,
        kind=ChallengerKind.YOUNGER,
    )


def still_younger(challenger: Challenger, loop: Loop, serving: Epoch | None) -> bool:
    """Whether a younger model still is one of what serves: the loop wants them, and both learn in the same way."""
    if serving is None or not loop.settings.younger_models or changes(challenger.settings, loop.settings):
        return False
    epoch = challenger.epoch
    mine = (epoch.policy, epoch.interactions, epoch.rate, epoch.bins, epoch.first_interaction)
    return mine == (serving.policy, serving.interactions, serving.rate, serving.bins, serving.first_interaction)
