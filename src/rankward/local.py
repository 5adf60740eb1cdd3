"""The service without a server: a loop in the caller's own process, on the same files, with the same rooms.

Learning goes on in a process of its own. Any number of processes may open one folder; one of them does the
background work, or a `rankward serve` on the folder does.
"""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from uuid import uuid4

from rankward.decision import (
    Actions,
    Decision,
    Features,
    SlotRequest,
    SlotsDecision,
    check_id,
    check_reward,
    read_request,
    read_slots_request,
    write_decision,
    write_slots_decision,
)
from rankward.errors import NotFound, RankwardError
from rankward.loops import new_loop_settings
from rankward.ranking.decide import new_event_id
from rankward.ranking.features import FeatureBounds
from rankward.ranking.service import RankingService
from rankward.records import EventId
from rankward.settings import Limits
from rankward.wiring import Home

_FOLLOW_S = 0.1
_PATIENCE_S = 30.0
_AGAIN_S = 5.0  # before what failed is tried again
_WORKER_PAUSE_S = 2.0  # from one start of a worker to the next

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")


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
        self._home.loops.furnish({})
        self._bounds = FeatureBounds()
        self._limits = Limits()
        try:
            loop = self._home.catalog.loop(name)
        except NotFound:
            if not create:
                self._home.close()
                raise
            loop = self._home.loops.create(name, new_loop_settings())
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
        actions: Actions,
        *,
        excluded: Sequence[str] = (),
        event_id: EventId | None = None,
        deferred: bool = False,
        subject: str | None = None,
    ) -> Decision:
        """Choose one of the actions.

        Args:
            context: features of the situation.
            actions: features by action id, or pairs of both; the first one not excluded is the baseline.
            excluded: ids of actions that must not be chosen.
            event_id: yours; None: one is made.
            deferred: whether the decision counts only once it is activated.
            subject: whose event this is, in words of your own; `rankward forget` finds it by them.

        Raises:
            InvalidRequest: something in it cannot be used.
            WorldError: the decision could not be made durable.
        """
        request = read_request(
            context,
            actions,
            event_id=new_event_id(uuid4(), datetime.now(UTC)) if event_id is None else event_id,
            excluded=excluded,
            deferred=deferred,
            subject=None if subject is None else check_id(subject, self._limits),
            limits=self._limits,
            bounds=self._bounds,
        )
        self._check_open()
        outcome = self._call(self._service.rank(request, named=event_id is not None))
        return write_decision(outcome.interaction)

    def rank_slots(
        self,
        context: Features,
        actions: Actions,
        slots: Sequence[SlotRequest],
        *,
        event_id: EventId | None = None,
        deferred: bool = False,
        subject: str | None = None,
    ) -> SlotsDecision:
        """Choose an action for each slot, none of them twice. The loop's policy must be for several slots.

        Args:
            context: features of the situation.
            actions: features by action id, or pairs of both.
            slots: in the order in which they choose.
            event_id: yours; None: one is made.
            deferred: whether the decision counts only once it is activated.
            subject: whose event this is, in words of your own; `rankward forget` finds it by them.

        Raises:
            InvalidRequest: something in it cannot be used, or the loop decides for single slots.
            WorldError: the decision could not be made durable.
        """
        request = read_slots_request(
            context,
            actions,
            slots,
            event_id=new_event_id(uuid4(), datetime.now(UTC)) if event_id is None else event_id,
            deferred=deferred,
            subject=None if subject is None else check_id(subject, self._limits),
            limits=self._limits,
            bounds=self._bounds,
        )
        self._check_open()
        outcome = self._call(self._service.rank_slots(request, named=event_id is not None))
        return write_slots_decision(outcome.interaction)

    def reward(self, event_id: EventId, value: float, *, slot: str | None = None) -> None:
        """Report how well the shown action did, from -1 to 1 and best from 0 to 1.

        Args:
            event_id: of the decision.
            value: the reward.
            slot: id of the slot that it is about; None: the whole event.

        Raises:
            InvalidRequest: the value is out of bounds, or a slot is named and the loop decides for single slots.
            WorldError: the reward could not be made durable.
        """
        reward = check_reward(value)
        checked = check_id(event_id, self._limits)
        self._check_open()
        if slot is None:
            self._call(self._service.reward(checked, reward))
        else:
            self._call(self._service.reward_slots(checked, [(check_id(slot, self._limits), reward)]))

    def activate(self, event_id: EventId) -> None:
        """Say that a deferred decision was really shown."""
        self._check_open()
        self._call(self._service.activate(check_id(event_id, self._limits)))

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
