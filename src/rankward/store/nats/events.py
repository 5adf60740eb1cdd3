"""The stream of one loop's event log: what its subjects are, commands, and how erased content leaves it.

A message that is removed leaves a hole in the stream. Before that, a patch is published for its place: what is left of
what the message brought. So whoever reads the stream from its beginning comes to hold what those hold who have read
the message itself. A patch that another takes the place of is removed, too, and leaves a hole of its own, with a patch
that brings nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import nats.js.errors
from nats.aio.msg import Msg
from nats.js.api import Header

from rankward.errors import StoreUnavailable
from rankward.records import AnyHeader, Erased, EventId, Offset
from rankward.store.nats.broker import Broker
from rankward.store.nats.codec import (
    Command,
    EraseEntries,
    ForgetObservations,
    Patch,
    decode_command,
    decode_keys,
    decode_patch,
    encode_command,
    encode_patch,
)
from rankward.store.nats.tail import Tail
from rankward.store.sqlite.codec import event_key, to_row
from rankward.store.sqlite.event_log import SqliteEventLog, undisturbed
from rankward.store.stretches import stretches

T = TypeVar("T")

logger = logging.getLogger(__name__)

REPLICA_S = 30.0
"""How long a call waits for the node's replica to come to a place of the stream."""
_SCAN_S = 600.0
_READ = 2_000
_TOGETHER = 50_000  # of what is erased, in one command: no message is larger than servers take by default


class EventStream:
    """One loop's stream. Its coroutines run beside the connection, but for those that say otherwise."""

    def __init__(self, broker: Broker, loop_id: str) -> None:
        self.broker = broker
        self.name = broker.stream("events", loop_id)
        self.groups = broker.subject("events", loop_id)
        self.commands = f"{self.groups}.command"
        self._patches = f"{self.groups}.patch"
        self._done = f"{self.groups}.done"
        self._ensured = False

    async def ensure(self) -> None:
        """Make the stream, unless it is there."""
        if not self._ensured:
            await self.broker.ensure_stream(self.name, [self.groups, f"{self.groups}.>"])
            self._ensured = True

    async def command(self, command: Command) -> int:
        """Publish a command. Returns its place."""
        await self.ensure()
        ack = await self.broker.publish(self.commands, encode_command(command))
        return ack.seq

    async def patch(self, sequence: int) -> tuple[int, Patch] | None:
        """Return what stands for a message that is gone, with its own place; None: nothing does."""
        try:
            message = await self.broker.js.get_last_msg(self.name, f"{self._patches}.{sequence}")
        except nats.js.errors.NotFoundError:
            return None
        assert message.seq is not None, "what is in a stream has a place"
        return message.seq, decode_patch(message.data or b"")

    async def first(self) -> int:
        """Return the place of the oldest message that is kept."""
        return (await self.broker.js.stream_info(self.name)).state.first_seq

    async def last(self) -> int:
        """Return the place of the newest message; 0: there was none."""
        await self.ensure()
        return (await self.broker.js.stream_info(self.name)).state.last_seq

    async def replace(self, sequence: int, patch: Patch) -> None:
        """Have a patch stand for a message, and remove that so that no file holds it any more.

        Raises:
            StoreUnavailable: somebody else has just put another one there.
        """
        before = await self.patch(sequence)
        if before is None or before[1].applied < patch.applied:
            headers: dict[str, Any] = {
                Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value: str(0 if before is None else before[0])
            }
            await self.broker.publish(f"{self._patches}.{sequence}", encode_patch(patch), headers)
            if before is not None:
                await self.replace(before[0], Patch(patch.applied, 0, []))
        with contextlib.suppress(nats.js.errors.APIError):  # it has been removed before: seen below
            await self.broker.js.delete_msg(self.name, sequence)
        with contextlib.suppress(nats.js.errors.NotFoundError):
            await self.broker.js.get_msg(self.name, sequence)
            raise StoreUnavailable(f"message {sequence} of {self.name} could not be removed: erase again")

    async def unfinished(self) -> dict[int, EraseEntries]:
        """Return the erasures whose content may still be in the stream, by place."""
        found: dict[int, EraseEntries] = {}
        start = 1
        while True:
            try:
                message = await self.broker.js.get_msg(self.name, start, subject=self.commands, next=True)
            except nats.js.errors.NotFoundError:
                return found
            assert message.seq is not None, "what is in a stream has a place"
            start = message.seq + 1
            command = decode_command(message.data or b"")
            if isinstance(command, EraseEntries) and not await self._is_done(message.seq):
                found[message.seq] = command

    async def _is_done(self, sequence: int) -> bool:
        try:
            await self.broker.js.get_last_msg(self.name, f"{self._done}.{sequence}")
        except nats.js.errors.NotFoundError:
            return False
        return True

    async def finish(self, sequence: int) -> None:
        """Note that no message holds any more what an erasure was of."""
        await self.broker.publish(f"{self._done}.{sequence}", b"")

    async def bearing(self, keys: Collection[int], *, until: int) -> set[int]:
        """Find the messages up to a place that carry interactions of some keys."""
        found: set[int] = set()
        wanted = frozenset(keys)
        reached = asyncio.Event()

        async def take(message: Msg, sequence: int) -> None:
            if sequence <= until and any(key in wanted for key in decode_keys(message.headers)):
                found.add(sequence)
            if sequence >= until:
                reached.set()

        if keys:
            reading = asyncio.create_task(Tail(self.broker, self.name, 1, take, headers_only=True).run())
            try:
                await asyncio.wait_for(reached.wait(), _SCAN_S)
            finally:
                await Tail.stop(reading)
        return found


