"""Tries a policy, or a model from elsewhere, in a throw-away process with limits.

`python -m rankward.vw.trial ARGUMENTS < MODEL`; without bytes, the policy alone is tried.

A model file carries learner options of its own, which the learner obeys as if they had been given to it, files and
sockets included. So they are read out of the file and compared before the learner is given it.
"""

from __future__ import annotations

import contextlib
import os
import resource
import struct
import subprocess
import sys

from rankward.errors import InvalidPolicy, InvalidRequest
from rankward.ranking.explore import InvalidPmfError, check_pmf
from rankward.records import Action, Features
from rankward.vw.learner import Learner, LearnerRefusedError

CPU_S = 20
MEMORY_BYTES = 3 * 1024**3  # of address space: a model of 2^25 weights fits
PATIENCE_S = 40.0

_REFUSED_STATUS = 3
_MODEL_MARK = b"m"
_BOUNDS = struct.Struct("<ffIIII")  # least and largest label, bits, lda, number of n-grams, of skips
_LENGTH = struct.Struct("<I")
_OF_ITS_OWN = {"quadratic", "cubic", "interactions", "ignore_linear"}  # options that a model may bring along


def try_out(arguments: str, model: bytes) -> None:
    """Load a model with the given learner arguments, score and learn with it, in a process of its own.

    Raises:
        InvalidRequest: it cannot be used, or breaks the learner.
    """
    why = _objection(arguments, model) if model else "it has no bytes"
    if why:
        raise InvalidRequest(
            f"the model cannot be imported: {why}. Nothing was changed.",
            code="InvalidModelImportFormat",
            target="model",
        )


def try_policy(arguments: str) -> None:
    """Start a learner with the given arguments, score and learn with it, in a process of its own.

    Raises:
        InvalidPolicy: the learner does not take them, or breaks.
    """
    if why := _objection(arguments, b""):
        raise InvalidPolicy(f"the learner does not accept the policy: {why}")


def _objection(arguments: str, model: bytes) -> str | None:
    """Run the trial. Returns why it failed; None: it did not."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RANKWARD_")}
    try:
        tried = subprocess.run(  # noqa: S603
            [sys.executable, "-m", "rankward.vw.trial", arguments],
            input=model,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=PATIENCE_S,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"the learner did not come back from it within {PATIENCE_S:.0f} s"
    if tried.returncode == _REFUSED_STATUS:
        return tried.stdout.decode(errors="replace").strip()
    return f"the learner broke on it (status {tried.returncode})" if tried.returncode else None


def model_options(model: bytes) -> str:
    """Read the learner options that a model file carries.

    Raises:
        ValueError: it is no model file.
    """
    position = 0

    def take(length: int) -> bytes:
        nonlocal position
        if length > len(model) - position:
            raise ValueError("it is no Vowpal Wabbit model, or only a part of one")
        position += length
        return model[position - length : position]

    take(_LENGTH.unpack(take(_LENGTH.size))[0])  # version of the learner
    take(_LENGTH.unpack(take(_LENGTH.size))[0])  # a name, seldom set
    if take(1) != _MODEL_MARK:
        raise ValueError("it is no Vowpal Wabbit model")
    *_, ngram_count, skip_count = _BOUNDS.unpack(take(_BOUNDS.size))
    if ngram_count or skip_count:
        raise ValueError("it was trained with n-grams, which are not supported")
    return take(_LENGTH.unpack(take(_LENGTH.size))[0]).rstrip(b"\0").decode("utf-8")


def option_names(options: str) -> set[str]:
    """Name the options in a text of long options."""
    return {token[2:].partition("=")[0] for token in options.split() if token.startswith("--")}


def check_model(arguments: str, model: bytes) -> None:
    """Load the model, score, and learn.

    Raises:
        ValueError, LearnerRefusedError, InvalidPmfError: it cannot be used.
    """
    fresh = Learner(arguments)
    known = option_names(model_options(fresh.save())) | _OF_ITS_OWN
    fresh.close()
    options = model_options(model)
    if odd := option_names(options) - known:
        raise ValueError(
            f"it was trained with --{', --'.join(sorted(odd))}, and the loop's policy is `{arguments}`: give the "
            "loop the model's policy first"
        )
    if any(token.startswith("-") and not token.startswith("--") and token[1:2].isalpha() for token in options.split()):
        raise ValueError("its options are not written as the learner writes them")
    check_learner(Learner(arguments, model))


def check_learner(learner: Learner) -> None:
    """Score, learn, and score again.

    Raises:
        LearnerRefusedError, InvalidPmfError: the learner cannot.
    """
    actions = [Action(name, Features(f'[{{"name":"{name}"}}]'.encode())) for name in ("a", "b", "c")]
    context = Features(b'[{"when":{"hour":1}}]')
    check_pmf(learner.pmf(context, actions), len(actions))
    learner.learn(context, actions, chosen=0, probability=0.5, reward=1.0)
    check_pmf(learner.pmf(context, actions), len(actions))


def _limit() -> None:
    bounds = {
        resource.RLIMIT_CPU: CPU_S,
        resource.RLIMIT_AS: MEMORY_BYTES,
        resource.RLIMIT_CORE: 0,
    }
    for kind, bound in bounds.items():
        with contextlib.suppress(ValueError, OSError):  # not every system has every limit
            resource.setrlimit(kind, (bound, bound))


def main(arguments: str) -> None:
    """Try the arguments, with the model that comes on standard input if one does."""
    _limit()
    model = sys.stdin.buffer.read()
    try:
        if model:
            check_model(arguments, model)
        else:
            check_learner(Learner(arguments))
    except (ValueError, LearnerRefusedError, InvalidPmfError) as error:
        sys.stdout.write(str(error).replace("\n", " ")[:600])
        sys.stdout.flush()
        os._exit(_REFUSED_STATUS)
    os._exit(0)  # the learner is not closed: whatever it would do at its end, it does not


if __name__ == "__main__":
    main(sys.argv[1])
