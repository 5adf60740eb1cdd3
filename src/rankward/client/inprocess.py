"""Ranks in the caller's process, with the service's model: it is kept fresh, and what was decided is uploaded."""

from __future__ import annotations

import asyncio
import io
import ssl
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

import httpx
import msgspec

from rankward.client.calls import API, Asked, Reason, Report, UnansweredError, read_refusal
from rankward.client.spool import Spool
from rankward.client.stats import ClientStats, Tally
from rankward.decision import Decision, read_request, write_decision
from rankward.errors import CallerError, RankwardError
from rankward.ranking.decide import decide
from rankward.ranking.features import FeatureBounds
from rankward.records import (
    Action,
    EventId,
    Features,
    Interaction,
    LearningMode,
    ModelId,
    TimeUs,
)
from rankward.registry.archive import unpack
from rankward.settings import Limits, parse_duration
from rankward.uploads.flat import FlatError
from rankward.uploads.write import split_batch, write_batch, write_interaction, write_outcome
from rankward.vw.bins import read_bins
from rankward.vw.learner import Learner

INTERACTIONS, OBSERVATIONS = "interactions", "observations"

_MODEL = "/model?withBins=true"
_MODEL_BYTES_MAX = 1 << 32  # of the service's own model: it is trusted
Waiting = TypeVar("Waiting", Interaction, Report)

_PATIENCE_S = 10.0
_GATHER_S = 0.2  # before what was decided is uploaded, so that batches grow
_BATCH_EVENTS = 500
_WRITE_EVENTS = 20  # in one turn of the event loop, which has the application's pages to serve
_BATCH_BYTES = 1_000_000
_PAUSE_S = 0.2  # after a failure; it doubles
_PAUSE_MAX_S = 30.0
_FLUSH_STEP_S = 0.05
_REMEMBERED = 1_000  # decisions under ids of the caller's own, to be repeated


class _Configuration(msgspec.Struct, rename="camel"):
    """What of the service's configuration deciding needs."""

    exploration_percentage: float
    reward_wait_time: str
    learning_mode: LearningMode = LearningMode.ONLINE


class _Policy(msgspec.Struct):
    """The learning policy: its name is the loop's id."""

    name: str


class _Batch(msgspec.Struct, frozen=True):
    """A body to upload."""

    kind: str
    body: bytes
    count: int  # of its events


class _Scorer:
    """A model of the service, ready to score; `ranking.decide.Policy`. Threads take turns."""

    def __init__(self, model_id: ModelId, model: bytes, exploration: float) -> None:
        """Load a model.

        Args:
            model_id: of the model.
            model: as the service sends it: bare, or in an archive with its bins.
            exploration: of the loop.

        Raises:
            InvalidRequest, LearnerRefusedError, ValueError: it cannot be used.
        """
        # A model holds its own options; only the exploration is the loop's, and may have changed since.
        self.model_id = model_id
        self.exploration = exploration
        self.model = model
        parcel = unpack(io.BytesIO(model), bound=_MODEL_BYTES_MAX)
        bins = None if parcel.bins is None else read_bins(parcel.bins)
        self._learner = Learner(f"--epsilon {exploration!r}", parcel.model, bins=bins)
        self._turn = threading.Lock()

    def pmf(self, context: Features, actions: Sequence[Action]) -> list[float]:
        """See `ranking.decide.Policy`."""
        with self._turn:
            return self._learner.pmf(context, actions)


class _Loop(msgspec.Struct, frozen=True):
    """A loop as the service last described it."""

    loop_id: str
    mode: LearningMode
    exploration: float
    reward_wait_us: int
    scorer: _Scorer | None  # None: the service has no model yet


