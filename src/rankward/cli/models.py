"""`rankward model`: the versions of a loop's model."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.text import Text

from rankward.cli.terminal import (
    DATA,
    DataOption,
    JsonOption,
    LoopArgument,
    OneLineErrors,
    YesOption,
    home_at,
    opened,
    out,
    table,
    when,
)
from rankward.errors import Conflict, NotFound
from rankward.registry.service import Registry
from rankward.store.ports import Loop, ModelVersion
from rankward.telemetry import find_version
from rankward.vw.trial import try_out
from rankward.wiring import Home

app = typer.Typer(cls=OneLineErrors, help="Versions of a loop's model.", no_args_is_help=True)

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="Id of the version, from `rankward model list`.")]


@app.command("list")
def list_models(loop: LoopArgument, data: DataOption = DATA, as_json: JsonOption = False) -> None:
    """List the versions that are kept, newest first."""
    with home_at(data) as home:
        found = home.catalog.loop(loop)
        versions = home.catalog.versions(found.loop_id)
    if as_json:
        typer.echo(msgspec.json.encode([{"serving": v.model_id == found.model_id, **_fields(v)} for v in versions]))
        return
    if not versions:
        out().print(f"Loop {loop} has no model yet: `rankward doctor {loop}` says what it waits for.", markup=False)
        return
    made = table("", "model", "made", "epoch", "learned", "bytes", "policy", right=("epoch", "learned", "bytes"))
    for version in versions:
        serving = version.model_id == found.model_id
        made.add_row(
            Text("●", style="green") if serving else "",
            Text(version.model_id, style="bold" if serving else ""),
            when(version.created_us),
            str(version.epoch_id) if version.epoch_id else "—",
            f"{version.learned:,}",
            f"{version.size_bytes:,}",
            version.policy,
        )
    out().print(made)


def _fields(version: msgspec.Struct) -> dict[str, object]:
    return msgspec.structs.asdict(version)


@app.command("export")
def export_model(
    loop: LoopArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="To write; - is standard output.", allow_dash=True)],
    model: Annotated[str | None, typer.Option(help="Id of the version; the one that serves if left out.")] = None,
    data: DataOption = DATA,
) -> None:
    """Write a model to a file, as Vowpal Wabbit reads it."""
    with home_at(data) as home:
        found = home.catalog.loop(loop)
        if model is None and found.model_id is None:
            raise NotFound(f"loop {loop} has no model yet: `rankward doctor {loop}` says what it waits for")
        wanted = _version(home, found, model or str(found.model_id))
        content = home.models.get(found.loop_id, wanted.model_id)
    if str(file) == "-":
        sys.stdout.buffer.write(content)
        return
    if file.exists():
        raise Conflict(f"{file} exists already: choose another name")
    file.write_bytes(content)
    out().print(f"{file}: model {wanted.model_id}, {len(content):,} bytes", markup=False)


@app.command("import")
def import_model(
    loop: LoopArgument,
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", exists=True, dir_okay=False, readable=True, help="A model.vw to go on from."),
    ],
    data: DataOption = DATA,
) -> None:
    """Serve a model from elsewhere, and go on learning from it.

    It is tried in a process of its own first. Where it cannot be used, nothing is changed.
    """
    content = file.read_bytes()
    with home_at(data) as home:
        changed = _change(home, lambda registry: registry.import_model(loop, content, try_out=try_out))
    _say_serving(changed)


@app.command()
def rollback(loop: LoopArgument, model: ModelArgument, data: DataOption = DATA) -> None:
    """Serve an earlier version, and go on learning from it."""
    with home_at(data) as home:
        changed = _change(home, lambda registry: registry.roll_back(loop, model))
    _say_serving(changed)


@app.command()
def delete(loop: LoopArgument, data: DataOption = DATA, yes: YesOption = False) -> None:
    """Forget what a loop has learned: decisions are uniform until there is a new model.

    Earlier events stay in the log and are never learned again. The versions stay, and can be rolled back to.
    """
    with home_at(data) as home:
        home.catalog.loop(loop)
        if not yes:
            typer.confirm(f"Forget what the loop {loop} has learned?", abort=True)
        _change(home, lambda registry: registry.delete(loop))
    out().print(f"Loop {loop} starts afresh.", markup=False)


def _version(home: Home, loop: Loop, model_id: str) -> ModelVersion:
    version = find_version(home.catalog.versions(loop.loop_id), model_id)
    if version is None:
        raise NotFound(f"loop {loop.name} keeps no model {model_id}: `rankward model list` names those it does")
    return version


def _change(home: Home, change: Callable[[Registry], Awaitable[Loop]]) -> Loop:
    async def run() -> Loop:
        async with opened(home) as found:
            return await change(found.registry)

    return asyncio.run(run())


def _say_serving(loop: Loop) -> None:
    out().print(f"Loop {loop.name} serves the model {loop.model_id}, and goes on learning from it.", markup=False)
