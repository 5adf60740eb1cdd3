"""`rankward loop`: loops and their keys."""

from typing import Annotated, Any

import msgspec
import typer
from rich.text import Text

from rankward.cli.terminal import (
    DATA,
    DataOption,
    JsonOption,
    LoopArgument,
    MaybeLoopArgument,
    OneLineErrors,
    YesOption,
    home_at,
    out,
    table,
    when,
)
from rankward.errors import InvalidRequest, NotFound
from rankward.settings import LoopSettings, show
from rankward.store.ports import Loop
from rankward.telemetry import find_version
from rankward.vw.presets import BALANCED, PERSONALIZER, PRESETS
from rankward.wiring import Home, new_loop_settings

app = typer.Typer(cls=OneLineErrors, help="Loops: each learns one kind of decision.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="1 to 64 of a-z, 0-9, - and _.")],
    preset: Annotated[str, typer.Option(help=f"What it starts with: {' or '.join(PRESETS)}.")] = BALANCED.name,
    data: DataOption = DATA,
) -> None:
    """Add a loop. A running service has it at once."""
    if preset not in PRESETS:
        raise InvalidRequest(f"there is no preset {preset!r}: one of {', '.join(PRESETS)}")
    with home_at(data) as home:
        home.create_loop(name, LoopSettings() if preset == PERSONALIZER.name else new_loop_settings())
    out().print(
        f"Loop {name} is there, with the preset {preset}. Its keys: `rankward loop keys {name} --show`", markup=False
    )


@app.command("list")
def list_loops(data: DataOption = DATA, as_json: JsonOption = False) -> None:
    """List the loops."""
    with home_at(data) as home:
        loops = home.catalog.loops()
        if as_json:
            typer.echo(msgspec.json.encode([_summary(home, loop) for loop in loops]))
            return
        made = table("loop", "mode", "reward wait", "export", "preset", "model", "created")
        for loop in loops:
            settings = loop.settings
            made.add_row(
                loop.name,
                settings.learning_mode,
                show(settings.reward_wait),
                show(settings.model_export_frequency),
                settings.preset or "—",
                loop.model_id or "none yet",
                when(loop.created_us),
            )
    out().print(made)


@app.command("show")
def show_loop(loop: LoopArgument, data: DataOption = DATA, as_json: JsonOption = False) -> None:
    """Show one loop."""
    with home_at(data) as home:
        summary = _summary(home, home.catalog.loop(loop))
    if as_json:
        typer.echo(msgspec.json.encode(summary))
        return
    made = table("", "")
    for name, value in summary.items():
        made.add_row(Text(name.replace("_", " "), style="dim"), Text(str("—" if value is None else value)))
    out().print(made)


def _summary(home: Home, loop: Loop) -> dict[str, Any]:
    version = find_version(home.catalog.versions(loop.loop_id), loop.model_id)
    epochs = home.catalog.epochs(loop.loop_id)
    return {
        "name": loop.name,
        "loop_id": loop.loop_id,
        "created": when(loop.created_us),
        "endpoint_path": f"/loops/{loop.name}",
        "learning_mode": loop.settings.learning_mode,
        "preset": loop.settings.preset,
        "policy": loop.settings.policy,
        "exploration": loop.settings.exploration,
        "reward_wait": show(loop.settings.reward_wait),
        "model": loop.model_id,
        "model_made": when(version.created_us) if version else None,
        "model_learned": version.learned if version else None,
        "building": next((epoch.reason for epoch in epochs if epoch.state == "building"), None),
        "folder": str(home.folder.loops / loop.loop_id),
    }


@app.command()
def delete(loop: LoopArgument, data: DataOption = DATA, yes: YesOption = False) -> None:
    """Remove a loop with its log, its models and its keys."""
    with home_at(data) as home:
        home.catalog.loop(loop)
        if not yes:
            typer.confirm(f"Remove the loop {loop} with everything it logged and learned?", abort=True)
        home.delete_loop(loop)
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
) -> None:
    """Show or renew a loop's keys. A loop has two, so that one can be changed while the other is in use."""
    if (loop is None) != admin:
        raise InvalidRequest("name a loop, or give --admin: one of the two")
    with home_at(data) as home:
        if loop is not None:
            home.catalog.loop(loop)
        if regenerate is not None:
            home.set_key(loop, 1 if admin else regenerate)
        kept = _kept_keys(home, loop)
        keys_file = home.folder.keys
    slots = {"key": kept.get("key")} if admin else {f"key{slot}": kept.get(f"key{slot}") for slot in (1, 2)}
    if plain:
        wanted = "key" if admin else f"key{regenerate or 1}"
        if slots[wanted] is None:
            raise NotFound(f"{wanted} was set by you, and is not written down: only its digest is")
        typer.echo(slots[wanted])
        return
    made = table("", "")
    for name, key in slots.items():
        made.add_row(Text(name, style="dim"), _shown(key, reveal=reveal))
    out().print(made)
    if not reveal:
        out().print(Text(f"They lie in {keys_file}; --show prints them whole.", style="dim"), soft_wrap=True)


def _kept_keys(home: Home, loop: str | None) -> dict[str, str]:
    document: dict[str, Any] = home.keys()
    table_: dict[str, str] = document.get("admin", {}) if loop is None else document.get("loops", {}).get(loop, {})
    return table_


def _shown(key: str | None, *, reveal: bool) -> str:
    if key is None:
        return "set by you, and not written down"
    return key if reveal else f"{key[:4]}{'•' * 12}"
