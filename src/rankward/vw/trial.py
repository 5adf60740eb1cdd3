"""Tries a policy, or a model from elsewhere, in a throw-away process with limits.

`python -m rankward.vw.trial ARGUMENTS < MODEL`; without bytes, the policy alone is tried.

What a model file says of itself is read and checked before the learner is given it (`vw.model_file`); what the
learner makes of it is compared with the file afterwards, since it reads on over what is missing.
"""

from __future__ import annotations

import contextlib
import math
import os
import resource
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence

import numpy as np

from rankward.errors import InvalidPolicy, InvalidRequest
from rankward.ranking.explore import InvalidPmfError, check_pmf
from rankward.records import Action, Features, Slot
from rankward.vw.arguments import ProblemType
from rankward.vw.learner import Learner, LearnerRefusedError
from rankward.vw.model_file import STATE_OF_ITS_OWN, ModelHead, read_head, spelled

CPU_S = 30
MEMORY_BYTES = 3 * 1024**3  # of address space: a model of 2^24 weights fits, as a file and twice in the learner
FILE_BYTES = 1024**3  # of a file that it writes: the model, saved
FILES = 64  # open at once
PATIENCE_S = 60.0

_REFUSED_STATUS = 3
# What the update rule keeps, last before the weights: initial t, norm, t, losses, bounds of cost, counts, l1 and l2.
_STATE = struct.Struct("<fddddfffdddQQddQdd")
_SHOWN = 600  # characters of a complaint


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
    """Start a learner with the given arguments, score, learn and go on from its model, in a process of its own.

    Raises:
        InvalidPolicy: the learner does not take them, or breaks.
    """
    if why := _objection(arguments, b""):
        raise InvalidPolicy(f"the learner does not accept the policy: {why}")


def _objection(arguments: str, model: bytes) -> str | None:
    """Run the trial. Returns why it failed; None: it did not."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RANKWARD_")}
    with tempfile.TemporaryDirectory(prefix="rankward-trial-") as folder:
        environment["TMPDIR"] = folder  # whatever a process leaves that was killed goes with it
        try:
            tried = subprocess.run(  # noqa: S603
                [sys.executable, "-m", "rankward.vw.trial", arguments],
                input=model,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=PATIENCE_S,
                env=environment,
                cwd=folder,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"the learner did not come back from it within {PATIENCE_S:.0f} s"
    if tried.returncode == _REFUSED_STATUS:
        return tried.stdout.decode(errors="replace").strip()
    return f"the learner broke on it (status {tried.returncode})" if tried.returncode else None


def check_model(arguments: str, model: bytes) -> None:
    """Load the model, score, and learn.

    Raises:
        ValueError, LearnerRefusedError, InvalidPmfError: it cannot be used.
    """
    head = read_head(model)
    fresh = Learner(arguments)
    plain = fresh.save()
    fresh.close()
    plain_head = read_head(plain)
    _compare(head, plain_head)
    if head.version > plain_head.version:
        raise ValueError(f"Vowpal Wabbit {_dotted(head)} wrote it, and {_dotted(plain_head)} is here: upgrade first")
    learner = Learner(arguments, model)
    _check_whole(model[head.end :], learner.save(), head, state_length=len(plain) - plain_head.end)
    check_learner(learner)


def _compare(head: ModelHead, plain: ModelHead) -> None:
    """Refuse a model of another policy: its options and the loop's would make one that nobody chose."""
    theirs, ours = head.canonical(without=STATE_OF_ITS_OWN), plain.canonical(without=STATE_OF_ITS_OWN)
    if theirs == ours:
        return
    parts = [
        f"{who} {', '.join(sorted(map(spelled, options)))}"
        for who, options in (("it was trained with", theirs - ours), ("the loop's policy has", ours - theirs))
        if options
    ]
    try:
        way_out = f"give the loop the policy `{head.policy()}` first"
    except ValueError as error:
        way_out = str(error)
    raise ValueError(f"{' and '.join(parts)}: {way_out}")


