"""Runs an evaluation in processes of its own, with low priority, and puts its report together.

Every process reads the whole log and judges a share of the policies: what a learner does cannot be shared between
learners, and of the rest only parsing costs much, which those of one process share (`vw.parser`).
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Protocol

import msgspec

from rankward.errors import InvalidRequest, RankwardError
from rankward.evaluation.checkpoint import EVERY_S, Place, Stand
from rankward.evaluation.contender import Candidate, Trained
from rankward.evaluation.replay import FLAWS_KEPT, Part, Replay, Setup
from rankward.evaluation.report import (
    EventCounts,
    Line,
    PolicyResult,
    PolicySource,
    Report,
    Rung,
    SearchRun,
    Verdict,
)
from rankward.evaluation.search import (
    FINALISTS,
    TRIALS,
    Course,
    Survey,
    best_of,
    finalist,
    kept_after,
    rung_of,
    trials,
    with_search,
)
from rankward.records import JoinedEvent, TimeUs
from rankward.settings import Numbers
from rankward.vw.arguments import parse_policy
from rankward.vw.presets import PRESETS

PROCESSES = 2
NICENESS = 10  # serving comes first
_TELL_EVERY_S = 0.5
_CERTAIN_SHARE = 0.999  # of decisions: beyond it, the log's probabilities are taken for made up


class EvaluationFailedError(RankwardError):
    """An evaluation could not be ended."""


class CancelledError(RankwardError):
    """An evaluation was told to stop."""


class Batch(NamedTuple):
    """A stretch of a log."""

    events: Sequence[JoinedEvent]
    read: float  # of the whole log with this stretch, within [0, 1]
    skipped: Mapping[str, int] = MappingProxyType({})  # lines that are no joined events, by kind
    flaws: Sequence[Line] = ()  # some of those, for people


class Source(Protocol):
    """A log to judge by. It is sent to other processes, so it can be pickled."""

    def batches(self) -> Iterator[Batch]:
        """Read the log from its beginning, in the order of the joined log."""


class Told(msgspec.Struct):
    """What the player of a share says of its way."""

    events: int = 0
    read: float = 0.0
    skipped: dict[str, int] = {}
    flaws: list[Line] = []
    part: Part | None = None
    failure: str | None = None


class Player(Protocol):
    """Plays a share of the policies along the log, in a process of its own."""

    told: Told

    @property
    def connection(self) -> Connection | None:
        """What becomes ready when there is something to hear. None: it is to be asked now and then."""

    def listen(self) -> None:
        """Hear what it has to say.

        Raises:
            EvaluationFailedError: it broke.
        """

    def end(self) -> None:
        """Make sure that nothing is played for it here any more."""


class Play(Protocol):
    """Lets a share of the policies be played, somewhere."""

    def __call__(
        self,
        source: Source,
        share: Sequence[Candidate],
        setup: Setup,
        *,
        references: bool,
        checkpoints: Path | None,
    ) -> Player:
        """Begin.

        Args:
            source: the log.
            share: of the policies.
            setup: how to judge them.
            references: whether to judge `online` and the baselines, too.
            checkpoints: see `evaluate`.
        """


class Progress(NamedTuple):
    """How far an evaluation has come."""

    events: int  # read by the slowest process
    read: float  # of the log, within [0, 1]
    rate_per_s: float
    remaining_s: float | None  # None: nobody can tell yet


def custom(
    name: str, policy: str, *, exploration: float, model: bytes | None = None, numbers: Numbers = Numbers.RAW
) -> Candidate:
    """Make a candidate of what somebody asked for.

    Args:
        name: what to call it.
        policy: learner arguments, or the name of a preset.
        exploration: of the loop, where the policy names none.
        model: to judge as it is; None: the policy learns along the log.
        numbers: what it sees of them.

    Raises:
        InvalidPolicy: the arguments are malformed or not allowed.
    """
    preset = PRESETS.get(policy)
    arguments = parse_policy(policy) if preset is None else preset.policy()
    return Candidate(
        name=name,
        source=PolicySource.CUSTOM,
        policy=arguments.text,
        exploration=exploration if arguments.epsilon is None else arguments.epsilon,
        derives_interactions=preset is not None and preset.derives_interactions,
        derives_rate=preset is not None and preset.derives_rate,
        numbers=numbers,
        model=model,
        learns=model is None,
    )


def evaluate(
    source: Source,
    candidates: Sequence[Candidate],
    setup: Setup,
    *,
    processes: int = PROCESSES,
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    keep: Callable[[Trained], None] = lambda _: None,
    checkpoints: Path | None = None,
    play: Play | None = None,
) -> Report:
    """Judge policies by a log. Blocks until it is done.

    Args:
        source: the log.
        candidates: policies beside `online` and the baselines, which are always judged.
        setup: how to.
        processes: how many to use at most.
        progress: told now and then how far it has come.
        cancelled: asked now and then whether to stop.
        keep: given what has been learned by each policy that wants it kept.
        checkpoints: a folder to keep in how far it has come, and to go on from what is there; None: it begins anew.
        play: lets shares of the policies be played, as many as there are to be `processes`; None: here.

    Raises:
        InvalidRequest: two candidates have one name, or one of a policy that is always there.
        CancelledError: `cancelled` said so.
        EvaluationFailedError: a process broke; the message says on what.
    """
    found = replayed(
        source,
        candidates,
        setup,
        processes=processes,
        progress=progress,
        cancelled=cancelled,
        keep=keep,
        checkpoints=checkpoints,
        play=play,
    )
    report = compiled(found.parts, candidates, setup)
    return msgspec.structs.replace(
        report,
        counts=msgspec.structs.replace(report.counts, skipped=dict(found.skipped)),
        flaws=(*found.flaws, *report.flaws)[:FLAWS_KEPT],
    )


class Replayed(NamedTuple):
    """What the processes found."""

    parts: Sequence[Part]  # the first judged the references
    skipped: Mapping[str, int]  # lines that are no joined events, by kind
    flaws: Sequence[Line]


def replayed(
    source: Source,
    candidates: Sequence[Candidate],
    setup: Setup,
    *,
    processes: int,
    progress: Callable[[Progress], None] | None,
    cancelled: Callable[[], bool],
    keep: Callable[[Trained], None],
    checkpoints: Path | None = None,
    play: Play | None = None,
) -> Replayed:
    """Play policies along a log, each process a share of them. Arguments and errors as of `evaluate`."""
    _check_names(candidates)
    count = max(1, min(processes, len(candidates)))
    shares = _shares(candidates, count)
    begin = _Worker if play is None else play
    players = [
        begin(source, share, setup, references=number == 0, checkpoints=checkpoints)
        for number, share in enumerate(shares)
    ]
    begun_s = told_s = time.monotonic()
    try:
        while any(player.told.part is None for player in players):
            waiting = (player.connection for player in players if player.told.part is None)
            wait([connection for connection in waiting if connection is not None], timeout=_TELL_EVERY_S)
            for player in players:
                player.listen()
            if cancelled():
                raise CancelledError("the evaluation was cancelled")
            if progress is not None and time.monotonic() - told_s >= _TELL_EVERY_S:
                told_s = time.monotonic()
                progress(_progress(players, told_s - begun_s))
    finally:
        for player in players:
            player.end()
    parts = [player.told.part for player in players if player.told.part is not None]
    for part in parts:
        for trained in part.trained:
            keep(trained)
    told = players[0].told  # all have read the same lines
    return Replayed(parts, told.skipped, told.flaws)


def _shares(candidates: Sequence[Candidate], count: int) -> list[Sequence[Candidate]]:
    """Deal candidates out, as many to each, so that those that parse alike are together and are parsed for once."""
    alike = sorted(candidates, key=lambda each: (each.numbers, parse_policy(each.policy).parsing_text))
    ends = [number * len(alike) // count for number in range(count + 1)]
    return [alike[begin:end] for begin, end in pairwise(ends)]


class Prefix(msgspec.Struct, frozen=True):
    """The beginning of a log. Implements `Source`."""

    source: Source
    until_us: TimeUs  # decisions at or after it are left out
    last: int  # batches of the source to read

    def batches(self) -> Iterator[Batch]:
        """Read it."""
        for number, batch in enumerate(self.source.batches(), start=1):
            events = [event for event in batch.events if event.entry.time_us < self.until_us]
            yield batch._replace(events=events, read=number / self.last)
            if number == self.last:
                return


def search(
    source: Source,
    asked: Sequence[Candidate],
    setup: Setup,
    *,
    own: Candidate,
    seed: int,
    tried: int = TRIALS,
    budget_s: float | None = None,
    processes: int = PROCESSES,
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    keep: Callable[[Trained], None] | None = None,
    checkpoints: Path | None = None,
    play: Play | None = None,
) -> Report:
    """Look for better learning settings, and judge what was found beside policies that were asked for. Blocks.

    Args:
        source: the log.
        asked: policies to judge beside what is found. They do not take part in the search.
        setup: how to judge.
        own: the settings in use, by a name that none of the found ones may have.
        seed: of the draw of settings to try.
        tried: settings, the own among them.
        budget_s: how long it may take; None: as long as it does. The search stops at a rung with what it has, early
            enough for the finalists, who are judged in any case.
        processes: how many to use at most.
        progress: told now and then how far it has come.
        cancelled: asked now and then whether to stop.
        keep: given what has been learned by the finalists, and by each policy that wants it kept. None: nobody is.
        checkpoints: see `evaluate`.
        play: see `evaluate`.

    Returns:
        A report as `evaluate` gives it, finalists included, with the record of the search.

    Raises:
        InvalidRequest: two candidates have one name, or one of a policy that is always there.
        CancelledError: `cancelled` said so.
        EvaluationFailedError: a process broke.
    """
    _check_names(asked)
    begun_s = time.monotonic()
    survey = Survey()
    for batch in source.batches():
        survey.take(batch.events)
        if cancelled():
            raise CancelledError("the search was cancelled")
    taken = [own.name, *(candidate.name for candidate in asked)]
    running = trials(
        own, survey.interactions(), seed=seed, count=tried, taken=taken, with_bins=survey.has_numbers_to_cut()
    )
    stretches = survey.stretches()
    course = Course(stretches, tried=len(running), judged=len(asked) + FINALISTS)
    surveyed_s = time.monotonic()

    def is_over(ahead_s: float = 0.0) -> bool:
        return budget_s is not None and time.monotonic() - begun_s + ahead_s > budget_s

    stopped = "" if stretches else "the log has too few decisions to search by"
    rungs: list[Rung] = []
    for number, stretch in enumerate(stretches):
        report: Report | None = None
        if not is_over(course.ahead_s(number, time.monotonic() - surveyed_s)):
            with contextlib.suppress(CancelledError):
                report = evaluate(
                    Prefix(source, stretch.until_us, stretch.batches),
                    [msgspec.structs.replace(each, judged_from_us=stretch.judged_from_us) for each in running],
                    setup,
                    processes=processes,
                    progress=_shown(progress, course, number, begun_s),
                    cancelled=lambda: cancelled() or is_over(),
                    checkpoints=checkpoints,
                    play=play,
                )
        if cancelled():
            raise CancelledError("the search was cancelled")
        if report is None or not report.trusted:
            late = f"time ran out after {number} of {len(stretches)} rungs"
            stopped = late if report is None else "the log's probabilities cannot be true"
            break
        names = {each.name for each in running}
        found = [result for result in report.policies if result.name in names]
        rung = rung_of(found, stretch, own.name, keep=kept_after(number, len(stretches), len(running) - 1))
        rungs.append(rung)
        running = [each for each in running if rung.keeps(each.name)]
    gate_from_us = rungs[-1].until_us if rungs else 0
    chosen = best_of(rungs[-1], own.name) if rungs else ()
    finalists = [
        msgspec.structs.replace(
            finalist(each, gate_from_us=gate_from_us, count=len(chosen)), keeps_model=keep is not None
        )
        for each in running
        if each.name in chosen
    ]
    report = evaluate(
        source,
        [*asked, *finalists],
        setup,
        processes=processes,
        progress=_shown(progress, course, len(stretches), begun_s),
        cancelled=cancelled,
        keep=keep or (lambda _: None),
        checkpoints=checkpoints,
        play=play,
    )
    run = SearchRun(
        seed=seed,
        own=own.name,
        tried=len(rungs[0].ranking) if rungs else 0,
        rungs=tuple(rungs),
        gate_from_us=gate_from_us,
        finalists=chosen,
        stopped=stopped,
    )
    return with_search(report, run)


def _shown(
    tell: Callable[[Progress], None] | None, course: Course, part: int, begun_s: float
) -> Callable[[Progress], None] | None:
    """Make what shows the progress of a part of a search as one of the whole."""
    if tell is None:
        return None

    def show(state: Progress) -> None:
        share, elapsed_s = course.share(part, state.read), time.monotonic() - begun_s
        tell(state._replace(read=share, remaining_s=elapsed_s * (1 - share) / share if share > 0 else None))

    return show


def _check_names(candidates: Sequence[Candidate]) -> None:
    taken = {"online", "baseline1", "baselinerand"}
    for candidate in candidates:
        if candidate.name.lower() in taken:
            raise InvalidRequest(
                f"there would be two policies called {candidate.name!r}: give each a name of its own",
                code="InvalidEvaluationContract",
                target="policies",
            )
        taken.add(candidate.name.lower())


class _Worker:
    """A process here that plays a share. Implements `Player`."""

    def __init__(
        self,
        source: Source,
        share: Sequence[Candidate],
        setup: Setup,
        *,
        references: bool,
        checkpoints: Path | None,
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe(duplex=False)
        self.told = Told()
        self._names = [candidate.name for candidate in share]
        self._process: BaseProcess = context.Process(
            target=_work, args=(source, share, setup, references, checkpoints, theirs), daemon=True
        )
        self._process.start()
        theirs.close()

    def listen(self) -> None:
        """Hear what it has to say.

        Raises:
            EvaluationFailedError: it broke.
        """
        try:
            while self.told.part is None and self.connection.poll():
                self.told = msgspec.msgpack.decode(self.connection.recv_bytes(), type=Told)
        except EOFError:
            self._process.join()
            raise EvaluationFailedError(
                f"the process that judged {', '.join(self._names) or 'the baselines'} ended with status "
                f"{self._process.exitcode} after {self.told.events} events"
            ) from None
        if self.told.failure is not None:
            raise EvaluationFailedError(self.told.failure)

    def end(self) -> None:
        """Make sure that it is no more."""
        if self._process.is_alive():
            self._process.terminate()
        self._process.join()
        self.connection.close()


def _work(
    source: Source,
    share: Sequence[Candidate],
    setup: Setup,
    references: bool,
    checkpoints: Path | None,
    connection: Connection,
) -> None:
    """Play a share of the policies: what a worker's process does."""
    with contextlib.suppress(OSError):
        os.nice(NICENESS)

    def tell(told: Told) -> None:
        connection.send_bytes(msgspec.msgpack.encode(told))

    told = Told()
    try:
        told = play_share(source, share, setup, references=references, checkpoints=checkpoints, tell=tell)
    except (RankwardError, OSError) as error:
        told.failure = str(error)
    tell(told)


