"""Facts and findings as one report, and the screen that shows it, wherever it was made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from rankward.challengers import Position
from rankward.doctor.facts import Facts
from rankward.doctor.findings import Finding, Severity, building_left_s, building_progress
from rankward.doctor.words import ago, moment, share, span
from rankward.records import LearningMode, ModelId, TimeUs
from rankward.store.challengers import ChallengerState
from rankward.store.ports import Epoch, ModelVersion
from rankward.vw.rates import describe


class Figure(msgspec.Struct, frozen=True):
    """A line of the screen's table."""

    name: str
    value: str
    remark: str  # empty: there is nothing to add


class Building(msgspec.Struct, frozen=True, kw_only=True):
    """A model that is being built, to take over from the one that serves."""

    reason: str
    learned: int  # events
    done: float | None  # within [0, 1]; None: it has not begun
    remaining_s: float | None  # None: nobody can tell yet


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Facts and findings, for scripts and for the screen."""

    loop: str
    learning_mode: LearningMode
    preset: str | None  # None: a policy of its own
    time_us: TimeUs
    findings: tuple[Finding, ...]
    counts: dict[str, int]
    waiting: int
    unread: int
    learned: dict[int, int]  # by epoch
    match_rate: float | None  # share of draws equal to the baseline; None: nothing is joined
    default_share: float | None
    set_aside: dict[str, int]  # by reason
    model_id: ModelId | None
    model_created_us: TimeUs | None
    model_learned: int | None
    next_due_us: TimeUs | None
    worker_lives: bool
    figures: tuple[Figure, ...]  # where the events are, from Rank to the model: for people
    building: Building | None = None  # None: no model is


def report(facts: Facts, found: Sequence[Finding]) -> Report:
    """Put the findings and the figures behind them together."""
    serving = facts.serving
    return Report(
        loop=facts.loop.name,
        learning_mode=facts.loop.settings.learning_mode,
        preset=facts.loop.settings.preset,
        time_us=facts.now_us,
        findings=tuple(found),
        counts=facts.counts,
        waiting=facts.waiting,
        unread=facts.log_end - facts.head,
        learned={epoch.epoch_id: facts.learned_of(epoch)[0] for epoch in facts.epochs},
        match_rate=facts.counts.get("baseline_chosen", 0) / facts.learnable if facts.learnable else None,
        default_share=facts.counts.get("defaulted", 0) / facts.learnable if facts.learnable else None,
        set_aside=dict(Counter(event.reason for event in facts.set_asides)),
        model_id=facts.loop.model_id,
        model_created_us=serving.created_us if serving else None,
        model_learned=serving.learned if serving else None,
        next_due_us=facts.next_due_us,
        worker_lives=facts.worker_lives,
        figures=tuple([Figure(*row) for row in _rows(facts)]),
        building=next((_building(facts, epoch) for epoch in facts.epochs if epoch.state == "building"), None),
    )


def _building(facts: Facts, epoch: Epoch) -> Building:
    return Building(
        reason=epoch.reason,
        learned=facts.learned_of(epoch)[0],
        done=building_progress(facts, epoch),
        remaining_s=building_left_s(facts, epoch),
    )


def _rows(facts: Facts) -> list[tuple[str, str, str]]:
    """Say where the events are, from Rank to the model: name, number, remark."""
    counts = facts.counts
    joined = counts.get("joined", 0)
    serving = facts.serving
    made = [("ranked", f"{facts.ranked:,}", _unless_zero("under a repeated event id", counts.get("repeats", 0)))]
    unread = facts.log_end - facts.head
    if unread:
        made.append(("not read yet", f"{unread:,}", "log entries that joining has not reached"))
    due = "" if facts.next_due_us is None else f"the next is due at {moment(facts.next_due_us)}"
    made += [
        ("waiting for rewards", f"{facts.waiting:,}", due if facts.waiting or unread else ""),
        ("joined", f"{joined:,}", _unless_zero("never activated", counts.get("never_activated", 0))),
        *([("imported", f"{facts.imported:,}", "joined elsewhere")] if facts.imported else []),
        ("  with a reward", f"{counts.get('rewarded', 0):,}", share(counts.get("rewarded", 0), facts.learnable)),
        ("  with the default", f"{counts.get('defaulted', 0):,}", share(counts.get("defaulted", 0), facts.learnable)),
        (
            "rewards reported",
            f"{counts.get('observed', 0):,}",
            ", ".join(
                part
                for part in (
                    _unless_zero("found no event", counts.get("unknown", 0)),
                    _unless_zero("found no slot", counts.get("unknown_slot", 0)),
                    _unless_zero("came too late", counts.get("late", 0)),
                )
                if part
            ),
        ),
        (
            "same as first action",
            share(counts.get("baseline_chosen", 0), facts.learnable),
            f"{share(facts.sample.baseline_chosen, facts.sample.events)} of the newest {facts.sample.events:,}"
            if facts.sample.events
            else "",
        ),
        ("set aside", f"{len(facts.set_asides):,}", facts.set_asides[-1].reason if facts.set_asides else ""),
    ]
    if facts.sample.reward_mean is not None:
        made.append(("mean reward", f"{facts.sample.reward_mean:.4f}", f"of the newest {facts.sample.events:,}"))
    if facts.comparison is not None and facts.comparison.over_baseline is not None:
        over = facts.comparison.over_baseline
        sure = f"from {over.low:+.4f} to {over.high:+.4f} beyond doubt"
        made.append(("  over first action", f"{over.value:+.4f}", sure))
    for epoch in facts.epochs:
        learned, following = facts.learned_of(epoch)
        behind = facts.joined_end - following if following is not None else facts.joined_end
        where = epoch.state if epoch.state == "serving" else f"building, {building_progress(facts, epoch) or 0:.0%}"
        behind_text = f", {behind:,} joined events behind" if behind else ""
        made.append((f"learned, epoch {epoch.epoch_id}", f"{learned:,}", f"{where}{behind_text}"))
        if epoch.rate is not None:
            made.append((f"rate, epoch {epoch.epoch_id}", epoch.rate.name, describe(epoch.rate)))
    made.append(_model_row(facts, serving))
    if facts.study is not None and facts.worker_lives:
        left = facts.study.remaining_s
        pace = f"{facts.study.rate_per_s:,.0f} events/s" + ("" if left is None else f", {span(left)} left")
        made.append((f"{facts.study.kind} runs", f"{facts.study.done:.0%}", pace))
    made += [_challenger_row(each) for each in facts.challengers]
    if facts.younger:
        made.append(("younger models", f"{facts.younger}", "one takes over when the newest events say it does better"))
    worker = "at work" if facts.worker_lives else "not running"
    seen = "" if facts.worker_seen_us is None else f"last seen {ago(facts.worker_seen_us, facts.now_us)}"
    made.append(("worker", worker, "" if facts.worker_lives else seen))
    if facts.standing is not None:
        term = "" if facts.leader is None or facts.lead is None else f"under term {facts.lead.term}"
        made.append(("led by", facts.leader or "nobody", term))
        queue = f"{facts.replica_queue:,} behind" if facts.replica_queue else "up to date"
        made.append(("replica", queue, f"on node {facts.standing.node}"))
    return made


def _model_row(facts: Facts, serving: ModelVersion | None) -> tuple[str, str, str]:
    if serving is None:
        return ("model", "none", "decisions are uniform")
    remark = f"made {ago(serving.created_us, facts.now_us)} from {serving.learned:,} events"
    newer = any(facts.learned_of(epoch)[0] > serving.learned for epoch in facts.epochs if epoch.state == "serving")
    due_us = serving.created_us + round(facts.export_s * 1e6)
    if newer and due_us > facts.now_us:
        remark += f"; the next is due at {moment(due_us)}"
    elif not newer:
        remark += f"; the next when there is more to learn, at most every {span(facts.export_s)}"
    return ("model", serving.model_id, remark)


def _challenger_row(position: Position) -> tuple[str, str, str]:
    challenger, standing = position.challenger, position.standing
    name = f"challenger {challenger.name}"
    if challenger.state is ChallengerState.FAILED:
        return (name, "failed", challenger.description)
    behind = f", {position.behind:,} joined events behind" if position.behind else ""
    if standing.ahead is None:
        return (name, "—", f"it has not been judged by any decision yet{behind}")
    low, high = standing.ahead.always.low, standing.ahead.always.high
    remark = f"reward above what is served, between {low:+.4f} and {high:+.4f} by {standing.decisions:,} decisions"
    return (name, f"{standing.ahead.value:+.4f}", f"{remark}: {standing.verdict}{behind}")


def _unless_zero(what: str, number: int) -> str:
    return f"{number:,} {what}" if number else ""


_MARKS = {
    Severity.PROBLEM: ("✗", "bold red"),
    Severity.WARNING: ("!", "bold yellow"),
    Severity.WAITING: ("…", "bold cyan"),
    Severity.NOTE: ("✓", "bold green"),
}


def screen(made: Report) -> RenderableType:
    """Draw one loop on one screen."""
    title = Text.assemble(
        ("loop ", "dim"), (made.loop, "bold"), (f"   {made.learning_mode}, preset {made.preset or 'none'}", "dim")
    )
    return Panel(Group(_conclusions(made.findings), "", _table(made.figures)), title=title, title_align="left")


def _conclusions(found: Sequence[Finding]) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(width=1)
    table.add_column()
    for finding in found:
        mark, style = _MARKS[finding.severity]
        text = Text(finding.what, style="bold")
        text.append(f" {finding.why}", style="not bold")
        if finding.do:
            text.append(f" → {finding.do}", style="not bold cyan")
        table.add_row(Text(mark, style=style), text)
    return table


def _table(figures: Sequence[Figure]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(justify="right")
    table.add_column()
    for figure in figures:
        table.add_row(figure.name, Text(figure.value), Text(figure.remark))
    return table
