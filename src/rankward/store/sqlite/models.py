"""Models as files: written aside, flushed, renamed."""

from __future__ import annotations

import errno
from pathlib import Path

from rankward.errors import NotFound, StorageFull, StoreUnavailable
from rankward.records import ModelId
from rankward.store.sqlite.durable import write_durably


class FileModelStore:
    """Implements `ports.ModelStore` on a folder of loops."""

    def __init__(self, loops: Path, folder: str = "models") -> None:
        self._loops = loops
        self._folder = folder

    def _path(self, loop_id: str, model_id: ModelId) -> Path:
        return self._loops / loop_id / self._folder / f"{model_id}.vw"

    def put(self, loop_id: str, model_id: ModelId, model: bytes) -> None:
        """See `ports.ModelStore`."""
        path = self._path(loop_id, model_id)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_durably(path, model)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StorageFull(f"there is no room on the disk for {path}: free some") from error
            raise StoreUnavailable(f"{path} cannot be written: {error}") from error

    def get(self, loop_id: str, model_id: ModelId) -> bytes:
        """See `ports.ModelStore`."""
        try:
            return self._path(loop_id, model_id).read_bytes()
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                raise StoreUnavailable(f"model {model_id} cannot be read: {error}") from error
            raise NotFound(
                f"model {model_id} is not kept any more: `rankward model list` names those that are"
            ) from error

    def forget(self, loop_id: str, model_id: ModelId) -> None:
        """See `ports.ModelStore`."""
        self._path(loop_id, model_id).unlink(missing_ok=True)
