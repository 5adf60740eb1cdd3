"""The log of a loop: what it holds, out as a file, in from one, and what is taken out of it for good."""

from __future__ import annotations

import asyncio
import gzip
import io
import secrets
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any, cast
from urllib.parse import quote, unquote

import msgspec
from starlette.responses import Response, StreamingResponse

from rankward.administration.events import ToForget
from rankward.api.upload import receive_upload
from rankward.doctor.facts import ALIVE_US
from rankward.errors import CallerError, InvalidRequest
from rankward.history.export import LineSink, stretches_within
from rankward.history.holding import holding
from rankward.history.sources import check_log
from rankward.import_run import read_status
from rankward.joining.reward import RewardDefinition
from rankward.mirroring.service import NOTE, MirroringStatus
from rankward.portal.moments import read_moment, written
from rankward.portal.view import View, Visit
from rankward.records import JoinedEvent, TimeUs
from rankward.settings import as_datetime
from rankward.store.imports import LogImport
from rankward.store.ports import Loop
from rankward.store.sessions import Role
from rankward.wiring import Home

_MINUTE_US = 60_000_000
_NAME_MAX = 100


async def _show(visit: Visit) -> Response:
    return await _page(visit)


async def _page(visit: Visit, *, refused: CallerError | None = None) -> Response:
    doors, loop = visit.doors, visit.loop
    held = await holding(doors.log(loop.loop_id), doors.joined(loop.loop_id))
    note = doors.home.board.read(loop.loop_id).get(NOTE)
    return visit.page(
        "logs",
        status=200 if refused is None else 400,
        error=None if refused is None else refused.message,
        held=held,
        settings=loop.settings,
        mirroring=None if note is None else msgspec.json.decode(note, type=MirroringStatus),
        start=written(loop.created_us if held.first_us is None else held.first_us),
        end=written(doors.home.clock() + _MINUTE_US),
        bound=doors.limits.model_bytes,
        **await _imports(visit),
    )


async def _imports(visit: Visit) -> dict[str, Any]:
    """What there is to show of imports, under way and over."""
    home = visit.doors.home
    rows = await visit.administration.imports.listed(visit.loop_name)
    told = read_status(home.board.read(visit.loop.loop_id))
    by_command = told if told is not None and told.key is None else None
    command_lives = by_command is not None and home.clock() - by_command.time_us < ALIVE_US
    return {
        "imports": rows,
        "by_command": by_command,
        "command_lives": command_lives,
        "goes_on": command_lives or any(each.ended_us is None for each in rows),
    }


async def _show_imports(visit: Visit) -> Response:
    return visit.page("logs_imports", **await _imports(visit))


async def _cancel(visit: Visit) -> Response:
    await visit.administration.imports.cancel(visit.loop_name, str(visit.request.path_params["key"]))
    return visit.redirect(_path(visit), notice="The import is being cancelled. What is imported already stays.")


async def _export(visit: Visit) -> Response:
    asked = visit.request.query_params
    since_us = read_moment(asked.get("from", ""), "to export from")
    until_us = read_moment(asked.get("to", ""), "to export to")
    if since_us >= until_us:
        raise InvalidRequest("the span to export ends before it begins: put the earlier moment first")
    loop = visit.loop
    name = f"{loop.name}-{as_datetime(since_us):%Y%m%dT%H%M}-{as_datetime(until_us):%Y%m%dT%H%M}.dsjson.gz"
    headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}", "Cache-Control": "no-store"}
    lines = _packed_lines(visit.doors.home, loop, since_us, until_us)
    return StreamingResponse(lines, media_type="application/gzip", headers=headers)


async def _packed_lines(home: Home, loop: Loop, since_us: TimeUs, until_us: TimeUs) -> AsyncIterator[bytes]:
    """Write a span of a loop's log as log lines, compressed; a few thousand events are in memory at once."""
    definition = RewardDefinition(loop.settings.default_reward, loop.settings.reward_aggregation)
    # Opened for this alone: a log lets in one reader at a time, and decisions must not wait for an export.
    async with home.logs(loop.loop_id) as (log, joined):
        packing = _Packing(definition)
        async for events, _, _ in stretches_within(log, joined, since_us=since_us, until_us=until_us):
            yield await asyncio.to_thread(packing.pack, events)
        yield packing.finish()


