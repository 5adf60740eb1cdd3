"""What the commands share: how they print, how they fail, and how they find the data folder."""

import asyncio
import getpass
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from rankward import invocation
from rankward.administration.service import Administration
from rankward.cli.remote import Administrator, RemoteAdministration
from rankward.configuration import Configuration
from rankward.errors import NotFound, RankwardError, Unauthorized
from rankward.ranking.features import FeatureBounds
from rankward.registry.service import Registry
from rankward.settings import Limits, as_datetime, bounds_in
from rankward.store.audit import Actor, Door
from rankward.store.ports import EventLog, JoinedLog
from rankward.wiring import Home

T = TypeVar("T")

_PIPE_WIDTH = 200  # where nobody watches, nothing is wrapped or cut


def out(pipe_width: int = _PIPE_WIDTH) -> Console:
    """Return the console for results, of the given width where it is no terminal."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=pipe_width)


def err() -> Console:
    """Return the console for everything else."""
    return Console(highlight=False, stderr=True)


class OneLineErrors(TyperGroup):
    """Commands whose foreseen errors are one line on standard error, and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except RankwardError as error:
            _say_error(str(error))
        except OSError as error:
            if error.filename is None:
                raise
            _say_error(f"{error.filename}: {error.strerror}")
        raise typer.Exit(1) from None


def _say_error(text: str) -> None:
    err().print(Text.assemble(("error: ", "bold red"), text), soft_wrap=True)


class Opened(NamedTuple):
    """What changes the loops of an installation."""

    configuration: Configuration
    registry: Registry
    administration: Administration


@contextmanager
def home_at(data: Path) -> Iterator[Home]:
    """Open a data folder that there is.

    Raises:
        NotFound: there is none.
    """
    if not (data / "format").exists():
        raise NotFound(f"there is no data folder {data}: start `rankward serve`, or name another with --data")
    home = Home(data)
    try:
        yield home
    finally:
        home.close()


@asynccontextmanager
async def opened(home: Home) -> AsyncIterator[Opened]:
    """Open what changes loops, and close the logs that it opens."""
    async with AsyncExitStack() as stack:

        def log(loop_id: str) -> EventLog:
            opened = home.event_log(loop_id)
            stack.push_async_callback(opened.close)
            return opened

        def joined(loop_id: str) -> JoinedLog:
            opened = home.joined_log(loop_id)
            stack.push_async_callback(opened.close)
            return opened

        trail = home.trail.by(command_line_user())
        configuration = Configuration(home.catalog, log=log, clock=home.clock, trail=trail)
        registry = Registry(
            home.catalog, home.models, home.signing, log=log, joined=joined, clock=home.clock, trail=trail
        )
        administration = Administration(
            home,
            configuration,
            registry,
            log=log,
            joined=joined,
            limits=bounds_in(os.environ, Limits),
            bounds=bounds_in(os.environ, FeatureBounds),
        ).by(trail.actor)
        yield Opened(configuration, registry, administration)


def command_line_user() -> Actor:
    """Whoever types the commands, for the audit trail."""
    try:
        return Actor(f"command line user {getpass.getuser()}", Door.COMMAND_LINE)
    except (KeyError, OSError):  # a container may run as a user that has no name
        return Actor(f"command line user {os.getuid()}", Door.COMMAND_LINE)


def administer(data: Path, endpoint: str | None, key: str | None, act: Callable[[Administrator], Awaitable[T]]) -> T:
    """Do something to the loops of a data folder, or of a service elsewhere.

    Args:
        data: the folder, where no endpoint is given.
        endpoint: of the service; None: the folder.
        key: the service's admin key.
        act: what to do.

    Raises:
        Unauthorized: an endpoint was given, and no key.
        NotFound: there is no such folder.
    """
    if endpoint is not None:
        return administer_service(endpoint, key, act)
    with home_at(data) as home:

        async def run() -> T:
            async with opened(home) as found:
                return await act(found.administration)

        return asyncio.run(run())


def administer_service(endpoint: str, key: str | None, act: Callable[[RemoteAdministration], Awaitable[T]]) -> T:
    """Do something to the loops of a service elsewhere.

    Raises:
        Unauthorized: there is no key.
    """
    if not key:
        raise Unauthorized(f"{endpoint} is administered with its admin key: give --key, or set RANKWARD_ADMIN_KEY")
    return asyncio.run(_awaited(act(RemoteAdministration(endpoint, key))))


async def _awaited(work: Awaitable[T]) -> T:
    return await work


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """Make a plain table. Columns named in `right` stand to the right; without any name there is no heading."""
    made = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False, show_header=any(columns))
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def when(time_us: int) -> str:
    """Write a moment as local time."""
    return f"{as_datetime(time_us).astimezone():%Y-%m-%d %H:%M:%S}"


def _complete_loop(ctx: typer.Context, incomplete: str) -> list[str]:
    try:
        with home_at(Path(ctx.params.get("data") or "data")) as home:
            return [loop.name for loop in home.catalog.loops() if loop.name.startswith(incomplete)]
    except RankwardError:
        return []


DataOption = Annotated[
    Path, typer.Option("--data", envvar="RANKWARD_DATA", help="The data folder.", file_okay=False, show_default=True)
]
LoopArgument = Annotated[str, typer.Argument(metavar="LOOP", help="Name of the loop.", autocompletion=_complete_loop)]
MaybeLoopArgument = Annotated[
    str | None,
    typer.Argument(metavar="[LOOP]", help="Name of the loop.", autocompletion=_complete_loop),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
SinceOption = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="MOMENT",
        show_default=False,
        help="Leave out what was decided before: a day or moment (ISO 8601, UTC), or how long ago, as in 7d.",
    ),
]
UntilOption = Annotated[
    str | None,
    typer.Option("--to", metavar="MOMENT", show_default=False, help="Leave out what was decided then or later."),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DATA = invocation.DATA
