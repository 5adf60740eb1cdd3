"""`rankward doctor`, `backup` and `restore`: what is wrong, and how to be safe."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.text import Text

from rankward.backup import Backup, back_up
from rankward.backup import restore as restore_backup
from rankward.cli.access import AdminEndpointOption, AdminKeyOption
from rankward.cli.remote import Administrator
from rankward.cli.terminal import DATA, DataOption, JsonOption, MaybeLoopArgument, administer, err, out, table
from rankward.doctor.report import Report, screen

_SCREEN = 100  # characters, where it is no terminal
NoVerifyOption = Annotated[bool, typer.Option("--no-verify", help="Do not read the copy to check it.")]


def doctor(
    loop: MaybeLoopArgument = None,
    data: DataOption = DATA,
    endpoint: AdminEndpointOption = None,
    key: AdminKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a loop waits for, and why it is not learning.

    It reads what is on record, so the service may run or not. With --endpoint, a service elsewhere looks for itself.
    """

    async def examine(admin: Administrator) -> list[Report]:
        names = [loop] if loop else [each.name for each in await admin.loops.listed()]
        return [await admin.doctor(name) for name in names]

    reports = administer(data, endpoint, key, examine)
    if as_json:
        typer.echo(msgspec.json.encode(reports[0] if loop else reports))
        return
    for each in reports:
        out(_SCREEN).print(screen(each))


def backup(
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="Folder to make, or a file that ends in .tar.")],
    data: DataOption = DATA,
    copy: Annotated[
        bool, typer.Option("--copy", help="Copy every file, even those that the backup could share with the original.")
    ] = False,
    no_verify: NoVerifyOption = False,
) -> None:
    """Make a consistent copy of a data folder. The service may run.

    On the disk of the data folder itself, files that never change are shared with it (hard links).
    """
    with err().status(f"Copying {data}"):
        made = back_up(data, target, link=not copy, verify=not no_verify)
    _say(made, f"{target}: whatever was acknowledged before it began is in it.")


def restore(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="What `rankward backup` made.")],
    data: DataOption = DATA,
    no_verify: NoVerifyOption = False,
) -> None:
    """Make a data folder from a backup. It must be empty, if it exists."""
    with err().status(f"Restoring {data}"):
        made = restore_backup(source, data, verify=not no_verify)
    _say(made, f"{data} is ready: rankward serve --data {data}")


def _say(made: Backup, done: str) -> None:
    console = out()
    listed = table("loop", "events", "joined", "models", right=("events", "joined", "models"))
    for loop in made.loops:
        listed.add_row(
            loop.name, f"{loop.events_end - loop.events_first:,}", f"{loop.joined_end:,}", f"{loop.models:,}"
        )
    console.print(listed)
    console.print(f"{made.files:,} files, {made.size_bytes / 1e6:,.1f} MB", markup=False)
    for missing in made.missing:
        console.print(Text(f"The model {missing} was listed and not to be found: it is left out.", style="yellow"))
    console.print(done, markup=False, soft_wrap=True)
