"""Carries loops from an embedded installation into a cluster, and from a cluster into a data folder.

What a loop is made of goes first: models, and its folder as the first snapshot of its event log's stream. Each piece
is stored under its digest, so that what is there is not sent again when this is done anew. What the catalog says of the
loop goes last, in one stroke: until then, the cluster does not have the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shutil
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import msgspec

from rankward.errors import Conflict, NotFound, StoreUnavailable
from rankward.records import Offset
from rankward.store.nats.broker import BrokerOptions, write_options
from rankward.store.nats.events import EventStream
from rankward.store.nats.feed import Feed
from rankward.store.nats.models import ReplicatedModelStore
from rankward.store.nats.node import Node
from rankward.store.nats.snapshots import Snapshots
from rankward.store.ports import Loop
from rankward.store.sqlite.catalog import SqliteCatalog
from rankward.store.sqlite.copying import as_ours, check_events, check_joined, sync_all
from rankward.store.sqlite.database import Database, FileDatabase, cut_loose
from rankward.store.sqlite.event_log import SqliteEventLog
from rankward.store.sqlite.folder import DataFolder, FolderLock
from rankward.store.sqlite.joined_log import SqliteJoinedLog
from rankward.store.sqlite.live import forget_messages
from rankward.store.sqlite.rows import carry, carry_audit, digest_of
from rankward.wiring import Home, now_us

Tell = Callable[[str], None]
T = TypeVar("T")

_READ = 4_000
_PAUSE_S = 0.01
_PASSES = 5  # over models that may be replaced under our eyes
_BESIDE = ("studies", "challengers", "watches")  # what is learned beside the versions on record
_SELECT_MODELS = "SELECT model_id FROM version WHERE loop_id = ? ORDER BY model_id"


class Held(msgspec.Struct, frozen=True):
    """Something that a side holds: how many, and the SHA-256 of all of them in order, hex."""

    count: int
    digest: str


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """What one side holds of a loop, so that it can be compared with the other."""

    entries: Held  # of the event log: offsets, times and records
    joined: Held  # entries of the joined log
    models: Held  # of the versions on record
    rows: Held  # of the catalog: settings, keys, epochs, versions, studies and the like


class Copied(msgspec.Struct, frozen=True):
    """What became of a loop."""

    name: str
    source: Content | None  # None: the other side had it already, from an earlier run, and it may have gone on there
    target: Content | None

    @property
    def same(self) -> bool:
        """Whether both sides held the same, when it was copied."""
        return self.source == self.target


# Into a cluster


def copy_in(source: Path, options: BrokerOptions, *, names: Collection[str], tell: Tell) -> list[Copied]:
    """Copy loops of a data folder, whose service does not run, into a cluster.

    Args:
        source: the data folder.
        options: of the cluster.
        names: of the loops; none: all.
        tell: is told what is being done.

    Raises:
        NotFound: there is no data folder, or no loop of a name.
        Conflict: the cluster has another loop of the name; or a service runs on the folder, or it is a node's.
        StorageFull: the servers have no room.
        StoreUnavailable: they do not answer, or the folder is damaged.
    """
    if not (source / "format").is_file():
        raise NotFound(f"{source} is no data folder: name one with --from")
    if (source / "node.json").exists():
        raise Conflict(f"{source} is a node of a cluster itself: copy from its servers")
    with _alone(source), closing(Home(source)) as home, _staging(source / "run" / "copy", options) as (cluster, node):
        here, there = FileDatabase(home.folder.catalog), node.catalog(cluster.folder.catalog)
        with closing(here), closing(there):
            chosen = _chosen(home, names)
            for loop in chosen:
                _refuse_other(cluster, loop)
            copied = [_carry(home, cluster, node, loop, (here, there), tell=tell) for loop in chosen]
        _carry_secrets(home, cluster, node)
    return copied


def _carry(
    home: Home, cluster: Home, node: Node, loop: Loop, catalogs: tuple[Database, Database], *, tell: Tell
) -> Copied:
    here, there = catalogs
    source = target = None
    if all(loop.loop_id != other.loop_id for other in cluster.catalog.loops()):
        snapshots = Snapshots(home.folder, node.broker, clock=home.clock)
        snapshots.announce(loop.loop_id)
        tell(f"{loop.name}: models")
        models = _send_models(home, node, loop)
        tell(f"{loop.name}: logs")
        if not home.folder.events(loop.loop_id).exists():
            asyncio.run(home.event_log(loop.loop_id).close())  # which makes it
        snapshots.take(loop.loop_id)
        snapshots.announce(loop.loop_id)  # the catalog does not have it yet
        node.broker.call(EventStream(node.broker, loop.loop_id).ensure)
        tell(f"{loop.name}: reading all of it back")
        Snapshots(cluster.folder, node.broker, clock=cluster.clock).restore(loop.loop_id)
        source = _content(home, here, loop)
        entries, joined = asyncio.run(_logs(cluster.folder, loop))
        tell(f"{loop.name}: settings, keys and studies")
        rows = Held(*carry(here, there, loop.name, loop.loop_id))
        snapshots.arrived(loop.loop_id)
        target = Content(entries=entries, joined=joined, models=models, rows=rows)
    carry_audit(here, there, loop.name)
    return Copied(loop.name, source, target)


def _carry_secrets(home: Home, cluster: Home, node: Node) -> None:
    """Give the cluster the admin key and the signing key of the installation, if it has none of its own."""
    theirs, ours = ([key for key in each.catalog.keys() if key.loop is None] for each in (cluster, home))  # noqa: SIM118
    if not theirs:
        for key in ours:
            cluster.catalog.set_key(key)
    secret = home.folder.signing.read_bytes() if home.folder.signing.exists() else None
    if secret is not None and node.vault.read() is None:
        node.vault.write(secret, over=None)


@contextlib.contextmanager
def _alone(source: Path) -> Iterator[None]:
    """Keep services off a data folder: what they take in meanwhile would be lost."""
    locks = [FolderLock(source / name) for name in ("serve.lock", "worker.lock")]
    try:
        for lock in locks:
            lock.take_or_refuse("process")
        yield
    finally:
        for lock in locks:
            lock.close()


@contextlib.contextmanager
def _staging(root: Path, options: BrokerOptions) -> Iterator[tuple[Home, Node]]:
    """Be a node for a while, with a folder that is removed in the end."""
    shutil.rmtree(root, ignore_errors=True)
    try:
        _make_node(root, options)
        with closing(Home(root)) as home:
            yield home, _node_of(home)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _node_of(home: Home) -> Node:
    assert home.node is not None, "its folder was made a node's"
    return home.node


def _make_node(root: Path, options: BrokerOptions) -> None:
    with as_ours(root):
        root.mkdir(parents=True, mode=0o700, exist_ok=True)
        write_options(root / "node.json", options)


def _chosen(home: Home, names: Collection[str]) -> list[Loop]:
    if not names:
        return list(home.catalog.loops())
    return [home.catalog.loop(name) for name in names]


def _refuse_other(cluster: Home, loop: Loop) -> None:
    for other in cluster.catalog.loops():
        if other.name == loop.name and other.loop_id != loop.loop_id:
            raise Conflict(
                f"the cluster has a loop {loop.name!r} already, and it is another one: name the loops to copy with "
                "--loop, or delete that one"
            )


def _send_models(home: Home, node: Node, loop: Loop) -> Held:
    """Put models where the cluster keeps them. Returns what it says that it has of the versions on record."""
    versions = node.model_store("models", recorded=lambda *_: None)
    digest = hashlib.sha256()
    ids = sorted(version.model_id for version in home.catalog.versions(loop.loop_id))
    for model_id in ids:
        digest.update(bytes.fromhex(versions.send(loop.loop_id, model_id, home.models.get(loop.loop_id, model_id))))
    for name, store in _beside(node).items():
        for path in sorted((home.folder.loops / loop.loop_id / name).glob("*.vw")):
            store.send(loop.loop_id, path.stem, path.read_bytes())
    return Held(len(ids), digest.hexdigest())


def _beside(node: Node) -> dict[str, ReplicatedModelStore]:
    return {name: node.model_store(name, recorded=None) for name in _BESIDE}


# Out of a cluster


def copy_out(options: BrokerOptions, target: Path, *, names: Collection[str], tell: Tell) -> list[Copied]:
    """Make a data folder of a cluster, which may run: what it holds by then is in it.

    Args:
        options: of the cluster.
        target: the folder: empty, or what an earlier run has left.
        names: of the loops; none: all.
        tell: is told what is being done.

    Raises:
        NotFound: there is no loop of a name.
        Conflict: the folder holds something else.
        StorageFull: there is no room.
        StoreUnavailable: the servers do not answer, or something is missing there.
    """
    left = target / "copying"
    if target.exists() and any(target.iterdir()) and not left.exists():
        raise Conflict(f"{target} is not empty: name a folder that is, or that does not exist")
    with as_ours(target):
        target.mkdir(parents=True, mode=0o700, exist_ok=True)
        left.touch()
    _make_node(target, options)
    with closing(Home(target)) as home:
        node = _node_of(home)
        chosen = _fetch_models(home, node, names, tell=tell)
        for loop in chosen:  # after the catalog: what is derived must not be ahead of its source
            tell(f"{loop.name}: logs")
            asyncio.run(_catch_up(home, node, loop))
        node.vault.read()  # which leaves a copy
        tell("comparing")
        with closing(node.catalog(home.folder.catalog)) as replica:
            before = [_content(home, replica, loop) for loop in chosen]
    _cut_loose(home.folder, {loop.loop_id for loop in chosen})
    with closing(Home(target)) as home, closing(FileDatabase(home.folder.catalog)) as own:
        for loop in chosen:
            check_events(home.folder.events(loop.loop_id), deep=True)
            check_joined(home.folder.joined(loop.loop_id))
        after = [_content(home, own, loop) for loop in chosen]
    return [Copied(loop.name, *pair) for loop, *pair in zip(chosen, before, after, strict=True)]


def _fetch_models(home: Home, node: Node, names: Collection[str], *, tell: Tell) -> list[Loop]:
    """Fetch the models of loops, as the newest catalog lists them. Returns the loops."""
    for _ in range(_PASSES):
        node.refresh()
        chosen = _chosen(home, names)
        try:
            for loop in chosen:
                tell(f"{loop.name}: models")
                for version in home.catalog.versions(loop.loop_id):
                    home.models.get(loop.loop_id, version.model_id)
                for store in _beside(node).values():
                    for model_id in store.ids(loop.loop_id):
                        store.get(loop.loop_id, model_id)
        except NotFound:  # newer ones have taken their places
            continue
        return chosen
    raise StoreUnavailable("models are replaced faster than they can be copied, or are lost: try again")


async def _catch_up(home: Home, node: Node, loop: Loop) -> None:
    """Bring a replica of a loop's event log up to what the stream holds now."""
    await asyncio.to_thread(Snapshots(home.folder, node.broker, clock=home.clock).prepare, loop.loop_id)
    log = SqliteEventLog(home.folder.events(loop.loop_id), clock=home.clock)
    joined = SqliteJoinedLog(home.folder.joined(loop.loop_id))
    feed = Feed(node.broker, loop.loop_id, log, joined)
    try:
        while await feed.step() or not feed.caught_up:
            await asyncio.sleep(_PAUSE_S)
    finally:
        await feed.close()
        await log.close()
        await joined.close()