class InProcess:
    """Decides here. Its background belongs to one event loop; `decide` and `report` may be called from any thread."""

    def __init__(
        self,
        endpoint: str,
        key: str,
        *,
        refresh_s: float,
        spool: Spool | None,
        queue_size: int,
        verify: ssl.SSLContext | bool,
        tally: Tally,
    ) -> None:
        self._tally = tally
        self._refresh_s = refresh_s
        self._spool = spool
        self._queue_size = queue_size
        self._http = httpx.AsyncClient(
            base_url=endpoint.rstrip("/"),
            headers={"Ocp-Apim-Subscription-Key": key},
            timeout=_PATIENCE_S,
            verify=verify,
        )
        self._limits = Limits()
        self._bounds = FeatureBounds()
        self._loop: _Loop | None = None
        self._ready = asyncio.Event()
        self._lock = threading.Lock()
        self._decided: deque[tuple[Interaction, TimeUs]] = deque()
        self._reports: deque[tuple[Report, TimeUs]] = deque()
        self._written: dict[str, list[bytes]] = {INTERACTIONS: [], OBSERVATIONS: []}  # on their way into batches
        self._batches: deque[_Batch] = deque()
        self._named: OrderedDict[EventId, Interaction] = OrderedDict()
        self._last_us = 0
        self._hurry = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False

    @property
    def ready(self) -> bool:
        """Whether the loop is known, so that `decide` can."""
        return self._loop is not None

    def start(self) -> None:
        """Begin to follow the service and to upload, in the running event loop."""
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._follow()), asyncio.create_task(self._upload())]

    async def rank(self, asked: Asked, *, deadline_s: float) -> Decision:
        """Decide, once the loop is known.

        Raises:
            CallerError: something in the question cannot be used.
            UnansweredError: the loop does not become known in time, or the model cannot decide.
        """
        self.start()
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, deadline_s - time.monotonic())):
                await self._ready.wait()
        return self.decide(asked)

    def decide(self, asked: Asked) -> Decision:
        """Decide.

        Raises:
            CallerError: something in the question cannot be used.
            UnansweredError: the loop is not known yet, or the model cannot decide.
        """
        loop = self._loop
        if self._closed:
            raise UnansweredError("the client is closed", Reason.CLOSED)
        request = read_request(
            asked.context,
            asked.actions,
            event_id=asked.event_id,
            excluded=asked.excluded,
            deferred=asked.deferred,
            limits=self._limits,
            bounds=self._bounds,
        )
        if loop is None:
            raise UnansweredError("the service has not said yet how to decide", Reason.TIMEOUT)
        try:
            interaction = decide(
                request,
                loop.scorer,
                loop_id=loop.loop_id,
                mode=loop.mode,
                exploration=loop.exploration,
                reward_wait_us=loop.reward_wait_us,
            )
        except RankwardError as error:
            raise UnansweredError(f"the model cannot decide: {error}", Reason.FAILED) from error
        with self._lock:
            known = self._named.get(request.event_id) if asked.named else None
            if known is not None and known.same_request(interaction):
                return write_decision(known)
            if asked.named:
                self._named[request.event_id] = interaction
                if len(self._named) > _REMEMBERED:
                    self._named.popitem(last=False)
            self._decided.append((interaction, self._now_us()))
            self._bound(self._decided)
        self._tally.decided()
        return write_decision(interaction)

    def report(self, report: Report) -> None:
        """Upload a reward or activation when it can be."""
        if self._closed:
            self._tally.count("dropped")
            return
        with self._lock:
            self._reports.append((report, self._now_us()))
            self._bound(self._reports)

    def _now_us(self) -> TimeUs:
        """The time, never twice the same: an event is known by its bytes, and two alike would be one."""
        self._last_us = max(self._last_us + 1, time.time_ns() // 1_000)
        return self._last_us

    def _bound(self, queue: deque[tuple[Interaction, TimeUs]] | deque[tuple[Report, TimeUs]]) -> None:
        while len(queue) > self._queue_size:
            queue.popleft()
            self._tally.count("dropped")

    # Following the service

    async def _follow(self) -> None:
        while True:
            try:
                self._loop = await self._read_loop(self._loop)
                self._ready.set()
                self._tally.back()
            except CallerError as error:
                self._tally.complain(error)
            except (RankwardError, httpx.RequestError, msgspec.MsgspecError, ValueError) as error:
                self._tally.away("the model is not kept fresh", error)
            except Exception as error:  # a mistake of ours: what is known serves on
                self._tally.stumble("the model is not kept fresh", error)
            await asyncio.sleep(self._refresh_s if self.ready else min(self._refresh_s, _PAUSE_S))

    async def _read_loop(self, known: _Loop | None) -> _Loop:
        """Read the loop's description, and its model if it is another one."""
        policy = known or msgspec.json.decode((await self._get("/configurations/policy")).content, type=_Policy)
        answer = await self._get("/configurations/service")
        configuration = msgspec.json.decode(answer.content, type=_Configuration)
        exploration = configuration.exploration_percentage
        return _Loop(
            loop_id=policy.loop_id if isinstance(policy, _Loop) else policy.name,
            mode=configuration.learning_mode,
            exploration=exploration,
            reward_wait_us=round(parse_duration(configuration.reward_wait_time).total_seconds() * 1_000_000),
            scorer=await self._read_model(known.scorer if known is not None else None, exploration),
        )

    async def _read_model(self, known: _Scorer | None, exploration: float) -> _Scorer | None:
        """Load the serving model, if it is not the one that is known."""
        headers = (await self._get(_MODEL, "HEAD")).headers
        model_id = _model_id(headers)
        if known is not None and (known.model_id, known.exploration) == (model_id, exploration):
            return known
        if known is not None and known.model_id == model_id:
            model = known.model
        elif headers.get("content-length") == "0":
            return None
        else:
            answer = await self._get(_MODEL)
            model_id, model = _model_id(answer.headers), answer.content
        return await asyncio.to_thread(_Scorer, model_id, model, exploration) if model else None

    async def _get(self, path: str, method: str = "GET") -> httpx.Response:
        answer = await self._http.request(method, API + path)
        if answer.status_code != 200:
            raise read_refusal(answer.status_code, answer.headers, answer.content)
        return answer

    # Uploading

    async def _upload(self) -> None:
        failures = 0
        while True:
            pause = _GATHER_S if failures == 0 else min(_PAUSE_MAX_S, _PAUSE_S * 2**failures)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._hurry.wait()
            self._hurry.clear()
            failures = 0 if await self._upload_all() else min(failures + 1, 16)

    async def _upload_all(self) -> bool:
        """Upload what waits, oldest first: from disk, then from memory. Returns whether it could be."""
        try:
            while self._spool is not None and (found := await asyncio.to_thread(self._spool.oldest)) is not None:
                spooled, body = found
                if body is None:
                    self._tally.count("dropped", spooled.count)
                else:
                    await self._send(_Batch(spooled.kind, body, spooled.count))
                await asyncio.to_thread(self._spool.remove, spooled)
            await self._gather()
            while self._batches:
                await self._send(self._batches[0])
                self._batches.popleft()
        except (UnansweredError, httpx.RequestError, OSError) as error:
            self._tally.away("uploads wait", error)
        except CallerError as error:  # the key or the endpoint, which may be mended
            self._tally.complain(error)
        except Exception as error:  # a mistake of ours, which must not end all uploads
            self._tally.stumble("uploads wait", error)
        else:
            return True
        await self._gather()
        await asyncio.to_thread(self._put_by)
        return False

    async def _gather(self) -> None:
        """Make batches of what waits: decisions first, then what was reported of them."""
        decided, reports = len(self._decided), len(self._reports)
        await self._write(INTERACTIONS, self._decided, decided, write_interaction)
        await self._write(OBSERVATIONS, self._reports, reports, write_outcome)

    async def _write(
        self, kind: str, queue: deque[tuple[Waiting, TimeUs]], count: int, write: Callable[..., bytes]
    ) -> None:
        """Move so many events from a queue into batches, a few at a time."""
        written = self._written[kind]
        while count > 0 or written:
            with self._lock:
                taken = [queue.popleft() for _ in range(min(count, _WRITE_EVENTS, len(queue)))]
            for record, time_us in taken:
                try:
                    written.append(write(record, time_us=time_us))
                except Exception as error:  # a mistake of ours: the events behind it must get there
                    self._tally.count("dropped")
                    self._tally.stumble("an event cannot be written", error)
            count = count - len(taken) if taken else 0
            if count == 0 or len(written) >= _BATCH_EVENTS:
                self._batches += _batches(kind, written)
                written.clear()
            await asyncio.sleep(0)

    def _put_by(self) -> None:
        """Keep the batches for later: on disk where there is a place, else in memory as far as there is room."""
        if self._spool is not None:
            try:
                while self._batches:
                    batch = self._batches[0]
                    self._tally.count("dropped", self._spool.put(batch.kind, batch.body, batch.count))
                    self._batches.popleft()
            except OSError as error:
                self._tally.away("what waits cannot be kept on disk", error)
        while sum(batch.count for batch in self._batches) > self._queue_size:
            self._tally.count("dropped", self._batches.popleft().count)

    async def _send(self, batch: _Batch) -> None:
        """Upload a batch. Events that the service refuses are given up one by one, and the rest goes on.

        Raises:
            RefusedError: it is not the batch that is refused, but its sender.
            UnansweredError, httpx.RequestError: it may be sent again.
        """
        answer = await self._http.post(f"{API}/logs/{batch.kind}", content=batch.body)
        if answer.status_code == 204:
            self._tally.count("sent", batch.count)
            return
        refusal = read_refusal(answer.status_code, answer.headers, answer.content)
        if answer.status_code != 400:
            raise refusal
        if batch.count > 1 and (events := _split(batch.body)) is not None:
            middle = len(events) // 2
            for half in (events[:middle], events[middle:]):
                await self._send(_Batch(batch.kind, write_batch(half), len(half)))
            return
        self._tally.count("dropped", batch.count)
        assert isinstance(refusal, CallerError), "400 is the caller's mistake"
        self._tally.complain(refusal)

    @property
    def _queued(self) -> int:
        spooled = self._spool.events if self._spool is not None else 0
        written = sum(map(len, self._written.values()))
        batched = sum(batch.count for batch in list(self._batches))
        return len(self._decided) + len(self._reports) + written + batched + spooled

    async def flush(self, timeout_s: float) -> bool:
        """Wait until all is uploaded. Returns whether it was, within the time."""
        self.start()
        try:
            async with asyncio.timeout(timeout_s):
                while self._queued:
                    self._hurry.set()
                    await asyncio.sleep(_FLUSH_STEP_S)
        except TimeoutError:
            return False
        return True

    async def close(self, timeout_s: float) -> None:
        """Upload what waits, as far as time allows; the rest stays on disk, if there is a folder for it."""
        self._closed = True
        await self.flush(timeout_s)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._gather()
        self._put_by()
        self._tally.count("dropped", sum(batch.count for batch in self._batches))
        self._batches.clear()
        if self._spool is not None:
            self._spool.close()
        await self._http.aclose()

    @property
    def stats(self) -> ClientStats:
        """What became of everything so far."""
        return self._tally.stats(self._queued)


def _batches(kind: str, events: Sequence[bytes]) -> list[_Batch]:
    """Put events into batches that a service takes."""
    batches: list[_Batch] = []
    taken: list[bytes] = []
    size = 0
    for event in events:
        if taken and (len(taken) == _BATCH_EVENTS or size + len(event) > _BATCH_BYTES):
            batches.append(_Batch(kind, write_batch(taken), len(taken)))
            taken, size = [], 0
        taken.append(event)
        size += len(event)
    return [*batches, _Batch(kind, write_batch(taken), len(taken))] if taken else batches


def _split(body: bytes) -> list[bytes] | None:
    """Take a batch apart into its events. None: it is damaged, as a file that lay on a disk may be."""
    try:
        return split_batch(body)
    except FlatError:
        return None


def _model_id(headers: httpx.Headers) -> ModelId:
    """Tell models apart: by their id, or by their date where a service does not say it."""
    return str(headers.get("etag", "")).strip('"') or str(headers.get("last-modified", ""))
