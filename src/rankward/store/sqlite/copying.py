"""Copies of logs: consistent, made while others write, checked before anybody relies on them."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import zstandard

from rankward.errors import RankwardError, StorageFull, StoreUnavailable
from rankward.records import JoinedEntry, Offset
from rankward.store.sqlite.durable import sync_folder
from rankward.store.sqlite.live import LiveSegment, as_world_error, connect
from rankward.store.sqlite.sealed import Held, SealedSegment

_PASSES = 20  # over files that may be renamed under our eyes


# Making one


def copy_joined(source: Path, target: Path, *, link: bool) -> Offset:
    """Copy a joined log: the database, then the files that entries have left it for. Returns its end."""
    target.mkdir(parents=True)
    if not source.exists():
        return 0
    copy = target / "joined.sqlite"
    copy_database(source / copy.name, copy)
    with closing(connect(copy)) as database:
        first, last = database.execute("SELECT min(offset), max(offset) FROM entry").fetchone()
    for path in sorted(source.glob("*.joined")):
        if first is None or int(path.stem.split("-")[0]) >= first:
            continue  # left the database after it was copied
        try:
            copy_file(path, target / path.name, link=link)
        except FileNotFoundError:
            continue  # too old by now
    return 0 if last is None else int(last) + 1


def copy_events(source: Path, target: Path, *, link: bool) -> None:
    """Copy an event log. Its segments may be closed, sealed and dropped meanwhile, so that is done in passes."""
    target.mkdir(parents=True)
    if not source.exists():
        return
    for _ in range(_PASSES):
        listed = segments_in(source)
        try:
            # The newest first. So whatever is copied of a segment that entries are still added to, nothing is
            # copied of one that follows it.
            for path in reversed(listed):
                copy = target / path.name
                if path.suffix == ".live":
                    copy_database(path, copy)
                elif not copy.exists():
                    copy_file(path, copy, link=link)
        except FileNotFoundError:
            if not source.parent.exists():
                raise
            continue
        if [path.name for path in segments_in(source)] == [path.name for path in listed]:
            for path in target.glob("*.live"):
                if path.name not in {each.name for each in listed}:
                    path.unlink()
            return
    raise StoreUnavailable(f"{source} changes faster than it can be copied: try again")


def segments_in(folder: Path) -> list[Path]:
    """List the segments in order. Of a stretch that has just been sealed, the sealed file counts."""
    by_first = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix in {".live", ".seg"}}
    return [by_first[stem] for stem in sorted(by_first)]


def copy_file(source: Path, target: Path, *, link: bool) -> None:
    """Copy a file that never changes."""
    if link:
        try:
            os.link(source, target)
        except OSError as error:
            if error.errno not in {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EACCES}:
                raise
        else:
            return
    shutil.copyfile(source, target)


def copy_database(source: Path, target: Path) -> None:
    """Copy a database as it is at one moment, holding nobody up.

    Raises:
        FileNotFoundError: it is gone.
    """
    try:
        with closing(connect(source)) as connection:
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            # Its files are removed one by one, this one first: while it is there, we have seen all of them.
            if not source.exists():
                raise FileNotFoundError(errno.ENOENT, "it is gone", str(source))
            target.unlink(missing_ok=True)
            with closing(sqlite3.connect(target)) as copy:
                connection.backup(copy)
    except sqlite3.Error as error:
        if not source.exists():
            raise FileNotFoundError(errno.ENOENT, "it is gone", str(source)) from error
        raise as_world_error(error, source) from error
    target.chmod(0o600)


def sync_all(folder: Path) -> None:
    """Flush everything in a folder to the disk."""
    for path in folder.rglob("*"):
        sync_folder(path)  # a file is flushed in the same way
    sync_folder(folder)


# Checking one


def check_joined(folder: Path) -> None:
    """Read a joined log once.

    Raises:
        StoreUnavailable: it is damaged.
    """
    if (folder / "joined.sqlite").exists():
        check_database(folder / "joined.sqlite")
    for path in sorted(folder.glob("*.joined")):
        try:
            packed = zstandard.ZstdDecompressor().decompress(path.read_bytes())
            msgspec.msgpack.decode(packed, type=list[JoinedEntry])
        except (zstandard.ZstdError, msgspec.MsgspecError) as error:
            raise StoreUnavailable(f"{path} is damaged: {error}. Use another backup.") from error


def check_events(folder: Path, *, deep: bool) -> tuple[Offset, Offset]:
    """Make sure that the segments follow each other. Returns the first offset and the end.

    Args:
        folder: of the event log.
        deep: read all of it, and check every checksum.

    Raises:
        StoreUnavailable: something is damaged or missing.
    """
    first: Offset | None = None
    following: Offset | None = None
    paths = segments_in(folder) if folder.exists() else []
    for path in paths:
        start, end, closed = _check_segment(path, deep=deep)
        if following is not None and start != following:
            raise StoreUnavailable(f"{folder} lacks the entries {following} to {start - 1}: use another backup")
        first = start if first is None else first
        following = end
        if path == paths[-1] and closed:
            raise StoreUnavailable(f"{folder} has no segment to append to: use another backup")
    return first or 0, following or 0


def _check_segment(path: Path, *, deep: bool) -> tuple[Offset, Offset, bool]:
    if path.suffix == ".seg":
        segment = SealedSegment(path, Held())
        try:
            if deep:
                segment.verify()
        finally:
            segment.close()
        return segment.first, segment.end, True
    if deep:
        check_database(path)
    with closing(LiveSegment(path)) as live:
        return live.first, live.tail()[0], live.closed


def check_database(path: Path) -> None:
    """Read a database once.

    Raises:
        StoreUnavailable: it is damaged.
    """
    try:
        with closing(connect(path)) as connection:
            [found] = connection.execute("PRAGMA integrity_check").fetchone()
    except sqlite3.Error as error:
        raise StoreUnavailable(f"{path} is damaged: {error}. Use another backup.") from error
    if found != "ok":
        raise StoreUnavailable(f"{path} is damaged: {found}. Use another backup.")


@contextmanager
def as_ours(folder: Path) -> Iterator[None]:
    """Say in our own terms what fails while something is copied into a folder."""
    try:
        yield
    except RankwardError:
        raise
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise StorageFull(f"there is no room on the disk for {folder}: free some, and try again") from error
        raise StoreUnavailable(f"{folder} cannot be written: {error}") from error
    except sqlite3.Error as error:
        raise as_world_error(error, folder) from error
