"""The catalog: loops, keys, epochs and versions, in one small database that all processes share."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from rankward.errors import Conflict, NotFound, StoreUnavailable
from rankward.records import ModelId, Offset
from rankward.settings import LoopSettings
from rankward.store.ports import Epoch, Fence, Key, Lead, Loop, ModelVersion, SetAside
from rankward.store.sqlite.audit import SCHEMA as AUDIT
from rankward.store.sqlite.challengers import SCHEMA as CHALLENGERS
from rankward.store.sqlite.database import FileDatabase, OpenDatabase, transaction
from rankward.store.sqlite.imports import SCHEMA as IMPORTS
from rankward.store.sqlite.leads import SCHEMA as LEADS
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
_MIGRATIONS = (_SCHEMA, STUDIES, AUDIT, CHALLENGERS, OPTIMIZATIONS, LEADS, IMPORTS)
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
_SELECT_KEY = "SELECT 1 FROM key WHERE loop = ? AND slot = ?"
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


class SqliteCatalog:
    """Implements `ports.Catalog`. Safe to share between threads."""

    def __init__(self, path: Path, *, open_database: OpenDatabase = FileDatabase) -> None:
        """Open the catalog, making it if there is none.

        Args:
            path: of its file.
            open_database: how.

        Raises:
            StoreUnavailable: it cannot be read, or was written by a newer version.
        """
        self._database = open_database(path, must_exist=False)
        try:
            version = self._migrate()
            if version > FORMAT:
                raise StoreUnavailable(f"{path} has format {version}, this rankward knows {FORMAT}: use the newer one")
        except BaseException:
            self._database.close()
            raise

    @transaction
    def _migrate(self, connection: sqlite3.Connection) -> int:
        [version] = connection.execute("PRAGMA user_version").fetchone()
        for migration in _MIGRATIONS[version:]:
            for statement in migration.split(";\n"):
                connection.execute(statement)
        if version < FORMAT:
            connection.execute(f"PRAGMA user_version = {FORMAT}")
        return int(version)

    def change_mark(self) -> int:
        """See `ports.Catalog`."""
        return self._database.change_mark()

    def change_hint(self) -> int:
        """See `ports.Catalog`."""
        return self._database.change_hint()

    def loops(self) -> Sequence[Loop]:
        """See `ports.Catalog`."""
        return [_as_loop(row) for row in self._database.rows(_SELECT_LOOPS)]

    def loop(self, name: str) -> Loop:
        """See `ports.Catalog`."""
        rows = self._database.rows(_SELECT_LOOP, name)
        if not rows:
            raise _no_loop(name)
        return _as_loop(rows[0])

    @transaction
    def create_loop(self, connection: sqlite3.Connection, loop: Loop, keys: Sequence[Key], epoch: Epoch) -> None:
        """See `ports.Catalog`."""
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
            _put_key(connection, key)
        self._start_epoch(connection, epoch)

    def _start_epoch(self, connection: sqlite3.Connection, epoch: Epoch) -> None:
        [number] = connection.execute(_NEXT_EPOCH, (epoch.loop_id,)).fetchone()
        [serving] = connection.execute(_COUNT_SERVING, (epoch.loop_id,)).fetchone()
        state = "building" if serving else "serving"
        body = _encode(msgspec.structs.replace(epoch, epoch_id=number, state=state))
        connection.execute(_INSERT_EPOCH, (epoch.loop_id, number, state, body))

    @transaction
    def delete_loop(self, connection: sqlite3.Connection, name: str) -> None:
        """See `ports.Catalog`."""
        row = connection.execute(_SELECT_LOOP, (name,)).fetchone()
        if row is None:
            raise _no_loop(name)
        connection.execute(_DELETE_LOOP, (name,))
        connection.execute(_DELETE_KEYS, (name,))
        tables = ("epoch", "version", "set_aside", "study", "finding", "challenger", "challenger_aside")
        for table in (*tables, "optimization", "lead", "log_import"):
            connection.execute(f"DELETE FROM {table} WHERE loop_id = ?", (_as_loop(row).loop_id,))  # noqa: S608

    @transaction
    def update_loop(
        self, connection: sqlite3.Connection, loop: Loop, *, epoch: Epoch | None = None, retire: bool = False
    ) -> Loop:
        """See `ports.Catalog`."""
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
        return [Key(loop or None, slot, digest) for loop, slot, digest in self._database.rows(_SELECT_KEYS)]

    @transaction
    def set_key(self, connection: sqlite3.Connection, key: Key, *, first: bool = False) -> None:
        """See `ports.Catalog`."""
        if first and connection.execute(_SELECT_KEY, (key.loop or "", key.slot)).fetchone():
            raise Conflict("somebody else has put a key into this slot meanwhile: use that one, or renew it")
        _put_key(connection, key)

    def epochs(self, loop_id: str) -> Sequence[Epoch]:
        """See `ports.Catalog`."""
        return [
            msgspec.structs.replace(_epoch.decode(body), state=state)
            for _, state, body in self._database.rows(_SELECT_EPOCHS, loop_id)
        ]

    @transaction
    def settle_epoch(self, connection: sqlite3.Connection, epoch: Epoch) -> None:
        """See `ports.Catalog`."""
        connection.execute(_SETTLE_EPOCH, (_encode(epoch), epoch.loop_id, epoch.epoch_id))

    @transaction
    def publish(self, connection: sqlite3.Connection, version: ModelVersion, *, serve: bool) -> None:
        """See `ports.Catalog`."""
        row = connection.execute(_SELECT_EPOCH_STATE, (version.loop_id, version.epoch_id)).fetchone()
        if row is None or row[0] == "retired":
            return  # its epoch ended while it was being written
        connection.execute(_INSERT_VERSION, (version.loop_id, version.model_id, version.created_us, _encode(version)))
        if serve:
            connection.execute(_RETIRE_EARLIER, (version.loop_id, version.epoch_id))
            connection.execute(_START_SERVING, (version.loop_id, version.epoch_id))
            connection.execute(_SERVE, (version.model_id, version.loop_id))

    @transaction
    def lose_version(self, connection: sqlite3.Connection, model_id: ModelId, loop_id: str) -> None:
        """See `ports.Catalog`."""
        connection.execute(_STOP_SERVING, (loop_id, model_id))
        connection.execute(_DELETE_VERSION, (loop_id, model_id, model_id))

    @transaction
    def add_version(self, connection: sqlite3.Connection, version: ModelVersion) -> None:
        """See `ports.Catalog`."""
        connection.execute(_INSERT_VERSION, (version.loop_id, version.model_id, version.created_us, _encode(version)))

    def versions(self, loop_id: str) -> Sequence[ModelVersion]:
        """See `ports.Catalog`."""
        return [_version.decode(body) for (body,) in self._database.rows(_SELECT_VERSIONS, loop_id)]

    @transaction
    def forget_version(self, connection: sqlite3.Connection, model_id: ModelId, loop_id: str) -> bool:
        """See `ports.Catalog`."""
        bases = {_epoch.decode(body).base for _, _, body in connection.execute(_SELECT_EPOCHS, (loop_id,))}
        if model_id in bases or connection.execute(_IS_KEPT, (loop_id, model_id)).fetchone():
            return False
        return connection.execute(_DELETE_VERSION, (loop_id, model_id, model_id)).rowcount == 1

    @transaction
    def set_aside(self, connection: sqlite3.Connection, event: SetAside) -> None:
        """See `ports.Catalog`."""
        connection.execute(_INSERT_ASIDE, (event.loop_id, event.interaction, _encode(event)))

    @transaction
    def forget_set_asides(self, connection: sqlite3.Connection, loop_id: str, interactions: Collection[Offset]) -> None:
        """See `ports.Catalog`."""
        places = [(loop_id, interaction) for interaction in interactions]
        connection.executemany(_DELETE_ASIDE, places)
        connection.executemany(_DELETE_CHALLENGER_ASIDE, places)

    def set_asides(self, loop_id: str) -> Sequence[SetAside]:
        """See `ports.Catalog`."""
        return [_aside.decode(body) for (body,) in self._database.rows(_SELECT_ASIDES, loop_id)]

    def leads(self) -> Mapping[str, Lead]:
        """See `ports.Catalog`."""
        return {loop_id: Lead(holder, term) for loop_id, holder, term in self._database.rows(_SELECT_LEADS)}

    @transaction
    def take_lead(self, connection: sqlite3.Connection, loop_id: str, holder: str, *, over_term: int) -> Fence:
        """See `ports.Catalog`."""
        if connection.execute(_SELECT_LOOP_ID, (loop_id,)).fetchone() is None:
            raise NotFound("the loop to take is gone")
        connection.execute(_INSERT_LEAD, (loop_id,))
        if connection.execute(_TAKE_LEAD, (holder, loop_id, over_term)).rowcount != 1:
            raise Conflict("another worker has taken the loop meanwhile")
        return Fence(loop_id, over_term + 1)

    @transaction
    def release_lead(self, connection: sqlite3.Connection, fence: Fence) -> None:
        """See `ports.Catalog`."""
        connection.execute(_RELEASE_LEAD, (fence.loop_id, fence.term))

    def close(self) -> None:
        """See `ports.Catalog`."""
        self._database.close()


def _no_loop(name: str) -> NotFound:
    return NotFound(f"there is no loop {name!r}: `rankward loop list` names those there are")


def _put_key(connection: sqlite3.Connection, key: Key) -> None:
    try:
        connection.execute(_UPSERT_KEY, (key.loop or "", key.slot, key.digest))
    except sqlite3.IntegrityError as error:
        raise Conflict("the key is in use already, for another loop or slot: choose another") from error


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
