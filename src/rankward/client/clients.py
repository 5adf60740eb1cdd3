"""The clients themselves: one that waits in the calling thread, one for asyncio."""

from __future__ import annotations

import asyncio
import functools
import os
import ssl
import threading
import time
import weakref
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any
from uuid import uuid4

import msgspec

from rankward.client.calls import Answer, Asked, Reason, Report, SlotsAsked, UnansweredError, read_offer, slots_fallback
from rankward.client.front import Front
from rankward.client.inprocess import InProcess
from rankward.client.lock import ProcessLock
from rankward.client.remote import Remote
from rankward.client.spool import Spool
from rankward.client.stats import ClientStats, Tally
from rankward.decision import Actions, Decision, Features, SlotRequest, SlotsDecision
from rankward.errors import InvalidRequest, RankwardError
from rankward.records import EventId

_FLUSH_S = 5.0
_EXIT_S = 2.0  # for what waits when the process ends and nobody closed the client
_LETTING_GO_S = 10.0  # beyond the time for sending, for keeping and counting what was not sent
_SLACK_S = 0.01  # beyond the deadline, before the caller stops waiting for the background's word


Engine = Remote | InProcess
"""What decides and reports, behind a client."""


def _asked(
    context: Features, actions: Actions, *, excluded: Sequence[str], event_id: EventId | None, deferred: bool
) -> Asked:
    return Asked(
        context=context,
        actions=actions,
        event_id=uuid4().hex if event_id is None else event_id,
        named=event_id is not None,
        excluded=excluded,
        deferred=deferred,
    )


def _slots_asked(
    context: Features,
    actions: Actions,
    slots: Sequence[SlotRequest],
    *,
    event_id: EventId | None,
    deferred: bool,
) -> SlotsAsked:
    return SlotsAsked(
        context=context,
        actions=actions,
        slots=slots,
        event_id=uuid4().hex if event_id is None else event_id,
        deferred=deferred,
    )


def _for_slots(engine: Engine) -> Remote:
    if isinstance(engine, InProcess):
        raise InvalidRequest("several slots cannot be decided here: use a client without `local`")
    return engine


def _engine(
    endpoint: str,
    key: str,
    *,
    confirm: bool,
    queue_size: int,
    verify: ssl.SSLContext | bool,
    local: bool,
    refresh_s: float,
    folder: str | os.PathLike[str] | None,
    folder_bytes: int,
    tally: Tally,
) -> Engine:
    if not local:
        return Remote(endpoint, key, confirm=confirm, queue_size=queue_size, verify=verify, tally=tally)
    spool = None if folder is None else Spool(Path(folder), most_bytes=folder_bytes)
    return InProcess(endpoint, key, refresh_s=refresh_s, spool=spool, queue_size=queue_size, verify=verify, tally=tally)


