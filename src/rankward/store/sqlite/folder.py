"""The data folder: where everything of an embedded installation lies, and who holds it."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import shutil
import struct
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from rankward.errors import DataFolderHeld, StoreUnavailable
from rankward.records import Offset
from rankward.store.sqlite.durable import write_durably
from rankward.store.sqlite.live import os_error_as_ours

FORMAT = "1"
RESERVE_BYTES = 8 * 1024 * 1024
_SPARE_FACTOR = 4  # the reserve is taken again only when so many times its size is free


@contextlib.contextmanager
def opening(root: Path) -> Iterator[None]:
    """Keep other processes from opening a folder: one at a time makes what is not there yet.

    Raises:
        StoreUnavailable: the folder cannot be made or written.
    """
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(root / "open.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreUnavailable(f"the data folder {root} cannot be used: {error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class DataFolder:
    """The layout of a data folder.

    catalog.sqlite      loops, keys (as digests), epochs, versions, studies, challengers, optimizations, imports
    node.json           where the servers of the cluster are that the folder is a node's of; not in an embedded one
    keys.toml           keys that the service made, readable by their owner only
    signing.pem         the key that models are signed with, and the certificates that are trusted
    loops/ID/events     the event log
    loops/ID/joined     the joined log
    loops/ID/models     versions of models
    loops/ID/studies    what policies have learned in studies
    loops/ID/watches    how far the watch over an applied policy has come
    loops/ID/figures    what was earned, by minute, hour and day; may be deleted
    loops/ID/challengers    what challengers have learned
    loops/ID/imports    files that were sent to be imported, until that is over
    loops/ID/spool      what waits on a node for the servers of its cluster
    loops/ID/notes      what each process is doing; may be deleted
    outdated            of a node: loops whose replicas have to be fetched anew
    reserve             room that is given up when the disk is full
    run                 of the processes that run now; may be deleted when none does
    """

    def __init__(self, root: Path) -> None:
        """Open the folder, making it if there is none.

        Raises:
            StoreUnavailable: it cannot be read or written, or was made by a newer version.
        """
        self.root = root
        self.catalog = root / "catalog.sqlite"
        self.node = root / "node.json"
        self.keys = root / "keys.toml"
        self.signing = root / "signing.pem"
        self.loops = root / "loops"
        self.run = root / "run"
        self.sessions = self.run / "portal.sqlite"
        self.standing = self.run / "standing.json"
        self.outdated = root / "outdated"  # of replicas that have to be fetched anew: a file for each loop, by its id
        self.reserve = root / "reserve"
        self.worker_lock = root / "worker.lock"
        self.archive = root / "archive"  # the address, in one line
        try:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            version = root / "format"
            if not version.exists():
                if self.catalog.exists():
                    raise StoreUnavailable(f"{root} has a catalog but no file `format`: restore it from a backup")
                write_durably(version, f"{FORMAT}\n".encode())
            found = version.read_text().strip()
            self.loops.mkdir(exist_ok=True)
            self.run.mkdir(exist_ok=True)
        except OSError as error:
            raise StoreUnavailable(f"the data folder {root} cannot be used: {error}") from error
        if found != FORMAT:
            raise StoreUnavailable(
                f"the data folder {root} has format {found}, this rankward knows {FORMAT}: "
                "use the rankward that made it"
            )

    def events(self, loop_id: str) -> Path:
        """The folder of a loop's event log."""
        return self.loops / loop_id / "events"

    def joined(self, loop_id: str) -> Path:
        """The folder of a loop's joined log."""
        return self.loops / loop_id / "joined"

    def spool(self, loop_id: str) -> Path:
        """The folder of what waits on a node for the servers of its cluster."""
        return self.loops / loop_id / "spool"

    def figures(self, loop_id: str) -> Path:
        """The folder of a loop's figures."""
        return self.loops / loop_id / "figures"

    def restored(self, loop_id: str) -> Path:
        """Where a replica of a loop lies while it is put in place."""
        return self.loops / loop_id / "restored"

    def imports(self, loop_id: str) -> Path:
        """The folder of files that were sent to be imported into a loop."""
        return self.loops / loop_id / "imports"

    def mark(self, loop_id: str, epoch_id: int) -> Path:
        """The file that says which event an epoch's learner was given last."""
        return self.loops / loop_id / "notes" / f"learning-{epoch_id}.mark"

    def challenger_mark(self, loop_id: str, key: str) -> Path:
        """The file that says which event a challenger was given last."""
        return self.loops / loop_id / "notes" / f"challenging-{key}.mark"

    def keep_reserve(self) -> None:
        """Set room aside, unless it is there already or the disk has little left."""
        if self.reserve.exists() or shutil.disk_usage(self.root).free < _SPARE_FACTOR * RESERVE_BYTES:
            return
        with self.reserve.open("wb") as file:
            try:
                file.write(bytes(RESERVE_BYTES))
            except OSError:
                self.reserve.unlink()

    def give_reserve(self) -> None:
        """Give the room set aside to whoever needs it: the disk is full."""
        self.reserve.unlink(missing_ok=True)


