"""`rankward loop`: loops and their keys."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.text import Text

from rankward.administration.loops import NewLoop
from rankward.cli.access import AdminEndpointOption, AdminKeyOption
from rankward.cli.terminal import (
    DATA,
    DataOption,
    JsonOption,
    LoopArgument,
    MaybeLoopArgument,
    OneLineErrors,
    YesOption,
    administer,
    command_line_user,
    home_at,
    out,
    table,
    when,
)
from rankward.cli.tuning import readable
from rankward.errors import InvalidRequest, NotFound
from rankward.invocation import data_option
from rankward.vw.presets import BALANCED, PRESETS
from rankward.wiring import Home

NOT_WRITTEN = "set by you, and not written down"
NOT_WRITTEN_HERE = "set by you, or made on another node: not written down here"

app = typer.Typer(cls=OneLineErrors, help="Loops: each learns one kind of decision.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="1 to 64 of a-z, 0-9, - and _.")],
    preset: Annotated[str, typer.Option(help=f"What it starts with: one of {', '.join(PRESETS)}.")] = BALANCED.name,
    data: DataOption = DATA,
    endpoint: AdminEndpointOption = None,
    key: AdminKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a loop. A running service has it at once."""
    created = administer(data, endpoint, key, lambda admin: admin.loops.create(NewLoop(name=name, preset=preset)))
    if as_json:
        typer.echo(msgspec.json.encode(created))
        return
    shows = f"`rankward loop keys {name} --show{data_option(data)}`"
    where = shows if endpoint is None else f"{created.keys[0].key} is key 1"
    out().print(f"Loop {name} is there, with the preset {preset}. Its keys: {where}", markup=False, soft_wrap=True)


@app.command("list")
def list_loops(
    data: DataOption = DATA,
    endpoint: AdminEndpointOption = None,
    key: AdminKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the loops."""
    loops = administer(data, endpoint, key, lambda admin: admin.loops.listed())
    if as_json:
        typer.echo(msgspec.json.encode(loops))
        return
    made = table("loop", "mode", "reward wait", "export", "preset", "model", "created")
    for loop in loops:
        made.add_row(
            loop.name,
            loop.learning_mode,
            readable("reward_wait", loop.reward_wait),
            readable("model_export_frequency", loop.model_export_frequency),
            loop.preset or "—",
            loop.model_id or "none yet",
            when(loop.created_us),
        )
    out().print(made)


@app.command("show")
def show_loop(
    loop: LoopArgument,
    data: DataOption = DATA,
    endpoint: AdminEndpointOption = None,
    key: AdminKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one loop."""
    found = administer(data, endpoint, key, lambda admin: admin.loops.show(loop))
    if as_json:
        typer.echo(msgspec.json.encode(found))
        return
    made = table("", "")
    for name, value in msgspec.structs.asdict(found).items():
        said = when(value) if name.endswith("_us") and value is not None else str("—" if value is None else value)
        made.add_row(Text(name.removesuffix("_us").replace("_", " "), style="dim"), Text(said))
    out().print(made)


@app.command()
def delete(
    loop: LoopArgument,
    data: DataOption = DATA,
    endpoint: AdminEndpointOption = None,
    key: AdminKeyOption = None,
    yes: YesOption = False,
) -> None:
    """Remove a loop with its log, its models and its keys."""
    administer(data, endpoint, key, lambda admin: admin.loops.show(loop))
    if not yes:
        typer.confirm(f"Remove the loop {loop} with everything it logged and learned?", abort=True)
    administer(data, endpoint, key, lambda admin: admin.loops.delete(loop))
    out().print(f"Loop {loop} is gone.", markup=False)


@app.command()
def keys(
    loop: MaybeLoopArgument = None,
    reveal: Annotated[bool, typer.Option("--show", help="Print the keys whole.")] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help='Print one key and nothing else, for "$(…)": key 1, or the new one.')
    ] = False,
    regenerate: Annotated[
        int | None, typer.Option(metavar="1|2", min=1, max=2, help="Make a new key; the old one opens nothing then.")
    ] = None,
    admin: Annotated[bool, typer.Option("--admin", help="The admin key, which guards loops and keys.")] = False,
    data: DataOption = DATA,
    endpoint: AdminEndpointOption = None,
    key: AdminKeyOption = None,
) -> None:
    """Show or renew a loop's keys. A loop has two, so that one can be changed while the other is in use.

    A service elsewhere shows their beginnings only, and a new key this once.
    """
    if (loop is None) != admin:
        raise InvalidRequest("name a loop, or give --admin: one of the two")
    if endpoint is not None:
        if loop is None:
            raise InvalidRequest(
                "the admin key is shown and renewed on the service's own machine: leave out --endpoint"
            )
        _remote_keys(data, endpoint, key, loop, regenerate)
        return
    with home_at(data) as home:
        if loop is not None:
            home.catalog.loop(loop)
        if regenerate is not None:
            home.loops.set_key(loop, 1 if admin else regenerate, actor=command_line_user())
        kept = _kept_keys(home, loop)
        keys_file = home.folder.keys
        missing = NOT_WRITTEN if home.node is None else NOT_WRITTEN_HERE
    slots = {"key": kept.get("key")} if admin else {f"key{slot}": kept.get(f"key{slot}") for slot in (1, 2)}
    if plain:
        wanted = "key" if admin else f"key{regenerate or 1}"
        if slots[wanted] is None:
            raise NotFound(f"{wanted} cannot be shown ({missing}): only its digest is kept")
        typer.echo(slots[wanted])
        return
    made = table("", "")
    for name, kept_key in slots.items():
        made.add_row(Text(name, style="dim"), missing if kept_key is None else _shown(kept_key, reveal=reveal))
    out().print(made)
    if not reveal:
        out().print(Text(f"They lie in {keys_file}; --show prints them whole.", style="dim"), soft_wrap=True)


def _remote_keys(data: Path, endpoint: str, key: str | None, loop: str, regenerate: int | None) -> None:
    if regenerate is not None:
        typer.echo(administer(data, endpoint, key, lambda admin: admin.loops.regenerate_key(loop, regenerate)).key)
        return
    made = table("", "")
    for each in administer(data, endpoint, key, lambda admin: admin.loops.keys(loop)):
        made.add_row(Text(f"key{each.slot}", style="dim"), each.shown or NOT_WRITTEN)
    out().print(made)


def _kept_keys(home: Home, loop: str | None) -> dict[str, str]:
    document: dict[str, Any] = home.loops.keys()
    table_: dict[str, str] = document.get("admin", {}) if loop is None else document.get("loops", {}).get(loop, {})
    return table_


def _shown(key: str, *, reveal: bool) -> str:
    return key if reveal else f"{key[:4]}{'•' * 12}"