class Client:
    """A loop of a service, for code that waits. Any thread may use it, and so may processes forked after it was made.

    Nothing that the service does or fails to do is raised: `rank` falls back to the first action that is not
    excluded, and rewards are sent behind the page's back.

    >>> with Client("http://127.0.0.1:9", "no such key") as client:
    ...     decision = client.rank({"hour": 12}, {"soup": {"hot": True}, "salad": {"hot": False}})
    >>> decision.action_id, decision.fallback
    ('soup', True)
    """

    def __init__(
        self,
        endpoint: str,
        key: str,
        *,
        timeout_s: float = 0.05,
        confirm: bool = False,
        strict: bool = False,
        queue_size: int = 10_000,
        verify: ssl.SSLContext | bool = True,
        local: bool = False,
        refresh_s: float = 5.0,
        folder: str | os.PathLike[str] | None = None,
        folder_bytes: int = 67_108_864,
    ) -> None:
        """Prepare, and start a thread for what goes on in the background.

        Args:
            endpoint: of the service, as `http://HOST:PORT`, or `http://HOST:PORT/loops/NAME`.
            key: of the loop.
            timeout_s: how long a decision may take in all, from name resolution to the last byte.
            confirm: have a decision learned only if it came in time. It costs a second call in the background.
            strict: raise the caller's mistakes (what cannot be used, 400, 401, 403, 404), for tests.
            queue_size: rewards that may wait to be sent; the oldest are given up for newer ones.
            verify: how the service's certificate is checked.
            local: decide in this process, with the service's model, and upload what was decided.
            refresh_s: how often to look for another model or other settings, when deciding here.
            folder: where uploads wait while the service is away, when deciding here; None: in memory.
            folder_bytes: that they may take there; the oldest are given up for newer ones.

        Raises:
            OSError: the folder cannot be used.
        """
        self._timeout_s = timeout_s
        self._tally = Tally()
        self._front = Front(strict=strict, tally=self._tally)
        self._make = functools.partial(
            _engine,
            endpoint,
            key,
            confirm=confirm,
            queue_size=queue_size,
            verify=verify,
            local=local,
            refresh_s=refresh_s,
            folder=folder,
            folder_bytes=folder_bytes,
            tally=self._tally,
        )
        self._closed = False
        self._lock = ProcessLock()
        self._start()

    def _start(self) -> None:
        self._engine = self._make()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rankward client", daemon=True)
        self._thread.start()
        if isinstance(self._engine, InProcess):
            self._loop.call_soon_threadsafe(self._engine.start)
        self._pid = os.getpid()
        self._end = weakref.finalize(self, _end, self._pid, self._loop, self._thread, self._engine, _EXIT_S)

    def _here(self) -> Engine:
        """Return what asks the service, in this process: threads do not survive a fork."""
        if self._pid != os.getpid():
            with self._lock:
                if self._pid != os.getpid():
                    self._end.detach()
                    self._start()
        return self._engine

    def rank(
        self,
        context: Features,
        actions: Actions,
        *,
        excluded: Sequence[str] = (),
        event_id: EventId | None = None,
        deferred: bool = False,
    ) -> Decision:
        """Choose one of the actions, within the time.

        Args:
            context: features of the situation.
            actions: features by action id, or pairs of both; the first one not excluded is the baseline.
            excluded: ids of actions that must not be chosen.
            event_id: yours; None: one is made.
            deferred: whether the decision counts only once it is activated.

        Raises:
            InvalidRequest: there is nothing to show: no actions, or all of them excluded.
            CallerError: the client is strict, and something cannot be used.
        """
        deadline_s = time.monotonic() + self._timeout_s
        offer = read_offer(actions, excluded)
        try:
            if self._closed:
                raise UnansweredError("the client is closed", Reason.CLOSED)
            asked = _asked(context, actions, excluded=excluded, event_id=event_id, deferred=deferred)
            decision = self._decide(asked, deadline_s)
        except RankwardError as error:
            return offer.fallback(self._front.fall_back(event_id, error))
        self._front.decided(event_id)
        return decision

    def rank_slots(
        self,
        context: Features,
        actions: Actions,
        slots: Sequence[SlotRequest],
        *,
        event_id: EventId | None = None,
        deferred: bool = False,
    ) -> SlotsDecision:
        """Choose an action for each slot, none of them twice, within the time; else every slot's baseline.

        Args:
            context: features of the situation.
            actions: features by action id, or pairs of both.
            slots: in the order in which they choose.
            event_id: yours; None: one is made.
            deferred: whether the decision counts only once it is activated.

        Raises:
            InvalidRequest: there are no slots.
            CallerError: the client is strict, and something cannot be used.
        """
        deadline_s = time.monotonic() + self._timeout_s
        asked = _slots_asked(context, actions, slots, event_id=event_id, deferred=deferred)
        fallback = slots_fallback(asked, "")
        try:
            if self._closed:
                raise UnansweredError("the client is closed", Reason.CLOSED)
            decision = self._wait(_for_slots(self._here()).rank_slots(asked, deadline_s=deadline_s), deadline_s)
        except RankwardError as error:
            return msgspec.structs.replace(fallback, event_id=self._front.fall_back(event_id, error))
        self._front.decided(event_id)
        return decision

    def _decide(self, asked: Asked, deadline_s: float) -> Decision:
        engine = self._here()
        if isinstance(engine, InProcess) and engine.ready:
            return engine.decide(asked)
        return self._wait(engine.rank(asked, deadline_s=deadline_s), deadline_s)

    def _wait(self, asking: Coroutine[Any, Any, Answer], deadline_s: float) -> Answer:
        """Have the background ask, and wait for it within the time."""
        try:
            deciding = asyncio.run_coroutine_threadsafe(asking, self._loop)
        except RuntimeError as error:  # it has ended, with the interpreter or in another thread
            asking.close()
            raise UnansweredError("the client is closed", Reason.CLOSED) from error
        try:
            return deciding.result(deadline_s + _SLACK_S - time.monotonic())
        except TimeoutError:
            if deciding.cancel():
                raise UnansweredError("the background did not answer in time", Reason.TIMEOUT) from None
            return deciding.result()

    def reward(self, event_id: EventId, value: float, *, slot: str | None = None) -> None:
        """Report how well the shown action did. It is sent in the background.

        Args:
            event_id: of the decision.
            value: from -1 to 1, and best from 0 to 1.
            slot: id of the slot that it is about; None: the whole event.

        Raises:
            CallerError: the client is strict, and id or value cannot be used.
        """
        report = self._front.reward(event_id, value, slot)
        if report is not None:
            self._report(report)

    def activate(self, event_id: EventId) -> None:
        """Say that a deferred decision was really shown. It is sent in the background.

        Raises:
            CallerError: the client is strict, and the id cannot be used.
        """
        report = self._front.activation(event_id)
        if report is not None:
            self._report(report)

    def _report(self, report: Report) -> None:
        if self._closed:
            self._tally.count("dropped")
        else:
            engine = self._here()
            try:
                self._loop.call_soon_threadsafe(engine.report, report)
            except RuntimeError:  # as above
                self._tally.count("dropped")

    @property
    def stats(self) -> ClientStats:
        """What became of the calls so far."""
        return self._engine.stats

    def flush(self, timeout_s: float = _FLUSH_S) -> bool:
        """Wait until everything reported is sent. Returns whether it was, within the time."""
        if self._closed:
            return True
        engine = self._here()
        return asyncio.run_coroutine_threadsafe(engine.flush(timeout_s), self._loop).result()

    def close(self, timeout_s: float = _FLUSH_S) -> None:
        """Send what waits, within the time, and let go of everything. Decisions fall back from here on."""
        self._here()
        self._closed = True
        if self._end.detach() is not None:
            _end(self._pid, self._loop, self._thread, self._engine, timeout_s)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _end(pid: int, loop: asyncio.AbstractEventLoop, thread: threading.Thread, engine: Engine, timeout_s: float) -> None:
    """End the background of a client, in the process that it belongs to."""
    if pid != os.getpid():
        return
    closing = asyncio.run_coroutine_threadsafe(engine.close(timeout_s), loop)
    with suppress(TimeoutError):
        closing.result(timeout_s + _LETTING_GO_S)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


