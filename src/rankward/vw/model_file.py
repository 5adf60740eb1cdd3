r"""Reads what a model file says of itself, before the learner is given it.

The learner obeys the options in a model file as if they had been given to it, files and sockets included, and it
takes a file's *id* for more of them. So the head of a file is taken apart here: an option that no policy may name, or
a value that no policy may have, is refused, whatever the learner would make of it.

The layout, little-endian, as versions 9.0 to 9.11 write it:

    u32 length, version, NUL       u32 length, id, NUL      "m"
    f32 least label                f32 largest label        u32 bits
    u32 lda                        u32 n-grams              u32 skips
    u32 length, options, NUL       u32 length, checksum     then what each reduction keeps, and the weights
"""

from __future__ import annotations

import math
import re
import struct
from typing import Final

import msgspec

from rankward.errors import InvalidPolicy
from rankward.vw.arguments import ALLOWED, ProblemType, is_usable_letter, namespace_token, parse_policy

OPTIONS_LENGTH_MAX: Final = 262_144  # characters: every letter paired with every other comes to half of it
VERSION_MIN: Final = (9, 0, 0)  # earlier ones leave out what learning on needs
DEFAULT_BITS: Final = 18
BITS: Final = range(10, 25)  # what `--bit_precision` may be

STATE_OF_ITS_OWN: Final = frozenset({"epsilon", "random_seed"})  # options that differ without making another policy
DERIVED: Final = frozenset({"quadratic", "ignore_linear"})  # options that are derived for a loop from its namespaces

_IMPLIED: Final = {  # what the learner adds by itself, and the value
    "cb_adf": None,
    "csoaa_ldf": "multiline",
    "csoaa_rank": None,
    "cb_sample": None,
}
_INTERACTIONS: Final = frozenset({"quadratic", "cubic", "interactions"})
_REPEATABLE: Final = _INTERACTIONS | {"ignore", "ignore_linear", "keep"}
_SEED: Final = re.compile(r"\d{1,20}")  # the state of a generator, not the seed it had
_VERSION: Final = re.compile(r"(\d{1,3})\.(\d{1,3})\.(\d{1,3})")
_NAME: Final = re.compile(r"--([a-z][a-z0-9_]*)")
_FRACTION: Final = re.compile(r"-?\d*\.\d+(e[-+]\d+)?|-?\d+e[-+]\d+")
_ESCAPE: Final = re.compile(r"\\x([0-9a-f]{2})")
_MARK: Final = b"m"
_LENGTH: Final = struct.Struct("<I")
_BOUNDS: Final = struct.Struct("<ffIIII")

Option = tuple[str, str | None]
"""A long name, and the value as the file has it; None: a switch."""


class ModelHead(msgspec.Struct, frozen=True, kw_only=True):
    """What a model file says of itself. Made by `read_head`, so every option in it is one that a policy may have."""

    version: tuple[int, int, int]  # of the learner that wrote it
    bits: int  # of the table of weights: 2 to this power
    options: tuple[Option, ...]  # in the file's order
    end: int  # where the head ends, in bytes

    @property
    def problem_type(self) -> ProblemType:
        """What its decisions are."""
        names = {name for name, _ in self.options}
        return ProblemType.MULTI_SLOT if ProblemType.MULTI_SLOT in names else ProblemType.SINGLE_SLOT

    def values(self, name: str) -> tuple[str, ...]:
        """Return the values of an option, escapes resolved."""
        return tuple(_unescaped(value) for option, value in self.options if option == name and value is not None)

    def canonical(self, *, without: frozenset[str] = frozenset()) -> frozenset[Option]:
        """Return the options in a form that can be compared, whatever their order and the spelling of numbers."""
        named = {(name, _short(name, value)) for name, value in self.options if name not in without}
        return frozenset(named | {("bit_precision", str(self.bits))})

    def policy(self, *, without: frozenset[str] = frozenset()) -> str:
        """Write the policy that such a model is learned with.

        Args:
            without: options to leave out.

        Raises:
            ValueError: no policy can say it, as it is too long or names a namespace that none can name.
        """
        left_out = {*_IMPLIED, *ProblemType, "random_seed", *without}
        parts = [f"--{self.problem_type}"]
        parts += [spelled((name, _short(name, value))) for name, value in self.options if name not in left_out]
        if self.bits != DEFAULT_BITS:
            parts.append(f"--bit_precision {self.bits}")
        try:
            return parse_policy(" ".join(parts)).text
        except InvalidPolicy as error:
            raise ValueError(f"no policy can say what it was trained with: {error.message}") from error


def is_model(beginning: bytes) -> bool:
    """Whether these bytes begin as a model file does, be it a good one or not.

    Args:
        beginning: of the file, some hundred bytes of it.
    """
    try:
        reader = _Reader(beginning)
        version = reader.text(64)
        reader.text(256)
        return _VERSION.fullmatch(version) is not None and reader.take(1) == _MARK
    except ValueError:
        return False


