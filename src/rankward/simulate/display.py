"""A run in the terminal: figures and a plot while it goes on, plain lines where nobody watches."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rankward.simulate.scoreboard import WINDOW, Averages, Point, Progress
from rankward.simulate.traffic import Pace, Target, drive

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rankward.simulate.world import PageWorld, World

LINE_EVERY_S = 5.0
PLOT_WIDTH = 60  # characters, each of 2 by 4 dots
PLOT_HEIGHT = 9
SMOOTHED_EVENTS = 150  # to a point of the plot, at least

# Later ones are drawn over earlier ones.
SERIES = (("uniform", "yellow"), ("best", "green"), ("got", "bold cyan"))

# Bit of each dot in a braille character, by row and column.
BRAILLE = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


async def show(
    world: World | PageWorld,
    target: Target,
    *,
    events: int,
    seed: int,
    pace: Pace,
    console: Console,
) -> Progress:
    """Drive the target and show how it does. Ctrl-C ends the run early, with its summary."""
    console.print(header(world, events=events, seed=seed, pace=pace))
    stop = asyncio.Event()
    with _stopped_by_interrupt(stop):
        if console.is_terminal:
            with Live(console=console, auto_refresh=False, transient=True) as live:
                progress = await drive(
                    world,
                    target,
                    events=events,
                    seed=seed,
                    pace=pace,
                    on_progress=lambda now: live.update(panel(now, encoding=console.encoding), refresh=True),
                    stop=stop,
                )
        else:
            progress = await drive(
                world,
                target,
                events=events,
                seed=seed,
                pace=pace,
                on_progress=lambda now: console.print(line(now), soft_wrap=True),
                progress_every_s=LINE_EVERY_S,
                stop=stop,
            )
    console.print(summary(progress, encoding=console.encoding))
    return progress


def header(world: World | PageWorld, *, events: int, seed: int, pace: Pace) -> Text:
    """Say what is about to run, with every parameter, so that it can be run again."""
    settings = {
        **world.parameters,
        "events": events if world.length is None else min(events, world.length),
        "seed": seed,
        "rate": "as fast as it goes" if pace.rate_per_s is None else f"{pace.rate_per_s:g}/s",
        "concurrency": pace.concurrency,
    }
    text = Text.assemble((world.name, "bold"), f"  {world.description}\n")
    text.append("  ".join(f"{name}={value}" for name, value in settings.items()), style="dim")
    return text


def line(progress: Progress) -> str:
    """Put the state of a run on one line."""
    now, overall = progress.window, progress.overall
    if now is None or overall is None:
        return f"0/{progress.planned} events" + (f"  last error: {progress.last_error}" if progress.last_error else "")
    return "  ".join(
        [
            f"{progress.events}/{progress.planned} events",
            f"reward {now.got:.4f} now, {overall.got:.4f} overall",
            f"best {now.best:.4f}",
            f"uniform {now.uniform:.4f}",
            f"share {_percent(now.share)} now, {_percent(overall.share)} overall",
            f"regret {progress.regret:.1f}",
            f"{progress.rate_per_s:.0f}/s",
            f"ETA {_clock(progress.eta_s)}",
            *_troubles(progress),
        ]
    )


def panel(progress: Progress, *, encoding: str) -> RenderableType:
    """Draw the state of a run: a bar, the figures, the plot."""
    bar = Table.grid(padding=(0, 1))
    bar.add_row(
        ProgressBar(total=progress.planned, completed=progress.events, width=40),
        f"{progress.events:,} of {progress.planned:,} events",
        f"{progress.rate_per_s:,.0f}/s",
        f"ETA {_clock(progress.eta_s)}",
    )
    troubles = Text("   ".join(_troubles(progress)), style="red")
    return Panel(Group(bar, "", figures(progress), "", _plot_or_nothing(progress, encoding), troubles))


def summary(progress: Progress, *, encoding: str) -> RenderableType:
    """Draw the outcome of a run."""
    how = "stopped after" if progress.stopped else "done:"
    title = Text(
        f"{how} {progress.events:,} events in {_clock(progress.elapsed_s)} ({progress.rate_per_s:,.0f}/s), "
        f"{progress.rewards_sent:,} rewards sent",
        style="bold",
    )
    troubles = Text("   ".join(_troubles(progress)), style="red")
    return Group(title, figures(progress), "", _plot_or_nothing(progress, encoding), troubles)


def figures(progress: Progress) -> Table:
    """Set what was got beside what could have been, for the last events and for all."""
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for column in ("", "reward", "best", "uniform", "share of the optimum"):
        table.add_column(column, justify="left" if not column else "right")
    for name, averages in (
        (f"last {min(progress.events, WINDOW):,}", progress.window),
        ("overall", progress.overall),
    ):
        if averages is not None:
            table.add_row(
                name,
                Text(f"{averages.got:.4f}", style="bold cyan"),
                Text(f"{averages.best:.4f}", style="green"),
                Text(f"{averages.uniform:.4f}", style="yellow"),
                Text(_percent(averages.share), style="bold"),
            )
    if progress.reported is not None:
        table.add_row("reported", f"{progress.reported:.4f}", "", "", Text(f"regret {progress.regret:,.1f}"))
    return table


def plot(history: tuple[Point, ...], *, width: int = PLOT_WIDTH, height: int = PLOT_HEIGHT) -> Text:
    """Plot the average reward between those of the best and the uniform policy, in braille dots.

    Args:
        history: at least one point.
        width: in characters, the axis not counted.
        height: in characters.
    """
    history = _smoothed(history)
    lows = [min(p.averages.got, p.averages.uniform) for p in history]
    highs = [max(p.averages.got, p.averages.best) for p in history]
    low, high = min(lows), max(highs)
    room = (high - low) or 1.0
    masks = [[0] * width for _ in range(height)]
    styles = [[""] * width for _ in range(height)]
    for series, style in SERIES:
        above = None
        for column in range(width * 2):
            averages = history[column * len(history) // (width * 2)].averages
            dot = round((high - _value(averages, series)) / room * (height * 4 - 1))
            dots = range(dot, dot + 1)
            if series == "got" and above is not None:
                dots = range(min(above, dot), max(above, dot) + 1)
            elif series != "got" and column % 4 == 3:
                continue  # a dashed line
            above = dot
            for row in dots:
                masks[row // 4][column // 2] |= BRAILLE[row % 4][column % 2]
                styles[row // 4][column // 2] = style
    text = Text()
    for number, (mask_row, style_row) in enumerate(zip(masks, styles, strict=True)):
        label = {0: f"{high:.3f}", height - 1: f"{low:.3f}"}.get(number, "")
        text.append(f"{label:>7} ", style="dim")
        for style, cells in itertools.groupby(zip(mask_row, style_row, strict=True), key=lambda cell: cell[1]):
            text.append("".join(chr(0x2800 + mask) for mask, _ in cells), style=style)
        text.append("\n")
    text.append(" " * 8)
    for series, style in reversed(SERIES):
        text.append(f"{series}  ", style=style)
    text.append(f"0 … {history[-1].events:,} events", style="dim")
    return text


def _smoothed(history: tuple[Point, ...]) -> tuple[Point, ...]:
    """Average every point with those before it, over at least `SMOOTHED_EVENTS` where there are as many."""
    smooth = []
    for last, point in enumerate(history):
        first = last
        while first > 0 and point.events - _begin(history, first) < SMOOTHED_EVENTS:
            first -= 1
        stretch = range(first, last + 1)
        weights = [history[index].events - _begin(history, index) for index in stretch]
        sums = {
            series: sum(
                weight * _value(history[index].averages, series) for index, weight in zip(stretch, weights, strict=True)
            )
            / sum(weights)
            for series, _ in SERIES
        }
        smooth.append(Point(events=point.events, averages=Averages(**sums)))
    return tuple(smooth)


def _begin(history: tuple[Point, ...], index: int) -> int:
    """Return how many events there were before a point's stretch."""
    return history[index - 1].events if index else 0


