"""A consistent copy of a data folder, made while the service runs, and the way back.

What is derived must never be ahead of its source, so it is copied before it: the catalog and the models that it lists,
then each loop's joined log, then its event log. What happens meanwhile is in the later copies only, and is joined and
learned again after a restore. Whatever was acknowledged before the backup began is in it.

A backup that bears its name is whole: it is made aside and renamed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tarfile
import tomllib
from collections.abc import Callable, Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import msgspec

from rankward import __version__
from rankward.errors import Conflict, NotFound, StoreUnavailable
from rankward.loops import digest
from rankward.records import Offset, TimeUs
from rankward.store.sqlite.catalog import SqliteCatalog
from rankward.store.sqlite.copying import (
    as_ours,
    check_database,
    check_events,
    check_joined,
    copy_database,
    copy_events,
    copy_file,
    copy_joined,
    sync_all,
)
from rankward.store.sqlite.database import cut_loose
from rankward.store.sqlite.durable import sync_folder
from rankward.store.sqlite.folder import FORMAT, DataFolder
from rankward.wiring import now_us

MANIFEST = "backup.json"
_PASSES = 20  # over files that may be renamed under our eyes
_ASIDE = ".restoring"
_ARCHIVES = {".gz", ".tgz", ".bz2", ".xz", ".zip", ".zst"}


class LoopContent(msgspec.Struct, frozen=True, kw_only=True):
    """How far the copy of a loop goes."""

    name: str
    events_first: Offset
    events_end: Offset
    joined_end: Offset
    models: int


class Backup(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup holds. It is written into it."""

    rankward: str  # version that made it
    started_us: TimeUs  # whatever was acknowledged by then is in it
    finished_us: TimeUs
    loops: tuple[LoopContent, ...]
    files: int
    size_bytes: int
    missing: tuple[str, ...] = ()  # models that the catalog listed and that were not to be found


class _MovedError(Exception):
    """A file was pruned between the copy of the list that names it and its own."""


# Making one


