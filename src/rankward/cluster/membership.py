"""Which nodes are alive: each keeps a key alive whose value says what it is, and sees the keys of the others.

The keys lie in memory, on the servers, whose clock lets them expire. Being alive decides who takes a loop, and nothing
else: that nobody else acts for it is seen to by terms, whatever any clock says.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Sequence

import msgspec
import nats.js.errors
from nats.js.api import KeyValueConfig, StorageType

from rankward.cluster.standing import Member
from rankward.errors import RankwardError
from rankward.store.nats.broker import Broker

logger = logging.getLogger(__name__)

EXPIRY_S = 5.0
"""So long after its last sign of life a node is taken for dead."""
CUT_OFF_S = 4.0
"""So long after its last sign of life arrived a worker stops acting for loops: before others take them."""
_BEAT_S = 1.0
_PATIENCE_S = 2.0
_BUCKET = "nodes"


class Membership:
    """Keeps a node's key alive in a thread of its own, so that no long step of anything else makes it look dead."""

    def __init__(self, broker: Broker, node: Member, *, timer: Callable[[], int]) -> None:
        """Prepare: nothing is said before `start`.

        Args:
            broker: the connection.
            node: what is said of this node.
            timer: microseconds since some moment, on which no setting of the clock tells.
        """
        self._broker = broker
        self._node = node
        self._timer = timer
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="membership", daemon=True)
        self._living: frozenset[str] = frozenset()
        self._acknowledged_s = -CUT_OFF_S  # when the last sign of life that arrived was sent
        self._steady_s = 0.0  # since when there was no gap between them
        self._sequence = 0

    def start(self) -> None:
        """Begin to show signs of life, the first of them before this returns."""
        self._beat()
        self._thread.start()

    def say(self, *, works: bool, loops: int, behind: int) -> None:
        """Change what the next sign of life says."""
        self._node = msgspec.structs.replace(self._node, works=works, loops=loops, behind=behind)

    @property
    def name(self) -> str:
        """Of this node."""
        return self._node.name

    @property
    def living(self) -> frozenset[str]:
        """The names of the workers that are alive, as far as is known."""
        return self._living

    @property
    def cut_off(self) -> bool:
        """Whether this node may look dead to the others."""
        return self._now_s() - self._acknowledged_s >= CUT_OFF_S

    @property
    def settled(self) -> bool:
        """Whether it has seen the others for long enough to tell that whoever is missing is dead."""
        return not self.cut_off and self._now_s() - self._steady_s >= EXPIRY_S

    def _now_s(self) -> float:
        return self._timer() / 1e6

    def _run(self) -> None:
        while not self._stop.wait(_BEAT_S):
            self._beat()

    def _beat(self) -> None:
        sent_s = self._now_s()
        try:
            sequence, living = self._broker.call(self._sign)
        except RankwardError as error:
            level = logging.WARNING if self._broker.client.is_connected else logging.DEBUG  # else that is known already
            logger.log(level, "no sign of life reached the servers: %s", error)
            return
        if sent_s - self._acknowledged_s >= CUT_OFF_S or sequence <= self._sequence:
            self._steady_s = sent_s  # a gap, or the servers have forgotten all keys
        self._acknowledged_s, self._sequence, self._living = sent_s, sequence, living

    async def _sign(self) -> tuple[int, frozenset[str]]:
        node = self._node
        subject, value = _subject(self._broker, node), msgspec.json.encode(node)
        try:
            ack = await self._broker.js.publish(subject, value, timeout=_PATIENCE_S)
        except nats.js.errors.NoStreamResponseError:
            await _make_bucket(self._broker)
            ack = await self._broker.js.publish(subject, value, timeout=_PATIENCE_S)
        living = await _subjects(self._broker, works=True)
        return ack.seq, frozenset(subject.rpartition(".")[2] for subject in living)

    def close(self) -> None:
        """Say goodbye: the others need not wait."""
        self._stop.set()
        self._thread.join()
        stream, subject = _stream(self._broker), _subject(self._broker, self._node)
        with contextlib.suppress(RankwardError):
            self._broker.call(lambda: self._broker.js.purge_stream(stream, subject=subject))


def read_members(broker: Broker) -> Sequence[Member]:
    """Read what the living nodes say of themselves, by name.

    Raises:
        StoreUnavailable: the servers do not answer.
    """

    async def read() -> list[Member]:
        nodes = []
        for subject in [*await _subjects(broker, works=True), *await _subjects(broker, works=False)]:
            with contextlib.suppress(nats.js.errors.NotFoundError):  # it has just expired
                found = await broker.js.get_last_msg(_stream(broker), subject, direct=True)
                nodes.append(msgspec.json.decode(found.data or b"", type=Member))
        newest = {node.name: node for node in sorted(nodes, key=lambda node: node.works)}
        return [newest[name] for name in sorted(newest)]

    return broker.call(read)


async def _make_bucket(broker: Broker) -> None:
    config = KeyValueConfig(
        bucket=broker.stream(_BUCKET),
        ttl=EXPIRY_S,
        storage=StorageType.MEMORY,
        replicas=broker.options.replicas,
        direct=True,
    )
    await broker.ensure_bucket(config)


async def _subjects(broker: Broker, *, works: bool) -> list[str]:
    """Name the subjects of all living nodes of one kind."""
    kind = f"$KV.{broker.stream(_BUCKET)}.{_kind(works=works)}.>"
    try:
        info = await broker.js.stream_info(_stream(broker), subjects_filter=kind)
    except nats.js.errors.NotFoundError:
        return []
    return sorted(info.state.subjects or ())


def _stream(broker: Broker) -> str:
    return f"KV_{broker.stream(_BUCKET)}"


def _subject(broker: Broker, node: Member) -> str:
    return f"$KV.{broker.stream(_BUCKET)}.{_kind(works=node.works)}.{node.name}"


def _kind(*, works: bool) -> str:
    return "worker" if works else "api"