def _value(averages: Averages, series: str) -> float:
    return {"got": averages.got, "best": averages.best, "uniform": averages.uniform}[series]


def _plot_or_nothing(progress: Progress, encoding: str) -> Text:
    """Plot where there is something to plot, and a terminal that has the characters."""
    if not progress.history or not encoding.lower().startswith("utf"):
        return Text("")
    return plot(progress.history)


def _troubles(progress: Progress) -> list[str]:
    counts = {
        "retries": progress.retries,
        "ranks lost": progress.ranks_lost,
        "rewards lost": progress.rewards_lost,
        "rewards to come": progress.rewards_waiting,
    }
    troubles = [f"{name} {count:,}" for name, count in counts.items() if count]
    return [*troubles, f"last error: {progress.last_error}"] if progress.last_error else troubles


def _percent(share: float | None) -> str:
    return "—" if share is None else f"{share:.1%}"


def _clock(seconds: float | None) -> str:
    """Write a duration as h:mm:ss or m:ss.

    >>> _clock(75.2)
    '1:15'
    """
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextlib.contextmanager
def _stopped_by_interrupt(stop: asyncio.Event) -> Iterator[None]:
    """Take the first Ctrl-C as a wish to stop; a second one interrupts as usual."""
    loop = asyncio.get_running_loop()

    def end() -> None:
        stop.set()
        loop.remove_signal_handler(signal.SIGINT)

    try:
        loop.add_signal_handler(signal.SIGINT, end)
    except (NotImplementedError, RuntimeError, ValueError):  # not the main thread, or no signals here
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
