"""The log of a loop: what it holds, out as a file, in from one, and what is taken out of it for good."""

from __future__ import annotations

import asyncio
import gzip
import io
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, cast
from urllib.parse import quote, unquote

import msgspec
from starlette.responses import Response, StreamingResponse

from rankward.administration import ToForget
from rankward.api.upload import receive_upload
from rankward.dsjson.read import Skip
from rankward.errors import CallerError, InvalidRequest, Overloaded
from rankward.history.export import LineSink, stretches_within
from rankward.history.holding import holding
from rankward.history.importing import DUPLICATE, IMPORTED, Imported
from rankward.history.sources import check_log
from rankward.joining.reward import RewardDefinition
from rankward.mirroring.service import NOTE, MirroringStatus
from rankward.portal.moments import read_moment, written
from rankward.portal.view import View, Visit
from rankward.records import JoinedEvent, TimeUs
from rankward.settings import as_datetime
from rankward.store.ports import Loop
from rankward.store.sessions import Role
from rankward.wiring import Home

_MINUTE_US = 60_000_000
_NAME_MAX = 100
_BROKEN_SHOWN = 3


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
    )


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
    log, joined = home.event_log(loop.loop_id), home.joined_log(loop.loop_id)
    packing = _Packing(definition)
    try:
        async for events, _, _ in stretches_within(log, joined, since_us=since_us, until_us=until_us):
            yield await asyncio.to_thread(packing.pack, events)
        yield packing.finish()
    finally:
        await log.close()
        await joined.close()


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
    doors = visit.doors
    if doors.importing.locked():
        raise Overloaded("another file is being imported: try again when it is done", retry_after_s=5)
    async with doors.importing:
        with tempfile.TemporaryDirectory(prefix="rankward-") as folder:
            path = Path(folder) / _file_name(visit.request.headers.get("x-file-name", ""))
            with path.open("xb", buffering=0) as file:
                bound = doors.limits.model_bytes
                await receive_upload(visit.request.headers.raw, visit.request.receive, file, bound)
            try:
                imported = await asyncio.to_thread(_read_in, visit, path)
            except CallerError as error:  # where it lay for a moment is nothing to its reader
                raise InvalidRequest(error.message.replace(f"{folder}/", "")) from error
    said = _said(path.name, imported)
    if "train" in visit.request.query_params and imported.oldest_us is not None:
        configuration = doors.configuration.by(visit.actor)
        await configuration.retrain(visit.loop_name, since_us=imported.oldest_us, reason="history was imported")
        said += " A new epoch learns from all of it."
    return visit.redirect(_path(visit), notice=said)


def _read_in(visit: Visit, path: Path) -> Imported:
    """Import a file, in a thread: reading lines must not hold up those who ask for decisions."""
    check_log(path, bounds=visit.doors.bounds, limits=visit.doors.limits)
    return asyncio.run(visit.administration.import_logs(visit.loop_name, [path]))


def _file_name(sent: str) -> str:
    """Make a name out of the one that a browser says, without folders."""
    name = PureWindowsPath(PurePosixPath(unquote(sent)).name).name
    return "".join([letter for letter in name if letter.isprintable() and letter != "\ufffd"])[:_NAME_MAX] or "log"


def _said(name: str, imported: Imported) -> str:
    """Say what became of the lines of a file."""
    names: dict[str, str] = {DUPLICATE: "there already", **{kind: f"skipped: {kind}" for kind in Skip}}
    counts = [f"{imported.counts[IMPORTED]:,} lines imported"]
    counts += [f"{imported.counts[kind]:,} {what}" for kind, what in names.items() if imported.counts[kind]]
    known = " It was imported before: nothing was added." if imported.files_known else ""
    broken = "".join([f" Line {each.line}: {each.why}." for each in imported.broken[:_BROKEN_SHOWN]])
    return f"{name}: {', '.join(counts)}.{known}{broken}"


async def _forget(visit: Visit) -> Response:
    event_ids = [line.strip() for line in visit.form.get("event_ids", "").splitlines() if line.strip()]
    try:
        done = await visit.administration.forget(visit.loop_name, ToForget(event_ids=event_ids))
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
    View(path="/loops/{loop}/logs/forget", handle=_forget, method="POST", needs=Role.ADMIN),
    View(path="/loops/{loop}/logs/delete", handle=_delete, method="POST", needs=Role.OPERATOR),
)
