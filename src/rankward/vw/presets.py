"""Named presets: policies to choose by what they cost and gain, and the interactions derived for them."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

import msgspec

from rankward.vw.arguments import PolicyArguments, ProblemType, is_usable_letter, parse_policy

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rankward.records import Action, Features, Interactions, Rate, Slot

CONTEXT_LETTER: Final = "F"  # of `FromUrl`, where plain keys of the context are
ACTION_LETTER: Final = "j"  # of `j`, where plain keys of an action are
SLOT_LETTER: Final = "s"  # of `sj`, where plain keys of a slot are
ID_LETTER: Final = "i"  # of `i`, the constant and the id that every action has


class Preset(msgspec.Struct, frozen=True, kw_only=True):
    """A policy with a name."""

    name: str
    arguments: str  # for a single slot; the problem type comes first
    derives_interactions: bool  # whether the loop's own namespaces give it `derive_interactions`
    derives_rate: bool  # whether the noise of the loop's own rewards gives it one of `vw.rates`
    description: str  # what it costs and gains, for people

    def policy(self, problem_type: ProblemType = ProblemType.SINGLE_SLOT) -> PolicyArguments:
        """Return its arguments for a problem type, without derived interactions."""
        return parse_policy(self.arguments.replace(f"--{ProblemType.SINGLE_SLOT}", f"--{problem_type}", 1))


PERSONALIZER: Final = Preset(
    name="personalizer",
    arguments="--cb_explore_adf --epsilon 0.2 --power_t 0 -l 0.001 --cb_type mtr -q ::",
    derives_interactions=False,
    derives_rate=False,
    description=(
        "What Azure AI Personalizer starts with, word for word. One decision in five is random, whatever is "
        "known already, and the learning rate is low: it needs many events to gain what others gain early. "
        "Choose it to go on from an exported model, or to compare."
    ),
)
BALANCED: Final = Preset(
    name="balanced",
    # SquareCB is to learn every event with the same weight, but 9.11.9 weights events of the last action of a request
    # by 1 / probability all the same: one click on it, when it is seldom chosen, outweighs fifty elsewhere.
    arguments="--cb_explore_adf --squarecb --gamma_scale 10 --epsilon 0.02 --cb_type mtr --clip_p 1",
    derives_interactions=True,
    derives_rate=True,
    description=(
        "Explores most where actions look alike, and less as it learns, down to a floor of one decision in "
        "fifty that lets every policy be evaluated from the log. Each group of context features is paired "
        "with each group of action features, and a new group starts a new epoch. So does noise: where rewards "
        "are mostly chance, such as rare clicks, it learns in smaller steps. One model, so it costs no more time "
        "than the preset personalizer."
    ),
)
# Both name the learner's own rates, so that nobody's policy is taken for a preset without meaning it.
PLAIN: Final = Preset(
    name="plain",
    arguments="--cb_explore_adf --epsilon 0.05 --cb_type mtr --learning_rate 0.5 --power_t 0.5",
    derives_interactions=True,
    derives_rate=False,
    description=(
        "The best action, and one decision in twenty spread evenly over all. It does the same whether rewards are "
        "counted from 0 to 1 or from 0 to 0.05, where the others explore by the size of rewards. It never explores "
        "less, and learns rare clicks slowly. Interactions are paired as those of balanced."
    ),
)
CHANGING: Final = Preset(
    name="changing",
    arguments="--cb_explore_adf --softmax --lambda 10 --epsilon 0.02 --cb_type mtr --learning_rate 0.5 --power_t 0.5",
    derives_interactions=True,
    derives_rate=False,
    description=(
        "Explores an action the less, the less it is expected to earn, however long it has learned: so it notices "
        "soonest that preferences have changed. It needs rewards that reach from near 0 to near 1, is nearly random "
        "with smaller ones, and learns rare clicks slowly. Interactions are paired as those of balanced."
    ),
)
PRESETS: Final = {preset.name: preset for preset in (PERSONALIZER, BALANCED, PLAIN, CHANGING)}


def preset_of(policy: PolicyArguments) -> str | None:
    """Name the preset that a policy is, whatever its problem type, `--epsilon` and order; None: it is none's."""
    wanted = _plain(policy)
    return next((each.name for each in PRESETS.values() if _plain(each.policy(policy.problem_type)) == wanted), None)


