"""Policies as argument strings: parsed, checked against an allow-list, and rewritten.

The learner's own parser opens files and sockets, and takes a stray word for a data file. So nothing
reaches it as it was sent: an argument string is taken apart here, every option and value is checked,
and `PolicyArguments.learner_text` is written anew from what was understood.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Final

import msgspec

from rankward.errors import InvalidPolicy

LENGTH_MAX: Final = 1024  # characters of an argument string
INTERACTION_COUNT_MAX: Final = 100  # of --quadratic, --cubic and --interactions together

Check = Callable[[str], str | None]
"""What is wrong with a value, as the end of a sentence; None when nothing is."""


class ProblemType(enum.StrEnum):
    """What the learner decides, by the option that names it."""

    SINGLE_SLOT = "cb_explore_adf"
    MULTI_SLOT = "ccb_explore_adf"


class Argument(msgspec.Struct, frozen=True):
    """One option of a policy."""

    name: str  # the long name, without dashes
    value: str | None  # None: a switch, which takes no value
    written: str  # as it was sent, single spaces between tokens


class PolicyArguments(msgspec.Struct, frozen=True):
    """Learner arguments that passed the allow-list. Made by `parse_policy`, and only there."""

    arguments: tuple[Argument, ...]
    derived: tuple[Argument, ...] = ()  # interactions found from a loop's features: never shown as its policy

    @property
    def text(self) -> str:
        """The policy as it was sent, but for stripped options and spare spaces."""
        return " ".join(argument.written for argument in self.arguments)

    @property
    def learner_text(self) -> str:
        """What the learner is given: long names only, one space between tokens, additions included.

        Long names, because the learner takes `-l1` for `--l1` in places. RegCB gets bounds of cost
        that suit rewards from 0 to 1: with the learner's own it would stay uniform, silently.
        """
        arguments = [*self.arguments, *self.derived]
        if self.explorer in _REGCB and self.value("cb_min_cost") is None:
            arguments += [_argument("cb_min_cost", "-1"), _argument("cb_max_cost", "0")]
        return " ".join(_spell(argument.name, argument.value) for argument in arguments)

    @property
    def problem_type(self) -> ProblemType:
        """What it decides. With both options named it is multi-slot, as the learner has it."""
        return ProblemType.MULTI_SLOT if self.names(ProblemType.MULTI_SLOT) else ProblemType.SINGLE_SLOT

    @property
    def explorer(self) -> str | None:
        """The option that names the way of exploring; None: epsilon-greedy."""
        return next((argument.name for argument in self.arguments if argument.name in _EXPLORERS), None)

    @property
    def epsilon(self) -> float | None:
        """The value of `--epsilon`; None: the policy does not name it."""
        value = self.value("epsilon")
        return None if value is None else float(value)

    @property
    def resumes_exactly(self) -> bool:
        """Whether to save, load and learn on ends where learning on without a break would.

        Measured with 9.11.9. Some options keep state that a model file does not hold, and a plain rate that
        decays with time (no `--adaptive`, `--power_t` above 0) starts its clock again on load.
        """
        if any(self.names(name) for name in ("bag", "cover", "rnd", "cb_dro")) or self.value("cb_type") == "dr":
            return False
        plain = any(self.names(name) for name in ("sgd", "invariant", "normalized"))
        return not plain or self.names("adaptive") or float(self.value("power_t") or 0.5) == 0.0

    def names(self, name: str) -> bool:
        """Whether the policy names an option, by its long name."""
        return any(argument.name == name for argument in self.arguments)

    def value(self, name: str) -> str | None:
        """Return the (first) value of an option; None: a switch, or not named."""
        return next((argument.value for argument in self.arguments if argument.name == name), None)

    def with_epsilon(self, epsilon: float) -> PolicyArguments:
        """Return the policy with another `--epsilon`, added where its explorer has one.

        Args:
            epsilon: within [0, 1].

        RegCB has none: it comes back as it is, unless it names the option all the same.
        """
        assert 0.0 <= epsilon <= 1.0, "epsilon was to be checked before"
        argument = _argument("epsilon", repr(float(epsilon)).removesuffix(".0"))
        if self.names("epsilon"):
            replaced = (argument if old.name == "epsilon" else old for old in self.arguments)
            return msgspec.structs.replace(self, arguments=tuple(replaced))
        if self.explorer in _REGCB:
            return self
        return msgspec.structs.replace(self, arguments=(*self.arguments, argument))

    def with_options(self, text: str) -> PolicyArguments:
        """Return the policy with other options, each in place of its own of that name.

        Args:
            text: long options that passed the allow-list; "": none.
        """
        others = tuple(_arguments(iter(text.split())))
        names = {argument.name for argument in others}
        kept = tuple(argument for argument in self.arguments if argument.name not in names)
        return msgspec.structs.replace(self, arguments=(*kept, *others))

    @property
    def estimator_text(self) -> str:
        """What a learner is given that estimates the cost of each action, and does not choose.

        It learns what the policy's own learner does, from the same events.
        """
        choosing = {*_PROBLEM_TYPE, *_EXPLORERS, *_EXPLORATION}
        others = (each for each in (*self.arguments, *self.derived) if each.name not in choosing)
        return " ".join(["--cb_adf --rank_all", *(_spell(each.name, each.value) for each in others)])

    @property
    def parsing_text(self) -> str:
        """All of it that examples depend on when they are parsed: two policies that share it can share them.

        Examples refer to the interactions, and are spaced for the weights that the reductions and the update rule keep
        of each feature. How far an event moves those, and how a choice is drawn, does not matter.
        """
        matters = (each for each in (*self.arguments, *self.derived) if each.name not in _AFTER_PARSING)
        return " ".join(_spell(each.name, each.value) for each in matters)

    def with_interactions(self, pairs: Sequence[str], ignore_linear: Sequence[str]) -> PolicyArguments:
        """Return the policy with interactions derived from features, in place of earlier ones.

        Args:
            pairs: two letters of namespaces each, such as `Fj`.
            ignore_linear: letters of namespaces that get no weights of their own.

        The learner is given them; `text` stays as it was.
        """
        derived = [_argument("quadratic", namespace_token(pair)) for pair in pairs]
        derived += [_argument("ignore_linear", namespace_token(letter)) for letter in ignore_linear]
        return msgspec.structs.replace(self, derived=tuple(derived))


def parse_policy(text: str) -> PolicyArguments:
    """Take an argument string apart and check it.

    Raises:
        InvalidPolicy: with code `InvalidPolicyContract` where it is no argument string at all (empty, too
            long, an odd character, a value missing), with `InvalidPolicyConfiguration` where it names
            no supported algorithm, or an option or a value that is not allowed.

    >>> parse_policy("--dsjson --cb_explore_adf  --epsilon=0.2 -q ::").text
    '--cb_explore_adf --epsilon=0.2 -q ::'
    """
    if not text.strip(" "):
        raise _malformed("the policy is empty: name --cb_explore_adf at the least")
    if len(text) > LENGTH_MAX:
        raise _malformed(f"the policy has {len(text)} characters, more than {LENGTH_MAX}: shorten it")
    if odd := _ODD_CHARACTER.search(text):
        raise _malformed(f"{odd.group()!a} at {odd.start()} is not allowed: use letters, digits, spaces, _.:=+-")
    tokens = iter(text.split())
    arguments = tuple(argument for argument in _arguments(tokens) if argument.name not in _STRIPPED)
    _check_together(arguments)
    return PolicyArguments(arguments=arguments)


@lru_cache(maxsize=256)
def problem_type_of(policy: str) -> ProblemType:
    """Tell what a policy decides, of arguments that passed the allow-list before."""
    return parse_policy(policy).problem_type


def is_usable_letter(letter: str) -> bool:
    """Whether the learner can be told of a namespace by this first letter: ASCII, no colon or space.

    A colon stands for every namespace, and the learner's parser writes outside its memory for a
    namespace that begins with a byte above 127.
    """
    return "!" <= letter <= "~" and letter != ":"


def namespace_token(letters: str) -> str:
    r"""Write letters of namespaces as a value the learner takes.

    All but letters and digits go as `\xNN`, which the learner turns back after it has split its arguments.

    >>> namespace_token("F#")
    'F\\x23'
    """
    assert all(is_usable_letter(letter) for letter in letters), f"no namespace can be named by {letters!a}"
    return "".join(letter if letter.isalnum() else f"\\x{ord(letter):02x}" for letter in letters)


# Checks of values.

_ODD_CHARACTER: Final = re.compile(r"[^A-Za-z0-9_.:=+ -]")
_NUMBER: Final = re.compile(r"-?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_COUNT: Final = re.compile(r"\d+")


def _number(low: float, high: float, *, above: bool = False) -> Check:
    """Check for a number within [low, high], or within (low, high] with `above`."""
    bounds = f"{'(' if above else '['}{low:g}, {high:g}]"

    def check(value: str) -> str | None:
        if not _NUMBER.fullmatch(value):
            return f"is not a number: give one within {bounds}"
        number = float(value)
        within = math.isfinite(number) and low <= number <= high and not (above and number == low)
        return None if within else f"is outside {bounds}"

    return check


def _count(low: int, high: int) -> Check:
    def check(value: str) -> str | None:
        if not _COUNT.fullmatch(value):
            return f"is not a whole number: give one within [{low}, {high}]"
        return None if low <= int(value) <= high else f"is outside [{low}, {high}]"

    return check


def _choice(*choices: str) -> Check:
    return lambda value: None if value in choices else f"is none of {', '.join(choices)}"


def _namespaces(low: int, high: int, *, wildcard: bool) -> Check:
    """Check for first letters of namespaces; the wildcard only in pairs, as features multiply."""
    count = f"{low}" if low == high else f"{low} to {high}"

    def check(value: str) -> str | None:
        if not low <= len(value) <= high:
            return f"is not the first letters of {count} namespaces"
        if ":" in value and not (wildcard and len(value) == 2):
            return "holds the wildcard ':', which is only for pairs: name each namespace by its first letter"
        if not all(letter.isalnum() or letter == ":" for letter in value):
            return "holds something other than letters and digits: rename the namespace"
        return None

    return check


# The allow-list: options of the learner by long name, with the check of their value (None: a switch).
#
# On it is what shapes a decision or how it is learned, group by group, and nothing else: no value names a file, an
# address or a program, and each that costs memory or time is bounded. A test traces the learner under all of them.

_PROBLEM_TYPE: Final[dict[str, Check | None]] = {
    "cb_explore_adf": None,
    "ccb_explore_adf": None,
    "cb_adf": None,  # implied by either of them
}
_EXPLORERS: Final[dict[str, Check | None]] = {
    "first": _count(0, 1_000_000_000),
    "bag": _count(1, 32),
    "cover": _count(1, 32),  # with 0 the learner crashes
    "squarecb": None,
    "softmax": None,
    "synthcover": None,
    "rnd": _count(1, 32),
    "regcb": None,
    "regcbopt": None,
}
_EXPLORATION: Final[dict[str, Check | None]] = {
    "epsilon": _number(0, 1),
    "first_only": None,
    "greedify": None,
    "psi": _number(0, 1e6),
    "nounif": None,
    "gamma_scale": _number(0, 1e9),
    "gamma_exponent": _number(0, 10),
    "lambda": _number(-1000, 1000),
    "synthcoverpsi": _number(0, 1e6, above=True),
    "synthcoversize": _count(1, 1000),
    "rnd_alpha": _number(0, 1e6, above=True),
    "rnd_invlambda": _number(0, 1e6, above=True),
    "mellowness": _number(0, 1e6),
    "cb_min_cost": _number(-1e6, 1e6),
    "cb_max_cost": _number(-1e6, 1e6),
}
_ESTIMATION: Final[dict[str, Check | None]] = {
    "cb_type": _choice("mtr", "ips", "dr", "dm", "sm"),
    "clip_p": _number(0, 1),
    "cb_dro": None,
    "cb_dro_alpha": _number(0, 1, above=True),
    "cb_dro_tau": _number(0, 1, above=True),
    "cb_dro_wmax": _number(1, 1e9),
}
_RATES: Final[dict[str, Check | None]] = {
    "learning_rate": _number(0, 100),
    "power_t": _number(0, 10),
    "initial_t": _number(0, 1e9),
    "l1": _number(0, 100),
    "l2": _number(0, 100),
    "no_bias_regularization": None,
    "loss_function": _choice("squared"),
}
_UPDATES: Final[dict[str, Check | None]] = {
    "sgd": None,
    "adaptive": None,
    "normalized": None,
    "invariant": None,
}
_OPTIMIZERS: Final[dict[str, Check | None]] = {
    "coin": None,
    "ftrl": None,
    "pistol": None,
}
_OPTIMIZATION: Final[dict[str, Check | None]] = {
    "ftrl_alpha": _number(0, 1e6),
    "ftrl_beta": _number(0, 1e6),
}
_INTERACTIONS: Final[dict[str, Check | None]] = {
    "quadratic": _namespaces(2, 2, wildcard=True),
    "cubic": _namespaces(3, 3, wildcard=True),
    "interactions": _namespaces(2, 4, wildcard=True),
}
_LETTERS: Final[dict[str, Check | None]] = {
    "ignore": _namespaces(1, 64, wildcard=False),
    "ignore_linear": _namespaces(1, 64, wildcard=False),
    "keep": _namespaces(1, 64, wildcard=False),
}
_FEATURES: Final[dict[str, Check | None]] = {
    "bit_precision": _count(10, 24),  # 24: a quarter of a gigabyte for each model held
    "noconstant": None,
    "hash": _choice("strings", "all"),
    "hash_seed": _count(0, 2**32 - 1),
    "chain_hash": None,
    "random_seed": _count(0, 2**32 - 1),
}
ALLOWED: Final[dict[str, Check | None]] = {
    **_PROBLEM_TYPE,
    **_EXPLORERS,
    **_EXPLORATION,
    **_ESTIMATION,
    **_RATES,
    **_UPDATES,
    **_OPTIMIZERS,
    **_OPTIMIZATION,
    **_INTERACTIONS,
    **_LETTERS,
    **_FEATURES,
}
_AFTER_PARSING: Final = frozenset(
    {
        *("epsilon", "psi", "gamma_scale", "gamma_exponent", "lambda", "mellowness", "synthcoverpsi"),
        *("clip_p", "learning_rate", "power_t", "initial_t", "l1", "l2"),
    }
)
"""Numbers that a learner works with once examples are parsed."""
_REPEATABLE: Final = frozenset({*_INTERACTIONS, *_LETTERS})
_REGCB: Final = frozenset({"regcb", "regcbopt"})
_CB_TYPES: Final = {  # of the explorers that do not take every one
    "cover": ("mtr", "ips", "dr"),
    "squarecb": ("mtr",),
    "regcb": ("mtr",),
    "regcbopt": ("mtr",),
}

_STRIPPED: Final = frozenset(  # about input and output, taken by the original and meaningless here
    {"dsjson", "json", "quiet", "save_resume", "preserve_performance_counters", "no_stdin"}
)
_SHORT: Final = {  # every short name of the learner, so that a refusal can say what it stands for
    "q": "quadratic",
    "l": "learning_rate",
    "b": "bit_precision",
    "C": "constant",
    "P": "progress",
    "a": "audit",
    "c": "cache",
    "d": "data",
    "f": "final_regressor",
    "h": "help",
    "i": "initial_regressor",
    "k": "kill_cache",
    "p": "predictions",
    "r": "raw_predictions",
    "t": "testonly",
}

_REASONS: Final = {  # why an option is refused, where there is more to say than that it is not on the list
    "it reads or writes files, which is the service's own business": (
        *("data", "initial_regressor", "final_regressor", "predictions", "raw_predictions", "cache"),
        *("cache_file", "kill_cache", "compressed", "readable_model", "invert_hash", "feature_mask"),
        *(
            "input_feature_regularizer",
            "output_feature_regularizer_binary",
            "output_feature_regularizer_text",
        ),
        *("dump_json_weights_experimental", "dictionary", "dictionary_path", "audit_regressor"),
        *("extra_metrics", "pid_file", "port_file", "epsilon_decay_audit", "search_allowed_transitions"),
        *("csv_trace", "save_per_pass", "predict_only_model", "id"),
    ),
    "it opens a socket or starts a process": (
        *("daemon", "foreground", "port", "num_children", "no_daemon", "sendto"),
        *("span_server", "span_server_port", "unique_id", "total", "node"),
    ),
    "it belongs to the learner's command-line driver, which is not run": (
        *("driver_output", "driver_output_off", "log_level", "log_output", "limit_output", "progress"),
        *("audit", "version", "help", "dry_run", "print", "testonly", "passes", "examples", "holdout_off"),
        *("holdout_period", "holdout_after", "early_terminate", "initial_pass_length"),
        *("decay_learning_rate", "ring_size", "example_queue_limit", "no_predict"),
    ),
    "it reads another format of input": ("binary_parser", "flatbuffer", "csv", "strict_parse"),
    "it was seen to answer negative probabilities: use --squarecb without it": ("elim",),
    "it starts threads, and was seen never to try most actions: leave it out": (
        *("large_action_space", "max_actions", "spanner_c", "thread_pool_size", "block_size"),
        *("two_pass_svd", "las_hint_explicit_simd", "action_cache_slack"),
    ),
    "its estimates are biased: use an evaluation instead": ("explore_eval",),
    "slates are not supported: use --cb_explore_adf": ("slates",),
    "continuous actions are not supported: use --cb_explore_adf": ("cats", "cats_pdf", "cats_tree"),
}
_REASON: Final = {name: reason for reason, names in _REASONS.items() for name in names}


# Parsing.


def _arguments(tokens: Iterator[str]) -> Iterator[Argument]:
    for token in tokens:
        name, value = _split(token)
        shown = token[:2] if token[1] != "-" else f"--{name}"
        if name not in ALLOWED and name not in _STRIPPED:
            raise _refused(f"{shown} is refused: {_REASON.get(name, _NOT_LISTED)}")
        check = ALLOWED.get(name)
        if check is None:
            if value is not None:
                raise _malformed(f"{shown} takes no value, {value!a} was given: leave the value out")
            yield Argument(name=name, value=None, written=token)
            continue
        written = token
        if value is None:
            value = next(tokens, "")
            written = f"{token} {value}"
        if not value:
            raise _malformed(f"{shown} needs a value: give one")
        if complaint := check(value):
            raise _refused(f"{shown} {value} {complaint}")
        yield Argument(name=name, value=value, written=written)


def _split(token: str) -> tuple[str, str | None]:
    """Take one token for an option: its long name, and the value if that is in the same token.

    A name counts only in full: the learner knows no abbreviations either.
    """
    if token.startswith("--") and len(token) > 2:
        name, equals, value = token[2:].partition("=")
        return name, value if equals else None
    if token.startswith("-") and len(token) > 1 and token[1] != "-":
        return _SHORT.get(token[1], token[1]), token[2:] or None
    raise _malformed(f"{token} belongs to no option: an option takes one value, so repeat its name for each")


def _check_together(arguments: tuple[Argument, ...]) -> None:
    """Refuse what is allowed option by option, but not together."""
    values = {argument.name: argument.value for argument in arguments}
    once = [argument.name for argument in arguments if argument.name not in _REPEATABLE]
    for name in values:
        if once.count(name) > 1:
            raise _refused(f"--{name} is named more than once: name it once, as only one would count")
    if not {*ProblemType} & values.keys():
        raise _refused("no supported algorithm is named: add --cb_explore_adf, or --ccb_explore_adf for slots")
    interaction_count = sum(argument.name in _INTERACTIONS for argument in arguments)
    if interaction_count > INTERACTION_COUNT_MAX:
        raise _refused(f"{interaction_count} interactions are more than {INTERACTION_COUNT_MAX}: leave some out")

    explorers = [name for name in values if name in _EXPLORERS]
    if len(explorers) > 1 and not _REGCB.issuperset(explorers):
        raise _refused(f"--{' and --'.join(explorers)} exclude each other: name one way of exploring")
    cb_type = values.get("cb_type")
    for explorer in explorers:
        choices = _CB_TYPES.get(explorer)
        if cb_type is not None and choices is not None and cb_type not in choices:
            raise _refused(f"--cb_type {cb_type} does not go with --{explorer}: use {' or '.join(choices)}")

    optimizers = [name for name in values if name in _OPTIMIZERS]
    clashing = [name for name in values if name in _OPTIMIZERS or name in _UPDATES]
    if optimizers and len(clashing) > 1:
        raise _refused(f"--{' and --'.join(clashing)} exclude each other: name one way of updating")
    if optimizers and _REGCB & values.keys():
        raise _refused(f"--{optimizers[0]} keeps --{explorers[0]} uniform for ever: leave it out")

    low, high = values.get("cb_min_cost"), values.get("cb_max_cost")
    if (low is None) != (high is None):
        raise _refused("--cb_min_cost and --cb_max_cost go together: name both, -1 and 0 for rewards of 0 to 1")
    if low is not None and high is not None and float(low) >= float(high):
        raise _refused(f"--cb_min_cost {low} is not below --cb_max_cost {high}: widen the bounds")


_NOT_LISTED: Final = "it is not on the list of learner options that are known to be safe; leave it out"


def _argument(name: str, value: str) -> Argument:
    return Argument(name=name, value=value, written=_spell(name, value))


def _spell(name: str, value: str | None) -> str:
    return f"--{name}" if value is None else f"--{name} {value}"


def _malformed(message: str) -> InvalidPolicy:
    return InvalidPolicy(message, code="InvalidPolicyContract", target="arguments")


def _refused(message: str) -> InvalidPolicy:
    return InvalidPolicy(message, code="InvalidPolicyConfiguration", target="arguments")
