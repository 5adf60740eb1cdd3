"""`rankward simulate`: traffic from a world whose best choices are known."""

import asyncio
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.text import Text

from rankward.cli.access import ENDPOINT, KEY_VARIABLE, PLAYGROUND, CalledLoopOption, EndpointOption, KeyOption, access
from rankward.cli.terminal import DATA, command_line_user, out, table
from rankward.errors import InvalidRequest
from rankward.local import open as open_loop
from rankward.loops import playground_settings
from rankward.settings import LoopSettings
from rankward.simulate.display import show
from rankward.simulate.traffic import HttpTarget, LocalTarget, Pace
from rankward.simulate.world import PageWorld, World
from rankward.simulate.worlds import PAGE_WORLDS, WORLDS, make_page_world, make_world
from rankward.vw.arguments import ProblemType
from rankward.vw.presets import BALANCED
from rankward.wiring import Home

_EVENTS = 5_000
_RATE = 200.0


def _complete_world(incomplete: str) -> list[str]:
    return [name for name in [*WORLDS, *PAGE_WORLDS] if name.startswith(incomplete)]


def simulate(
    world: Annotated[
        str | None,
        typer.Argument(metavar="WORLD", help="Left out: the worlds are listed.", autocompletion=_complete_world),
    ] = None,
    events: Annotated[int, typer.Option(min=1, help="How many decisions.")] = _EVENTS,
    rate: Annotated[float, typer.Option(min=0, help="Decisions a second; 0: as fast as it goes.")] = _RATE,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same situations.")] = 1,
    concurrency: Annotated[int, typer.Option(min=1, help="Calls under way at once.")] = Pace().concurrency,
    passes: Annotated[
        int | None, typer.Option(min=1, help="Of a world of data: how often it goes through.", show_default=False)
    ] = None,
    param: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A parameter of the world.", show_default=False)
    ] = None,
    loop: CalledLoopOption = None,
    key: KeyOption = None,
    endpoint: EndpointOption = ENDPOINT,
    local: Annotated[bool, typer.Option("--local", help="No service: decide in this process.")] = False,
    data: Annotated[
        Path | None,
        typer.Option(
            envvar="RANKWARD_DATA",
            help="The data folder: for the key, or to decide in. With --local it is thrown away if none is named.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Send decisions and rewards from a simulated world, and show how close to the best it comes.

    The world frontpage fills a page of several slots: it needs a loop that decides for them
    (`rankward policy set LOOP --preset balanced --slots`). With --local, one is made, if there is none of the name.
    """
    if world is None:
        _list_worlds()
        return
    parameters = _parameters(param or [], passes)
    made = make_page_world(world, **parameters) if world in PAGE_WORLDS else make_world(world, **parameters)
    pace = Pace(rate_per_s=rate or None, concurrency=concurrency)
    try:
        if local:
            _run_local(made, data, loop or PLAYGROUND, events=events, seed=seed, pace=pace)
        else:
            to = access(endpoint, key, loop, data or DATA)

            async def run() -> None:
                async with HttpTarget(to.endpoint, to.key) as target:
                    await show(made, target, events=events, seed=seed, pace=pace, console=out())

            asyncio.run(run())
    except InvalidRequest as error:
        if error.code != "InvalidMultiSlotApiAccess":
            raise
        whose = loop or ("LOOP" if key or os.environ.get(KEY_VARIABLE) else PLAYGROUND)
        raise InvalidRequest(
            f"{world} fills several slots, and the loop decides for single ones: "
            f"`rankward policy set {whose} --preset {BALANCED.name} --slots` changes that"
        ) from error


def _parameters(texts: list[str], passes: int | None) -> dict[str, str | int]:
    parameters: dict[str, str | int] = {} if passes is None else {"passes": passes}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidRequest(f"--param {text} is no parameter: write NAME=VALUE")
        parameters[name] = value
    return parameters


def _run_local(world: World | PageWorld, data: Path | None, loop: str, *, events: int, seed: int, pace: Pace) -> None:
    with ExitStack() as stack:
        folder = data or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rankward-")))
        home = Home(folder)
        try:
            if loop not in {each.name for each in home.catalog.loops()}:
                home.loops.create(loop, _settings_for(world), actor=command_line_user())
        finally:
            home.close()
        opened = stack.enter_context(open_loop(folder, loop, create=False))
        asyncio.run(show(world, LocalTarget(opened), events=events, seed=seed, pace=pace, console=out()))


def _settings_for(world: World | PageWorld) -> LoopSettings:
    """Settings with which learning is seen within seconds, with the preset for slots where the world has some."""
    settings = playground_settings()
    if isinstance(world, PageWorld):
        return msgspec.structs.replace(settings, policy=BALANCED.policy(ProblemType.MULTI_SLOT).text)
    return settings


def _list_worlds() -> None:
    made = table("world", "what it is", "--param")
    for name, kind in {**WORLDS, **PAGE_WORLDS}.items():
        parameters = " ".join(f"{key}={value}" for key, value in kind().parameters.items())
        made.add_row(Text(name, style="bold"), kind.description, Text(parameters, style="dim"))
    out().print(made)
    out().print(Text("Begin with: rankward simulate grocery", style="dim"))
