"""A secret in a file that its owner alone can read: written aside, flushed, renamed."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from rankward.errors import StorageFull, StoreUnavailable
from rankward.store.sqlite.sealed import sync_folder


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
        aside = self._path.with_suffix(".tmp")
        try:
            descriptor = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if self.read() != over:
                    return False
                aside.unlink(missing_ok=True)
                with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    file.write(secret)
                    file.flush()
                    os.fsync(file.fileno())
                aside.replace(self._path)
                sync_folder(self._path.parent)
            finally:
                os.close(descriptor)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise StorageFull(f"there is no room on the disk for {self._path}: free some") from error
            raise StoreUnavailable(f"{self._path} cannot be written: {error}") from error
        return True
