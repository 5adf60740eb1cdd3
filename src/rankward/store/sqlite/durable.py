"""Small files that are there whole or not at all, and that outlive a loss of power."""

from __future__ import annotations

import os
import threading
from pathlib import Path

PRIVATE = 0o600
_SHARED = 0o666  # less the process's umask


def write_durably(path: Path, content: bytes, *, mode: int = _SHARED) -> None:
    """Write a file aside, flush it to the disk, and rename it into place. Several may at once: one stays.

    Args:
        path: of the file; what is there is replaced.
        content: of the file.
        mode: who may read and write it, as `os.open` takes it.

    Raises:
        OSError: it cannot be written. What was there before still is.
    """
    aside = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.tmp")
    aside.unlink(missing_ok=True)  # what is left of one that died has a mode of its own
    try:
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder's own entries, so that a file made or renamed in it outlives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
