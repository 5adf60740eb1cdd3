"""Model files for tests: learned ones, and ones whose head says what the learner would never write."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from rankward.records import Action, Features, Slot
from rankward.vw.arguments import ProblemType, parse_policy, problem_type_of
from rankward.vw.learner import Learner
from rankward.vw.model_file import read_head
from rankward.vw.presets import PERSONALIZER

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

ACTIONS = [Action(name, Features(f'[{{"name":"{name}"}}]'.encode())) for name in ("a", "b", "c")]
ORIGINAL_OPTIONS = (
    " --cb_adf --cb_explore_adf --cb_type mtr --csoaa_ldf multiline --csoaa_rank --epsilon 0.200000002980232"
    " --learning_rate 0.00100000004749745 --power_t 0 --quadratic ::"
)
"""What models of the original service carried, as Vowpal Wabbit 9.1.0 wrote it."""


SLOTS = [Slot("top", Features(b'[{"size":1}]'), baseline=0), Slot("side", Features(b"[]"), baseline=1)]


def learned(policy: str = PERSONALIZER.arguments, *, events: int = 9) -> bytes:
    """Learn a model, of decisions for single slots or for two, as the policy has it."""
    several = problem_type_of(policy) is ProblemType.MULTI_SLOT
    learner = Learner(parse_policy(policy).learner_text)
    for number in range(events):
        context = Features(f'[{{"hour":{number % 3}}}]'.encode())
        if several:
            choices = learner.choices(context, ACTIONS, SLOTS, [number, number])
            learner.learn_slots(context, ACTIONS, SLOTS, choices, [number / 10 - 0.2, 0.0])
        else:
            learner.learn(context, ACTIONS, chosen=number % 3, probability=0.5, reward=number / 10 - 0.2)
    model = learner.save()
    learner.close()
    return model


def original(model: bytes) -> bytes:
    """Make a model into one that the original service's learner wrote: its version apart, the layout is the same."""
    return with_head(model, version="9.1.0")


def with_head(
    model: bytes,
    *,
    version: str = "9.11.9",
    id_: str = "",
    bounds: tuple[float, float] | None = None,
    bits: int = 18,
    counts: tuple[int, int, int] = (0, 0, 0),
    options: str | None = None,
) -> bytes:
    """Give a model another head, with a checksum that the learner accepts.

    Args:
        model: whose weights to take.
        version: of the learner.
        id_: of the model.
        bounds: of cost; None: the model's own.
        bits: of the table of weights.
        counts: topics, n-grams and skips.
        options: text; None: the model's own.
    """
    own = read_head(model)
    if bounds is None:
        bounds = struct.unpack_from("<ff", model, model.index(b"\0m") + 2)
    if options is None:
        start = model.index(b" --")
        options = model[start : model.index(0, start)].decode()
    checked = [
        *_text(id_),
        b"m",
        *(struct.pack("<f", bound) for bound in bounds),
        struct.pack("<I", bits),
        *(struct.pack("<I", count) for count in counts),
        *_text(options),
    ]
    parts = [*_text(version), *checked, struct.pack("<II", 4, _checksum(checked))]
    return b"".join(parts) + model[own.end :]


def mutated(model: bytes, dice: random.Random) -> bytes:
    """Damage a model."""
    data = bytearray(model)
    for _ in range(dice.choice((1, 1, 2, 8))):
        place = dice.randrange(len(data))
        match dice.randrange(5):
            case 0:
                data[place] ^= 1 << dice.randrange(8)
            case 1:
                data[place] = dice.randrange(256)
            case 2:
                del data[place : place + dice.randrange(1, 32)]
            case 3:
                data[place:place] = data[place : place + dice.randrange(1, 32)]
            case 4:
                data[place : place + 4] = dice.choice((b"\xff" * 4, b"\0" * 4, struct.pack("<f", 3e38)))
    return bytes(data)


def _text(text: str) -> tuple[bytes, bytes]:
    data = text.encode() + b"\0"
    return struct.pack("<I", len(data)), data


def _checksum(parts: Iterable[bytes]) -> int:
    """Chain MurmurHash3 (32 bits) over the parts, as the learner does over what it reads."""
    state = 0
    for part in parts:
        state = _murmur(part, state)
    return state


_WORD = 0xFFFFFFFF


def _turned(value: int, by: int) -> int:
    return (value << by | value >> (32 - by)) & _WORD


def _murmur(data: bytes, seed: int) -> int:
    """Source: Austin Appleby, MurmurHash3_x86_32, public domain."""
    state = seed
    whole = len(data) // 4 * 4
    for [block] in struct.iter_unpack("<I", data[:whole]):
        state ^= _turned(block * 0xCC9E2D51 & _WORD, 15) * 0x1B873593 & _WORD
        state = (_turned(state, 13) * 5 + 0xE6546B64) & _WORD
    if whole < len(data):
        rest = int.from_bytes(data[whole:], "little")
        state ^= _turned(rest * 0xCC9E2D51 & _WORD, 15) * 0x1B873593 & _WORD
    state ^= len(data)
    state = (state ^ state >> 16) * 0x85EBCA6B & _WORD
    state = (state ^ state >> 13) * 0xC2B2AE35 & _WORD
    return state ^ state >> 16
