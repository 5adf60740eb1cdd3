"""`rankward logs`: events out of a loop as files, and in from elsewhere."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from rankward.cli import archives, imports
from rankward.cli.terminal import (
    DATA,
    DataOption,
    JsonOption,
    LoopArgument,
    OneLineErrors,
    SinceOption,
    UntilOption,
    command_line_user,
    err,
    home_at,
    opened,
    out,
    table,
    when,
)
from rankward.configuration import Configuration
from rankward.dsjson.read import Skip
from rankward.errors import Conflict, InvalidRequest
from rankward.history.export import Exported, LineSink, Sink, export
from rankward.history.files import STANDARD, binary_logs, log_files, written
from rankward.history.importing import DUPLICATE, IMPORTED, Imported
from rankward.history.parquet import ParquetSink
from rankward.joining.reward import RewardDefinition
from rankward.records import TimeUs
from rankward.settings import parse_duration
from rankward.store.ports import Loop
from rankward.telemetry import find_version
from rankward.vw.bins import Binner
from rankward.wiring import Home

app = typer.Typer(cls=OneLineErrors, help="A loop's events, out and in.", no_args_is_help=True)

app.add_typer(archives.app, name="archive")
app.add_typer(imports.app, name="imports")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PARQUET = ".parquet"
_BROKEN_SHOWN = 5


class Format(StrEnum):
    """What a log is written as."""

    DSJSON = "dsjson"
    PARQUET = "parquet"


@app.command("export")
def export_log(
    loop: LoopArgument,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            allow_dash=True,
            help="To write; .gz or .zst at its end compresses, - is standard output.",
        ),
    ] = STANDARD,
    since: SinceOption = None,
    until: UntilOption = None,
    form: Annotated[
        Format | None,
        typer.Option(
            "--format",
            show_default=False,
            help="dsjson, or parquet; by FILE's name if left out, dsjson if that has none.",
        ),
    ] = None,
    with_bins: Annotated[
        bool,
        typer.Option(
            "--with-bins",
            help="Write the intervals that the serving model sees beside numbers: then `vw` makes of the lines what "
            "the loop does. For dsjson.",
        ),
    ] = False,
    data: DataOption = DATA,
) -> None:
    """Write a loop's joined events to a file, with rewards as the loop's settings define them now."""
    if output != STANDARD and output.exists():
        raise Conflict(f"{output} exists already: choose another name")
    form = form or (Format.PARQUET if output.suffix.lower() == _PARQUET else Format.DSJSON)
    with home_at(data) as home:
        now = datetime.now(UTC)
        span = (moment(since, now), moment(until, now))
        found = home.catalog.loop(loop)
        binner = _binner(home, found) if with_bins else None
        if binner is not None and form is Format.PARQUET:
            raise InvalidRequest("--with-bins is for what `vw` reads: add --format dsjson")

        async def run(told: Callable[[Exported], None]) -> Exported:
            definition = RewardDefinition(found.settings.default_reward, found.settings.reward_aggregation)
            async with home.logs(found.loop_id) as (log, joined):
                with written(output) as file:
                    sink: Sink = (
                        ParquetSink(file, definition) if form is Format.PARQUET else LineSink(file, definition, binner)
                    )
                    return await export(log, joined, sink, since_us=span[0], until_us=span[1], told=told)

        with event_bar("exporting") as show:
            done = asyncio.run(run(lambda state: show(state.read, state.total, state.written)))
    err().print(f"{output}: {done.written:,} events of the loop {loop}", markup=False)


def _binner(home: Home, loop: Loop) -> Binner:
    """Make what writes the intervals that a loop's serving model sees."""
    version = find_version(home.catalog.versions(loop.loop_id), loop.model_id)
    if version is None or version.bins is None or not version.bins.edges:
        raise InvalidRequest(f"loop {loop.name} serves no model that has bins: leave --with-bins out")
    return Binner(version.bins)


