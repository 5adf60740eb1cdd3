"""A secret in a file that its owner alone can read: written aside, flushed, renamed."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from rankward.errors import StorageFull, StoreUnavailable
from rankward.store.sqlite.durable import PRIVATE, write_durably


class FileVault:
    """Implements `ports.Vault` with one file, and a lock beside it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> bytes | None:
        """See `ports.Vault`."""
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreUnavailable(f"{self._path} cannot be read: {error}") from error

    def write(self, secret: bytes, *, over: bytes | None) -> bool:
        """See `ports.Vault`."""
        try:
            descriptor = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if self.read() != over:
                    return False
                write_durably(self._path, secret, mode=PRIVATE)
            finally:
                os.close(descriptor)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise StorageFull(f"there is no room on the disk for {self._path}: free some") from error
            raise StoreUnavailable(f"{self._path} cannot be written: {error}") from error
        return True
