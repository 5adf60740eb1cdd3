"""Asks a service over HTTP: a decision within a deadline, reports in the background."""

from __future__ import annotations

import asyncio
import ssl
import time
from typing import Any

import httpx

from rankward.client.calls import (
    Answer,
    Asked,
    Letter,
    Question,
    Reason,
    Report,
    SlotsAsked,
    UnansweredError,
    read_refusal,
    write_letter,
    write_question,
    write_slots_question,
)
from rankward.client.outbox import Outbox
from rankward.client.stats import ClientStats, Tally
from rankward.decision import Decision, SlotsDecision
from rankward.records import Activation

_PATIENCE_S = 10.0  # of anything that nobody waits for
_LATE_MAX = 64  # questions that may stay open after their deadline
_CONNECTIONS = 100


class Remote:
    """Questions and reports to one loop of a service. It belongs to one event loop."""

    def __init__(
        self,
        endpoint: str,
        key: str,
        *,
        confirm: bool,
        queue_size: int,
        verify: ssl.SSLContext | bool,
        tally: Tally,
    ) -> None:
        self._tally = tally
        self._confirm = confirm
        self._http = httpx.AsyncClient(
            base_url=endpoint.rstrip("/"),
            headers={"Ocp-Apim-Subscription-Key": key, "Content-Type": "application/json"},
            timeout=_PATIENCE_S,
            limits=httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS),
            verify=verify,
        )
        self._outbox = Outbox(self._deliver, size=queue_size, tally=tally)
        self._open: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def rank(self, asked: Asked, *, deadline_s: float) -> Decision:
        """Ask for a decision.

        A question that is not answered in time stays open for a while: breaking it off would close its connection,
        and the next one would have to begin by opening another. It is counted if the service had decided.

        Args:
            asked: what to decide.
            deadline_s: when to give up, on the clock of `time.monotonic`.

        Raises:
            CallerError: the question cannot be written, or the service refuses it.
            UnansweredError: there is no answer, or none in time.
        """
        return await self._in_time(write_question(asked, confirms=self._confirm), deadline_s)

    async def rank_slots(self, asked: SlotsAsked, *, deadline_s: float) -> SlotsDecision:
        """Ask for a decision for several slots; see `rank`."""
        return await self._in_time(write_slots_question(asked, confirms=self._confirm), deadline_s)

    async def _in_time(self, question: Question[Answer], deadline_s: float) -> Answer:
        if self._closed:
            raise UnansweredError("the client is closed", Reason.CLOSED)
        left_s = max(0.0, deadline_s - time.monotonic())
        asking = asyncio.create_task(self._ask(question, patience_s=max(left_s, _PATIENCE_S)))
        self._open.add(asking)
        in_time = False
        try:
            answered, _ = await asyncio.wait({asking}, timeout=left_s)
            in_time = bool(answered)
        finally:
            asking.add_done_callback(self._note if in_time else self._note_late)
        if not in_time:
            if len(self._open) > _LATE_MAX:
                asking.cancel()
            raise UnansweredError("there was no answer in time", Reason.TIMEOUT)
        if asking.cancelled():
            raise UnansweredError("the client was closed meanwhile", Reason.CLOSED)
        decision = asking.result()
        self._tally.decided()
        if question.confirms:
            self._outbox.put(write_letter(Activation(event_id=question.event_id)))
        return decision

    async def _ask(self, question: Question[Answer], *, patience_s: float) -> Answer:
        try:
            answer = await self._post(question.path, question.body, patience_s)
        except httpx.TransportError as error:
            reason = Reason.TIMEOUT if isinstance(error, httpx.TimeoutException) else Reason.UNREACHABLE
            raise UnansweredError(f"the service cannot be reached: {error!r}", reason) from error
        except httpx.RequestError as error:
            raise UnansweredError(f"the answer cannot be decoded: {error!r}", Reason.FAILED) from error
        if answer.status_code != 201:
            raise read_refusal(answer.status_code, answer.headers, answer.content)
        return question.read(answer.content)

    async def _post(self, path: str, body: bytes, patience_s: float) -> httpx.Response:
        try:
            return await self._http.post(path, content=body, timeout=patience_s)
        except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
            # What a connection looks like that the service closed while nobody used it. Asking again does no
            # harm: the service knows the event id.
            return await self._http.post(path, content=body, timeout=patience_s)

    def _note(self, asking: asyncio.Task[Any]) -> bool:
        self._open.discard(asking)
        return not asking.cancelled() and asking.exception() is None

    def _note_late(self, asking: asyncio.Task[Any]) -> None:
        if self._note(asking):
            self._tally.count("late")

    def report(self, report: Report) -> None:
        """Send a reward or activation when it can be."""
        if self._closed:
            self._tally.count("dropped")
        else:
            self._outbox.put(write_letter(report))

    async def _deliver(self, letter: Letter) -> float | None:
        try:
            answer = await self._http.post(letter.path, content=letter.body)
        except httpx.RequestError:
            return 0.0
        except Exception as error:  # a mistake of ours: the reports behind it must get there
            self._tally.count("dropped")
            self._tally.stumble("a report cannot be sent", error)
            return None
        if answer.status_code == 204:
            self._tally.count("sent")
            return None
        refusal = read_refusal(answer.status_code, answer.headers, answer.content)
        if isinstance(refusal, UnansweredError):
            return refusal.retry_after_s
        self._tally.count("dropped")
        self._tally.complain(refusal)
        return None

    async def flush(self, timeout_s: float) -> bool:
        """Wait until all reports are sent. Returns whether they were, within the time."""
        return await self._outbox.flush(timeout_s)

    async def close(self, timeout_s: float) -> None:
        """Send what waits, as far as time allows, and let go of the connections."""
        self._closed = True
        await self.flush(timeout_s)
        await self._outbox.close()
        for asking in self._open:
            asking.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        await self._http.aclose()

    @property
    def stats(self) -> ClientStats:
        """What became of everything so far."""
        return self._tally.stats(len(self._outbox))
