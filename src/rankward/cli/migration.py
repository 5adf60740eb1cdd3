"""`rankward migrate`: take over what another service learned and logged."""

import asyncio
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from rankward import __version__
from rankward.cli.logs import event_bar
from rankward.cli.terminal import DATA, DataOption, JsonOption, OneLineErrors, home_at, opened, out, table, when
from rankward.errors import NotFound
from rankward.history.importing import IMPORTED
from rankward.invocation import data_option
from rankward.migration.inventory import take_stock
from rankward.migration.page import render
from rankward.migration.replay import Replayed, replay
from rankward.migration.report import Report
from rankward.migration.service import Migration, Plan, reported
from rankward.wiring import Home

app = typer.Typer(cls=OneLineErrors, help="Take over what another service learned and logged.", no_args_is_help=True)

_PARTS = 1_000_000  # that a log is divided into to show how far it is
_FLAWS_SHOWN = 5


@app.callback()
def _migrate() -> None:
    """Take over what another service learned and logged."""


@app.command()
def azure(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILES…",
            help="Mirrored logs (also .gz, .zst or folders of them), a model.vw or its signed zip, the service "
            "configuration and the learning policy as JSON: in any order.",
        ),
    ],
    loop: Annotated[
        str, typer.Option("--loop", metavar="NAME", help="The loop to make: 1 to 64 of a-z, 0-9, - and _.")
    ] = "personalizer",
    into: Annotated[bool, typer.Option("--into", help="The loop may be there already: add to it.")] = False,
    page: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="FILE",
            dir_okay=False,
            help="Where the report goes, a page of HTML; migration-NAME.html if left out.",
            show_default=False,
        ),
    ] = None,
    data: DataOption = DATA,
    as_json: JsonOption = False,
) -> None:
    """Take over a resource of Azure AI Personalizer: make a loop with its settings, policy, model and log.

    What each file is, is found out by what is in it. Everything is checked, and the log replayed on the
    model, before anything is changed. The report says how much is the same here: which weights of the model the log
    explains, whether its decisions get the probabilities that were logged, what was skipped and why, and what behaves
    differently. If it is interrupted, it goes on when it is run again with --into.
    """
    page = page or Path(f"migration-{loop}.html")
    if not page.parent.is_dir():
        raise NotFound(f"there is no folder {page.parent} for the report: name another with --report")
    inventory = take_stock(files)
    with home_at(data) as home:

        async def prepare() -> Plan:
            async with opened(home) as found:
                migration = Migration(home, found.configuration, found.registry, found.administration)
                return await migration.prepare(loop, inventory, into=into)

        plan = asyncio.run(prepare())
        replayed = _replayed(plan) if inventory.logs else None
        report = _carry_out(home, plan, replayed)
    page.write_text(render(report, version=__version__), encoding="utf-8")
    if as_json:
        typer.echo(msgspec.json.encode(report))
        return
    _say(report, page, data)


def _replayed(plan: Plan) -> Replayed:
    with event_bar("replaying") as show:
        return replay(plan.log, plan.old, lambda state: show(int(state.read * _PARTS), _PARTS, state.decisions))


def _carry_out(home: Home, plan: Plan, replayed: Replayed | None) -> Report:
    async def run() -> Report:
        async with opened(home) as found:
            migration = Migration(home, found.configuration, found.registry, found.administration)
            outcome = await migration.carry_out(
                plan, lambda state: show(state.bytes_read, state.bytes_total, state.counts[IMPORTED])
            )
        return reported(plan, outcome, replayed, made_us=home.clock())

    with event_bar("importing") as show:
        return asyncio.run(run())


def _say(report: Report, page: Path, data: Path) -> None:
    console = out()
    for sentence in [*report.verdict, *report.notes]:
        console.print(sentence, markup=False, soft_wrap=True)
    if report.lines:
        made = table("lines", "", right=("lines",))
        for what, count in report.lines.items():
            made.add_row(f"{count:,}", what)
        console.print(made)
    if report.first_us is not None and report.last_us is not None:
        console.print(f"decided from {when(report.first_us)} to {when(report.last_us)}", markup=False)
    for flaw in report.flaws[:_FLAWS_SHOWN]:
        console.print(f"{flaw.place}: {flaw.why}", markup=False, soft_wrap=True)
    for each in report.passed_over:
        console.print(f"passed over: {each.file}: {each.why}", markup=False, soft_wrap=True)
    for member, why in report.settings_left_out.items():
        console.print(f"left out: {member}: {why}", markup=False, soft_wrap=True)
    keys = f"rankward loop keys {report.loop} --show{data_option(data)}"
    console.print(f"The loop is {report.loop}; its keys: `{keys}`.", markup=False, soft_wrap=True)
    console.print(f"The report: {page}", markup=False, soft_wrap=True)
