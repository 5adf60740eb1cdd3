"""The stream of a database's transactions: what was written to it, in the one order that all machines apply."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import nats.errors
import nats.js.errors
import zstandard
from nats.aio.subscription import Subscription
from nats.js.api import Header

from rankward.errors import StorageFull
from rankward.store.nats.broker import ACK_S, Broker
from rankward.store.nats.copies import Copies

_NEWS_S = 1.0
_TOGETHER = 256  # transactions asked for at once
_TOGETHER_BYTES = 16 * 1024 * 1024  # and no more than this, or one
_WRONG_LAST_SEQUENCE = {10071, 10164}
_NO_SUCH_MESSAGE, _END_OF_BATCH = "404", "204"


class Statement(msgspec.Struct, frozen=True, array_like=True):
    """A statement that wrote, and its arguments: several rows of them for one that was run for each."""

    sql: str
    rows: list[Sequence[Any]]


class Place(NamedTuple):
    """Where a transaction stands. Its mark tells it from one that would stand there in another history."""

    sequence: int  # from 1 on, without gaps
    mark: bytes


START = Place(0, b"")


class Transaction(msgspec.Struct, frozen=True):
    """What one transaction wrote."""

    place: Place
    after: bytes  # mark of the one before, on which it was made
    statements: list[Statement]


class _Message(msgspec.Struct, frozen=True, array_like=True):
    mark: bytes
    after: bytes
    statements: list[Statement]


class LostRaceError(Exception):
    """Somebody else's transaction has taken the place. It never leaves this room."""


_encode = msgspec.msgpack.Encoder().encode
_json = msgspec.json.Encoder().encode
_message = msgspec.msgpack.Decoder(_Message)


class Transactions:
    """Appends to the stream and reads it. Safe to share between threads, but not for the broker's own."""

    def __init__(self, broker: Broker, name: str) -> None:
        """Open the stream, making it if there is none.

        Args:
            broker: the connection.
            name: of the database.

        Raises:
            StoreUnavailable: the servers do not answer.
        """
        self._broker = broker
        self._stream = broker.stream(name)
        self._subject = broker.subject(name)
        self._news_subject = broker.subject("news", name)
        self._news: Subscription | None = None
        self.copies = Copies(broker, name)
        # Whoever makes the stream names the installation: a folder of another one is told apart by it.
        metadata = {"installation": secrets.token_hex(16)}
        broker.call(lambda: broker.ensure_stream(self._stream, [self._subject], metadata=metadata))
        info = broker.call(lambda: broker.js.stream_info(self._stream))
        self.installation = (info.config.metadata or {}).get("installation", "")

    def append(self, statements: Sequence[Statement], *, after: Place) -> Place:
        """Publish a transaction, and wait until the servers have it.

        Args:
            statements: what it wrote.
            after: the place of the transaction that it was made on.

        Returns:
            Its place.

        Raises:
            LostRaceError: another one has the place after that.
            StoreUnavailable: no answer came in time. It may have been stored all the same.
            StorageFull: the servers have no room, or it is larger than what they take.
        """
        self._broker.require_connection()
        mark = secrets.token_bytes(8)
        body = zstandard.compress(_encode(_Message(mark, after.mark, [*statements])))
        client = self._broker.client
        if len(body) > client.max_payload:
            raise StorageFull(
                f"a change of {len(body)} bytes is larger than the servers take in one message, {client.max_payload}: "
                "raise their max_payload"
            )
        return Place(self._broker.call(lambda: self._append(body, after.sequence)), mark)

    async def _append(self, body: bytes, after: int) -> int:
        try:
            acknowledged = await self._broker.publish(
                self._subject, body, {str(Header.EXPECTED_LAST_SEQUENCE.value): str(after)}
            )
        except nats.js.errors.APIError as error:
            if error.err_code in _WRONG_LAST_SEQUENCE:
                raise LostRaceError from error
            raise
        await self._broker.client.publish(self._news_subject)
        return acknowledged.seq

    def read(self, *, after: int) -> Sequence[Transaction]:
        """Read what stands after a place: the next ones, or nothing if there are none yet.

        If the stream no longer holds the next one, those are returned that it holds.
        """
        self._broker.require_connection()
        return self._broker.call(lambda: self._read(after))

    async def _read(self, after: int) -> Sequence[Transaction]:
        client = self._broker.client
        inbox = client.new_inbox()
        answers = await client.subscribe(inbox)
        found: list[Transaction] = []
        try:
            wanted = _json({"seq": after + 1, "batch": _TOGETHER, "max_bytes": _TOGETHER_BYTES})
            await client.publish(f"$JS.API.DIRECT.GET.{self._stream}", wanted, reply=inbox)
            while True:
                answer = await answers.next_msg(ACK_S)
                headers = answer.headers or {}
                status = headers.get("Status")
                if status in {_NO_SUCH_MESSAGE, _END_OF_BATCH}:
                    return found
                if status is not None:
                    raise nats.js.errors.ServiceUnavailableError(
                        description=f"{status} {headers.get('Description', '')}"
                    )
                message = _message.decode(zstandard.decompress(answer.data))
                place = Place(int(headers["Nats-Sequence"]), message.mark)
                found.append(Transaction(place, message.after, message.statements))
        finally:
            await answers.unsubscribe()

    def last(self) -> int:
        """Return the place of the last transaction; 0: there is none."""
        return self._broker.call(lambda: self._broker.js.stream_info(self._stream)).state.last_seq

    def size_bytes(self) -> int:
        """Return how much room the stream takes."""
        return self._broker.call(lambda: self._broker.js.stream_info(self._stream)).state.bytes

    def trim(self, *, through: int) -> None:
        """Forget the transactions up to a place, and the one there, for good."""
        self._broker.call(lambda: self._broker.js.purge_stream(self._stream, seq=through + 1))

    @property
    def connected(self) -> bool:
        """Whether there is a connection to the servers."""
        return self._broker.client.is_connected

    async def news(self) -> None:
        """Wait until somebody has appended, or a second has gone by. For any event loop, one caller at a time."""
        await self._broker.ask(self._wait)

    async def _wait(self) -> None:
        if self._news is None:
            self._news = await self._broker.client.subscribe(self._news_subject)
            return  # what came before is looked for first
        try:
            await self._news.next_msg(_NEWS_S)
            while self._news.pending_msgs:
                await self._news.next_msg(_NEWS_S)
        except nats.errors.TimeoutError:
            return
