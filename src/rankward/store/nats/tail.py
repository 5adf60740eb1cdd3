"""Reads a stream from a place on, as it grows, over reconnections and restarts of the servers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

import nats.errors
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig, DeliverPolicy

from rankward.records import TimeUs
from rankward.store.nats.broker import Broker

logger = logging.getLogger(__name__)

_HEARTBEAT_S = 5.0
_SILENCE_S = 4.0  # after this long without a message, the stream is asked whether there are some
_PAUSE_S = 0.5  # before the next try


class Tail:
    """One subscription to a whole stream. All of it runs beside the connection."""

    def __init__(
        self,
        broker: Broker,
        stream: str,
        start: int,
        take: Callable[[Msg, int], Awaitable[None]],
        *,
        headers_only: bool = False,
    ) -> None:
        """Make it; `run` reads.

        Args:
            broker: the connection.
            stream: to read.
            start: sequence of the first message that is wanted.
            take: is given each message and its sequence, in order. The next one waits until it returns.
            headers_only: leave the bodies out.
        """
        self._broker = broker
        self._stream = stream
        self._next = start
        self._take = take
        self._headers_only = headers_only

    @staticmethod
    async def stop(reading: asyncio.Task[None]) -> None:
        """Cancel what runs `run`, and wait until it has ended."""
        while not reading.done():  # the client may take a cancellation for the end of what it waits for
            reading.cancel()
            await asyncio.wait({reading}, timeout=_PAUSE_S)

    async def run(self) -> None:
        """Read until cancelled, or until the connection is closed."""
        while not self._broker.client.is_closed:
            try:
                await self._read()
            except (TimeoutError, nats.errors.Error, OSError) as error:
                logger.debug("the stream %s is read anew: %s", self._stream, error)
                await asyncio.sleep(_PAUSE_S)

    async def _read(self) -> None:
        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=max(1, self._next),
            headers_only=self._headers_only,
            inactive_threshold=60,
        )
        subscription = await self._broker.js.subscribe(
            ">", stream=self._stream, ordered_consumer=True, config=config, idle_heartbeat=_HEARTBEAT_S
        )
        try:
            while True:
                try:
                    message = await subscription.next_msg(timeout=_SILENCE_S)
                except nats.errors.TimeoutError:
                    # The servers may have forgotten the subscription, which the client sees later, or not at all.
                    info = await self._broker.js.stream_info(self._stream)
                    if info.state.last_seq >= self._next and subscription.pending_msgs == 0:
                        return
                    continue
                sequence = message.metadata.sequence.stream
                if sequence >= self._next:
                    await self._take(message, sequence)
                    self._next = sequence + 1
        finally:
            with contextlib.suppress(nats.errors.Error, OSError):
                await subscription.unsubscribe()


def stamp_us(message: Msg) -> TimeUs:
    """The time that the stream gave a message, in microseconds since 1970: that of the server which led it then."""
    return round(message.metadata.timestamp.timestamp() * 1_000_000)