class FolderLock:
    """A lock that the kernel lets go of when its holder dies, however it dies."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def take(self) -> bool:
        """Take the lock if nobody holds it. Returns whether it is ours now."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
        return True

    def take_or_refuse(self, what: str) -> None:
        """Take the lock.

        Raises:
            DataFolderHeld: somebody else has it; the message says who.
        """
        if not self.take():
            holder = os.pread(self._descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            raise DataFolderHeld(
                f"{self.path.parent} is held by another {what} (process {holder}): stop that one, or use another folder"
            )

    def release(self) -> None:
        """Let go of the lock, ready to take it again."""
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go for good."""
        os.close(self._descriptor)


class FileMark:
    """Implements `training.service.Mark` with a mapped file, which outlives the process that writes it."""

    _WHOLE = struct.Struct("<q")
    _NOTHING = -1

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.stat().st_size != self._WHOLE.size:
            path.write_bytes(self._WHOLE.pack(self._NOTHING))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), self._WHOLE.size)

    def set(self, interaction: Offset) -> None:
        """See `training.service.Mark`."""
        self._WHOLE.pack_into(self._map, 0, interaction)

    def clear(self) -> None:
        """See `training.service.Mark`."""
        self._WHOLE.pack_into(self._map, 0, self._NOTHING)

    def get(self) -> Offset | None:
        """Return the interaction that the learner was given and has not come back from."""
        [interaction] = self._WHOLE.unpack_from(self._map, 0)
        return None if interaction == self._NOTHING else int(interaction)


class FileNotebook:
    """Implements `ports.Notebook` with a file that is written aside and renamed."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> bytes | None:
        """See `ports.Notebook`."""
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return None

    def write(self, content: bytes) -> None:
        """See `ports.Notebook`."""
        try:
            write_durably(self._path, content)
        except OSError as error:
            raise os_error_as_ours(error, self._path.parent) from error

    def remove(self) -> None:
        """See `ports.Notebook`."""
        self._path.unlink(missing_ok=True)


class FileBoard:
    """Implements `ports.Board` with small files."""

    def __init__(self, loops: Path) -> None:
        self._loops = loops

    def _path(self, loop_id: str, name: str) -> Path:
        return self._loops / loop_id / "notes" / f"{name}.json"

    def post(self, loop_id: str, name: str, note: bytes) -> None:
        """See `ports.Board`."""
        path = self._path(loop_id, name)
        aside = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            aside.write_bytes(note)
            aside.replace(path)
        except OSError:
            aside.unlink(missing_ok=True)  # a note is not worth failing for: the disk may be full

    def read(self, loop_id: str) -> Mapping[str, bytes]:
        """See `ports.Board`."""
        notes = {}
        for path in sorted((self._loops / loop_id / "notes").glob("*.json")):
            try:
                notes[path.stem] = path.read_bytes()
            except FileNotFoundError:
                continue
        return {name: note for name, note in notes.items() if note}  # a power failure leaves some empty

    def take_down(self, loop_id: str, name: str) -> None:
        """See `ports.Board`."""
        self._path(loop_id, name).unlink(missing_ok=True)
