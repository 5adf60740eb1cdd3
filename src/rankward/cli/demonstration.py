"""`rankward demo`: a news site that learns, on files that are thrown away."""

import logging
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from rankward import supervisor
from rankward.api.options import ApiOptions
from rankward.cli.serving import address
from rankward.cli.terminal import out
from rankward.errors import Conflict
from rankward.wiring import Home

USUAL_PORT = 8080


def demo(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help=f"Port to listen on: {USUAL_PORT}, or a free one if it is taken.", show_default=False
        ),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep the files there, and go on from them next time.", show_default=False),
    ] = None,
) -> None:
    """Show a news site that learns what its readers like, until Ctrl-C.

    Everything runs on a new temporary folder, which is removed at the end: loops of yours are not touched.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    with ExitStack() as stack:
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rankward-demo-")))
        supervisor.serve(
            folder,
            host=host,
            port=_free_port(host) if port is None else port,
            workers=1,
            options=ApiOptions(demo=True),
            announce=_announcer(host, kept=keep is not None),
        )
    out().print("The demo is over." if keep else "The demo is over, and its files are gone.")


def _free_port(host: str) -> int:
    """Take the usual port if it is free; 0, which stands for any, if not."""
    try:
        supervisor.listen(host, USUAL_PORT).close()
    except Conflict:
        return 0
    return USUAL_PORT


def _admin_key(home: Home) -> str:
    """Say what opens the portal. With a folder of its own there is nothing to keep it from the audience."""
    made: dict[str, str] = home.loops.keys().get("admin", {})
    return made.get("key", "that you set")


def _announcer(host: str, *, kept: bool) -> Callable[[Home, int], None]:
    def announce(home: Home, port: int) -> None:
        console = out()
        console.print(
            Text.assemble(("The Tidings", "bold"), " is out at ", (f"{address(host, port)}/demo", "bold cyan")),
            soft_wrap=True,
        )
        console.print(
            Text.assemble(
                "Behind the scenes: ",
                (f"{address(host, port)}/portal", "cyan"),
                " with the key ",
                (_admin_key(home), "cyan"),
            ),
            soft_wrap=True,
        )
        console.print(
            Text(f"Its files lie in {home.folder.root}{'' if kept else ', until you stop it with Ctrl-C'}.", "dim"),
            soft_wrap=True,
        )
        sys.stdout.flush()

    return announce