class Commands:
    """Gives commands that all nodes do at their place in the stream. For any event loop."""

    def __init__(self, stream: EventStream, replica: SqliteEventLog) -> None:
        self._stream = stream
        self._broker = stream.broker
        self._replica = replica

    async def give(self, command: Command) -> None:
        """Publish a command, and wait until this node has done it.

        Raises:
            StoreUnavailable: it has not for a while, or the servers do not answer. It may be done later.
        """
        place = await self._broker.ask(lambda: self._stream.command(command))
        await self._reach(place)

    async def catch_up(self) -> None:
        """Wait until this node has read all that the stream holds now.

        Raises:
            StoreUnavailable: it has not for a while, or the servers do not answer.
        """
        await self._reach(await self._broker.ask(self._stream.last))

    async def _reach(self, place: int) -> None:
        deadline = time.monotonic() + REPLICA_S
        while await self._replica.place() < place:
            if time.monotonic() > deadline:
                raise StoreUnavailable(
                    f"the replica of {self._stream.name} has not come to place {place} for {REPLICA_S:.0f} s: it is "
                    "done when the worker of this node has caught up; do it again then"
                )
            await asyncio.sleep(0.005)

    async def erase(self, places: Mapping[Offset, Erased]) -> None:
        """Erase entries on all nodes, then from the stream: see `ports.EventLog.erase`."""
        for some in _batched(sorted(places), _TOGETHER):
            await self.give(EraseEntries({offset: places[offset] for offset in some}, await self._keys(set(some))))
        await self._broker.ask(self._stream.ensure)
        await self._clean()

    async def forget(self, interactions: Collection[Offset], event_ids: Collection[EventId]) -> None:
        """Forget observations on all nodes: see `ports.JoinedLog.erase`."""
        keys = sorted(map(event_key, event_ids))
        for some in _batched(sorted(interactions), _TOGETHER):
            await self.give(ForgetObservations(some, []))
        for some in _batched(keys, _TOGETHER):
            await self.give(ForgetObservations([], some))

    async def _keys(self, offsets: Collection[Offset]) -> list[int]:
        """The keys of the interactions that stand at these offsets."""
        keys: set[int] = set()
        for first, last in stretches(sorted(offsets)):
            start = first
            while start <= last:
                entries = await self._replica.read_headers(start, limit=min(_READ, last - start + 1))
                if not entries:
                    break
                keys.update(
                    event_key(entry.record.event_id)
                    for entry in entries
                    if entry.offset in offsets and isinstance(entry.record, AnyHeader)
                )
                start = entries[-1].offset + 1
        return sorted(keys)

    async def _clean(self) -> None:
        """Take out of the stream what erasures that this node has done were of, those of others that broke off, too.

        The newest messages go first: whoever reads on while that is done, and finds an interaction gone already, must
        not take for new what repeats it later.
        """
        # Meanwhile nothing is erased here, so that what is read is the content at one place of the stream.
        with contextlib.ExitStack() as still:
            await asyncio.to_thread(still.enter_context, undisturbed(self._replica.folder))
            # Of a command that has not been done here to its end, some may have been erased: it counts as well.
            commands = await self._broker.ask(self._stream.unfinished)
            place = await self._replica.place()
            done = [sequence for sequence in commands if sequence <= place]
            if not done:
                return
            until = max(commands)
            keys = {key for command in commands.values() for key in command.keys}
            offsets = {offset for command in commands.values() for offset in command.places}
            affected = await self._broker.ask(lambda: self._stream.bearing(keys, until=until))
            affected |= await self._replica.messages(offsets)
            for sequence in sorted(affected, reverse=True):
                patch = await self._patch(sequence, place)
                if patch is not None:
                    await self._broker.ask(lambda of=sequence, by=patch: self._stream.replace(of, by))  # type: ignore[misc]
            for sequence in done:
                await self._broker.ask(lambda of=sequence: self._stream.finish(of))  # type: ignore[misc]

    async def _patch(self, sequence: int, place: int) -> Patch | None:
        """Make what stands for a message; None: the replica has dropped what it brought, and so will the stream."""
        offsets = await self._replica.arrived(sequence)
        if offsets is None:
            logger.info(
                "message %d of %s is older than what is kept: it goes with the others", sequence, self._stream.name
            )
            return None
        entries = await self._replica.read(offsets.start, limit=len(offsets)) if offsets else []
        if len(entries) < len(offsets):
            return None
        return Patch(place, entries[0].time_us if entries else 0, [to_row(entry.record) for entry in entries])


def _batched(items: Sequence[T], size: int) -> Iterator[list[T]]:
    """Cut into stretches of at most so many."""
    for begin in range(0, len(items), size):
        yield [*items[begin : begin + size]]
