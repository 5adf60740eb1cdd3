"""Notes that all nodes see: each process writes its own into its folder, and tells the other nodes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Mapping
from pathlib import Path

import msgspec
from nats.aio.msg import Msg
from nats.errors import Error
from nats.js.api import KeyValueConfig, StorageType
from nats.js.errors import NotFoundError

from rankward.store.nats.broker import Broker
from rankward.store.sqlite.folder import FileBoard

_PAUSE_S = 1.0  # from one telling of a note to the next: the last is always told
_KEPT_S = 86_400.0
_READ_S = 60.0
_OPERATION = "KV-Operation"  # of the key-value buckets: what takes a key away is a message, too


class _Note(msgspec.Struct, frozen=True, array_like=True):
    node: str
    content: bytes


class SharedBoard:
    """Implements `ports.Board`. Reading is from the folder alone; telling others may fail, and then they see less."""

    def __init__(self, loops: Path, broker: Broker, *, node: str, own: Collection[str]) -> None:
        """Prepare to post notes.

        Args:
            loops: folder of the loops' folders.
            broker: the connection.
            node: what tells this node from others.
            own: names of notes that say what each node does for itself: they stay in its folder.
        """
        self._loops = loops
        self._files = FileBoard(loops)
        self._broker = broker
        self._bucket = broker.stream("notes")
        self._node = node
        self._own = frozenset(own)
        self._untold: dict[str, bytes | None] = {}  # by key; None: it was taken down
        self._telling: set[str] = set()

    def post(self, loop_id: str, name: str, note: bytes) -> None:
        """See `ports.Board`."""
        self._files.post(loop_id, name, note)
        self._tell(loop_id, name, note)

    def read(self, loop_id: str) -> Mapping[str, bytes]:
        """See `ports.Board`."""
        return self._files.read(loop_id)

    def take_down(self, loop_id: str, name: str) -> None:
        """See `ports.Board`."""
        self._files.take_down(loop_id, name)
        self._tell(loop_id, name, None)

    def listen(self) -> None:
        """Write down what the other nodes post, until the connection is closed. For one process of each node.

        Raises:
            StoreUnavailable: the servers do not answer.
        """
        self._broker.call(self._listen)

    def _tell(self, loop_id: str, name: str, note: bytes | None) -> None:
        if name not in self._own:
            key = f"{loop_id}.{name}"
            self._untold[key] = note
            self._broker.begin(lambda: self._send(key))

    async def _send(self, key: str) -> None:
        if key in self._telling:
            return
        self._telling.add(key)
        try:
            while key in self._untold:
                note = self._untold.pop(key)
                body = b"" if note is None else msgspec.msgpack.encode(_Note(self._node, note))
                headers = {_OPERATION: "DEL"} if note is None else None
                with contextlib.suppress(Error):
                    await self._broker.client.publish(f"$KV.{self._bucket}.{key}", body, headers=headers)
                await asyncio.sleep(_PAUSE_S)
        finally:
            self._telling.discard(key)

    async def _listen(self) -> None:
        config = KeyValueConfig(
            bucket=self._bucket, storage=StorageType.MEMORY, ttl=_KEPT_S, replicas=self._broker.options.replicas
        )
        await self._broker.ensure_bucket(config)
        await self._broker.client.subscribe(f"$KV.{self._bucket}.>", cb=self._heard)
        with contextlib.suppress(NotFoundError):
            watcher = await (await self._broker.js.key_value(self._bucket)).watchall(ignore_deletes=True)
            async with asyncio.timeout(_READ_S):  # it would wait for ever for servers that have restarted
                async for entry in watcher:
                    if entry is None:  # what was there has come; what comes from now on is heard
                        break
                    await self._write_down(entry.key, entry.value or b"")
            await watcher.stop()  # type: ignore[no-untyped-call]

    async def _heard(self, message: Msg) -> None:
        key = message.subject.removeprefix(f"$KV.{self._bucket}.")
        await self._write_down(key, b"" if _OPERATION in (message.headers or {}) else message.data)

    async def _write_down(self, key: str, body: bytes) -> None:
        loop_id, _, name = key.partition(".")
        if not (self._loops / loop_id).is_dir():
            return  # the loop is not here yet, or not any more
        if not body:
            await asyncio.to_thread(self._files.take_down, loop_id, name)
            return
        with contextlib.suppress(msgspec.DecodeError):
            note = msgspec.msgpack.decode(body, type=_Note)
            if note.node != self._node:
                await asyncio.to_thread(self._files.post, loop_id, name, note.content)
