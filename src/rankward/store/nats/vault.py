"""A secret that all nodes share, in a key-value bucket, and a copy in the node's folder."""

from __future__ import annotations

from nats.js.api import KeyValueConfig, StorageType
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue

from rankward.errors import StoreUnavailable
from rankward.store.nats.broker import Broker
from rankward.store.sqlite.vault import FileVault


class SharedVault:
    """Implements `ports.Vault`. Whoever may read the installation's buckets can read the secret."""

    def __init__(self, broker: Broker, name: str, copy: FileVault) -> None:
        """Prepare.

        Args:
            broker: the connection.
            name: of the secret.
            copy: is read when the servers do not answer, and by whoever copies the folder.
        """
        self._broker = broker
        self._bucket = broker.stream("secrets")
        self._name = name
        self._copy = copy
        self._opened: KeyValue | None = None

    def read(self) -> bytes | None:
        """See `ports.Vault`."""
        kept = self._copy.read()
        try:
            self._broker.require_connection()
            secret, _ = self._broker.call(self._get)
        except StoreUnavailable:
            if kept is None:
                raise
            return kept
        if secret is not None and secret != kept:
            self._copy.write(secret, over=kept)  # if another process was quicker, it has written the same or a newer
        return secret

    def write(self, secret: bytes, *, over: bytes | None) -> bool:
        """See `ports.Vault`."""
        self._broker.require_connection()
        if not self._broker.call(lambda: self._put(secret, over)):
            return False
        self._copy.write(secret, over=self._copy.read())
        return True

    async def _put(self, secret: bytes, over: bytes | None) -> bool:
        before, revision = await self._get()
        if before != over:
            return False
        bucket = await self._open()
        try:
            await bucket.update(self._name, secret, last=revision)
        except KeyWrongLastSequenceError:
            return False
        return True

    async def _get(self) -> tuple[bytes | None, int]:
        bucket = await self._open()
        try:
            entry = await bucket.get(self._name)
        except KeyNotFoundError:
            return None, 0
        return entry.value, entry.revision or 0

    async def _open(self) -> KeyValue:
        if self._opened is None:
            config = KeyValueConfig(
                bucket=self._bucket, storage=StorageType.FILE, replicas=self._broker.options.replicas
            )
            await self._broker.ensure_bucket(config)
            self._opened = await self._broker.js.key_value(self._bucket)
        return self._opened
