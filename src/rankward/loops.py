"""The loops of an installation and the keys that open them: made, removed, and what a first start makes."""

from __future__ import annotations

import hashlib
import secrets
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any

import msgspec

from rankward.auditing import Trail
from rankward.errors import Conflict, InvalidRequest
from rankward.records import TimeUs
from rankward.settings import LoopSettings
from rankward.store.audit import SERVICE, Actor
from rankward.store.ports import Catalog, Key, Loop
from rankward.store.sqlite.folder import DataFolder, FolderLock, opening
from rankward.store.sqlite.key_file import KeyFile
from rankward.training.service import next_epoch
from rankward.vw.presets import BALANCED, Preset

_NAME_ALPHABET = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")


class Loops:
    """Makes and removes loops and keys. Any process may have one: catalog and key file keep two from crossing."""

    def __init__(
        self, folder: DataFolder, catalog: Catalog, *, shared: bool, trail: Trail, clock: Callable[[], TimeUs]
    ) -> None:
        """Prepare.

        Args:
            folder: of the installation, or of this node.
            catalog: of loops.
            shared: whether other nodes have the loops as well.
            trail: where changes are noted.
            clock: the time.
        """
        self._folder = folder
        self._catalog = catalog
        self._shared = shared
        self._trail = trail
        self._clock = clock
        self._key_file = KeyFile(folder.keys)

    def create(
        self,
        name: str,
        settings: LoopSettings,
        keys: Mapping[int, str] | None = None,
        *,
        loop_id: str | None = None,
        actor: Actor = SERVICE,
    ) -> Loop:
        """Add a loop.

        Args:
            name: 1 to 64 of `a-z`, `0-9`, `-` and `_`.
            settings: what it is set to.
            keys: by slot, 1 and 2; those left out are made, and written to the key file.
            loop_id: 32 hex digits that no other loop has. Draws depend on it: with the same one, the same requests
                under the same event ids are decided alike. None: one is made.
            actor: who does it.

        Raises:
            InvalidRequest: the name cannot be used.
            Conflict: the name is taken.
        """
        if not 1 <= len(name) <= 64 or not set(name) <= _NAME_ALPHABET:
            raise InvalidRequest(f"{name!r} cannot name a loop: use 1 to 64 of a-z, 0-9, - and _")
        created_us = self._clock()
        id_ = loop_id or secrets.token_hex(16)
        loop = Loop(name=name, loop_id=id_, created_us=created_us, settings=settings)
        given = dict(keys or {})
        made = {slot: secrets.token_hex(16) for slot in (1, 2) if slot not in given}
        stored = [Key(name, slot, digest(key)) for slot, key in (given | made).items()]
        first = msgspec.structs.replace(next_epoch(loop, now_us=created_us, reason="the loop was created"), since_us=0)
        with self._key_file.held():
            if any(other.name == name for other in self._catalog.loops()):
                raise Conflict(f"there is a loop {name!r} already: choose another name, or delete that one first")
            # The file first: a key that opens nothing does no harm, one that nobody knows would.
            self._key_file.write(f"loops.{name}", {f"key{slot}": key for slot, key in made.items()})
            try:
                self._catalog.create_loop(loop, stored, first)
            except Conflict:  # another node has made it at this moment, or a key that was given is in use
                self._key_file.write(f"loops.{name}", None)
                raise
        if self._shared:
            self._folder.events(loop.loop_id).mkdir(parents=True, exist_ok=True)  # no other node has anything of it yet
        self._trail.by(actor).note("loop created", loop=name, after={"policy": settings.policy})
        return loop

    def delete(self, name: str, *, actor: Actor = SERVICE) -> None:
        """Remove a loop and everything that it logged and learned.

        It is gone at once. Its files go when nobody works on them: now, or when the worker has let go of them.

        Args:
            name: of the loop.
            actor: who does it.
        """
        with self._key_file.held():
            self._catalog.delete_loop(name)
            self._key_file.write(f"loops.{name}", None)
        self._trail.by(actor).note("loop deleted", loop=name)
        worker = FolderLock(self._folder.worker_lock)
        if worker.take():
            self.sweep(busy=())
        worker.close()

    def sweep(self, *, busy: Collection[str]) -> None:
        """Remove the files of loops that are no more. Only for whoever holds the worker's lock.

        Args:
            busy: ids of loops whose files are still in use.
        """
        paths = list(self._folder.loops.iterdir())  # first: of a loop that is made meanwhile, the catalog must know
        kept = {loop.loop_id for loop in self._catalog.loops()} | set(busy)
        for path in paths:
            if path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)

    def set_key(
        self, loop: str | None, slot: int, key: str | None = None, *, first: bool = False, actor: Actor = SERVICE
    ) -> str:
        """Put a key into a slot.

        Args:
            loop: whose key; None: the admin key.
            slot: 1 or 2; 1 for the admin key.
            key: given by the operator, and then not written down; None: one is made.
            first: whether there must be none before.
            actor: who does it.

        Raises:
            Conflict: it is in use elsewhere, or there is one before.
        """
        made = key or secrets.token_hex(16)
        place = "admin" if loop is None else f"loops.{loop}"
        with self._key_file.held():
            if key is None:
                self._key_file.write(place, {f"key{slot}" if loop else "key": made})
            try:
                self._catalog.set_key(Key(loop, slot, digest(made)), first=first)
            except Conflict:
                if first:
                    self._key_file.write(place, {f"key{slot}" if loop else "key": None})
                raise
            if key is not None:
                self._key_file.write(place, {f"key{slot}" if loop else "key": None})
        which = f"key {slot}" if loop else "the admin key"
        self._trail.by(actor).note("key set" if key else "key renewed", loop=loop, detail=which)
        return made

    def keys(self) -> dict[str, dict[str, Any]]:
        """Read the keys that the service made itself: on this node, and not replaced on another one since.

        Returns:
            `admin`, with `key`; and `loops`, by name, with `key1` and `key2`. What there is none of is left out.
        """
        opens = {key.digest for key in self._catalog.keys()}  # noqa: SIM118  # it is no mapping
        document = self._key_file.read()

        def valid(table: Mapping[str, str]) -> dict[str, str]:
            return {name: key for name, key in table.items() if digest(key) in opens}

        loops = {name: valid(table) for name, table in document.get("loops", {}).items()}
        admin = valid(document.get("admin", {}))
        return ({"admin": admin} if admin else {}) | ({"loops": loops} if loops else {})

    def furnish(self, environment: Mapping[str, str]) -> None:
        """Make sure of what a first start makes: the admin key, and the loops `default` and `playground`.

        Args:
            environment: `RANKWARD_ADMIN_KEY`, `RANKWARD_API_KEY` and `RANKWARD_API_KEY2` set those keys, at every
                start.

        Keys that are made stand in the key file of the node that made them, and of no other.
        """
        with opening(self._folder.root):
            while True:
                before = self._furniture()
                try:
                    self._furnish(environment)
                    return
                except Conflict:  # another node does the same at this moment: look again
                    if self._furniture() == before:
                        raise

    def _furniture(self) -> tuple[Sequence[Key], Sequence[Loop]]:
        return self._catalog.keys(), self._catalog.loops()

    def _furnish(self, environment: Mapping[str, str]) -> None:
        stored = self._catalog.keys()
        known = {(key.loop, key.slot): key.digest for key in stored}
        loops = {loop.name for loop in self._catalog.loops()}
        given = {
            slot: environment[name]
            for slot, name in ((1, "RANKWARD_API_KEY"), (2, "RANKWARD_API_KEY2"))
            if environment.get(name)
        }
        if (None, 1) not in known:  # the admin key comes last: until it is there, the first start is not over
            if "default" not in loops:
                self.create("default", LoopSettings(), given)
            if "playground" not in loops:
                self.create("playground", playground_settings())
        elif "default" in loops:
            for slot, key in given.items():
                if known.get(("default", slot)) != digest(key):
                    self.set_key("default", slot, key)
        admin = environment.get("RANKWARD_ADMIN_KEY")
        if admin and known.get((None, 1)) != digest(admin):
            self.set_key(None, 1, admin)
        elif (None, 1) not in known:
            self.set_key(None, 1, first=True)


def digest(key: str) -> bytes:
    """What is stored of a key."""
    return hashlib.sha256(key.encode()).digest()


def new_loop_settings(preset: Preset = BALANCED) -> LoopSettings:
    """The settings of a loop that somebody creates: the original's, with our preset or another."""
    policy = preset.policy()
    return LoopSettings(policy=policy.text, preset=preset.name, exploration=policy.epsilon or 0.0)


def playground_settings() -> LoopSettings:
    """The settings of the loop for first tries: learning is seen within seconds."""
    return msgspec.structs.replace(
        new_loop_settings(), reward_wait=timedelta(seconds=2), model_export_frequency=timedelta(seconds=1)
    )