def back_up(
    root: Path, target: Path, *, link: bool = True, verify: bool = True, clock: Callable[[], TimeUs] = now_us
) -> Backup:
    """Copy a data folder, whether its service runs or not.

    Args:
        root: the data folder.
        target: the folder to make, or the file if its name ends in `.tar`. It must not exist.
        link: let the copy share the files that never change with the original, where both are on one disk.
        verify: read the copy once and check every checksum.
        clock: the time.

    Raises:
        NotFound: there is no data folder.
        Conflict: the target exists, or lies in the data folder.
        StorageFull: there is no room for the copy.
        StoreUnavailable: it cannot be read or written, or is damaged.
    """
    if not (root / "format").is_file():
        raise NotFound(f"{root} is no data folder: name it with --data")
    folder = DataFolder(root)
    if target.exists():
        raise Conflict(f"{target} exists already: name a folder or a .tar file that does not")
    if target.suffix in _ARCHIVES:
        raise Conflict(f"{target} is no name for a backup: use .tar, as most of it is compressed already")
    if target.resolve().is_relative_to(root.resolve()):
        raise Conflict(f"{target} lies in the data folder itself: name a place outside of it")
    aside = target.with_name(f".{target.name}.{os.getpid()}.partial")
    packed = aside.with_suffix(".tar")
    with as_ours(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            aside.mkdir(mode=0o700)
            backup = _fill(folder, aside, link=link, verify=verify, clock=clock)
            if target.suffix == ".tar":
                _pack(aside, packed)
                packed.rename(target)
            else:
                aside.rename(target)
            sync_folder(target.parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
            packed.unlink(missing_ok=True)
    return backup


def _fill(folder: DataFolder, aside: Path, *, link: bool, verify: bool, clock: Callable[[], TimeUs]) -> Backup:
    started_us = clock()
    missing = _copy_catalog(folder, aside, link=link)
    contents = []
    with closing(SqliteCatalog(aside / "catalog.sqlite")) as catalog:
        for loop in catalog.loops():
            source, target = folder.loops / loop.loop_id, aside / "loops" / loop.loop_id
            try:
                joined_end = copy_joined(source / "joined", target / "joined", link=link)
                copy_events(source / "events", target / "events", link=link)
            except FileNotFoundError:
                if source.exists():
                    raise
                catalog.delete_loop(loop.name)  # as has been done in the original meanwhile
                shutil.rmtree(target, ignore_errors=True)
                continue
            first, end = check_events(target / "events", deep=False)
            models = len(list((target / "models").glob("*.vw")))
            contents.append(
                LoopContent(name=loop.name, events_first=first, events_end=end, joined_end=joined_end, models=models)
            )
    if verify:
        _verify(aside)
    (aside / "format").write_text(FORMAT + "\n")
    files = [path for path in aside.rglob("*") if path.is_file()]
    backup = Backup(
        rankward=__version__,
        started_us=started_us,
        finished_us=clock(),
        loops=tuple(contents),
        files=len(files),
        size_bytes=sum(path.stat().st_size for path in files),
        missing=missing,
    )
    (aside / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(backup)))
    sync_all(aside)
    return backup


def _copy_catalog(folder: DataFolder, aside: Path, *, link: bool) -> tuple[str, ...]:
    """Copy the catalog, the keys it knows and the models it lists. Returns the models that are lost.

    Each may change between their copies: then all of them are looked at again.
    """
    for attempt in range(_PASSES):
        last = attempt == _PASSES - 1  # whatever does not agree by now never will
        copy_database(folder.catalog, aside / "catalog.sqlite")
        cut_loose(aside / "catalog.sqlite")
        keys = folder.keys.read_bytes() if folder.keys.exists() else b""
        with closing(SqliteCatalog(aside / "catalog.sqlite")) as catalog:
            known = {key.digest for key in catalog.keys()}  # noqa: SIM118
            if not last and not {digest(key) for key in _keys_in(keys)} <= known:
                continue
            try:
                missing = _copy_models(catalog, folder, aside, link=link, last=last)
            except _MovedError:
                continue
        signing = folder.signing.read_bytes() if folder.signing.exists() else b""
        for path, secret in ((folder.keys, keys), (folder.signing, signing)):
            if secret:
                descriptor = os.open(aside / path.name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(secret)
        return tuple(missing)
    raise AssertionError("the last attempt takes what there is")


def _keys_in(document: bytes) -> Iterator[str]:
    tables = tomllib.loads(document.decode())
    for table in [tables.get("admin", {}), *tables.get("loops", {}).values()]:
        yield from table.values()


def _copy_models(catalog: SqliteCatalog, folder: DataFolder, aside: Path, *, link: bool, last: bool) -> list[str]:
    shutil.rmtree(aside / "loops", ignore_errors=True)
    missing = []
    for loop in catalog.loops():
        models = aside / "loops" / loop.loop_id / "models"
        models.mkdir(parents=True)
        # Only what is listed: a file without a version would be taken for the one that is published later
        # under its name.
        for version in catalog.versions(loop.loop_id):
            name = f"{version.model_id}.vw"
            try:
                copy_file(folder.loops / loop.loop_id / "models" / name, models / name, link=link)
            except FileNotFoundError:
                if not last:
                    raise _MovedError from None
                catalog.lose_version(version.model_id, loop.loop_id)
                missing.append(f"{loop.name}/{version.model_id}")
        source, target = folder.loops / loop.loop_id, aside / "loops" / loop.loop_id
        for name in ("studies", "challengers", "watches"):
            _copy_learned(source / name, target / name, link=link)
    return missing


def _copy_learned(source: Path, target: Path, *, link: bool) -> None:
    """Copy what policies have learned beside the loop.

    One of an evaluation that is deleted meanwhile cannot be applied any more; a challenger, or the replaced policy of
    a watch, that learns on meanwhile learns again.
    """
    target.mkdir()
    for path in source.glob("*.vw"):
        with contextlib.suppress(FileNotFoundError):
            copy_file(path, target / path.name, link=link)


def _pack(folder: Path, archive: Path) -> None:
    descriptor = os.open(archive, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        with tarfile.open(fileobj=file, mode="w") as tar:
            for path in sorted(folder.iterdir()):
                tar.add(path, arcname=path.name)
        file.flush()
        os.fsync(file.fileno())


# The way back


def restore(source: Path, root: Path, *, verify: bool = True) -> Backup:
    """Make a data folder from a backup.

    Args:
        source: the folder or `.tar` file that `back_up` made.
        root: the data folder to make. It must be empty, if it exists.
        verify: check every checksum before anything can use the folder.

    Raises:
        NotFound: there is no such backup.
        Conflict: the data folder is not empty.
        StoreUnavailable: the backup is damaged, or of a newer version. The data folder is left empty.
    """
    if not source.exists():
        raise NotFound(f"there is no backup {source}")
    if root.exists() and any(root.iterdir()):
        raise Conflict(f"{root} is not empty: restore into a folder that is, or that does not exist")
    aside = root / _ASIDE
    made = not root.exists()
    done = False
    with as_ours(root):
        try:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            _unpack(source, aside)
            backup = _read_manifest(aside, source)
            if verify:
                _verify(aside)
            sync_all(aside)
            (aside / MANIFEST).unlink()
            for path in sorted(aside.iterdir(), key=lambda path: path.name == "format"):
                path.rename(root / path.name)  # `format` last: without it, nobody opens the folder
            aside.rmdir()
            sync_folder(root)
            done = True
        finally:
            if not done:
                _empty(root, remove=made)
    return backup


def _unpack(source: Path, aside: Path) -> None:
    try:
        if source.is_dir():
            shutil.copytree(source, aside, copy_function=shutil.copyfile)
        else:
            aside.mkdir()
            with tarfile.open(source) as tar:
                tar.extractall(aside, filter="data")
    except tarfile.TarError as error:
        raise StoreUnavailable(f"{source} cannot be read as a backup: {error}") from error
    for name in ("keys.toml", "signing.pem"):
        if (aside / name).exists():
            (aside / name).chmod(0o600)


def _read_manifest(aside: Path, source: Path) -> Backup:
    try:
        backup = msgspec.json.decode((aside / MANIFEST).read_bytes(), type=Backup)
        found = (aside / "format").read_text().strip()
    except (FileNotFoundError, msgspec.MsgspecError) as error:
        raise StoreUnavailable(f"{source} is no backup made by `rankward backup`, or only a part of one") from error
    if found != FORMAT:
        raise StoreUnavailable(f"{source} has format {found}, this rankward knows {FORMAT}: use the one that made it")
    return backup


def _empty(root: Path, *, remove: bool) -> None:
    for path in list(root.iterdir()) if root.exists() else []:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
    if remove and root.exists():
        root.rmdir()


# Checking one


def _verify(aside: Path) -> None:
    """Read everything once.

    Raises:
        StoreUnavailable: something is damaged or missing.
    """
    check_database(aside / "catalog.sqlite")
    with closing(SqliteCatalog(aside / "catalog.sqlite")) as catalog:
        for loop in catalog.loops():
            folder = aside / "loops" / loop.loop_id
            for version in catalog.versions(loop.loop_id):
                path = folder / "models" / f"{version.model_id}.vw"
                if not path.exists() or sha256(path.read_bytes()).hexdigest() != version.digest:
                    raise StoreUnavailable(f"{path} is missing or damaged: use another backup")
            check_joined(folder / "joined")
            check_events(folder / "events", deep=True)
