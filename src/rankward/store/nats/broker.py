"""The connection to the JetStream servers: one for each process, on a thread of its own, for callers of both kinds."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import msgspec
import nats.errors
import nats.js.errors
import uvloop
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, KeyValueConfig, PubAck, RetentionPolicy, StorageType, StreamConfig

from rankward.errors import RankwardError, ServersAway, StorageFull, StoreUnavailable
from rankward.store.sqlite.durable import PRIVATE, write_durably

logger = logging.getLogger(__name__)

T = TypeVar("T")

OLDEST_SERVER = (2, 11, 0)
"""Keys that expire one by one, and what the tests run on, need a server no older than this."""
SERVERS_SUBJECT = "rankward.servers"
"""Where our server configurations let an application ask servers for their state; else only the system account may."""
ACK_S = 5.0
"""How long a publisher waits for the quorum before it says that the store is not available."""
_CONNECT_S = 5.0
_ANSWER_S = 5.0  # for a server to tell its state that is not known to be away
_PORT = 4222
_MAKING_S = 60.0  # servers on a slow machine elect a leader for each stream, one after the other
_MADE_S = 1.0
_AGAIN_S = 0.1
_LEADERLESS_PAUSE_S = 0.1
_UNAVAILABLE = 503  # status of JetStream that says: not now
_NO_MESSAGE = 10037  # error of JetStream that says: the stream is there, and no such message in it
_BEYOND = 1 << 62  # no stream has had so many messages
_FULL = {10077, 10047, 10023}  # errors of JetStream that say: no room


class BrokerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Where the servers are, and what is asked of them. It lies in the data folder of each node."""

    servers: tuple[str, ...]  # URLs, nats:// or tls://
    prefix: str = "rankward"  # of all subjects, streams and buckets: one for each installation on the servers
    replicas: int = 1  # of each stream: 1, 3 or 5
    credentials: str | None = None  # path of a credentials file
    tls_ca: str | None = None  # path of the certificate of whoever signed the servers'
    accept_lazy_flush: bool = False  # whether servers may keep what they have acknowledged in memory for a while
    node: str = ""  # name of this node among the others; empty: that of its machine

    @property
    def shown(self) -> Sequence[str]:
        """The servers, as people and logs may see them: without passwords."""
        return [f"{url.hostname}:{url.port or _PORT}" for url in map(urlsplit, self.servers)]


class _Failure(NamedTuple):
    """What a call came to that failed."""

    error: RankwardError


