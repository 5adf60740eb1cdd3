"""Batches that could not be uploaded yet, as files of a folder: in order, bounded, found again after a restart."""

from __future__ import annotations

import fcntl
import itertools
import os
from pathlib import Path

import msgspec


class Spooled(msgspec.Struct, frozen=True):
    """A batch on disk."""

    path: Path
    kind: str
    count: int  # of its events
    size: int  # in bytes

    @classmethod
    def of(cls, path: Path) -> Spooled:
        """Read what a file's name says."""
        _, kind, count = path.stem.split("-")
        return cls(path, kind, int(count), path.stat().st_size)


class Spool:
    """A folder of batches, oldest first. Each process that shares the folder has a part of it to itself."""

    def __init__(self, folder: Path, *, most_bytes: int) -> None:
        """Take the first part of the folder that no living process has, with what an earlier one left in it.

        Args:
            folder: made if there is none.
            most_bytes: that the part may take; the oldest batches are given up for newer ones.

        Raises:
            OSError: the folder cannot be used.
        """
        self._most_bytes = most_bytes
        for number in itertools.count():
            part = folder / f"part-{number}"
            part.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(part / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self._lock)
                continue
            self._folder = part
            break
        self._batches = [Spooled.of(path) for path in sorted(part.glob("*.batch"))]
        last = int(self._batches[-1].path.stem.partition("-")[0]) if self._batches else 0
        self._numbers = itertools.count(last + 1)
        self._bytes = sum(batch.size for batch in self._batches)

    @property
    def events(self) -> int:
        """How many events wait here."""
        return sum(batch.count for batch in self._batches)

    def put(self, kind: str, body: bytes, count: int) -> int:
        """Write a batch. Returns how many events were given up to make room.

        Raises:
            OSError: it cannot be written.
        """
        path = self._folder / f"{next(self._numbers):012}-{kind}-{count}.batch"
        aside = path.with_suffix(".part")
        try:
            with aside.open("wb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        except OSError:
            aside.unlink(missing_ok=True)
            raise
        self._batches.append(Spooled(path, kind, count, len(body)))
        self._bytes += len(body)
        dropped = 0
        while self._bytes > self._most_bytes and len(self._batches) > 1:
            dropped += self._batches[0].count
            self.remove(self._batches[0])
        return dropped

    def oldest(self) -> tuple[Spooled, bytes | None] | None:
        """Read the oldest batch. Without bytes: somebody else has removed it, as whoever tidies temporary folders.

        Raises:
            OSError: it cannot be read.
        """
        if not self._batches:
            return None
        try:
            return self._batches[0], self._batches[0].path.read_bytes()
        except FileNotFoundError:
            return self._batches[0], None

    def remove(self, batch: Spooled) -> None:
        """Forget a batch."""
        batch.path.unlink(missing_ok=True)
        self._bytes -= batch.size
        self._batches.remove(batch)

    def close(self) -> None:
        """Let go of the folder. What waits is found by the next process that opens it."""
        os.close(self._lock)
