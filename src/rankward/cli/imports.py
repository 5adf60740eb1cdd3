"""`rankward logs imports`: files that were sent in the portal, and are imported in the background."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated

import msgspec
import typer
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rankward.administration.imports import ImportView
from rankward.cli.access import AdminEndpointOption, AdminKeyOption
from rankward.cli.remote import Administrator
from rankward.cli.terminal import (
    DATA,
    DataOption,
    JsonOption,
    LoopArgument,
    OneLineErrors,
    administer,
    out,
    table,
    when,
)
from rankward.doctor.words import span
from rankward.store.imports import ImportState

app = typer.Typer(
    cls=OneLineErrors,
    help="Imports of files that were sent in the portal: they run in the background.",
    no_args_is_help=True,
)

_LOOK_S = 1.0
_COLOURS = {ImportState.DONE: "green", ImportState.RUNNING: "cyan", ImportState.FAILED: "red"}


@app.command("list")
def list_imports(
    loop: LoopArgument,
    data: DataOption = DATA,
    endpoint: AdminEndpointOption = None,
    key: AdminKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the imports into a loop, of all nodes, newest first: those that are not over, and the last that are."""
    found = administer(data, endpoint, key, lambda admin: admin.imports.listed(loop))
    if as_json:
        typer.echo(msgspec.json.encode(found))
    elif found:
        out().print(_listed(found))
    else:
        out().print(f"No file was sent to be imported into the loop {loop}.", markup=False)


@app.command("watch")
def watch(
    loop: LoopArgument,
    data: DataOption = DATA,
    endpoint: AdminEndpointOption = None,
    key: AdminKeyOption = None,
) -> None:
    """Show how far the imports into a loop are, until all are over. They go on without.

    Exit code 1 says that one has failed meanwhile.
    """
    failed = administer(data, endpoint, key, lambda admin: follow(admin, loop, pause=lambda: asyncio.sleep(_LOOK_S)))
    if failed:
        raise typer.Exit(1)


async def follow(admin: Administrator, loop: str, *, pause: Callable[[], Awaitable[None]]) -> bool:
    """Show how far imports are until all are over, and say of each what became of it.

    Args:
        admin: says how far they are.
        loop: that they go into.
        pause: waits, between two looks.

    Returns:
        Whether one has failed meanwhile.
    """
    watched: set[str] = set()
    failed = False
    with Live(console=out(), transient=True, auto_refresh=False) as live:
        while True:
            found = await admin.imports.listed(loop)
            for each in reversed(found):
                if each.ended_us is None:
                    watched.add(each.key)
                elif each.key in watched:
                    watched.discard(each.key)
                    failed |= each.state is ImportState.FAILED
                    live.console.print(Text(f"{each.name}: {each.state}. {each.description}"), soft_wrap=True)
            going_on = [each for each in found if each.ended_us is None]
            if not going_on:
                return failed
            live.update(_listed(going_on), refresh=True)
            await pause()


@app.command("cancel")
def cancel(
    loop: LoopArgument,
    key_of_import: Annotated[str, typer.Argument(metavar="IMPORT", help="As `logs imports list` names it.")],
    data: DataOption = DATA,
    endpoint: AdminEndpointOption = None,
    key: AdminKeyOption = None,
) -> None:
    """Let an import be, on whichever node it is. What it has imported stays."""
    administer(data, endpoint, key, lambda admin: admin.imports.cancel(loop, key_of_import))
    out().print(
        "It is being cancelled. What it has imported stays: to import the same file again goes on there.",
        markup=False,
    )


def _listed(found: Sequence[ImportView]) -> Table:
    on_nodes = any(each.node for each in found)
    made = table("import", "file", "sent", "by", *(["node"] if on_nodes else []), "state", "")
    for each in found:
        state = "being cancelled" if each.cancelled and each.ended_us is None else str(each.state)
        who = [Text(each.who), Text(each.node)] if on_nodes else [Text(each.who)]
        how = Text(state, style=_COLOURS.get(each.state, ""))
        made.add_row(Text(each.key), Text(each.name), when(each.created_us), *who, how, Text(_said(each)))
    return made


def _said(each: ImportView) -> str:
    if each.lines is None or each.imported is None or each.done is None:
        return each.description
    left = f", about {span(each.remaining_s)} left" if each.remaining_s is not None and each.done < 1 else ""
    far = f"{each.done:.0%}, {each.lines:,} lines read, {each.imported:,} events imported{left}"
    return f"{far}. {each.description}" if each.description else far
