"""The catalog: loops, keys, epochs and versions, in one small database that all processes share."""

from __future__ import annotations

import mmap
import secrets
import sqlite3
import struct
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from rankward.errors import Conflict, NotFound, StoreUnavailable
from rankward.records import ModelId, Offset
from rankward.settings import LoopSettings
from rankward.store.ports import Epoch, Fence, Key, Lead, Loop, ModelVersion, SetAside
from rankward.store.sqlite.audit import SCHEMA as AUDIT
from rankward.store.sqlite.challengers import SCHEMA as CHALLENGERS
from rankward.store.sqlite.leads import SCHEMA as LEADS
from rankward.store.sqlite.live import as_world_error, change_mark, connect
from rankward.store.sqlite.optimizations import SCHEMA as OPTIMIZATIONS
from rankward.store.sqlite.studies import SCHEMA as STUDIES

_SCHEMA = """
CREATE TABLE loop (
    name TEXT PRIMARY KEY,
    loop_id TEXT NOT NULL UNIQUE,
    created_us INTEGER NOT NULL,
    settings BLOB NOT NULL,             -- JSON
    revision INTEGER NOT NULL,
    model_id TEXT,
    forgotten_before INTEGER NOT NULL
);
CREATE TABLE key (
    loop TEXT NOT NULL,                 -- '' for the admin key
    slot INTEGER NOT NULL,
    digest BLOB NOT NULL UNIQUE,
    PRIMARY KEY (loop, slot)
);
CREATE TABLE epoch (
    loop_id TEXT NOT NULL,
    epoch_id INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('building', 'serving', 'retired')),
    body BLOB NOT NULL,                 -- JSON
    PRIMARY KEY (loop_id, epoch_id)
);
CREATE TABLE version (
    loop_id TEXT NOT NULL,
    model_id TEXT NOT NULL,
    created_us INTEGER NOT NULL,
    body BLOB NOT NULL,                 -- JSON
    PRIMARY KEY (loop_id, model_id)
);
CREATE TABLE set_aside (
    loop_id TEXT NOT NULL,
    interaction INTEGER NOT NULL,
    body BLOB NOT NULL,                 -- JSON
    PRIMARY KEY (loop_id, interaction)
);
"""
_MIGRATIONS = (_SCHEMA, STUDIES, AUDIT, CHALLENGERS, OPTIMIZATIONS, LEADS)
"""What makes each format out of the one before it; format 0 is an empty file."""
FORMAT = len(_MIGRATIONS)