def _cut_loose(folder: DataFolder, kept: Collection[str]) -> None:
    """Make a node's folder an embedded installation. It is one as soon as `node.json` has gone."""
    with as_ours(folder.root):
        cut_loose(folder.catalog)
        with closing(SqliteCatalog(folder.catalog)) as catalog:
            for loop in catalog.loops():
                if loop.loop_id not in kept:
                    catalog.delete_loop(loop.name)
        for path in folder.loops.iterdir():
            if path.name not in kept:
                shutil.rmtree(path)
        for path in folder.loops.glob("*/events/*.live"):
            forget_messages(path)
        shutil.rmtree(folder.run)
        sync_all(folder.root)
        (folder.root / "node.json").unlink()
        (folder.root / "copying").unlink()


# Both ways


def _content(home: Home, catalog: Database, loop: Loop) -> Content:
    entries, joined = asyncio.run(_logs(home.folder, loop))
    models = hashlib.sha256()
    ids = [row[0] for row in catalog.rows(_SELECT_MODELS, loop.loop_id)]
    for model_id in ids:
        models.update(hashlib.sha256(home.models.get(loop.loop_id, model_id)).digest())
    return Content(
        entries=entries,
        joined=joined,
        models=Held(len(ids), models.hexdigest()),
        rows=Held(*digest_of(catalog.rows, loop.name, loop.loop_id)),
    )


async def _logs(folder: DataFolder, loop: Loop) -> tuple[Held, Held]:
    log = SqliteEventLog(folder.events(loop.loop_id), clock=now_us)
    joined = SqliteJoinedLog(folder.joined(loop.loop_id))
    try:
        return (
            await _all_of(log.read, lambda entry: entry.offset),
            await _all_of(joined.read, lambda pair: pair[0]),
        )
    finally:
        await log.close()
        await joined.close()


async def _all_of(read: Callable[..., Awaitable[Sequence[T]]], offset_of: Callable[[T], Offset]) -> Held:
    count, digest, start = 0, hashlib.sha256(), 0
    while found := await read(start, limit=_READ):
        count += len(found)
        for each in found:
            digest.update(msgspec.msgpack.encode(each))
        start = offset_of(found[-1]) + 1
    return Held(count, digest.hexdigest())