class Broker:
    """Speaks with the servers. Safe to share between threads and event loops."""

    def __init__(self, options: BrokerOptions, *, name: str = "rankward") -> None:
        """Connect.

        Args:
            options: where to.
            name: what the servers' own tools show of this connection.

        Raises:
            ServersAway: no server answers.
            StoreUnavailable: what answers cannot be relied on.
        """
        self.options = options
        self._name = name
        self._closing = False
        self._trouble = ""  # what the client said last of a connection that cannot be made
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="broker", daemon=True)
        self._thread.start()
        self.client = Client()
        self.js: JetStreamContext = self.client.jetstream(timeout=ACK_S)
        self._doubt: asyncio.Task[None] | None = None  # whether the server at hand can still do anything
        try:
            self.call(self._connect)
            self.call(self._check)
        except BaseException:
            self.close()
            raise

    def call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine beside the connection, and wait for it. Not for event loops: they would stand still.

        Raises:
            StoreUnavailable: the servers do not answer, or refuse.
            StorageFull: they have no room.
        """
        return _given(asyncio.run_coroutine_threadsafe(self._try(work), self._loop).result())

    async def ask(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine beside the connection, from another event loop.

        Raises:
            StoreUnavailable: the servers do not answer, or refuse.
            StorageFull: they have no room.
        """
        return _given(await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._try(work), self._loop)))

    def begin(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin a coroutine beside the connection, which sees to its own failures. Waits for nothing."""
        asyncio.run_coroutine_threadsafe(work(), self._loop)

    def require_connection(self) -> None:
        """Refuse at once what would wait for a connection, or be sent when nobody wants it any more.

        Raises:
            ServersAway: there is none at this moment.
        """
        if not self.client.is_connected:
            raise ServersAway("there is no connection to the JetStream servers: try again in a second")

    async def publish(self, subject: str, body: bytes, headers: dict[str, Any] | None = None) -> PubAck:
        """Publish, and wait until the quorum has it. Runs beside the connection.

        While a stream has no leader, nobody receives what is published: so it can be sent again, and is.
        """
        give_up_s = self._loop.time() + ACK_S
        while True:
            try:
                return await self.js.publish(subject, body, timeout=ACK_S, headers=headers)
            except nats.js.errors.NoStreamResponseError:
                if self._loop.time() > give_up_s:
                    raise
                await asyncio.sleep(_LEADERLESS_PAUSE_S)

    def subject(self, *parts: str) -> str:
        """Name a subject of this installation."""
        return ".".join((self.options.prefix, *parts))

    def stream(self, *parts: str) -> str:
        """Name a stream or bucket of this installation."""
        return "-".join((self.options.prefix, *parts))

    async def ensure_stream(self, name: str, subjects: list[str], **more: Any) -> None:
        """Make a stream that is kept for good, unless it is there. Runs beside the connection.

        Args:
            name: of the stream.
            subjects: what it keeps.
            more: further settings, by the names of `StreamConfig`.
        """
        config = StreamConfig(
            name=name,
            subjects=subjects,
            retention=RetentionPolicy.LIMITS,
            storage=StorageType.FILE,
            discard=DiscardPolicy.OLD,
            num_replicas=self.options.replicas,
            allow_direct=True,
            **more,
        )
        await self.ensure(name, lambda: self.js.add_stream(config))

    async def ensure(self, stream: str, make: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Have a stream made, unless it is there, and wait until it answers. Runs beside the connection.

        Where others make it at this moment, servers say for a while that there is one, that there is none, or nothing
        at all; and what they say of it, before it has a leader, does not mean that it can be read.

        Args:
            stream: its name; a bucket is a stream, too.
            make: makes it.
        """
        deadline_s = time.monotonic() + _MAKING_S
        while True:
            try:
                await asyncio.wait_for(self._read_nothing(stream), _MADE_S)
                return
            except (nats.js.errors.NotFoundError, TimeoutError):
                if time.monotonic() > deadline_s:
                    raise
            with contextlib.suppress(nats.js.errors.BadRequestError, TimeoutError):
                await asyncio.wait_for(make(), _MADE_S)
            await asyncio.sleep(_AGAIN_S)

    async def ensure_bucket(self, config: KeyValueConfig) -> None:
        """Have a key-value bucket made, unless it is there, and wait until it answers. Runs beside the connection."""
        await self.ensure(f"KV_{config.bucket}", lambda: self.js.create_key_value(config))

    async def _read_nothing(self, stream: str) -> None:
        """Ask for a message that is not there, which only the stream's leader can tell."""
        try:
            await self.js.get_msg(stream, _BEYOND)
        except nats.js.errors.NotFoundError as error:
            if error.err_code != _NO_MESSAGE:
                raise

    def count_servers(self) -> int:
        """Say how many servers keep JetStream's streams together; if they do not let us see it, how many were named."""
        states = self.call(self._states)
        sizes = [int(state.get("meta", {}).get("cluster_size", 1)) for state in states.values()]
        return max(sizes, default=len(self.options.servers))

    async def _try(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T | _Failure:
        """Hand over what failed, rather than raise it where nobody may be left to hear it: who asked may have gone."""
        try:
            return await work()
        except RankwardError as error:
            return _Failure(error)
        except (TimeoutError, nats.errors.Error, OSError) as error:
            failed = self.failed(error)
            failed.__cause__ = error
            return _Failure(failed)

    def failed(self, error: Exception) -> RankwardError:
        """Say what failed in our own terms; doubt the server if it did not answer. Runs beside the connection."""
        refused = isinstance(error, nats.js.errors.APIError) and error.code != _UNAVAILABLE
        if not refused and self.client.is_connected and (self._doubt is None or self._doubt.done()):
            self._doubt = asyncio.create_task(self._look_elsewhere())
        return as_ours(error)

    async def _look_elsewhere(self) -> None:
        """Go on with another server if the one at hand is cut off from the others, though not from us."""
        try:
            await self.js.account_info()
        except (TimeoutError, nats.errors.Error, OSError) as error:
            url = self.client.connected_url  # with its password, which is nobody's business
            server = f"{url.hostname}:{url.port}" if url is not None else "the server"
            logger.warning("%s does nothing (%s): trying another one", server, error)
            await self.client.force_reconnect()

    async def _connect(self) -> None:
        options = self.options
        more: dict[str, Any] = {}
        if options.credentials is not None:
            more["user_credentials"] = options.credentials
        if options.tls_ca is not None:
            import ssl  # noqa: PLC0415

            more["tls"] = ssl.create_default_context(cafile=options.tls_ca)
        try:
            await asyncio.wait_for(
                self.client.connect(
                    servers=list(options.servers),
                    name=self._name,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=1,
                    connect_timeout=2,
                    ping_interval=5,
                    max_outstanding_pings=2,
                    error_cb=self._note,
                    disconnected_cb=self._note_lost,
                    reconnected_cb=self._note_found,
                    allow_reconnect=True,
                    **more,
                ),
                _CONNECT_S * max(1, len(options.servers)),
            )
        except (TimeoutError, nats.errors.Error, OSError) as error:
            reason = str(error) or self._trouble or "timeout"
            raise ServersAway(
                f"no server answers at {', '.join(options.shown)} ({reason}): check that it runs, "
                "and the address, user and password"
            ) from error

    async def _check(self) -> None:
        """Refuse servers that are too old, or that lose what they have acknowledged when the power fails."""
        version = tuple(int(part) for part in re.findall(r"\d+", str(self.client.connected_server_version))[:3])
        if version < OLDEST_SERVER:
            raise StoreUnavailable(
                f"a server at {', '.join(self.options.shown)} is NATS {'.'.join(map(str, version))}: "
                f"{'.'.join(map(str, OLDEST_SERVER))} or newer is needed"
            )
        if self.options.accept_lazy_flush:
            return
        try:
            states = await self._states()
        except TimeoutError as error:
            raise ServersAway(
                f"no server says within {_ANSWER_S:.0f} s whether it flushes what it acknowledges to the disk "
                f"({self._trouble or 'timeout'}): it is busy, or this account may not publish to {SERVERS_SUBJECT}, "
                "which docs/cluster.md shows how to allow"
            ) from error
        if not states:
            raise StoreUnavailable(
                "it cannot be seen whether the servers flush what they acknowledge to the disk: export the service "
                f"$SYS.REQ.SERVER.PING.VARZ to this account as {SERVERS_SUBJECT}, as docs/cluster.md shows, or say "
                "--accept-lazy-flush"
            )
        for name, state in states.items():
            if not state.get("config", {}).get("sync_always", False):
                raise StoreUnavailable(
                    f"the server {name} keeps what it has acknowledged in memory for up to its sync_interval, and a "
                    "power failure would lose it: set `sync_interval: always` in its jetstream block, or say "
                    "--accept-lazy-flush"
                )

    async def _states(self) -> dict[str, dict[str, Any]]:
        """Ask the servers that keep streams for the state of their JetStream. Returns it by their names.

        All that are there answer, if their configuration lets more than one. Who is known to be away is not waited for.

        Raises:
            TimeoutError: none does, though one may be asked.
        """
        states: dict[str, dict[str, Any]] = {}
        inbox = self.client.new_inbox()
        answers = await self.client.subscribe(inbox)
        try:
            await self.client.publish(SERVERS_SUBJECT, b"", reply=inbox)
            while len(states) < _expected(states):
                answer = await answers.next_msg(timeout=_ANSWER_S)
                if answer.headers is not None and "Status" in answer.headers:
                    break  # nobody may be asked
                told = msgspec.json.decode(answer.data)
                state = told["data"].get("jetstream")
                if state is not None:
                    states[told["server"]["name"]] = state
        except nats.errors.TimeoutError:
            if not states:
                raise
        finally:
            await answers.unsubscribe()
        return states

    def close(self) -> None:
        """Hang up."""
        with contextlib.suppress(RankwardError):
            self.call(self._hang_up)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _note(self, error: Exception) -> None:
        self._trouble = str(error) or type(error).__name__
        # While there is no connection each try fails, every second, in each process.
        level = logging.WARNING if self.client.is_connected else logging.DEBUG
        logger.log(level, "the connection to the servers: %s", self._trouble)

    async def _note_lost(self) -> None:
        if not self._closing:
            logger.warning("the connection to the servers is lost, and is made again")

    async def _note_found(self) -> None:
        logger.warning("there is a connection to the servers again")

    async def _hang_up(self) -> None:
        self._closing = True
        with contextlib.suppress(RuntimeError):  # the transport has gone, and something was left to be sent
            await self.client.close()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:  # the client leaves some that wait for what will not come
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


def _expected(states: Mapping[str, Mapping[str, Any]]) -> int:
    """How many servers are to tell their state, by what those say that have: all but whoever is known to be away."""
    metas = [state.get("meta", {}) for state in states.values()]
    peers = [peer for meta in metas for peer in meta.get("replicas") or ()]
    away = {peer["name"] for peer in peers if peer.get("offline", False)} - states.keys()
    return max((int(meta.get("cluster_size", 1)) for meta in metas), default=1) - len(away)


def _given(outcome: T | _Failure) -> T:
    """Return what was asked for, or raise why there is none."""
    if isinstance(outcome, _Failure):
        raise outcome.error
    return outcome


def as_ours(error: Exception) -> RankwardError:
    """Say what failed in our own terms."""
    if isinstance(error, nats.js.errors.APIError):
        if error.err_code in _FULL:
            return StorageFull(
                f"the JetStream servers have no room ({error.description}): give them more, or keep less"
            )
        kind = ServersAway if error.code == _UNAVAILABLE else StoreUnavailable
        return kind(f"JetStream refused: {error.description} (code {error.err_code})")
    reason = str(error) or type(error).__name__
    return ServersAway(f"the JetStream servers do not answer ({reason}): try again in a second")


def write_options(path: Path, options: BrokerOptions) -> None:
    """Write where a node's servers are, for its owner alone to read. Durable on return.

    Raises:
        OSError: it cannot be written.
    """
    write_durably(path, msgspec.json.format(msgspec.json.encode(options)), mode=PRIVATE)


def read_options(path: Path) -> BrokerOptions | None:
    """Read where a node's servers are; None: the folder is not a node's, but an embedded installation.

    Raises:
        StoreUnavailable: it cannot be read.
    """
    try:
        options = msgspec.json.decode(path.read_bytes(), type=BrokerOptions)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise StoreUnavailable(f"{path} cannot be read: {error}") from error
    return options if options.node else msgspec.structs.replace(options, node=socket.gethostname())