def _dotted(head: ModelHead) -> str:
    return ".".join(map(str, head.version))


def _check_whole(body: bytes, saved: bytes, head: ModelHead, *, state_length: int) -> None:
    """Make sure that the learner has read every byte behind the head, and each as what it was written as.

    It takes a file that ends too early for one with fewer weights, and fills up the last. So what it
    read is compared with what it saves again: the state of the reductions has one length, and the weights are
    written one after the other, ordered, none of them 0. A file cut exactly between two weights is as good a file.

    Args:
        body: of the file, from the end of its head.
        saved: the model, saved by the learner that loaded it.
        head: of the file.
        state_length: what reductions keep beside the weights, in bytes.
    """
    weights = saved[read_head(saved).end + state_length :]
    if len(body) != state_length + len(weights) or not body.endswith(weights):
        raise ValueError(
            "it is only a part of a model, is damaged, or was saved without what learning on needs "
            "(--predict_only_model)"
        )
    if not all(map(math.isfinite, _STATE.unpack_from(body, state_length - _STATE.size))):
        raise ValueError("the state of its update rule is damaged")
    rows = np.frombuffer(weights, np.dtype([("index", "<u4"), ("values", "<f4", (_width(head),))]))
    if not np.isfinite(rows["values"]).all():
        raise ValueError("it has weights that are no numbers")


def _width(head: ModelHead) -> int:
    """How many numbers the learner keeps for each weight, itself included."""
    names = {name for name, _ in head.options}
    for optimizer, width in (("coin", 6), ("pistol", 4), ("ftrl", 3)):
        if optimizer in names:
            return width
    if names & {"sgd", "adaptive", "normalized", "invariant"}:
        return 1 + len(names & {"adaptive", "normalized"})
    return 3


def check_learner(learner: Learner) -> None:
    """Score, learn, and score again.

    Raises:
        LearnerRefusedError, InvalidPmfError: the learner cannot.
    """
    actions = [Action(name, Features(f'[{{"name":"{name}"}}]'.encode())) for name in ("a", "b", "c")]
    context = Features(b'[{"when":{"hour":1}}]')
    if f"--{ProblemType.MULTI_SLOT}" in learner.arguments.split():
        _check_slots(learner, context, actions)
        return
    check_pmf(learner.pmf(context, actions), len(actions))
    learner.learn(context, actions, chosen=0, probability=0.5, reward=1.0)
    check_pmf(learner.pmf(context, actions), len(actions))


def _check_slots(learner: Learner, context: Features, actions: Sequence[Action]) -> None:
    slots = [Slot("1", Features(b'[{"size":1}]'), baseline=0, excluded=(2,)), Slot("2", Features(b"[]"), baseline=1)]
    for seeds in ((1, 2), (3, 4)):
        choices = learner.choices(context, actions, slots, seeds)
        for choice in choices:
            check_pmf(choice.pmf, len(choice.actions))
        learner.learn_slots(context, actions, slots, choices, [1.0, 0.0])


def _limit() -> None:
    bounds = {
        resource.RLIMIT_CPU: CPU_S,
        resource.RLIMIT_AS: MEMORY_BYTES,
        resource.RLIMIT_FSIZE: FILE_BYTES,
        resource.RLIMIT_NOFILE: FILES,
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
            learner = Learner(arguments)
            check_learner(learner)
            check_learner(Learner(arguments, learner.save()))
    except (ValueError, LearnerRefusedError, InvalidPmfError) as error:
        sys.stdout.write(str(error).replace("\n", " ")[:_SHOWN])
        sys.stdout.flush()
        os._exit(_REFUSED_STATUS)
    os._exit(0)  # the learner is not closed: whatever it would do at its end, it does not


if __name__ == "__main__":
    main(sys.argv[1])
