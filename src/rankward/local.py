"""The service without a server: a loop in the caller's own process, on the same files, with the same rooms.

Learning goes on in a process of its own. Any number of processes may open one folder; one of them does the
background work, or a `rankward serve` on the folder does.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from numbers import Real
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from uuid import uuid4

import msgspec

from rankward.errors import InvalidRequest, NotFound, RankwardError
from rankward.ranking.decide import RankRequest, excluded_indexes, new_event_id, ranking
from rankward.ranking.features import FeatureBounds, check_action, check_context
from rankward.ranking.service import RankingService
from rankward.records import Action, EventId, Interaction, ModelId
from rankward.settings import Limits
from rankward.wiring import Home, new_loop_settings

_FOLLOW_S = 0.1
_PATIENCE_S = 30.0
_AGAIN_S = 5.0  # before what failed is tried again
_WORKER_PAUSE_S = 2.0  # from one start of a worker to the next

logger = logging.getLogger(__name__)

FeatureObject = Mapping[str, Any]
Features = FeatureObject | Sequence[FeatureObject]
Answer = TypeVar("Answer")


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What to show, and how it was chosen."""

    event_id: EventId  # to report the reward under
    action_id: str  # to show
    ranking: tuple[tuple[str, float], ...]  # every action with its probability, in the order of Rank's answer
    model_id: ModelId | None  # None: there was no model yet, and every action was as likely as the others

    @property
    def probability(self) -> float:
        """The probability of the action to show."""
        return dict(self.ranking)[self.action_id]


def open(folder: str | os.PathLike[str], loop: str = "default", *, create: bool = True) -> LocalLoop:  # noqa: A001
    """Open a loop in a data folder. Use it as a context manager.

    Args:
        folder: the data folder; it is made if there is none.
        loop: name of the loop.
        create: make the loop, with the settings of a new one, if there is none of the name.

    Raises:
        NotFound: there is no such loop, and `create` is False.
        StoreUnavailable: the folder cannot be used.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, open(folder, "menu") as loop:
    ...     decision = loop.rank({"hour": 12}, {"soup": {"hot": True}, "salad": {"hot": False}})
    ...     loop.reward(decision.event_id, 1.0)
    ...     decision.action_id in ("soup", "salad")
    True
    """
    return LocalLoop(Path(folder), loop, create=create)


