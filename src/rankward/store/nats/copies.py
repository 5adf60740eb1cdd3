"""Copies of a replicated database in the object store: what its stream has been shortened by."""

from __future__ import annotations

import tempfile
from pathlib import Path

import zstandard

from rankward.store.nats.broker import Broker
from rankward.store.nats.objects import Objects


class Copies:
    """Copies of one database, each named by the place of the last transaction that is in it. Waits for the servers."""

    def __init__(self, broker: Broker, name: str) -> None:
        """Prepare.

        Args:
            broker: the connection.
            name: of the database.
        """
        self._objects = Objects(broker, "databases")
        self._prefix = f"{name}/"

    def places(self) -> list[int]:
        """Return the places of the copies that there are, in order."""
        names = [stored.name for stored in self._objects.listed()]
        return sorted(int(name.removeprefix(self._prefix)) for name in names if name.startswith(self._prefix))

    def put(self, place: int, database: Path) -> None:
        """Store a copy, in place of one of the same place.

        Args:
            place: of the last transaction in it.
            database: the file, which nobody writes.
        """
        with tempfile.TemporaryFile(dir=database.parent) as packed:
            with database.open("rb") as file:
                zstandard.ZstdCompressor().copy_stream(file, packed)
            packed.seek(0)
            self._objects.put(self._prefix + str(place), packed)

    def get(self, place: int, database: Path) -> bool:
        """Write a copy to a file.

        Returns:
            Whether it was still there.
        """
        with tempfile.TemporaryFile(dir=database.parent) as packed:
            if not self._objects.get(self._prefix + str(place), packed):
                return False
            packed.seek(0)
            with database.open("wb") as file:
                zstandard.ZstdDecompressor().copy_stream(packed, file)
        return True

    def forget(self, place: int) -> None:
        """Remove a copy. It need not be there."""
        self._objects.forget(self._prefix + str(place))
