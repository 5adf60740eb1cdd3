"""Files that were sent to be imported, in a folder of their loop: for each a record, and the file until it is over."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec

from rankward.errors import NotFound, Overloaded
from rankward.store.imports import LogImport
from rankward.store.sqlite.folder import FileNotebook
from rankward.store.sqlite.live import os_error_as_ours

UNFINISHED_MAX = 5
"""So many imports of a loop may wait and run."""
_KEPT = 10  # that are over
_log_import = msgspec.json.Decoder(LogImport)


class FolderImports:
    """Implements `imports.Imports`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, wanted: LogImport, file: Path) -> None:
        """See `imports.Imports`."""
        if len(self.unfinished()) >= UNFINISHED_MAX:
            raise Overloaded(f"{UNFINISHED_MAX} imports are not over yet: wait for one of them", retry_after_s=60)
        place = self._folder / wanted.key
        try:
            place.mkdir(parents=True)
            with file.open("rb") as written:
                os.fsync(written.fileno())
            file.replace(place / wanted.name)
        except OSError as error:
            shutil.rmtree(place, ignore_errors=True)
            raise os_error_as_ours(error, self._folder) from error
        self._record(wanted.key).write(msgspec.json.encode(wanted))

    def _record(self, key: str) -> FileNotebook:
        return FileNotebook(self._folder / f"{key}.json")

    def listed(self) -> Sequence[LogImport]:
        """See `imports.Imports`."""
        found = [self._record(path.stem).read() for path in sorted(self._folder.glob("*.json"), reverse=True)]
        return [_log_import.decode(each) for each in found if each is not None]

    def unfinished(self) -> Sequence[LogImport]:
        """See `imports.Imports`."""
        keys = sorted(path.name for path in self._folder.glob("*/"))  # a file is kept until its import is over
        found = [self._record(key).read() for key in keys]
        return [each for each in map(_log_import.decode, filter(None, found)) if not each.is_over]

    def write(self, changed: LogImport) -> None:
        """See `imports.Imports`."""
        self._record(changed.key).write(msgspec.json.encode(changed))
        if changed.is_over:
            shutil.rmtree(self._folder / changed.key, ignore_errors=True)
            self._mark(changed.key).unlink(missing_ok=True)
            for each in [each for each in self.listed() if each.is_over][_KEPT:]:
                (self._folder / f"{each.key}.json").unlink(missing_ok=True)

    def file(self, key: str) -> Path:
        """See `imports.Imports`."""
        return self._folder / key / self._unfinished(key).name

    def cancel(self, key: str) -> None:
        """See `imports.Imports`."""
        self._unfinished(key)
        self._mark(key).touch()

    def is_cancelled(self, key: str) -> bool:
        """See `imports.Imports`."""
        return self._mark(key).exists()

    def _mark(self, key: str) -> Path:
        return self._folder / f"{key}.cancelled"

    def _unfinished(self, key: str) -> LogImport:
        found = next((each for each in self.unfinished() if each.key == key), None)
        if found is None:
            raise NotFound(f"there is no import {key[:40]!r} that is not over")
        return found
