"""The file of the keys that the service made itself. Its owner alone can read it."""

from __future__ import annotations

import contextlib
import fcntl
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tomli_w

from rankward.store.sqlite.durable import PRIVATE, write_durably


class KeyFile:
    """Keys in tables of TOML: `admin`, and `loops.NAME`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from changing keys."""
        with self._path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def read(self) -> dict[str, Any]:
        """Return what is in it, by table."""
        return tomllib.loads(self._path.read_text()) if self._path.exists() else {}

    def write(self, place: str, keys: Mapping[str, str | None] | None) -> None:
        """Change one table of it. Values of None are removed; keys of None remove the table."""
        document = self.read()
        table = document
        *parents, last = place.split(".", 1)
        for parent in parents:
            table = table.setdefault(parent, {})
        if keys is None:
            table.pop(last, None)
        else:
            entry = dict(table.get(last, {}))
            entry.update(keys)
            table[last] = {name: key for name, key in entry.items() if key is not None}
        head = "# Keys that rankward made. Whoever can read this file can use the loops.\n\n"
        write_durably(self._path, (head + tomli_w.dumps(document)).encode(), mode=PRIVATE)
