"""A model from elsewhere is tried where it can do no harm."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from rankward.errors import InvalidRequest
from rankward.records import Action, Features
from rankward.vw.learner import Learner
from rankward.vw.presets import BALANCED, PERSONALIZER, learner_arguments
from rankward.vw.trial import model_options, try_out

if TYPE_CHECKING:
    from pathlib import Path

    from rankward.vw.presets import Preset

ACTIONS = [Action(name, Features(f'[{{"name":"{name}"}}]'.encode())) for name in ("a", "b")]


def arguments(preset: Preset) -> str:
    """What a learner of a preset is given."""
    return learner_arguments(preset.arguments, None, 0.2)


def model_of(preset: Preset) -> bytes:
    """Train a model on one event."""
    learner = Learner(arguments(preset))
    learner.learn(Features(b'[{"hour":9}]'), ACTIONS, chosen=0, probability=0.5, reward=1.0)
    model = learner.save()
    learner.close()
    return model


def with_options(model: bytes, options: str) -> bytes:
    """Write other options into a model file."""
    old = model_options(model).encode() + b"\0"
    place = model.index(old)
    new = options.encode() + b"\0"
    return model[: place - 4] + struct.pack("<I", len(new)) + new + model[place + len(old) :]


@pytest.mark.parametrize("preset", [PERSONALIZER, BALANCED], ids=lambda preset: preset.name)
def test_a_model_of_the_same_policy_passes(preset: Preset) -> None:
    """What one loop exported, another of its kind can go on from."""
    try_out(arguments(preset), model_of(preset))


def test_a_model_of_another_policy_is_refused() -> None:
    """Its own options would join the loop's, and make a policy that nobody chose."""
    with pytest.raises(InvalidRequest, match="squarecb") as caught:
        try_out(arguments(PERSONALIZER), model_of(BALANCED))
    assert caught.value.code == "InvalidModelImportFormat"


def test_a_model_that_would_write_a_file_is_refused_before_the_learner_sees_it(tmp_path: Path) -> None:
    """The learner obeys the options in a model file as if they had been given to it."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    model = model_of(PERSONALIZER)
    for odd in (f"--audit_regressor {victim}", f"--readable_model={victim}", f"-f {victim}"):
        with pytest.raises(InvalidRequest):
            try_out(arguments(PERSONALIZER), with_options(model, f"{model_options(model)} {odd}"))
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("model", [b"", b"garbage" * 99, model_of(PERSONALIZER)[:60]], ids=["empty", "garbage", "cut"])
def test_what_is_no_model_is_refused(model: bytes) -> None:
    """Nothing is changed by it, and the message says so."""
    with pytest.raises(InvalidRequest, match="Nothing was changed"):
        try_out(arguments(PERSONALIZER), model)


def test_a_model_that_wants_more_memory_than_there_is_is_refused() -> None:
    """A header of forty bytes can ask for a hundred gigabytes."""
    model = bytearray(model_of(PERSONALIZER))
    bits = model.index(b"m\x00\x00\x80\xbf") + 9
    model[bits] = 33
    with pytest.raises(InvalidRequest):
        try_out(arguments(PERSONALIZER), bytes(model))