class _Packing:
    """Makes compressed log lines out of events, a part at a time."""

    def __init__(self, definition: RewardDefinition) -> None:
        self._part = io.BytesIO()
        self._file = gzip.GzipFile("", "wb", compresslevel=6, fileobj=self._part)
        self._sink = LineSink(cast(IO[bytes], self._file), definition)

    def pack(self, events: Sequence[JoinedEvent]) -> bytes:
        """Take in events. Returns what is ready to be sent."""
        self._sink.write(events)
        return self._take()

    def finish(self) -> bytes:
        """Return what ends the file."""
        self._sink.close()
        self._file.close()
        return self._take()

    def _take(self) -> bytes:
        part = self._part.getvalue()
        self._part.seek(0)
        self._part.truncate()
        return part


async def _import(visit: Visit) -> Response:
    """Take a file in. The worker imports it: from here on nobody has to wait, or to stay."""
    doors, home, loop = visit.doors, visit.doors.home, visit.loop
    async with doors.uploading:
        with tempfile.TemporaryDirectory(prefix="import-", dir=home.folder.run) as folder:
            path = Path(folder) / _file_name(visit.request.headers.get("x-file-name", ""))
            with path.open("xb", buffering=0) as file:
                bound = doors.limits.model_bytes
                await receive_upload(visit.request.headers.raw, visit.request.receive, file, bound)
            try:
                await asyncio.to_thread(check_log, path, bounds=doors.bounds, limits=doors.limits)
            except CallerError as error:  # where it lay for a moment is nothing to its reader
                raise InvalidRequest(error.message.replace(f"{folder}/", "")) from error
            now_us = home.clock()
            wanted = LogImport(
                key=f"{now_us:016x}-{secrets.token_hex(4)}",
                name=path.name,
                size_bytes=path.stat().st_size,
                created_us=now_us,
                actor=visit.actor,
                trains="train" in visit.request.query_params,
                limits=doors.limits,
                bounds=doors.bounds,
            )
            await asyncio.to_thread(home.imports(loop.loop_id).add, wanted, path)
    return visit.redirect(_path(visit), notice=f"{wanted.name} is here, and is being imported.")


def _file_name(sent: str) -> str:
    """Make a name out of the one that a browser says, without folders."""
    name = PureWindowsPath(PurePosixPath(unquote(sent)).name).name
    return "".join([letter for letter in name if letter.isprintable() and letter != "\ufffd"])[:_NAME_MAX] or "log"


async def _forget(visit: Visit) -> Response:
    event_ids = [line.strip() for line in visit.form.get("event_ids", "").splitlines() if line.strip()]
    try:
        done = await visit.administration.events.forget(visit.loop_name, ToForget(event_ids=event_ids))
    except CallerError as error:
        return await _page(visit, refused=error)
    return visit.redirect(
        _path(visit), notice=f"Erased: {done.events:,} events, {done.records:,} records of the log in all."
    )


async def _delete(visit: Visit) -> Response:
    name = visit.loop_name
    if visit.form.get("confirm") != name:
        return await _page(visit, refused=InvalidRequest(f"type {name} to delete the log: nothing was deleted"))
    await visit.doors.configuration.by(visit.actor).clear_log(name)
    return visit.redirect(_path(visit), notice="The log is deleted.")


def _path(visit: Visit) -> str:
    return f"/portal/loops/{visit.loop_name}/logs"


VIEWS = (
    View(path="/loops/{loop}/logs", handle=_show),
    View(path="/loops/{loop}/logs/export", handle=_export),
    View(path="/loops/{loop}/logs/import", handle=_import, method="POST", needs=Role.OPERATOR),
    View(path="/loops/{loop}/logs/imports", handle=_show_imports),
    View(path="/loops/{loop}/logs/imports/{key}/cancel", handle=_cancel, method="POST", needs=Role.OPERATOR),
    View(path="/loops/{loop}/logs/forget", handle=_forget, method="POST", needs=Role.ADMIN),
    View(path="/loops/{loop}/logs/delete", handle=_delete, method="POST", needs=Role.OPERATOR),
)