_SELECT_LOOPS = (
    "SELECT name, loop_id, created_us, settings, revision, model_id, forgotten_before FROM loop ORDER BY name"
)
_SELECT_LOOP = (
    "SELECT name, loop_id, created_us, settings, revision, model_id, forgotten_before FROM loop WHERE name = ?"
)
_INSERT_LOOP = "INSERT INTO loop VALUES (?, ?, ?, ?, ?, ?, ?)"
_UPDATE_LOOP = (
    "UPDATE loop SET settings = ?, forgotten_before = ?, revision = revision + 1 WHERE loop_id = ? AND revision = ?"
)
_STOP_SERVING = "UPDATE loop SET model_id = NULL WHERE loop_id = ? AND model_id = ?"
_SERVE = "UPDATE loop SET model_id = ? WHERE loop_id = ?"
_DELETE_LOOP = "DELETE FROM loop WHERE name = ?"
_SELECT_KEYS = "SELECT loop, slot, digest FROM key ORDER BY loop, slot"
_UPSERT_KEY = "INSERT INTO key VALUES (?, ?, ?) ON CONFLICT (loop, slot) DO UPDATE SET digest = excluded.digest"
_DELETE_KEYS = "DELETE FROM key WHERE loop = ?"
_NEXT_EPOCH = "SELECT coalesce(max(epoch_id), 0) + 1 FROM epoch WHERE loop_id = ?"
_INSERT_EPOCH = "INSERT INTO epoch VALUES (?, ?, ?, ?)"
_SELECT_EPOCHS = "SELECT epoch_id, state, body FROM epoch WHERE loop_id = ? AND state != 'retired' ORDER BY epoch_id"
_SETTLE_EPOCH = "UPDATE epoch SET body = ? WHERE loop_id = ? AND epoch_id = ?"
_RETIRE_BUILDING = "UPDATE epoch SET state = 'retired' WHERE loop_id = ? AND state = 'building'"
_RETIRE_SERVING = "UPDATE epoch SET state = 'retired' WHERE loop_id = ? AND state = 'serving'"
_RETIRE_EARLIER = "UPDATE epoch SET state = 'retired' WHERE loop_id = ? AND epoch_id < ?"
_START_SERVING = "UPDATE epoch SET state = 'serving' WHERE loop_id = ? AND epoch_id = ? AND state = 'building'"
_SELECT_EPOCH_STATE = "SELECT state FROM epoch WHERE loop_id = ? AND epoch_id = ?"
_COUNT_SERVING = "SELECT count(*) FROM epoch WHERE loop_id = ? AND state = 'serving'"
_INSERT_VERSION = "INSERT OR IGNORE INTO version VALUES (?, ?, ?, ?)"
_SELECT_VERSIONS = "SELECT body FROM version WHERE loop_id = ? ORDER BY created_us DESC, model_id DESC"
_DELETE_VERSION = (
    "DELETE FROM version WHERE loop_id = ? AND model_id = ? "
    "AND NOT EXISTS (SELECT 1 FROM loop WHERE loop.loop_id = version.loop_id AND loop.model_id = ?)"
)
_IS_KEPT = "SELECT 1 FROM optimization WHERE loop_id = ? AND kept_model_id = ?"
_INSERT_ASIDE = "INSERT OR IGNORE INTO set_aside VALUES (?, ?, ?)"
_DELETE_ASIDE = "DELETE FROM set_aside WHERE loop_id = ? AND interaction = ?"
_DELETE_CHALLENGER_ASIDE = "DELETE FROM challenger_aside WHERE loop_id = ? AND interaction = ?"
_SELECT_ASIDES = "SELECT body FROM set_aside WHERE loop_id = ? ORDER BY interaction"
_SELECT_LEADS = "SELECT loop_id, holder, term FROM lead"
_SELECT_LOOP_ID = "SELECT 1 FROM loop WHERE loop_id = ?"
_INSERT_LEAD = "INSERT OR IGNORE INTO lead VALUES (?, '', 0)"
_TAKE_LEAD = "UPDATE lead SET holder = ?, term = term + 1 WHERE loop_id = ? AND term = ?"
_RELEASE_LEAD = "UPDATE lead SET holder = '' WHERE loop_id = ? AND term = ?"

_settings = msgspec.json.Decoder(LoopSettings)
_epoch = msgspec.json.Decoder(Epoch)
_version = msgspec.json.Decoder(ModelVersion)
_aside = msgspec.json.Decoder(SetAside)
_encode = msgspec.json.Encoder().encode
_HINT = struct.Struct("<Q")