def read_head(model: bytes) -> ModelHead:
    """Read a model file up to where its weights begin, and check all that it says.

    Raises:
        ValueError: it is no model file, a damaged one, or one that must not be loaded; the message says why.
    """
    reader = _Reader(model)
    version = _version(reader.text(64))
    if reader.text(256):  # the learner would add it to its options, unparsed
        raise ValueError("it carries an id, which would reach the learner as an option: save it without one")
    if reader.take(1) != _MARK:
        raise ValueError("it is no Vowpal Wabbit model")
    low, high, bits, lda, ngram_count, skip_count = _BOUNDS.unpack(reader.take(_BOUNDS.size))
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError("its bounds of cost are damaged")
    if lda or ngram_count or skip_count:
        raise ValueError("it was trained with topics, n-grams or skips, which are not supported")
    if bits not in BITS:
        raise ValueError(
            f"its table of weights has 2^{bits} entries: 2^{BITS.start} to 2^{BITS.stop - 1} can be taken in"
        )
    options = _options(reader.text(OPTIONS_LENGTH_MAX))
    if _LENGTH.unpack(reader.take(_LENGTH.size))[0] != _LENGTH.size:
        raise ValueError("its head is damaged")
    reader.take(_LENGTH.size)  # a checksum, which the learner looks after
    return ModelHead(version=version, bits=bits, options=options, end=reader.position)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0

    def take(self, length: int) -> bytes:
        if length > len(self._data) - self.position:
            raise ValueError("it is no Vowpal Wabbit model, or only a part of one")
        self.position += length
        return self._data[self.position - length : self.position]

    def text(self, bound: int) -> str:
        """Read a text that ends in its only NUL."""
        length = _LENGTH.unpack(self.take(_LENGTH.size))[0]
        if not 1 <= length <= bound:
            raise ValueError("it is no Vowpal Wabbit model, or its head is damaged")
        data = self.take(length)
        if data.find(0) != length - 1 or not data.isascii():
            raise ValueError("it is no Vowpal Wabbit model, or its head is damaged")
        return data[:-1].decode("ascii")


def _version(text: str) -> tuple[int, int, int]:
    found = _VERSION.fullmatch(text)
    if found is None:
        raise ValueError("it is no Vowpal Wabbit model")
    version = (int(found[1]), int(found[2]), int(found[3]))
    if version < VERSION_MIN:
        wanted = ".".join(map(str, VERSION_MIN))
        raise ValueError(
            f"Vowpal Wabbit {text} wrote it, which is older than {wanted}: load and save it with a newer one"
        )
    return version


def _options(text: str) -> tuple[Option, ...]:
    """Take the options apart as the learner writes them: ` --name value --switch`, long names only."""
    tokens = text.split(" ")
    if tokens.pop(0) or not tokens:
        raise ValueError("its options are not written as the learner writes them")
    options: list[Option] = []
    while tokens:
        named = _NAME.fullmatch(tokens.pop(0))
        if named is None:
            raise ValueError("its options are not written as the learner writes them")
        value = tokens.pop(0) if tokens and not tokens[0].startswith("--") else None
        _check(named[1], value)
        options.append((named[1], value))
    once = [name for name, _ in options if name not in _REPEATABLE]
    if len(once) != len(set(once)):
        raise ValueError("it names an option twice")
    if not any(name in set(ProblemType) for name in once):
        raise ValueError("it is of another problem type: models of --cb_explore_adf and --ccb_explore_adf can be used")
    return tuple(options)


def _check(name: str, value: str | None) -> None:
    """Refuse an option that no policy may have."""
    if name in _IMPLIED and value == _IMPLIED[name]:
        return
    if name not in ALLOWED:
        raise ValueError(f"it carries the option --{name}, which is not on the list of those known to be safe")
    check = ALLOWED[name]
    if (value is None) != (check is None):
        raise ValueError(f"its option --{name} is not written as the learner writes it")
    if check is None or value is None:
        return
    if name == "random_seed":
        complaint = None if _SEED.fullmatch(value) else "is not a whole number"
    elif name in DERIVED and "\\" in value:
        complaint = None if _is_escaped(value) else "names no namespaces"
    else:
        complaint = check(value)
    if complaint:
        raise ValueError(f"its option --{name} {value[:80]} {complaint}")


def _unescaped(value: str) -> str:
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)), value)


def _is_escaped(value: str) -> bool:
    """Whether a value is one that `namespace_token` writes."""
    letters = _unescaped(value)
    return all(map(is_usable_letter, letters)) and namespace_token(letters) == value


def _single(number: float) -> bytes:
    """Write a number in single precision, which is what the learner keeps."""
    try:
        return struct.pack("<f", number)
    except OverflowError:
        return struct.pack("<f", math.copysign(math.inf, number))


def _short(name: str, value: str | None) -> str | None:
    """Write a value as people do: a number as short as it can be without changing in single precision."""
    if value is None or name in _REPEATABLE or not _FRACTION.fullmatch(value):
        return value
    wanted = _single(float(value))
    return next(text for digits in range(1, 18) if _single(float(text := f"{float(value):.{digits}g}")) == wanted)


def spelled(option: Option) -> str:
    """Write an option as in a policy."""
    name, value = option
    return f"--{name}" if value is None else f"--{name} {value}"
