"""Searches for better learning settings: what to try, along which stretches of a log, and what of it goes on.

By successive halving: all settings run along an early part of the log, the better half of them along a longer one, and
a few finalists along the whole, where they are judged by the latest part alone, which has had no say in their choice.
Source: Jamieson and Talwalkar, AISTATS 2016.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from rankward.errors import InvalidPolicy
from rankward.evaluation.contender import Candidate
from rankward.evaluation.intervals import ALPHA
from rankward.evaluation.replay import SETTLED_BY, derived_interactions
from rankward.evaluation.report import PolicyResult, PolicySource, Ranked, Report, Rung, SearchRun, Verdict
from rankward.records import AnyInteraction, Interactions, JoinedEvent, LearningMode, TimeUs
from rankward.settings import Numbers
from rankward.vw.arguments import PolicyArguments, ProblemType, parse_policy
from rankward.vw.bins import settle
from rankward.vw.presets import PRESETS, preset_of

TRIALS = 32  # settings tried, the own among them
FINALISTS = 3
SHARES = (1 / 8, 1 / 4, 1 / 2)  # of the log's decisions, from its beginning: how far each rung reads
_WARM_SHARE = 1 / 4  # of a rung: learned from and not compared by, as every setting begins without a model
_RUNG_MIN = 1_000  # decisions: with fewer, what a rung would sort out is mostly luck
_LAST_RUNG_MIN = 100  # decisions: with fewer, there is nothing to search by
_TIMES_MAX = 65_536  # kept of a log; at twice as many, every other one is dropped


class Stretch(NamedTuple):
    """How far a rung reads."""

    share: float  # of the log's decisions that can judge
    judged_from_us: TimeUs
    until_us: TimeUs  # decisions at or after it are left out
    batches: int  # of the source; none after those has a decision of the stretch


class Survey:
    """Looks a log through, before anything learns from it: how long it is, and what its decisions are like."""

    def __init__(self) -> None:
        self._times_us: list[TimeUs] = []  # of decisions that can judge, one in `_stride`
        self._stride = 1
        self._until_next = 1
        self._begin_us: list[TimeUs | None] = []  # by batch: of its earliest decision; None: it has none
        self._first: list[AnyInteraction] = []

    def take(self, events: Sequence[JoinedEvent]) -> None:
        """Take the next batch in."""
        self._begin_us.append(min((event.entry.time_us for event in events), default=None))
        for event in events:
            if len(self._first) < SETTLED_BY:
                self._first.append(event.interaction)
            if event.skip_learn or event.interaction.learning_mode is not LearningMode.ONLINE:
                continue
            self._until_next -= 1
            if self._until_next == 0:
                self._times_us.append(event.entry.time_us)
                self._until_next = self._stride
                if len(self._times_us) >= 2 * _TIMES_MAX:
                    self._times_us = self._times_us[1::2]
                    self._stride *= 2

    def interactions(self) -> Interactions:
        """Pair the namespaces of the first decisions, as far as a policy can name them."""
        derived = derived_interactions(self._first)
        return Interactions(tuple(pair for pair in derived.pairs if pair.isalnum()), derived.ignore_linear)

    def has_numbers_to_cut(self) -> bool:
        """Whether the first decisions have numbers that bins would be found for."""
        return bool(settle(self._first).edges)

    def stretches(self) -> list[Stretch]:
        """Tell how far the rungs read. None: the log is too short to search by."""
        times_us = sorted(self._times_us)
        found = []
        for share in SHARES:
            needed = _LAST_RUNG_MIN if share == SHARES[-1] else _RUNG_MIN
            until_us = _at(times_us, share)
            if self._stride * int(np.searchsorted(times_us, until_us)) < needed:
                continue
            batches = 1 + max(
                number for number, begin_us in enumerate(self._begin_us) if begin_us is not None and begin_us < until_us
            )
            found.append(Stretch(share, _at(times_us, share * _WARM_SHARE), until_us, batches))
        return found


def _at(times_us: Sequence[TimeUs], share: float) -> TimeUs:
    return times_us[int(len(times_us) * share)] if times_us else 0


def trials(
    own: Candidate,
    interactions: Interactions,
    *,
    seed: int,
    count: int = TRIALS,
    taken: Sequence[str] = (),
    with_bins: bool = False,
) -> list[Candidate]:
    """List settings to try.

    Args:
        own: those in use, which come first.
        interactions: derived from the log; what can be written as a policy is tried.
        seed: of the draw from all combinations. The same seed gives the same list.
        count: how many at most, the own among them.
        taken: names that must not be given.
        with_bins: whether to try both treatments of numbers, and not the own alone.

    Names are as the contract has them: `Hyper1` and so on with the own interactions, `Inter-len2` with
    two others, `Inter-len2-2` the next of these.
    """
    policy = parse_policy(own.policy)
    derived = _pairs_text(interactions)
    own_pairs = derived if own.derives_interactions else _own_pairs(policy)
    names = _Names(taken)
    listed = [own]
    seen = {(_meaning(f"{own.policy} {own_pairs}" if own.derives_interactions else own.policy), own.numbers)}
    treatments = (own.numbers, *(each for each in Numbers if with_bins and each is not own.numbers))
    combined = _combinations(policy.problem_type, derived, own_pairs, treatments, np.random.default_rng(seed))
    for text, pairs, numbers in combined:
        if len(listed) == count:
            break
        arguments = _usable(text)
        if arguments is None or (_meaning(text), numbers) in seen:
            continue
        seen.add((_meaning(text), numbers))
        listed.append(
            Candidate(
                name=names.next("Hyper" if pairs == own_pairs else f"Inter-len{pairs.count('-q')}"),
                source=PolicySource.OFFLINE_EXPERIMENTATION,
                policy=arguments.text,
                exploration=own.exploration if arguments.epsilon is None else arguments.epsilon,
                numbers=numbers,
            )
        )
    return listed


class _Names:
    """Numbers what has one name otherwise."""

    def __init__(self, taken: Sequence[str]) -> None:
        self._taken = {name.lower() for name in taken}

    def next(self, stem: str) -> str:
        numbers = range(1, len(self._taken) + 2)
        if stem == "Hyper":
            choices = [f"{stem}{number}" for number in numbers]
        else:
            choices = [stem, *(f"{stem}-{number}" for number in numbers[1:])]
        name = next(choice for choice in choices if choice.lower() not in self._taken)
        self._taken.add(name.lower())
        return name


def _usable(text: str) -> PolicyArguments | None:
    """Check a combination. None: it is not allowed, or a loop would take it for a preset that means something else."""
    try:
        arguments = parse_policy(text)
    except InvalidPolicy:  # too many or too long interactions, for one
        return None
    preset = preset_of(arguments)
    return None if preset is not None and PRESETS[preset].derives_interactions else arguments


def _meaning(text: str) -> tuple[str, ...]:
    """Tell policies apart by what they say, in whatever order and spelling."""
    return tuple(sorted(f"{each.name} {each.value}" for each in parse_policy(text).arguments))


def _own_pairs(policy: PolicyArguments) -> str:
    names = ("quadratic", "cubic", "interactions", "ignore_linear")
    return " ".join(each.written for each in policy.arguments if each.name in names)


def _pairs_text(interactions: Interactions) -> str:
    pairs = [f"-q {pair}" for pair in interactions.pairs]
    ignored = [f"--ignore_linear {''.join(interactions.ignore_linear)}"] if interactions.ignore_linear else []
    return " ".join([*pairs, *ignored]) if pairs else ""


# What is combined. Every explorer keeps a floor, so that what comes next can be judged by what it logs.
_SQUARECB = tuple(f"--squarecb --gamma_scale {gamma} --epsilon 0.02 --cb_type mtr" for gamma in (10, 30, 100, 1_000))
_GREEDY = tuple(
    f"--epsilon {epsilon} --cb_type {kind}" for epsilon in (0.02, 0.05, 0.1) for kind in ("mtr", "ips", "dr")
)
_SOFT = tuple(f"--softmax --lambda {sharpness} --epsilon 0.02 --cb_type mtr" for sharpness in (5, 20))
_COVER = ("--synthcover --epsilon 0.02 --cb_type mtr",)
_EXPLORERS = (*_SQUARECB, *_GREEDY, *_SOFT, *_COVER)
_RATES = ("", "-l 0.1", "-l 0.02", "-l 0.05 --power_t 0", "-l 0.01 --power_t 0", "-l 0.001 --power_t 0")
_LIKELY = (  # the first to be tried: what did well on many data sets
    (_SQUARECB[0], ""),
    (_SQUARECB[2], ""),
    (_SQUARECB[2], "-l 0.1"),
    (_GREEDY[0], ""),
    (_GREEDY[3], ""),
    (_COVER[0], ""),
)


def _combinations(
    problem_type: ProblemType,
    derived: str,
    own_pairs: str,
    treatments: Sequence[Numbers],
    rng: np.random.Generator,
) -> Iterator[tuple[str, str, Numbers]]:
    """Yield policies with their interactions and what they see of numbers: the likely ones, then others as drawn."""
    every_pairs = list(dict.fromkeys((derived, own_pairs, "-q ::", "")))
    likely = [
        (explorer, rate, pairs, numbers)
        for pairs, numbers in [*((derived, numbers) for numbers in treatments), (every_pairs[1], treatments[0])]
        for explorer, rate in _LIKELY
    ]
    others = [
        (explorer, rate, pairs, numbers)
        for explorer in _EXPLORERS
        for rate in _RATES
        for pairs in every_pairs
        for numbers in treatments
        if (explorer, rate, pairs, numbers) not in likely
    ]
    order = rng.permutation(len(others))
    for explorer, rate, pairs, numbers in [*likely, *(others[number] for number in order)]:
        yield " ".join(filter(None, (f"--{problem_type}", explorer, rate, pairs))), pairs, numbers


def kept_after(rung: int, rungs: int, running: int) -> int:
    """Tell how many settings go on after a rung, counted from 0: half of them, and the finalists after the last.

    >>> [kept_after(0, 3, 32), kept_after(1, 3, 16), kept_after(2, 3, 8)]
    [16, 8, 3]
    """
    return FINALISTS if rung == rungs - 1 else max(FINALISTS, -(-running // 2))


class Course:
    """The way of a search: its rungs, then the judging of finalists. A policy along the whole log is a work of 1."""

    def __init__(self, stretches: Sequence[Stretch], *, tried: int, judged: int) -> None:
        """Plan.

        Args:
            stretches: of the rungs.
            tried: settings on the first of them, the own among them.
            judged: policies along the whole log in the end.
        """
        self._works: list[float] = []
        for number, stretch in enumerate(stretches):
            self._works.append(tried * stretch.share)
            tried = 1 + kept_after(number, len(stretches), tried - 1)
        self._works.append(judged)

    def share(self, part: int, read: float) -> float:
        """Tell how much of the work is done, within [0, 1], where a part has read so much of its stretch."""
        return (sum(self._works[:part]) + self._works[part] * read) / sum(self._works)

    def ahead_s(self, part: int, spent_s: float) -> float:
        """Tell how long a part and the last will take, where those before it took so long. 0: nobody can tell yet."""
        done = sum(self._works[:part])
        return spent_s * (self._works[part] + self._works[-1]) / done if done else 0.0


def ranking(results: Sequence[PolicyResult], own: str, keep: int) -> tuple[Ranked, ...]:
    """Rank settings by how much more they earned than the policy that acted.

    Args:
        results: of a rung.
        own: name of the setting in use, which goes on as well, beside those kept.
        keep: how many others go on.
    """

    def margin(result: PolicyResult) -> float:
        return -np.inf if result.against_online is None else result.against_online.value

    found: list[Ranked] = []
    others = 0
    for result in sorted((each for each in results if not each.slot_id), key=margin, reverse=True):
        assert result.arguments is not None, "only policies with arguments are tried"
        judged = result.against_online is not None
        others += result.name != own
        found.append(
            Ranked(
                name=result.name,
                arguments=result.arguments,
                against_online=result.against_online,
                kept=judged and (result.name == own or others <= keep),
                numbers=result.numbers,
            )
        )
    return tuple(found)


def rung_of(results: Sequence[PolicyResult], stretch: Stretch, own: str, *, keep: int) -> Rung:
    """Write a rung down. Arguments as of `ranking`, and the stretch that the results are of."""
    return Rung(
        share=stretch.share,
        judged_from_us=stretch.judged_from_us,
        until_us=stretch.until_us,
        ranking=ranking(results, own, keep),
    )


def best_of(rung: Rung, own: str) -> tuple[str, ...]:
    """Name the finalists: the best of what a rung keeps, without the setting in use."""
    return tuple([each.name for each in rung.ranking if each.kept and each.name != own][:FINALISTS])


def gate_alpha(count: int) -> float:
    """Tell how often the interval of a finalist's difference may miss, so that a search seldom promotes wrongly.

    Only a lower bound that is too high does so, which is half of the misses: one of all finalists' in 20 searches.

    >>> gate_alpha(1), round(gate_alpha(4), 4)
    (0.05, 0.025)
    """
    return min(ALPHA, 2 * ALPHA / count)


def finalist(candidate: Candidate, *, gate_from_us: TimeUs, count: int) -> Candidate:
    """Prepare a setting for the gate.

    Args:
        candidate: the setting.
        gate_from_us: no decision from then on was used by the search.
        count: of finalists. Their lower bounds hold together, so that more of them do not mean more luck.
    """
    return msgspec.structs.replace(candidate, judged_from_us=gate_from_us, alpha=gate_alpha(count))


def promoted(results: Sequence[PolicyResult]) -> str:
    """Name the finalist to promote: of those better beyond doubt the one that is so by most. Empty: there is none."""
    better = [
        (result.against_online.always.low, result.name)
        for result in results
        if result.source is PolicySource.OFFLINE_EXPERIMENTATION
        and result.verdict is Verdict.BETTER
        and result.against_online is not None
        and not result.slot_id
    ]
    return max(better)[1] if better else ""


def with_search(report: Report, run: SearchRun) -> Report:
    """Put a search into the report of its finalists, with its decision."""
    best = promoted(report.policies) if report.trusted else ""
    result = next((each for each in report.overall() if each.name == best), None)
    if not run.finalists:
        decision = "Nothing was found."
    elif result is None or result.against_online is None:
        decision = (
            f"None of {len(run.finalists)} finalists ({', '.join(run.finalists)}) is better than the policy that acted "
            "beyond doubt, by the decisions that the search had not used."
        )
    else:
        margin = result.against_online
        decision = (
            f"{best} is better than the policy that acted, by {margin.value:.4g} a decision and by at least "
            f"{margin.always.low:.4g}, in decisions that the search had not used."
        )
    return msgspec.structs.replace(
        report,
        policies=tuple(_with_note(each) for each in report.policies),
        search=msgspec.structs.replace(run, promoted=best, decision=decision),
    )


def _with_note(result: PolicyResult) -> PolicyResult:
    if result.source is not PolicySource.OFFLINE_EXPERIMENTATION:
        return result
    note = "found by the search: estimate and intervals are of the decisions that had no say in its choice"
    return msgspec.structs.replace(result, notes=(*result.notes, note))


def apply_command(report: Report) -> str | None:
    """Write the command that gives a loop the promoted setting. None: nothing is promoted."""
    if report.search is None or not report.search.promoted:
        return None
    found = next((result for result in report.overall() if result.name == report.search.promoted), None)
    if found is None or found.arguments is None:
        return None
    tried = {each.numbers for rung in report.search.rungs for each in rung.ranking}
    first = f"rankward settings set LOOP numbers={found.numbers} && " if len(tried) > 1 else ""
    return f"{first}rankward policy set LOOP {found.arguments}"
