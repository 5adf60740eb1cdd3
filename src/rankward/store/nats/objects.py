"""Named bytes of any size, in a bucket of JetStream's object store: models, and copies of what nodes keep."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
from collections.abc import Sequence
from io import BufferedIOBase

import msgspec
from nats.errors import Error
from nats.js.api import ObjectInfo, ObjectMeta, ObjectMetaOptions, StorageType
from nats.js.errors import DigestMismatchError, NotFoundError
from nats.js.object_store import OBJ_CHUNKS_PRE_TEMPLATE, OBJ_META_PRE_TEMPLATE, OBJ_STREAM_TEMPLATE, ObjectStore

from rankward.errors import StoreUnavailable
from rankward.store.nats.broker import ACK_S, Broker

_CHUNK_BYTES = 256 * 1024  # what is published meanwhile waits for no more than this
_SLOWEST_BYTES_PER_S = 1_000_000
_CHUNK_SUBJECT = re.compile(r"\.C\.([^.]+)$")


class Stored(msgspec.Struct, frozen=True):
    """An object that is in the bucket."""

    name: str
    size_bytes: int
    digest: str  # SHA-256, hex


class Objects:
    """One bucket. What is put is seen as a whole or not at all. Its methods wait, and so are not for event loops."""

    def __init__(self, broker: Broker, bucket: str) -> None:
        """Prepare to use a bucket, which is made when it is first needed.

        Args:
            broker: the connection.
            bucket: its name, without the installation's.
        """
        self._broker = broker
        self._bucket = broker.stream(bucket)
        self._stream = OBJ_STREAM_TEMPLATE.format(bucket=self._bucket)
        self._opened: ObjectStore | None = None
        self._strays: set[str] = set()  # of uploads that seem to have been cut off

    def put(self, name: str, content: BufferedIOBase) -> None:
        """Store an object, replicated and on disk on return, in place of the one of that name.

        Raises:
            StorageFull: the servers have no room.
            StoreUnavailable: they do not answer.
        """
        meta = ObjectMeta(options=ObjectMetaOptions(max_chunk_size=_CHUNK_BYTES))

        async def put() -> None:
            await (await self._store()).put(name, content, meta)

        self._broker.call(put)

    def get(self, name: str, target: BufferedIOBase) -> bool:
        """Write an object to a file.

        Returns:
            Whether there is one of that name.

        Raises:
            StoreUnavailable: the servers do not answer, or what they hold is damaged.
        """

        async def get() -> bool:
            store = await self._store()
            try:
                info = await store.get_info(name)
                patience_s = ACK_S + (info.size or 0) / _SLOWEST_BYTES_PER_S
                await asyncio.wait_for(store.get(name, target), patience_s)
            except NotFoundError:
                return False
            except DigestMismatchError as error:
                raise StoreUnavailable(f"the object {name} of {self._bucket} is damaged") from error
            return True

        return self._broker.call(get)

    def digest(self, name: str) -> str | None:
        """Return an object's SHA-256, hex; None: there is none of that name."""

        async def digest() -> str | None:
            with contextlib.suppress(NotFoundError):
                return _stored(await (await self._store()).get_info(name)).digest
            return None

        return self._broker.call(digest)

    def forget(self, name: str) -> None:
        """Remove an object and every trace of it. It need not be there."""

        async def forget() -> None:
            store = await self._store()
            with contextlib.suppress(NotFoundError):
                info = await store.get_info(name)
                # The library's own `delete` leaves a note for each name for ever.
                await self._purge(OBJ_META_PRE_TEMPLATE, base64.urlsafe_b64encode(name.encode()).decode())
                await self._purge(OBJ_CHUNKS_PRE_TEMPLATE, info.nuid)

        self._broker.call(forget)

    def listed(self) -> Sequence[Stored]:
        """Return all objects, in no order."""
        return [_stored(info) for info in self._broker.call(self._list)]

    def sweep(self) -> None:
        """Remove what uploads have left that were cut off: what was so at the last sweep, too, is not under way."""

        async def sweep() -> None:
            await self._store()
            chunks = OBJ_CHUNKS_PRE_TEMPLATE.format(bucket=self._bucket, obj="*")
            found = await self._broker.js.stream_info(self._stream, subjects_filter=chunks)
            ids = {match[1] for subject in found.state.subjects or () if (match := _CHUNK_SUBJECT.search(subject))}
            strays = ids - {info.nuid for info in await self._list()}
            for each in strays & self._strays:
                await self._purge(OBJ_CHUNKS_PRE_TEMPLATE, each)
            self._strays = strays - self._strays

        self._broker.call(sweep)

    async def _list(self) -> list[ObjectInfo]:
        try:
            return await (await self._store()).list(ignore_deletes=True)
        except NotFoundError:  # the library's word for none
            return []

    async def _purge(self, template: str, name: str) -> None:
        await self._broker.js.purge_stream(self._stream, subject=template.format(bucket=self._bucket, obj=name))

    async def _store(self) -> ObjectStore:
        if self._opened is None:
            js, replicas = self._broker.js, self._broker.options.replicas
            await self._broker.ensure(
                self._stream,
                lambda: js.create_object_store(self._bucket, storage=StorageType.FILE, replicas=replicas),
            )
            self._opened = await js.object_store(self._bucket)
        return self._opened


def _stored(info: ObjectInfo) -> Stored:
    if info.digest is None:
        raise Error(f"the object {info.name} has no digest")
    digest = base64.urlsafe_b64decode(info.digest.split("=", 1)[1]).hex()
    return Stored(info.name, info.size or 0, digest)