def play_share(
    source: Source,
    share: Sequence[Candidate],
    setup: Setup,
    *,
    references: bool,
    checkpoints: Path | None,
    tell: Callable[[Told], None],
) -> Told:
    """Play a share of the policies along the log, from where it had come if anything is kept. Blocks.

    Args:
        source: see `Play`.
        share: see `Play`.
        setup: see `Play`.
        references: see `Play`.
        checkpoints: see `evaluate`.
        tell: told now and then how far it has come. What it raises ends it.
    """
    told = Told()
    place = None if checkpoints is None else Place(checkpoints, source, share, setup, references=references)
    stand = place.get() if place is not None else None
    skipped = Counter[str]() if stand is None else Counter(stand.skipped)
    if stand is not None:
        told.events, told.flaws, told.part = stand.events, stand.flaws, stand.part
    if told.part is None:
        replay = Replay(share, setup, references=references) if stand is None or stand.replay is None else stand.replay
        taken = 0 if stand is None else stand.batches
        told_s = kept_s = time.monotonic()
        for number, batch in enumerate(source.batches(), start=1):
            if number <= taken:
                continue
            for event in batch.events:
                replay.take(event)
            taken = number
            told.events += len(batch.events)
            told.read = batch.read
            skipped.update(batch.skipped)
            told.flaws = [*told.flaws, *batch.flaws][:FLAWS_KEPT]
            now_s = time.monotonic()
            if place is not None and now_s - kept_s >= EVERY_S:
                place.put(Stand(taken, told.events, dict(skipped), told.flaws, replay, None))
                kept_s = time.monotonic()
            if now_s - told_s >= _TELL_EVERY_S:
                told_s = now_s
                tell(told)
        told.part = replay.end()
        if place is not None:
            place.put(Stand(taken, told.events, dict(skipped), told.flaws, None, told.part))
    told.skipped = dict(skipped)
    return told


