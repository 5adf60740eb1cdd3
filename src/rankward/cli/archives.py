"""`rankward logs archive`: what is archived, and whether it is whole."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from rankward.archiving.layout import ERASING, Span, folder_of
from rankward.archiving.place import Place, is_url
from rankward.archiving.reading import Archive, Flaw, check, find_archive, open_archive
from rankward.cli.terminal import DATA, DataOption, JsonOption, OneLineErrors, err, home_at, out, table, when
from rankward.errors import InvalidRequest, NotFound
from rankward.wiring import Home

app = typer.Typer(cls=OneLineErrors, help="The archive of a loop's events.", no_args_is_help=True)

EXIT_FLAWED = 3

WhichArgument = Annotated[
    str, typer.Argument(metavar="LOOP|URL", help="A loop of this installation, or the address of an archive.")
]


ArchiveOption = Annotated[
    str | None,
    typer.Option(
        "--archive",
        envvar="RANKWARD_ARCHIVE",
        metavar="URL",
        help="Where the logs are archived, hour by hour, before they are too old to be kept: s3://BUCKET/PREFIX, "
        "gs://…, az://… or file:///FOLDER. Holds until another is given; `off` ends it.",
        show_default=False,
    ),
]
_NONE = "off"


def settle_archive(data: Path, archive: str | None) -> None:
    """Write down where an installation archives, if that is said: all its processes read it.

    Args:
        data: its folder.
        archive: the address, or `off`; None: as before.

    Raises:
        InvalidRequest: it leads nowhere.
    """
    if archive is not None:
        with closing(Home(data)) as home:
            home.archives.settle(None if archive == _NONE else archive)


class _Checked(msgspec.Struct, frozen=True):
    objects: int
    events: int
    flaws: list[Flaw]


@app.command("list")
def list_objects(which: WhichArgument, data: DataOption = DATA, as_json: JsonOption = False) -> None:
    """List what is archived of a loop, object by object."""
    archive = _opened(which, data)
    index = archive.index
    if as_json:
        typer.echo(msgspec.json.encode(index))
        return
    made = table("object", "decided from", "to", "events", "bytes", right=("events", "bytes"))
    for span in index.spans:
        made.add_row(span.name, when(span.first_us), when(span.last_us), f"{span.events:,}", f"{span.size_bytes:,}")
    console = out()
    console.print(made)
    console.print(
        f"{archive.place.url}/{archive.folder}: {index.events:,} events, {_size(index.spans):,} bytes",
        markup=False,
        soft_wrap=True,
    )
    asked = len(archive.place.names(archive.folder + ERASING))
    if asked:
        console.print(f"{asked:,} requests to erase events from it wait for the worker", markup=False)
    if index.missed:
        console.print(f"{index.missed:,} joined events were gone before there was an archive", markup=False)


@app.command()
def verify(which: WhichArgument, data: DataOption = DATA, as_json: JsonOption = False) -> None:
    """Read all that is archived of a loop, and compare it with what was written. Ends with status 3 if it differs."""
    archive = _opened(which, data)
    flaws = [flaw for found in _shown(archive) for flaw in found]
    if as_json:
        checked = _Checked(len(archive.index.spans), archive.index.events, flaws)
        typer.echo(msgspec.json.encode(checked))
    else:
        for flaw in flaws:
            out().print(f"{flaw.name}: {flaw.why}", style="red", markup=False, soft_wrap=True)
        if not flaws:
            count = len(archive.index.spans)
            out().print(f"{count:,} objects, {archive.index.events:,} events: all is as it was written.", markup=False)
    if flaws:
        raise typer.Exit(EXIT_FLAWED)


def _shown(archive: Archive) -> Iterator[list[Flaw]]:
    total = len(archive.index.spans) + 1
    with err().status("") as status:
        for number, found in enumerate(check(archive), start=1):
            status.update(f"{number:,} of {total:,}")
            yield found


def _opened(which: str, data: DataOption) -> Archive:
    if is_url(which):
        return find_archive(Place(which))
    with home_at(data) as home:
        loop, place = home.catalog.loop(which), home.archives.place()
    if place is None:
        raise InvalidRequest("nothing is archived here: start `rankward serve` with --archive, or give an address")
    archive = open_archive(place, folder_of(loop.name, loop.loop_id))
    if archive is None:
        raise NotFound(f"nothing of the loop {which} is archived yet: what was joined in an hour is when that is over")
    return archive


def _size(spans: tuple[Span, ...]) -> int:
    return sum(span.size_bytes for span in spans)