class AsyncClient:
    """A loop of a service, for asyncio. It belongs to the event loop that it is first used in.

    It does what `Client` does, and takes the same arguments. Use it as an asynchronous context manager, or close it:
    what was not sent by then is lost with the event loop.
    """

    def __init__(
        self,
        endpoint: str,
        key: str,
        *,
        timeout_s: float = 0.05,
        confirm: bool = False,
        strict: bool = False,
        queue_size: int = 10_000,
        verify: ssl.SSLContext | bool = True,
        local: bool = False,
        refresh_s: float = 5.0,
        folder: str | os.PathLike[str] | None = None,
        folder_bytes: int = 67_108_864,
    ) -> None:
        """Prepare; see `Client`. Nothing is started."""
        self._timeout_s = timeout_s
        self._tally = Tally()
        self._front = Front(strict=strict, tally=self._tally)
        self._engine = _engine(
            endpoint,
            key,
            confirm=confirm,
            queue_size=queue_size,
            verify=verify,
            local=local,
            refresh_s=refresh_s,
            folder=folder,
            folder_bytes=folder_bytes,
            tally=self._tally,
        )

    async def rank(
        self,
        context: Features,
        actions: Actions,
        *,
        excluded: Sequence[str] = (),
        event_id: EventId | None = None,
        deferred: bool = False,
    ) -> Decision:
        """Choose one of the actions, within the time; see `Client.rank`."""
        deadline_s = time.monotonic() + self._timeout_s
        offer = read_offer(actions, excluded)
        try:
            asked = _asked(context, actions, excluded=excluded, event_id=event_id, deferred=deferred)
            decision = await self._engine.rank(asked, deadline_s=deadline_s)
        except RankwardError as error:
            return offer.fallback(self._front.fall_back(event_id, error))
        self._front.decided(event_id)
        return decision

    async def rank_slots(
        self,
        context: Features,
        actions: Actions,
        slots: Sequence[SlotRequest],
        *,
        event_id: EventId | None = None,
        deferred: bool = False,
    ) -> SlotsDecision:
        """Choose an action for each slot, within the time; see `Client.rank_slots`."""
        deadline_s = time.monotonic() + self._timeout_s
        asked = _slots_asked(context, actions, slots, event_id=event_id, deferred=deferred)
        fallback = slots_fallback(asked, "")
        try:
            decision = await _for_slots(self._engine).rank_slots(asked, deadline_s=deadline_s)
        except RankwardError as error:
            return msgspec.structs.replace(fallback, event_id=self._front.fall_back(event_id, error))
        self._front.decided(event_id)
        return decision

    def reward(self, event_id: EventId, value: float, *, slot: str | None = None) -> None:
        """Report how well the shown action did; see `Client.reward`. There is nothing to wait for."""
        report = self._front.reward(event_id, value, slot)
        if report is not None:
            self._engine.report(report)

    def activate(self, event_id: EventId) -> None:
        """Say that a deferred decision was really shown; see `Client.activate`. There is nothing to wait for."""
        report = self._front.activation(event_id)
        if report is not None:
            self._engine.report(report)

    @property
    def stats(self) -> ClientStats:
        """What became of the calls so far."""
        return self._engine.stats

    async def flush(self, timeout_s: float = _FLUSH_S) -> bool:
        """Wait until everything reported is sent. Returns whether it was, within the time."""
        return await self._engine.flush(timeout_s)

    async def close(self, timeout_s: float = _FLUSH_S) -> None:
        """Send what waits, within the time, and let go of everything. Decisions fall back from here on."""
        await self._engine.close(timeout_s)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