def _progress(players: Sequence[Player], elapsed_s: float) -> Progress:
    slowest = min(players, key=lambda player: player.told.read).told
    remaining_s = elapsed_s * (1 - slowest.read) / slowest.read if slowest.read > 0 else None
    return Progress(slowest.events, slowest.read, slowest.events / max(elapsed_s, 1e-9), remaining_s)


def compiled(parts: Sequence[Part], candidates: Sequence[Candidate], setup: Setup) -> Report:
    """Put a report together from what replays found, policies in the order they were asked for.

    Args:
        parts: at least one; the first judged the references.
        candidates: all of them.
        setup: of the replays.
    """
    first = parts[0]
    order = {candidate.name: number for number, candidate in enumerate(candidates)}
    found = sorted(
        (result for part in parts for result in part.policies), key=lambda result: order.get(result.name, len(order))
    )
    decided = first.certain + first.uncertain
    trusted = decided == 0 or first.certain < _CERTAIN_SHARE * decided
    if not trusted:
        found = [_untrusted(result) for result in found]
    best = optimal(found)
    return Report(
        start_us=first.start_us,
        end_us=first.end_us,
        reward_min=setup.reward_min,
        reward_max=setup.reward_max,
        reward_wait_us=first.reward_wait_us,
        export_us=setup.export_us,
        counts=first.counts,
        policies=tuple(found),
        optimal=best,
        verdict=_verdict(first.counts, found, best, trusted=trusted) + _too_short(first, candidates, setup),
        trusted=trusted,
        flaws=first.flaws,
    )


