"""What one process of a cluster may do at a time: whoever does it keeps a key alive, which expires when it dies."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator

from nats.js.api import KeyValueConfig, StorageType
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue

from rankward.errors import DataFolderHeld, RankwardError
from rankward.store.nats.broker import Broker

logger = logging.getLogger(__name__)

EXPIRY_S = 15.0
"""So long after its last sign of life a holder is taken for dead."""
_CUT_OFF_S = 10.0  # so long after its last sign of life arrived a holder ends by itself
_BEAT_S = 2.0


class Lease:
    """Held by a node, of which one process at a time may ask for it. Safe to share between threads."""

    def __init__(self, broker: Broker, key: str, *, holder: str, what: str) -> None:
        """Prepare.

        Args:
            broker: the connection.
            key: of what may be done by one at a time.
            holder: name of this node.
            what: may be done by one at a time, for people.
        """
        self._broker = broker
        self._bucket = broker.stream("leases")
        self._key = key
        self._holder = holder
        self._what = what
        self._revision = 0
        self._lost = False
        self._arrived_s = 0.0  # when the last sign of life that arrived was sent
        self._stop = threading.Event()
        self._opened: KeyValue | None = None

    @property
    def holds(self) -> bool:
        """Whether nobody else can have it."""
        return not self._lost and time.monotonic() - self._arrived_s < _CUT_OFF_S

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold it inside of the block.

        Raises:
            DataFolderHeld: another node does; the message says which.
            StoreUnavailable: the servers do not answer.
        """
        sent_s = time.monotonic()
        other = self._broker.call(self._take)
        if other is not None:
            raise DataFolderHeld(f"{self._what} is under way on the node {other}: wait until it is over")
        self._arrived_s = sent_s
        beating = threading.Thread(target=self._beat, name="lease", daemon=True)
        beating.start()
        try:
            yield
        finally:
            self._stop.set()
            beating.join()
            with contextlib.suppress(RankwardError):  # it expires
                self._broker.call(self._let_go)

    async def _take(self) -> str | None:
        """Take it, also over from a process of this node, which is dead. Returns whose it is instead."""
        bucket = await self._open()
        while True:
            try:
                self._revision = await bucket.create(self._key, self._holder.encode())
                return None
            except KeyWrongLastSequenceError:
                with contextlib.suppress(KeyNotFoundError, KeyWrongLastSequenceError):  # it has changed: look again
                    entry = await bucket.get(self._key)
                    holder = (entry.value or b"").decode()
                    if holder != self._holder:
                        return holder
                    self._revision = await bucket.update(self._key, self._holder.encode(), last=entry.revision)
                    return None

    def _beat(self) -> None:
        while not self._stop.wait(_BEAT_S) and not self._lost:
            sent_s = time.monotonic()
            try:
                self._lost = not self._broker.call(self._renew)
            except RankwardError as error:
                logger.info("no sign of life of who holds %s reached the servers: %s", self._key, error)
                continue
            self._arrived_s = sent_s

    async def _renew(self) -> bool:
        bucket = await self._open()
        value = self._holder.encode()
        try:
            self._revision = await bucket.update(self._key, value, last=self._revision)
        except KeyWrongLastSequenceError:
            try:
                entry = await bucket.get(self._key)
            except KeyNotFoundError:
                return False  # it has expired: somebody may have had it since
            if entry.value != value:
                return False
            self._revision = entry.revision or 0  # the answer to the sign before did not arrive
        return True

    async def _let_go(self) -> None:
        await (await self._open()).delete(self._key, last=self._revision)

    async def _open(self) -> KeyValue:
        if self._opened is None:
            config = KeyValueConfig(
                bucket=self._bucket, ttl=EXPIRY_S, storage=StorageType.MEMORY, replicas=self._broker.options.replicas
            )
            await self._broker.ensure_bucket(config)
            self._opened = await self._broker.js.key_value(self._bucket)
        return self._opened