class SqliteCatalog:
    """Implements `ports.Catalog`. Safe to share between threads."""

    def __init__(self, path: Path) -> None:
        """Open the catalog, making it if there is none.

        Raises:
            StoreUnavailable: it cannot be read, or was written by a newer version.
        """
        self._path = path
        self._lock = threading.Lock()
        self._hint = _mapped(path.with_suffix(".hint"))
        try:
            self._connection = connect(path, must_exist=False)
            with self._change() as connection:
                [version] = connection.execute("PRAGMA user_version").fetchone()
                for migration in _MIGRATIONS[version:]:
                    for statement in migration.split(";\n"):
                        connection.execute(statement)
                if version < FORMAT:
                    connection.execute(f"PRAGMA user_version = {FORMAT}")
        except sqlite3.Error as error:
            raise as_world_error(error, path) from error
        if version > FORMAT:
            self._connection.close()
            raise StoreUnavailable(f"{path} has format {version}, this rankward knows {FORMAT}: use the newer one")

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
                # Random, not counted: two that count at once could arrive at the same number.
                _HINT.pack_into(self._hint, 0, secrets.randbits(64))
            except sqlite3.IntegrityError as error:
                what = "key" if "key.digest" in str(error) else "name"
                raise Conflict(f"the {what} is in use already, for another loop or slot: choose another") from error
            except sqlite3.Error as error:
                raise as_world_error(error, self._path) from error
            finally:
                if self._connection.in_transaction:  # a full disk may have ended it already
                    self._connection.execute("ROLLBACK")

    def _rows(self, query: str, *arguments: object) -> list[Any]:
        with self._lock:
            try:
                return self._connection.execute(query, arguments).fetchall()
            except sqlite3.Error as error:
                raise as_world_error(error, self._path) from error

    def change_mark(self) -> int:
        """See `ports.Catalog`."""
        with self._lock:
            try:
                return change_mark(self._connection)
            except sqlite3.Error as error:
                raise as_world_error(error, self._path) from error

    def change_hint(self) -> int:
        """See `ports.Catalog`."""
        # Read from mapped memory: to ask SQLite would let go of the interpreter, and wait to get it back.
        [hint] = _HINT.unpack_from(self._hint, 0)
        return int(hint)

    def loops(self) -> Sequence[Loop]:
        """See `ports.Catalog`."""
        return [_as_loop(row) for row in self._rows(_SELECT_LOOPS)]

    def loop(self, name: str) -> Loop:
        """See `ports.Catalog`."""
        rows = self._rows(_SELECT_LOOP, name)
        if not rows:
            raise NotFound(f"there is no loop {name!r}: `rankward loop list` names those there are")
        return _as_loop(rows[0])

    def create_loop(self, loop: Loop, keys: Sequence[Key], epoch: Epoch) -> None:
        """See `ports.Catalog`."""
        with self._change() as connection:
            if connection.execute(_SELECT_LOOP, (loop.name,)).fetchone():
                raise Conflict(f"there is a loop {loop.name!r} already: choose another name, or delete that one first")
            connection.execute(
                _INSERT_LOOP,
                (
                    loop.name,
                    loop.loop_id,
                    loop.created_us,
                    _encode(loop.settings),
                    loop.revision,
                    loop.model_id,
                    loop.forgotten_before,
                ),
            )
            for key in keys:
                connection.execute(_UPSERT_KEY, (key.loop or "", key.slot, key.digest))
            self._start_epoch(connection, epoch)

    def _start_epoch(self, connection: sqlite3.Connection, epoch: Epoch) -> None:
        [number] = connection.execute(_NEXT_EPOCH, (epoch.loop_id,)).fetchone()
        [serving] = connection.execute(_COUNT_SERVING, (epoch.loop_id,)).fetchone()
        state = "building" if serving else "serving"
        body = _encode(msgspec.structs.replace(epoch, epoch_id=number, state=state))
        connection.execute(_INSERT_EPOCH, (epoch.loop_id, number, state, body))

    def delete_loop(self, name: str) -> None:
        """See `ports.Catalog`."""
        loop = self.loop(name)
        with self._change() as connection:
            connection.execute(_DELETE_LOOP, (name,))
            connection.execute(_DELETE_KEYS, (name,))
            tables = ("epoch", "version", "set_aside", "study", "finding", "challenger", "challenger_aside")
            for table in (*tables, "optimization", "lead"):
                connection.execute(f"DELETE FROM {table} WHERE loop_id = ?", (loop.loop_id,))  # noqa: S608

    def update_loop(self, loop: Loop, *, epoch: Epoch | None = None, retire: bool = False) -> Loop:
        """See `ports.Catalog`."""
        with self._change() as connection:
            written = connection.execute(
                _UPDATE_LOOP, (_encode(loop.settings), loop.forgotten_before, loop.loop_id, loop.revision)
            )
            if written.rowcount != 1:
                raise Conflict(f"the loop {loop.name!r} was changed by somebody else meanwhile: read it and try again")
            if retire:
                connection.execute(_RETIRE_SERVING, (loop.loop_id,))
                connection.execute(_SERVE, (loop.model_id, loop.loop_id))
            if epoch is not None:
                connection.execute(_RETIRE_BUILDING, (loop.loop_id,))
                self._start_epoch(connection, epoch)
            return _as_loop(connection.execute(_SELECT_LOOP, (loop.name,)).fetchone())

    def keys(self) -> Sequence[Key]:
        """See `ports.Catalog`."""
        return [Key(loop or None, slot, digest) for loop, slot, digest in self._rows(_SELECT_KEYS)]

    def set_key(self, key: Key) -> None:
        """See `ports.Catalog`."""
        with self._change() as connection:
            connection.execute(_UPSERT_KEY, (key.loop or "", key.slot, key.digest))

    def epochs(self, loop_id: str) -> Sequence[Epoch]:
        """See `ports.Catalog`."""
        return [
            msgspec.structs.replace(_epoch.decode(body), state=state)
            for _, state, body in self._rows(_SELECT_EPOCHS, loop_id)
        ]

    def settle_epoch(self, epoch: Epoch) -> None:
        """See `ports.Catalog`."""
        with self._change() as connection:
            connection.execute(_SETTLE_EPOCH, (_encode(epoch), epoch.loop_id, epoch.epoch_id))

    def publish(self, version: ModelVersion, *, serve: bool) -> None:
        """See `ports.Catalog`."""
        with self._change() as connection:
            row = connection.execute(_SELECT_EPOCH_STATE, (version.loop_id, version.epoch_id)).fetchone()
            if row is None or row[0] == "retired":
                return  # its epoch ended while it was being written
            connection.execute(
                _INSERT_VERSION, (version.loop_id, version.model_id, version.created_us, _encode(version))
            )
            if serve:
                connection.execute(_RETIRE_EARLIER, (version.loop_id, version.epoch_id))
                connection.execute(_START_SERVING, (version.loop_id, version.epoch_id))
                connection.execute(_SERVE, (version.model_id, version.loop_id))

    def lose_version(self, model_id: ModelId, loop_id: str) -> None:
        """See `ports.Catalog`."""
        with self._change() as connection:
            connection.execute(_STOP_SERVING, (loop_id, model_id))
            connection.execute(_DELETE_VERSION, (loop_id, model_id, model_id))

    def add_version(self, version: ModelVersion) -> None:
        """See `ports.Catalog`."""
        with self._change() as connection:
            connection.execute(
                _INSERT_VERSION, (version.loop_id, version.model_id, version.created_us, _encode(version))
            )

    def versions(self, loop_id: str) -> Sequence[ModelVersion]:
        """See `ports.Catalog`."""
        return [_version.decode(body) for (body,) in self._rows(_SELECT_VERSIONS, loop_id)]

    def forget_version(self, model_id: ModelId, loop_id: str) -> bool:
        """See `ports.Catalog`."""
        with self._change() as connection:
            bases = {_epoch.decode(body).base for _, _, body in connection.execute(_SELECT_EPOCHS, (loop_id,))}
            if model_id in bases or connection.execute(_IS_KEPT, (loop_id, model_id)).fetchone():
                return False
            return connection.execute(_DELETE_VERSION, (loop_id, model_id, model_id)).rowcount == 1

    def set_aside(self, event: SetAside) -> None:
        """See `ports.Catalog`."""
        with self._change() as connection:
            connection.execute(_INSERT_ASIDE, (event.loop_id, event.interaction, _encode(event)))

    def forget_set_asides(self, loop_id: str, interactions: Collection[Offset]) -> None:
        """See `ports.Catalog`."""
        with self._change() as connection:
            places = [(loop_id, interaction) for interaction in interactions]
            connection.executemany(_DELETE_ASIDE, places)
            connection.executemany(_DELETE_CHALLENGER_ASIDE, places)

    def set_asides(self, loop_id: str) -> Sequence[SetAside]:
        """See `ports.Catalog`."""
        return [_aside.decode(body) for (body,) in self._rows(_SELECT_ASIDES, loop_id)]

    def leads(self) -> Mapping[str, Lead]:
        """See `ports.Catalog`."""
        return {loop_id: Lead(holder, term) for loop_id, holder, term in self._rows(_SELECT_LEADS)}

    def take_lead(self, loop_id: str, holder: str, *, over_term: int) -> Fence:
        """See `ports.Catalog`."""
        with self._change() as connection:
            if connection.execute(_SELECT_LOOP_ID, (loop_id,)).fetchone() is None:
                raise NotFound("the loop to take is gone")
            connection.execute(_INSERT_LEAD, (loop_id,))
            if connection.execute(_TAKE_LEAD, (holder, loop_id, over_term)).rowcount != 1:
                raise Conflict("another worker has taken the loop meanwhile")
        return Fence(loop_id, over_term + 1)

    def release_lead(self, fence: Fence) -> None:
        """See `ports.Catalog`."""
        with self._change() as connection:
            connection.execute(_RELEASE_LEAD, (fence.loop_id, fence.term))

    def close(self) -> None:
        """See `ports.Catalog`."""
        with self._lock:
            self._connection.close()
            self._hint.close()


def _mapped(path: Path) -> mmap.mmap:
    """Map the file that says when to look at the catalog again. It may be deleted while nothing runs."""
    try:
        with path.open("ab") as file:
            if file.tell() < _HINT.size:
                file.write(bytes(_HINT.size))
        with path.open("r+b") as file:
            return mmap.mmap(file.fileno(), _HINT.size)
    except OSError as error:
        raise StoreUnavailable(f"{path} cannot be used: {error}") from error


def _as_loop(row: Sequence[Any]) -> Loop:
    name, loop_id, created_us, settings, revision, model_id, forgotten_before = row
    return Loop(
        name=name,
        loop_id=loop_id,
        created_us=created_us,
        settings=_settings.decode(settings),
        revision=revision,
        model_id=model_id,
        forgotten_before=forgotten_before,
    )