class LocalLoop:
    """A loop in this process. Its methods may be called from any thread, and wait until what they did is durable."""

    def __init__(self, folder: Path, name: str, *, create: bool) -> None:
        self._name = name
        self._home = Home(folder)
        self._home.furnish({})
        self._bounds = FeatureBounds()
        self._limits = Limits()
        try:
            loop = self._home.catalog.loop(name)
        except NotFound:
            if not create:
                self._home.close()
                raise
            loop = self._home.create_loop(name, new_loop_settings())
        try:
            self._log = self._home.event_log(loop.loop_id)
        except RankwardError:
            self._home.close()
            raise
        catalog, loop_id = self._home.catalog, loop.loop_id
        self._service = RankingService(loop, self._log, self._home.models, lambda: catalog.versions(loop_id))
        self._gone = False  # whether the loop was deleted while it was open here
        self._worker = self._start_worker()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"rankward {name}", daemon=True)
        self._thread.start()
        try:
            self._call(self._keep_up())
        except RankwardError as error:
            logger.error("loop %s opens without its model, and tries again: %s", name, error)
        self._following = asyncio.run_coroutine_threadsafe(self._follow(), self._loop)

    def _start_worker(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "rankward.roles", "worker", str(self._home.folder.root)],
            stdin=subprocess.PIPE,
            process_group=0,
        )

    def _call(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _follow(self) -> None:
        mark = -1
        started = time.monotonic()
        while True:
            await asyncio.sleep(_FOLLOW_S)
            if self._worker.poll() is not None and time.monotonic() - started > _WORKER_PAUSE_S:
                logger.error("the worker ended with %d and is started again", self._worker.returncode)
                assert self._worker.stdin is not None, "it was started with a pipe"
                self._worker.stdin.close()
                self._worker, started = self._start_worker(), time.monotonic()
            try:
                found = self._home.catalog.change_mark()
                if found != mark:
                    await self._keep_up()
                    mark = found
            except RankwardError as error:  # the old settings and model serve on
                logger.error("loop %s does not follow a change, and tries again: %s", self._name, error)
                await asyncio.sleep(_AGAIN_S)

    async def _keep_up(self) -> None:
        """Take over new settings and models.

        Raises:
            RankwardError: the catalog cannot be read, or the model not be loaded. The old ones serve on.
        """
        loops = {loop.loop_id: loop for loop in self._home.catalog.loops()}
        loop = loops.get(self._service.loop.loop_id)
        self._gone = loop is None
        if loop is not None:
            await self._service.follow(loop)

    def _check_open(self) -> None:
        if self._loop.is_closed():
            raise NotFound(f"the loop {self._name!r} was closed here: open it again")
        if self._gone:
            raise NotFound(f"the loop {self._name!r} was deleted: open it again")

    def rank(
        self,
        context: Features,
        actions: Mapping[str, Features] | Sequence[tuple[str, Features]],
        *,
        excluded: Sequence[str] = (),
        event_id: EventId | None = None,
        deferred: bool = False,
    ) -> Decision:
        """Choose one of the actions.

        Args:
            context: features of the situation.
            actions: features by action id, or pairs of both; the first one not excluded is the baseline.
            excluded: ids of actions that must not be chosen.
            event_id: yours; None: one is made.
            deferred: whether the decision counts only once it is activated.

        Raises:
            InvalidRequest: something in it cannot be used.
            WorldError: the decision could not be made durable.
        """
        try:
            pairs = [
                (action_id, features)
                for action_id, features in (actions.items() if isinstance(actions, Mapping) else actions)
            ]
        except (TypeError, ValueError) as error:
            raise InvalidRequest(
                "actions are a mapping from action ids to features, or pairs of both: give each action its features"
            ) from error
        if not 1 <= len(pairs) <= self._limits.actions:
            raise InvalidRequest(f"there are {len(pairs)} actions: give 1 to {self._limits.actions}")
        if len({action_id for action_id, _ in pairs}) < len(pairs):
            raise InvalidRequest("two actions have the same id: an id must name one action")
        checked = tuple(
            [
                Action(self._id(action_id), check_action(_encode(features), self._bounds))
                for action_id, features in pairs
            ]
        )
        request = RankRequest(
            event_id=new_event_id(uuid4(), datetime.now(UTC)) if event_id is None else self._id(event_id),
            context=check_context(_encode(context), self._bounds),
            actions=checked,
            excluded=excluded_indexes(checked, excluded),
            deferred=deferred,
        )
        self._check_open()
        outcome = self._call(self._service.rank(request, named=event_id is not None))
        return _decision(outcome.interaction)

    def _id(self, text: str) -> str:
        if not isinstance(text, str) or not 1 <= len(text) <= self._limits.id_length:
            raise InvalidRequest(f"{str(text)[:40]!r} is no id: give it 1 to {self._limits.id_length} characters")
        return text

    def reward(self, event_id: EventId, value: float) -> None:
        """Report how well the shown action did, from -1 to 1 and best from 0 to 1.

        Raises:
            InvalidRequest: the value is out of bounds.
            WorldError: the reward could not be made durable.
        """
        if not isinstance(value, Real) or not -1.0 <= float(value) <= 1.0:
            raise InvalidRequest(f"reward {value} is outside -1 to 1: scale it", code="InvalidRewardRequest")
        self._check_open()
        self._call(self._service.reward(self._id(event_id), float(value)))

    def activate(self, event_id: EventId) -> None:
        """Say that a deferred decision was really shown."""
        self._check_open()
        self._call(self._service.activate(self._id(event_id)))

    def close(self) -> None:
        """Publish what was learned, and let go of everything."""
        if self._loop.is_closed():
            return
        self._following.cancel()
        self._call(self._log.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._service.close()
        self._loop.close()
        assert self._worker.stdin is not None, "it was started with a pipe"
        self._worker.stdin.close()
        try:
            self._worker.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired as error:
            self._worker.kill()
            self._worker.wait()
            raise RankwardError(f"the worker did not stop within {_PATIENCE_S:.0f} s and was killed") from error
        finally:
            self._home.close()

    def __enter__(self) -> LocalLoop:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _encode(features: Features) -> bytes:
    """Write features as JSON; one object is taken for an array of one."""
    try:
        # Not msgspec: it would write NaN as null, and a null is a feature like any other.
        return json.dumps([features] if isinstance(features, Mapping) else features, allow_nan=False).encode()
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidRequest(f"features cannot be written as JSON: {error}") from error


def _decision(interaction: Interaction) -> Decision:
    actions = interaction.actions
    return Decision(
        event_id=interaction.event_id,
        action_id=actions[interaction.shown].id,
        ranking=tuple([(actions[index].id, interaction.pmf[index]) for index in ranking(interaction)]),
        model_id=interaction.model_id,
    )
