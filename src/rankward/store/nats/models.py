"""Models in the object store, with the node's folder in front of it."""

from __future__ import annotations

import contextlib
import fcntl
import io
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

from rankward.errors import NotFound, StoreUnavailable
from rankward.records import ModelId
from rankward.store.nats.objects import Objects
from rankward.store.sqlite.live import os_error_as_ours
from rankward.store.sqlite.models import FileModelStore


class ReplicatedModelStore:
    """Implements `ports.ModelStore` on the object store. What was read once is read from the folder.

    A node's file may be of other bytes than the object: of what was put here and never recorded, or of what another
    node has put since. So both are known by their digest, and a file that differs is fetched again.
    """

    def __init__(
        self,
        loops: Path,
        objects: Objects,
        folder: str = "models",
        *,
        recorded: Callable[[str, ModelId], str | None] | None = None,
    ) -> None:
        """Prepare to keep models.

        Args:
            loops: folder of the loops' folders.
            objects: the bucket.
            folder: name of the folder in a loop's.
            recorded: finds the digest of the version on record, by loop and version. Then the object's name has its
                digest in it: whoever puts other bytes under a recorded id, since it does not know yet that another
                worker leads, overwrites nothing, and reading from the folder needs no server. None: such models are
                overwritten, and the newest counts.
        """
        self._loops = loops
        self._files = FileModelStore(loops, folder)
        self._objects = objects
        self._folder = folder
        self._recorded = recorded

    def put(self, loop_id: str, model_id: ModelId, model: bytes) -> None:
        """See `ports.ModelStore`."""
        self._objects.put(self._name(loop_id, model_id, sha256(model).hexdigest()), io.BytesIO(model))
        self._files.put(loop_id, model_id, model)

    def send(self, loop_id: str, model_id: ModelId, model: bytes) -> str:
        """Put a model into the object store alone, unless it is there.

        Returns:
            The digest of what the store has then.
        """
        name, digest = self._name(loop_id, model_id, sha256(model).hexdigest()), sha256(model).hexdigest()
        if self._objects.digest(name) != digest:
            self._objects.put(name, io.BytesIO(model))
        return self._objects.digest(name) or ""

    def ids(self, loop_id: str) -> list[ModelId]:
        """List what the object store has of a loop."""
        prefix = f"{loop_id}/{self._folder}/"
        names = [stored.name for stored in self._objects.listed() if stored.name.startswith(prefix)]
        return sorted({name.removeprefix(prefix).partition("/")[0] for name in names})

    def get(self, loop_id: str, model_id: ModelId) -> bytes:
        """See `ports.ModelStore`. It may be fetched first: not for event loops."""
        digest = self._digest(loop_id, model_id)
        if digest is None:
            raise NotFound(f"model {model_id} is not kept any more: `rankward model list` names those that are")
        model = self._kept(loop_id, model_id, digest)
        if model is not None:
            return model
        with self._alone(loop_id):
            model = self._kept(loop_id, model_id, digest)  # another process may have fetched it meanwhile
            if model is None:
                model = self._fetched(loop_id, model_id, digest)
                self._files.put(loop_id, model_id, model)
        return model

    def forget(self, loop_id: str, model_id: ModelId) -> None:
        """See `ports.ModelStore`. Where the object's name is not known here, it is left to `sweep`."""
        if self._recorded is None:
            self._objects.forget(self._name(loop_id, model_id, ""))
        else:
            with contextlib.suppress(NotFound):
                digest = sha256(self._files.get(loop_id, model_id)).hexdigest()
                self._objects.forget(self._name(loop_id, model_id, digest))
        self._files.forget(loop_id, model_id)

    def _name(self, loop_id: str, model_id: ModelId, digest: str) -> str:
        name = f"{loop_id}/{self._folder}/{model_id}"
        return name if self._recorded is None else f"{name}/{digest}"

    def _digest(self, loop_id: str, model_id: ModelId) -> str | None:
        if self._recorded is not None:
            return self._recorded(loop_id, model_id)
        return self._objects.digest(self._name(loop_id, model_id, ""))

    def _kept(self, loop_id: str, model_id: ModelId, digest: str) -> bytes | None:
        with contextlib.suppress(NotFound):
            model = self._files.get(loop_id, model_id)
            if sha256(model).hexdigest() == digest:
                return model
        return None

    def _fetched(self, loop_id: str, model_id: ModelId, digest: str) -> bytes:
        buffer = io.BytesIO()
        if not self._objects.get(self._name(loop_id, model_id, digest), buffer):
            raise NotFound(f"model {model_id} is not in the object store any more")
        model = buffer.getvalue()
        if sha256(model).hexdigest() != digest:
            raise StoreUnavailable(f"model {model_id} was replaced while it was read: try again")
        return model

    @contextlib.contextmanager
    def _alone(self, loop_id: str) -> Iterator[None]:
        """Let one process of the node fetch, and the others wait for what it brings."""
        folder = self._loops / loop_id / self._folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = (folder / "fetch.lock").open("w")
        except OSError as error:
            raise os_error_as_ours(error, folder) from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
