"""Removes from the servers, and from a node's folder, what nothing on record needs any more.

A loop that was deleted leaves its stream, models and snapshots; a worker that leads no more may have put a model that
was never recorded; an upload that was cut off leaves pieces. What looks like that twice, with an hour between, is not
just on its way. What there is is listed before the catalog catches up: so whatever has been on record for an hour is
known to be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rankward.store.nats.broker import Broker
from rankward.store.nats.objects import Objects
from rankward.store.nats.snapshots import ARRIVING, Snapshots
from rankward.store.ports import Catalog
from rankward.store.sqlite.folder import DataFolder


class Sweep:
    """Remembers what looked left over. Its methods wait, and so are not for event loops."""

    def __init__(
        self,
        folder: DataFolder,
        broker: Broker,
        catalog: Catalog,
        models: Objects,
        snapshots: Snapshots,
        *,
        refresh: Callable[[], object],
    ) -> None:
        """Prepare.

        Args:
            folder: the node's.
            broker: the connection.
            catalog: says what there is.
            models: the bucket of models.
            snapshots: of all loops.
            refresh: lets the catalog catch up with the cluster.
        """
        self._folder = folder
        self._broker = broker
        self._catalog = catalog
        self._models = models
        self._snapshots = snapshots
        self._refresh = refresh
        self._suspects: set[tuple[str, str]] = set()  # kind and name

    def sweep(self) -> None:
        """Remove what looked left over at the last sweep, too.

        Raises:
            StoreUnavailable: the servers do not answer.
        """
        snapshots = self._snapshots
        lists = {stored.name for stored in snapshots.lists.listed()}
        names = {
            "model": {stored.name for stored in self._models.listed()},
            "list": {name for name in lists if not name.startswith(ARRIVING)},
            "part": {stored.name for stored in snapshots.parts.listed()},
            "stream": set(self._streams()),
            "file": {str(path) for path in self._folder.loops.glob("*/models/*.vw")},
        }
        self._refresh()
        loops = {loop.loop_id for loop in self._catalog.loops()}
        arriving = {name.removeprefix(ARRIVING) for name in lists if name.startswith(ARRIVING)}
        kept = {
            "model": self._named_models(loops),
            "part": {
                f"{loop_id}/{part.digest}" for loop_id in loops for each in snapshots.of(loop_id) for part in each.parts
            },
            "file": {
                str(self._file(loop_id, each.model_id)) for loop_id in loops for each in self._catalog.versions(loop_id)
            },
        }
        suspects = {
            (kind, name)
            for kind, found in names.items()
            for name in found
            if self._loop_of(kind, name) not in arriving
            and (name not in kept[kind] if kind in kept else self._loop_of(kind, name) not in loops)
            and not (kind == "model" and self._is_beside(name) and self._loop_of(kind, name) in loops)
        }
        for kind, name in suspects & self._suspects:
            self._remove(kind, name)
        self._suspects = suspects - self._suspects
        for objects in (self._models, snapshots.lists, snapshots.parts):
            objects.sweep()

    def _streams(self) -> Sequence[str]:
        prefix = self._broker.stream("events", "")

        async def list_streams() -> list[str]:
            found: list[str] = []
            while page := await self._broker.js.streams_info(offset=len(found)):
                found += [info.config.name or "" for info in page]
            return [name for name in found if name.startswith(prefix)]

        return self._broker.call(list_streams)

    def _named_models(self, loops: set[str]) -> set[str]:
        return {
            f"{loop_id}/models/{each.model_id}/{each.digest}"
            for loop_id in loops
            for each in self._catalog.versions(loop_id)
        }

    def _file(self, loop_id: str, model_id: str) -> Path:
        return self._folder.loops / loop_id / "models" / f"{model_id}.vw"

    @staticmethod
    def _is_beside(name: str) -> bool:
        """Whether an object is what was learned beside the versions: whoever made it removes it."""
        return name.split("/")[1] != "models"

    def _loop_of(self, kind: str, name: str) -> str:
        if kind == "stream":
            return name.removeprefix(self._broker.stream("events", ""))
        if kind == "file":
            return Path(name).parent.parent.name
        return name.partition("/")[0]

    def _remove(self, kind: str, name: str) -> None:
        match kind:
            case "model":
                self._models.forget(name)
            case "list":
                self._snapshots.lists.forget(name)
            case "part":
                self._snapshots.parts.forget(name)
            case "stream":
                self._broker.call(lambda: self._broker.js.delete_stream(name))
            case "file":
                Path(name).unlink(missing_ok=True)