def _plain(policy: PolicyArguments) -> list[tuple[str, str]]:
    return sorted((each.name, each.value or "") for each in policy.arguments if each.name != "epsilon")


def learner_arguments(
    policy: str, interactions: Interactions | None, exploration: float, rate: Rate | None = None
) -> str:
    """Write what the learner is given.

    Args:
        policy: arguments that passed the allow-list.
        interactions: those derived for the epoch; None: the policy names its own.
        exploration: the loop's, in place of the policy's `--epsilon`.
        rate: that chosen for the epoch; None: the policy's own.
    """
    arguments = parse_policy(policy).with_epsilon(exploration)
    if rate is not None:
        arguments = arguments.with_options(rate.options)
    if interactions is not None:
        arguments = arguments.with_interactions(interactions.pairs, interactions.ignore_linear)
    return arguments.learner_text


def derive_interactions(
    context_letters: frozenset[str], action_letters: frozenset[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Pair every context namespace with every action namespace.

    Args:
        context_letters: first letters, as `namespace_letters` gives them.
        action_letters: the same for actions. A letter seen on both sides counts as both.

    Returns:
        The pairs for `-q`, sorted, none of them twice in either order; and the letters for `--ignore_linear`:
        those of the context only, whose own weights cannot change a choice. Letters and digits alone, since the
        learner, when it saves a model, forgets how the others are written.

    >>> derive_interactions(frozenset("Fv"), frozenset("ij"))
    (('Fi', 'Fj', 'vi', 'vj'), ('F', 'v'))
    """
    pairs: dict[frozenset[str], str] = {}
    for context_letter in sorted(context_letters):
        for action_letter in sorted(action_letters):
            pairs.setdefault(frozenset({context_letter, action_letter}), context_letter + action_letter)
    return tuple(sorted(pairs.values())), tuple(sorted(filter(str.isalnum, context_letters - action_letters)))


def namespace_letters(
    context: Features, actions: Sequence[Action], slots: Sequence[Slot] = ()
) -> tuple[frozenset[str], frozenset[str]]:
    """Tell which namespaces an event has, by first letter, once it is mapped for the learner.

    Args:
        context: the shared features.
        actions: those of the event.
        slots: of an event that has any. The learner adds a slot's features to the context's.

    Returns:
        The letters of the context with its slots, and those of the actions. Named are the groups the features have
        by their shape, even one with nothing but zeros, so that a value does not turn up as a new namespace. Left
        out are letters that no option can name, see `is_usable_letter`: such a namespace is
        learned by itself, without interactions.

    A nested object is a namespace of its own, and so is an array of numbers, both by the innermost key around
    them; plain values belong to the nearest namespace outside.
    """
    found = {ID_LETTER}
    for action in actions:
        found |= _action_letters(action.features)
    in_context = _letters(context, CONTEXT_LETTER)
    for slot in slots:
        in_context |= _slot_letters(slot.features)
    return in_context, frozenset(found)


@lru_cache(maxsize=4096)
def _action_letters(features: Features) -> frozenset[str]:
    return _letters(features, ACTION_LETTER)


@lru_cache(maxsize=1024)
def _slot_letters(features: Features) -> frozenset[str]:
    return _letters(features, SLOT_LETTER)


def _letters(features: Features, outermost: str) -> frozenset[str]:
    return frozenset(filter(is_usable_letter, _walk(msgspec.json.decode(features), outermost)))


def _walk(value: object, letter: str) -> Iterator[str]:
    """Yield the letter of the namespace of every feature within."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "_text":  # its words become features, as the learner reads it
                yield letter
            elif not key.startswith("_"):  # other such keys are not for learning
                yield from _walk(inner, key[:1] if isinstance(inner, dict | list) else letter)
    elif isinstance(value, list):
        for inner in value:
            yield from _walk(inner, letter)
    else:
        yield letter
