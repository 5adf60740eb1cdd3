"""No policy, and no model, makes the learner read, write, listen or start anything: every option, in every form."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.models import learned
from tests.vw.test_arguments import ACCEPTED, learner_options

from rankward.errors import InvalidPolicy
from rankward.vw.arguments import _STRIPPED, ALLOWED, parse_policy
from rankward.vw.learner import Learner, LearnerRefusedError
from rankward.vw.trial import check_learner

OPTIONS = sorted(set(learner_options()))
VALUES = ["", "x", "/tmp/x", "1", "0.5", "::", "Fj", "mtr"]  # noqa: S108


def forms(name: str, short: str | None) -> list[str]:
    """Every way in which an option might be written, honestly or not."""
    long = f"--{name}"
    made = []
    for value in VALUES:
        made += [f"{long} {value}", f"{long}={value}", f"{long} {value} {long} {value}", f"{long}={value} {long}"]
        made += [f"'{long}' {value}", f'"{long} {value}"', f"\\{long} {value}", f"{long}\t{value}", f"-{name} {value}"]
        made += [f"{long[:-1]} {value}", f"{long.upper()} {value}", f"{long.replace('_', '-')}={value}"]
        made += [f"--epsilon {long} {value}", f"-q {long}", f"--epsilon=0.1{long} {value}", f"---{name} {value}"]
        if short:
            made += [f"-{short} {value}", f"-{short}{value}", f"-{short}={value}", f"-{short} {value} -{short} {value}"]
    return made


@pytest.mark.parametrize(("name", "short"), OPTIONS, ids=[name for name, _ in OPTIONS])
def test_in_no_form_does_an_option_off_the_list_reach_the_learner(name: str, short: str | None) -> None:
    """Whatever is accepted comes out as long names of the list, each with as many values as it takes."""
    for form in forms(name, short):
        try:
            policy = parse_policy(f"--cb_explore_adf {form}")
        except InvalidPolicy:
            continue
        assert name in ALLOWED or name in _STRIPPED or name[:-1] in ALLOWED, form
        tokens = policy.learner_text.split(" ")
        while tokens:
            option = tokens.pop(0)
            assert option.startswith("--"), form
            check = ALLOWED[option[2:]]
            if check is not None:
                assert check(tokens.pop(0)) is None, form


def test_the_learner_knows_no_abbreviations() -> None:
    """If it did, a shorter name could stand for an option that is refused."""
    for shortened in ("--eps 0.3", "--final_reg x", "--squarec", "--cb_expl"):
        with pytest.raises(LearnerRefusedError):
            Learner(f"--cb_explore_adf {shortened}")


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("strace") is None and not os.environ.get("CI"),
    reason="strace is not installed: apt install strace",
)
def test_an_accepted_policy_or_model_opens_nothing(tmp_path: Path) -> None:
    """Seen from the kernel: not a file but the copy of the model itself, not a socket, not a process."""
    trace, scratch = tmp_path / "trace", tmp_path / "scratch"
    scratch.mkdir()
    subprocess.run(
        [
            *("strace", "-f", "-qq", "-o", str(trace), "-e", "trace=%file,%network,execve,fork,vfork,clone,clone3"),
            *(sys.executable, "-m", "tests.vw.test_allow_list"),
        ],
        env={**os.environ, "TMPDIR": str(scratch)},
        cwd=Path(__file__).parents[2],
        check=True,
        timeout=300,
    )
    lines = trace.read_text().splitlines()
    begin, end = (next(n for n, line in enumerate(lines) if mark in line) for mark in ("/it-begins", "/it-ends"))

    odd = [line for line in lines[begin + 1 : end] if f'"{scratch}' not in line and not _HARMLESS.search(line)]

    assert end - begin > len(ACCEPTED), "the trace has seen the learner at work"
    assert odd == []
    assert list(scratch.iterdir()) == []


_HARMLESS = re.compile(
    r"""unlinkat\(\d                                      # of the folder of a model's copy
    | newfstatat\(\d+,\s""                               # of what is open
    | "/sys/devices/system/cpu/online",\sO_RDONLY        # how many cores there are
    | "[^"]*\.(?:so|py|pyc)["]                           # our own code
    """,
    re.VERBOSE,
)


def _work() -> None:
    """Start, use and go on from a learner of every accepted policy, between two marks in the trace."""
    policies = [parse_policy(text) for text in ACCEPTED]
    _use(policies[0].learner_text)  # whatever is opened once is opened now
    Path("/it-begins").exists()
    for policy in policies:
        _use(policy.learner_text if policy.names("bit_precision") else f"{policy.learner_text} --bit_precision 10")
    Path("/it-ends").exists()


def _use(arguments: str) -> None:
    single_slot = "--ccb" not in arguments
    learner = Learner(arguments)
    if single_slot:
        check_learner(learner)
        learner.close()
        learner = Learner(arguments, learned(arguments))
        check_learner(learner)
    learner.close()


if __name__ == "__main__":
    _work()
