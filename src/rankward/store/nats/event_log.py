"""The event log of one loop in a cluster: appended to a stream, and read from the replica that this node keeps.

What waits goes into one message, a few messages are under way at once, and who asked is answered when the servers'
quorum has the message on disk. Whether an interaction was known is a function of the stream: what stands in the
replica is looked for before it is published, and what the replica may not show yet is seen in the headers that
were followed by the time the message itself has been seen. Only where one of those bears the same id, the replica
is waited for and says how it was decided.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import nats.errors

from rankward.errors import InvalidRequest, Overloaded, RankwardError, StoreUnavailable
from rankward.records import (
    AnyInteraction,
    Appended,
    AppendResult,
    Erased,
    HeaderEntry,
    Known,
    LogEntry,
    Offset,
    Record,
    TimeUs,
)
from rankward.store.nats.broker import ACK_S, Broker
from rankward.store.nats.codec import KEYS_MAX, ClearLog, encode_group, encode_keys, encode_request
from rankward.store.nats.events import REPLICA_S, Commands, EventStream
from rankward.store.nats.follower import Follower
from rankward.store.ports import Located, LogExtent, Lookup
from rankward.store.sqlite.codec import Row, to_record, to_row
from rankward.store.sqlite.event_log import SqliteEventLog, settle
from rankward.store.sqlite.groups import Requested
from rankward.store.sqlite.segments import REPEAT_GRACE_US

_COMMIT_RECORDS = 512  # at most this many records share a message, unless one call brings more
_COMMIT_BYTES = 524_288  # and about this many bytes, before they are compressed
_UNDER_WAY = 4  # messages at once
_HEADROOM_BYTES = 2_048  # of a message: what the client and the servers add
_SKEW_US = 60_000_000  # a node's clock is mostly no further from the servers'
_APPENDED = Appended()
logger = logging.getLogger(__name__)

_Outcome = Sequence[AppendResult] | RankwardError
_Answer = asyncio.Future[Sequence[AppendResult]]


class _Request(msgspec.Struct):
    """What one call asked for, and what is known of it by now."""

    rows: Sequence[Row]
    once: bool
    encoded: msgspec.Raw
    answer: _Answer
    results: list[AppendResult | None]  # None: not known yet
    contested: set[int]  # keys whose outcome the replica has to tell in any case
    told: bool = False


class _Part(msgspec.Struct):
    """What of a request goes into one message."""

    request: _Request
    indexes: Sequence[int]  # into its rows
    encoded: msgspec.Raw

    @property
    def size_bytes(self) -> int:
        """Before it is compressed."""
        return len(bytes(self.encoded))

    def event_keys(self) -> Iterator[int]:
        """Of its interactions."""
        for index in self.indexes:
            key = self.request.rows[index].event_key
            if key is not None:
                yield key


class _Message(msgspec.Struct):
    parts: Sequence[_Part]
    keys: Sequence[int]
    body: bytes


class _TooLargeError(Exception):
    """One record takes more than a message may."""

    def __init__(self, request: _Request, size: int) -> None:
        super().__init__()
        self.request = request
        self.size = size


class ReplicatedEventLog:
    """Implements `ports.EventLog` on a stream and a replica. Who feeds the replica is somebody else: see `Feed`."""

    def __init__(
        self,
        broker: Broker,
        loop_id: str,
        replica: SqliteEventLog,
        *,
        clock: Callable[[], TimeUs],
        pending_appends: int = 4_096,
    ) -> None:
        """Make it. Nothing is asked of the servers before something is appended.

        Args:
            broker: the connection.
            loop_id: of the loop.
            replica: in this node's folder. It is closed with this log.
            clock: the time, in microseconds since 1970. It saves work if it is right, and decides nothing.
            pending_appends: how many records may wait for the servers in this process.
        """
        self.replica = replica
        self._broker = broker
        self._stream = EventStream(broker, loop_id)
        self._commands = Commands(self._stream, replica)
        self._pending_bound = pending_appends
        self._pending = 0
        self._guard = threading.Lock()  # of what callers and the connection share
        self._clock = clock
        self._queue: deque[_Request] = deque()
        self._publishing = False
        self._closing = False
        self._slots = asyncio.Semaphore(_UNDER_WAY)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._follower = Follower(broker, self._stream.name, replica.place)

    # Appending

    async def append(self, records: Sequence[Record], *, once: bool = False) -> Sequence[AppendResult]:
        """See `ports.EventLog`."""
        if not records:
            return []
        answer: _Answer = asyncio.get_running_loop().create_future()
        rows = [to_row(record) for record in records]
        encoded = encode_request(Requested(once, tuple(rows)))
        request = _Request(rows, once, encoded, answer, [None] * len(rows), set())
        with self._guard:
            if self._closing:
                raise StoreUnavailable(f"{self._stream.name} is being closed: nothing more is stored")
            if self._pending + len(rows) > self._pending_bound:
                raise Overloaded(
                    f"{self._pending} records wait for the servers, the bound is {self._pending_bound}: "
                    "try again in a second"
                )
            self._pending += len(rows)
            self._queue.append(request)
            begin, self._publishing = not self._publishing, True
        if begin:
            self._broker.begin(self._publish)
        return await answer

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        self._track(asyncio.create_task(work))

    def _track(self, task: asyncio.Task[Any] | None) -> None:
        assert task is not None, "only tasks are tracked"
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _publish(self) -> None:
        """Publish what waits, until nothing does."""
        self._track(asyncio.current_task())
        while True:
            await self._slots.acquire()
            batch = self._next_batch()
            if not batch:
                self._slots.release()
                return
            try:
                since = await self._look(batch)
                messages = self._messages(batch)
            except Exception as error:  # whatever it was, callers are told, and what comes next is published
                self._slots.release()
                self._fail(batch, error)
                continue
            if not messages:
                self._slots.release()
            for number, message in enumerate(messages):
                if number:
                    await self._slots.acquire()
                self._keep(self._settle(message, since))

    def _next_batch(self) -> list[_Request]:
        batch: list[_Request] = []
        count = size = 0
        with self._guard:
            while self._queue and (not batch or (count < _COMMIT_RECORDS and size < _COMMIT_BYTES)):
                batch.append(self._queue.popleft())
                count += len(batch[-1].rows)
                size += len(bytes(batch[-1].encoded))
            self._publishing = bool(batch)
        return batch

    async def _look(self, batch: Sequence[_Request]) -> int:
        """Answer what the replica shows already. Returns a place of the replica from before."""
        await self._stream.ensure()
        wanted = [
            (request, index)
            for request in batch
            if request.once
            for index, row in enumerate(request.rows)
            if row.event_key is not None
        ]
        if not wanted:
            return 0
        await self._follower.start()
        since = self._follower.place
        rows = [request.rows[index] for request, index in wanted]
        now_us = self._clock()
        surely_us = min(now_us, self._follower.time_us) - _SKEW_US  # what is published gets no earlier time
        found = await self.replica.find(rows, ended_us=surely_us - REPEAT_GRACE_US)
        for (request, index), row, entry in zip(wanted, rows, found, strict=True):
            if entry is None:
                continue
            assert row.event_key is not None, "only interactions are looked for"
            assert row.reward_wait_us is not None, "interactions have a wait"
            assert isinstance(entry.record, AnyInteraction), "only interactions are found"
            if entry.time_us + entry.record.reward_wait_us + REPEAT_GRACE_US - _SKEW_US > now_us:
                request.results[index] = Known(entry)
            else:  # at the edge, or if clocks differ more, the time that the stream gives decides
                request.contested.add(row.event_key)
        self._tell(batch)
        return since

    def _messages(self, batch: Sequence[_Request]) -> Sequence[_Message]:
        """Make messages of what is not known yet, telling those whose records are too large."""
        while True:
            parts = [_part(request, range(len(request.rows))) for request in batch if not request.told]
            try:
                return list(self._split(parts)) if parts else []
            except _TooLargeError as error:
                self._fail(
                    [error.request],
                    InvalidRequest(
                        f"a record of {error.size} bytes is larger than the {self._body_max()} that the servers take "
                        "in one message: send fewer or shorter features, or raise max_payload there"
                    ),
                )

    def _body_max(self) -> int:
        return self._broker.client.max_payload - _HEADROOM_BYTES

    def _split(self, parts: Sequence[_Part]) -> Iterator[_Message]:
        """Make as few messages as hold these, in order."""
        keys = [key for part in parts for key in part.event_keys()]
        size = sum(part.size_bytes for part in parts) + 11 * len(keys)
        alone = len(parts) == len(parts[0].indexes) == 1
        if alone or (size <= self._body_max() and len(keys) <= KEYS_MAX):
            body = encode_group([part.encoded for part in parts])
            if len(body) > self._body_max():
                raise _TooLargeError(parts[0].request, len(body))
            yield _Message(parts, keys, body)
        elif len(parts) > 1:
            yield from self._split(parts[: len(parts) // 2])
            yield from self._split(parts[len(parts) // 2 :])
        else:
            [part] = parts
            half = len(part.indexes) // 2
            for indexes in (part.indexes[:half], part.indexes[half:]):
                yield from self._split([_part(part.request, indexes)])

    async def _settle(self, message: _Message, since: int) -> None:
        """Publish a message, find what became of its records, and tell."""
        requests = [part.request for part in message.parts]
        try:
            try:
                ack = await self._broker.publish(self._stream.groups, message.body, encode_keys(message.keys))
            finally:
                self._slots.release()
            for part in message.parts:
                for index in part.indexes:
                    if not part.request.once or part.request.rows[index].event_key is None:
                        part.request.results[index] = _APPENDED
            self._tell(requests)
            await self._judge([part for part in message.parts if not part.request.told], ack.seq, since)
            self._tell(requests)
        except Exception as error:  # whatever it was, callers are told
            self._fail(requests, error)

    async def _judge(self, parts: Sequence[_Part], sequence: int, since: int) -> None:
        """Find whether interactions were known by the time their message came to its place in the stream."""
        if not parts:
            return
        await self._follower.reach(sequence, within_s=2 * ACK_S)
        repeated = self._follower.repeated(sequence, since=since)
        contested: list[tuple[_Request, int]] = []
        for part in parts:
            for index in part.indexes:
                key = part.request.rows[index].event_key
                if repeated is None or key in repeated or key in part.request.contested:
                    contested.append((part.request, index))
                else:
                    part.request.results[index] = _APPENDED
        if not contested:
            return
        await self._follower.reach_replica(sequence, within_s=REPLICA_S)
        offsets = await self.replica.arrived(sequence)
        if offsets is None:
            raise StoreUnavailable(f"the replica has dropped what message {sequence} brought: try again")
        rows = [request.rows[index] for request, index in contested]
        claimed: set[Offset] = set()
        for (request, index), row, entry in zip(
            contested, rows, await self.replica.find(rows, before=offsets.stop), strict=True
        ):
            if entry is None or (entry.offset in offsets and entry.offset not in claimed and _is_of(entry, row)):
                request.results[index] = _APPENDED
                claimed.update(() if entry is None else (entry.offset,))
            else:
                request.results[index] = Known(entry)

    def _tell(self, requests: Sequence[_Request]) -> None:
        """Tell those of whose records all is known."""
        self._answer([(each, _complete(each)) for each in requests if not each.told and None not in each.results])

    def _fail(self, requests: Sequence[_Request], error: Exception) -> None:
        """Tell those that have not been told."""
        if isinstance(error, RankwardError):
            outcome = error
        elif isinstance(error, TimeoutError | nats.errors.Error | OSError):
            outcome = self._broker.failed(error)
        else:
            logger.error("appending to %s failed", self._stream.name, exc_info=error)
            outcome = StoreUnavailable(f"appending to {self._stream.name} failed: {error!r}")
        self._answer([(request, outcome) for request in requests if not request.told])

    def _answer(self, outcomes: Sequence[tuple[_Request, _Outcome]]) -> None:
        """Give callers their outcomes, waking each event loop once."""
        by_loop: defaultdict[asyncio.AbstractEventLoop, list[tuple[_Answer, _Outcome]]] = defaultdict(list)
        count = 0
        for request, outcome in outcomes:
            if not request.told:  # one may be named twice
                request.told = True
                count += len(request.rows)
                by_loop[request.answer.get_loop()].append((request.answer, outcome))
        with self._guard:
            self._pending -= count
        for loop, answers in by_loop.items():
            with contextlib.suppress(RuntimeError):  # a caller whose event loop has ended cannot be told
                loop.call_soon_threadsafe(settle, answers)

    # Reading

    async def read(self, start: Offset, *, limit: int) -> Sequence[LogEntry]:
        """See `ports.EventLog`."""
        return await self.replica.read(start, limit=limit)

    async def read_headers(self, start: Offset, *, limit: int) -> Sequence[HeaderEntry]:
        """See `ports.EventLog`."""
        return await self.replica.read_headers(start, limit=limit)

    async def locate(self, lookups: Sequence[Lookup]) -> Sequence[Sequence[Located]]:
        """See `ports.EventLog`."""
        return await self.replica.locate(lookups)

    def change_mark(self) -> int:
        """See `ports.EventLog`."""
        return self.replica.change_mark()

    async def extent(self) -> LogExtent:
        """See `ports.EventLog`."""
        return await self.replica.extent()

    # Housekeeping

    async def clear(self) -> Offset:
        """See `ports.EventLog`."""
        await self._commands.give(ClearLog())
        return (await self.replica.extent()).end

    async def erase(self, places: Mapping[Offset, Erased]) -> None:
        """See `ports.EventLog`. Other nodes erase when they come to that place of the stream."""
        await self._commands.erase(places)

    async def drop(self, *, before: Offset) -> None:
        """See `ports.EventLog`."""
        await self.replica.drop(before=before)

    async def maintain(self, *, joined_before: Offset, keep_after_us: TimeUs) -> None:
        """See `ports.EventLog`."""
        await self.replica.maintain(joined_before=joined_before, keep_after_us=keep_after_us)

    async def close(self) -> None:
        """See `ports.EventLog`."""
        with self._guard:
            self._closing = True
        await self._broker.ask(self._finish)
        await self.replica.close()

    async def _finish(self) -> None:
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._follower.close()


def _part(request: _Request, indexes: Sequence[int]) -> _Part:
    """Take of a request what is not known yet."""
    wanted = [index for index in indexes if request.results[index] is None]
    if len(wanted) == len(request.rows):
        return _Part(request, wanted, request.encoded)
    rows = tuple([request.rows[index] for index in wanted])
    return _Part(request, wanted, encode_request(Requested(request.once, rows)))


def _complete(request: _Request) -> Sequence[AppendResult]:
    return [result for result in request.results if result is not None]


def _is_of(entry: LogEntry, row: Row) -> bool:
    """Whether an entry is what was asked to be stored, whose id may have turned out to repeat."""
    assert isinstance(entry.record, AnyInteraction), "only interactions are found"
    return msgspec.structs.replace(entry.record, repeats=False) == to_record(row.body, row.actions)