def _untrusted(result: PolicyResult) -> PolicyResult:
    if result.source is PolicySource.ONLINE:
        return result
    return msgspec.structs.replace(result, verdict=Verdict.UNKNOWN)


def optimal(results: Sequence[PolicyResult]) -> str:
    """Name the policy to take: of those that are better beyond doubt the one that is so by most; else `online`."""
    better = [
        (result.against_online.always.low, result.name)
        for result in results
        if result.verdict is Verdict.BETTER and result.against_online is not None and not result.slot_id
    ]
    if better:
        return max(better)[1]
    return "online" if any(result.verdict is Verdict.REFERENCE for result in results) else ""


def _too_short(part: Part, candidates: Sequence[Candidate], setup: Setup) -> str:
    """Say so where policies had no time to learn: until the first export they are uniform."""
    span_us = part.end_us - part.start_us
    if not part.counts.judged or span_us >= setup.export_us or not any(each.learns for each in candidates):
        return ""
    return (
        f" The log spans {span_us / 1e6:.0f} s, and what is learned is published every {setup.export_us / 1e6:.0f} s: "
        "policies were judged before they knew anything. Take a longer log, or a shorter export frequency."
    )


def _verdict(counts: EventCounts, results: Sequence[PolicyResult], best: str, *, trusted: bool) -> str:
    if not counts.judged and not counts.baseline_only:
        return "There is no event to judge by."
    if not counts.judged:
        return (
            "In every event the baseline was shown (Apprentice or LoggingOnly mode), so the log judges the baseline "
            "and no other policy."
        )
    if not trusted:
        return (
            "The log cannot judge other policies: nearly every decision was logged with probability 1. Either nothing "
            "was explored, or the probabilities are not the ones that decisions were drawn with."
        )
    if best == "online":
        return "No policy is better than the one that acted beyond doubt."
    margin = next(result.against_online for result in results if result.name == best)
    assert margin is not None, "it was chosen by its margin"
    return (
        f"{best} is better than the policy that acted, by {margin.value:.4g} a decision, and by at least "
        f"{margin.always.low:.4g} however often one looks."
    )
