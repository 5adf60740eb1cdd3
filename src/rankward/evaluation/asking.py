"""What a study may ask for, checked before it begins, and how it is put to the evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import msgspec

from rankward.errors import InvalidPolicy, InvalidRequest
from rankward.evaluation.contender import Candidate
from rankward.evaluation.replay import Setup
from rankward.evaluation.report import PolicySource
from rankward.joining.reward import RewardDefinition
from rankward.records import TimeUs
from rankward.settings import SETTINGS, LoopSettings
from rankward.store.studies import AskedPolicy
from rankward.vw.arguments import PolicyArguments, parse_policy
from rankward.vw.presets import PRESETS, preset_of

POLICIES_MAX = 10
ONLINE = "online"
JUDGED_UNDER = frozenset({"reward_wait", "exploration", "reward_min", "reward_max", "model_export_frequency"})
"""Settings that need no new epoch, and yet matter to what an evaluation finds."""
RESERVED = frozenset({ONLINE, "baseline1", "baselinerand"})
"""Names, in lower case, of the policies that every evaluation judges."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody wants to know of a loop's log."""

    name: str
    start_us: TimeUs
    end_us: TimeUs
    policies: tuple[AskedPolicy, ...] = ()
    searches: bool = False


def check_question(question: Question, settings: LoopSettings) -> list[PolicyArguments]:
    """Refuse what cannot be asked of a loop.

    Returns:
        The policies' arguments, checked.

    Raises:
        InvalidRequest: the span is empty, or there are too many policies, or two of one name.
        InvalidPolicy: a policy is malformed, or not allowed, or decides something else than the loop does.
    """
    if question.start_us >= question.end_us:
        raise InvalidRequest(
            "startTime is not before endTime: swap them, or leave a span between them",
            code="InvalidDateTimesInEvaluationContract",
            target="startTime",
        )
    if len(question.policies) > POLICIES_MAX:
        raise InvalidRequest(
            f"{len(question.policies)} policies are more than {POLICIES_MAX}: ask for the others in an evaluation "
            "of their own",
            code="MaximumEvaluationCustomPoliciesExceeded",
            target="policies",
        )
    seen: set[str] = set()
    for policy in question.policies:
        name = policy.name.lower()
        if not name.strip() or name in RESERVED:
            raise InvalidRequest(
                f"a policy cannot be called {policy.name!r}: that is kept for a policy that is always judged, or empty",
                code="InvalidEvaluationContract",
                target="policies",
            )
        if name in seen:
            raise InvalidRequest(
                f"two policies are called {policy.name!r}: give each a name of its own",
                code="DuplicateCustomPolicyNames",
                target="policies",
            )
        seen.add(name)
    problem_type = parse_policy(settings.policy).problem_type
    found = []
    for policy in question.policies:
        arguments = parse_policy(policy.arguments)
        if arguments.problem_type is not problem_type:
            raise InvalidPolicy(
                f"policy {policy.name!r} is for --{arguments.problem_type}, the loop decides with --{problem_type}: "
                "use that option",
                target="policies",
            )
        found.append(arguments)
    return found


def candidates(policies: Sequence[AskedPolicy], settings: LoopSettings) -> list[Candidate]:
    """Make candidates of what was asked for, as the loop would run them.

    Args:
        policies: that passed `check_question`.
        settings: of the loop: its exploration holds where a policy names none.
    """
    found = []
    for policy in policies:
        arguments = parse_policy(policy.arguments)
        preset = preset_of(arguments)
        found.append(
            Candidate(
                name=policy.name,
                source=PolicySource.CUSTOM,
                policy=arguments.text,
                exploration=settings.exploration if arguments.epsilon is None else arguments.epsilon,
                derives_interactions=preset is not None and PRESETS[preset].derives_interactions,
                derives_rate=preset is not None and PRESETS[preset].derives_rate,
                numbers=settings.numbers,
                keeps_model=True,
            )
        )
    return found


def own_candidate(settings: LoopSettings, *, keeps_model: bool) -> Candidate:
    """Make a candidate of the loop's own policy, to be learned anew along the log."""
    return Candidate(
        name=ONLINE + ", learned anew",
        source=PolicySource.CUSTOM,
        policy=settings.policy,
        exploration=settings.exploration,
        derives_interactions=settings.preset is not None and PRESETS[settings.preset].derives_interactions,
        derives_rate=settings.preset is not None and PRESETS[settings.preset].derives_rate,
        numbers=settings.numbers,
        keeps_model=keeps_model,
    )


def setup_of(settings: LoopSettings) -> Setup:
    """Say how to judge policies by the log of a loop."""
    return Setup(
        rewards=RewardDefinition(settings.default_reward, settings.reward_aggregation),
        reward_min=settings.reward_min,
        reward_max=settings.reward_max,
        export_us=settings.model_export_frequency // timedelta(microseconds=1),
    )


def changes(known: LoopSettings, now: LoopSettings) -> list[str]:
    """Name the settings that matter to what an evaluation found, and are not what they were."""
    names = [name for name, setting in SETTINGS.items() if setting.retrains or name in JUDGED_UNDER]
    return [name for name in names if getattr(known, name) != getattr(now, name)]