@app.command("import")
def import_log(
    loop: LoopArgument,
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE…", help="Log lines (also .gz or .zst), Parquet of our own, or folders of them."),
    ],
    train: Annotated[
        bool, typer.Option("--train", help="Start a new epoch that learns from all of it, however old.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first broken line.")] = False,
    data: DataOption = DATA,
    as_json: JsonOption = False,
) -> None:
    """Take events in from other logs, as history to evaluate by and to learn from.

    Personalizer's mirrored folders are read in their order. What is there already is not imported again, and an import
    that was interrupted goes on when it is run again.
    """
    paths = log_files(files)
    say_left_out(files)
    with home_at(data) as home:
        found = home.catalog.loop(loop)
        state = run_import(home, found, paths, strict=strict)
        started = None
        if train and state.oldest_us is not None:
            started = _train(home, found, state.oldest_us)
    if as_json:
        typer.echo(msgspec.json.encode(state))
        return
    _say(state)
    if started is not None:
        out().print(f"A new epoch learns from {when(started)} on: `rankward doctor {loop}` shows how far it is.")
    elif state.counts[IMPORTED] and not train:
        out().print(
            f"Events older than {found.settings.model_retrain_days} days are there to evaluate by, and are learned "
            "when they are imported with --train.",
            markup=False,
        )


def run_import(home: Home, loop: Loop, paths: list[Path], *, strict: bool = False) -> Imported:
    """Import files into a loop, with a bar.

    Raises:
        DataFolderHeld: another process is at it.
        InvalidRequest: a file is damaged, or with `strict`, has a broken line.
    """

    async def run(told: Callable[[Imported], None]) -> Imported:
        async with opened(home) as found:
            return await found.administration.imports.run(loop.name, paths, strict=strict, told=told)

    heard: list[Imported] = []

    def hear(state: Imported) -> None:
        heard[:] = [state]
        show(state.bytes_read, state.bytes_total, state.counts[IMPORTED])

    try:
        with event_bar("importing") as show:
            return asyncio.run(run(hear))
    except KeyboardInterrupt:
        lines = heard[0].lines if heard else 0
        said = f"stopped after {lines:,} lines. What came before stays imported; the same command goes on from there."
        err().print(said, soft_wrap=True)
        raise typer.Exit(130) from None


def _train(home: Home, loop: Loop, since_us: TimeUs) -> TimeUs:
    trail = home.trail.by(command_line_user())
    configuration = Configuration(home.catalog, log=home.event_log, clock=home.clock, trail=trail)
    asyncio.run(configuration.retrain(loop.name, since_us=since_us, reason="history was imported"))
    return since_us


@contextlib.contextmanager
def event_bar(what: str) -> Iterator[Callable[[int, int, int], None]]:
    """Show how far something is, with its rate and the time that is left, where somebody watches.

    Yields what is told how much is done, of how much, and how many events that were.
    """
    console = err()
    bar = Progress(
        TextColumn(what),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%  {task.fields[said]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task(what, total=None, said="")

        def show(done: int, total: int, events: int) -> None:
            elapsed_s = bar.tasks[0].elapsed or 0.0
            rate = f", {events / elapsed_s:,.0f}/s" if elapsed_s > 1 else ""
            bar.update(task, completed=done, total=total, said=f"{events:,} events{rate}")

        yield show


def _say(state: Imported) -> None:
    made = table("lines", "", right=("lines",))
    known = f" ({state.files_known} of them imported before)" if state.files_known else ""
    names: dict[str, str] = {
        IMPORTED: "imported",
        DUPLICATE: "there already",
        **{kind: f"skipped: {kind}" for kind in Skip},
    }
    for kind, name in names.items():
        if state.counts[kind] or kind == IMPORTED:
            made.add_row(f"{state.counts[kind]:,}", name)
    console = out()
    console.print(made)
    console.print(f"{state.files_done} files{known}", markup=False)
    if state.first_us is not None and state.last_us is not None:
        console.print(f"decided from {when(state.first_us)} to {when(state.last_us)}", markup=False)
    for broken in state.broken[:_BROKEN_SHOWN]:
        console.print(f"{broken.file}, line {broken.line}: {broken.why}", markup=False, soft_wrap=True)


def say_left_out(paths: Sequence[Path]) -> None:
    """Say which logs in folders are not read."""
    found = binary_logs(paths)
    if found:
        err().print(
            f"left out: {len(found)} logs in Personalizer's binary form, {found[0]} the first. Mirror them as JSON.",
            style="yellow",
            markup=False,
            soft_wrap=True,
        )


def moment(text: str | None, now: datetime) -> TimeUs | None:
    """Read a moment: a day, a time, or how long ago.

    Raises:
        InvalidRequest: it is none of them.
    """
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
        found = found.replace(tzinfo=UTC) if found.tzinfo is None else found
    except ValueError:
        try:
            found = now - parse_duration(text)
        except (ValueError, OverflowError):
            raise InvalidRequest(
                f"{text!r} is no moment: write 2026-01-31, 2026-01-31T12:00, or how long ago, as in 7d"
            ) from None
    return (found - _EPOCH) // timedelta(microseconds=1)
