"""Holds the files of an installation to every promise, after whatever happened to it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from rankward.errors import RankwardError
from rankward.joining.reader import read_joined
from rankward.joining.service import JoiningService
from rankward.records import Interaction, InteractionHeader, Observation
from rankward.store.nats.event_log import ReplicatedEventLog
from rankward.store.nats.events import EventStream
from rankward.store.sqlite.joined_log import SqliteJoinedLog
from rankward.training.fold import Checkpoint, Fold
from rankward.wiring import Home
from tests.service import eventually

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankward.records import JoinedEntry, LogEntry
    from rankward.store.ports import Epoch, EventLog, JoinedLog, ModelVersion
    from tests.faults.traffic import Traffic
    from tests.service import RunningService

_ALL = 10_000_000


def is_learned(home: Home, loop: str) -> bool:
    """Whether all that a loop's log holds has been joined and learned."""

    async def read() -> bool:
        loop_id = home.catalog.loop(loop).loop_id
        log, joined = home.event_log(loop_id), home.joined_log(loop_id)
        try:
            headers = await log.read_headers(0, limit=_ALL)
            decided = sum(isinstance(entry.record, InteractionHeader) for entry in headers)
            learned = max((version.learned for version in home.catalog.versions(loop_id)), default=0)
            return decided == learned == (await joined.extent())[1]
        finally:
            await log.close()
            await joined.close()

    return asyncio.run(read())


def audit_nodes(nodes: Sequence[RunningService], loop: str, traffic: Traffic) -> None:
    """Wait until all is learned on every node of a cluster, hold its files to every promise, and compare them.

    What was refused may have been stored, and the log is let go on in time: as long as something comes, they are
    looked at anew.
    """
    while True:
        end = _end_of_stream(nodes[0].home, loop)
        for node in nodes:
            eventually(lambda node=node, end=end: _place(node.home, loop) >= end, f"{node.name} has all of the stream")  # type: ignore[misc]
            eventually(lambda node=node: is_learned(node.home, loop), f"{node.name} sees that all is learned")  # type: ignore[misc]
        audits = {node.name: audit(node.root, loop, traffic) for node in nodes}
        if _end_of_stream(nodes[0].home, loop) == end:
            break
    for (one, first), (other, second) in itertools.pairwise(audits.items()):
        assert first == second, f"{one} and {other} differ"


def _end_of_stream(home: Home, loop: str) -> int:
    assert home.broker is not None, "it is a node's"
    broker, stream = home.broker, EventStream(home.broker, home.catalog.loop(loop).loop_id)
    found: list[int] = []

    def told() -> bool:
        with contextlib.suppress(RankwardError):  # the servers may just have come back
            found.append(broker.call(stream.last))
        return bool(found)

    eventually(told, "the servers tell how long the stream is")
    return found[0]


def _place(home: Home, loop: str) -> int:
    async def read() -> int:
        log = home.event_log(home.catalog.loop(loop).loop_id)
        assert isinstance(log, ReplicatedEventLog), "it is a node's"
        try:
            return await log.replica.place()
        finally:
            await log.close()

    try:
        return asyncio.run(read())
    except RankwardError:  # it is being fetched
        return -1


def audit(root: Path, loop: str, traffic: Traffic) -> bytes:
    """Hold what a data folder has of a loop to every promise: log, joined log, model.

    Returns:
        All of log and joined log: the same for every node of a cluster.
    """

    async def check() -> bytes:
        with contextlib.closing(Home(root)) as home:
            loop_id = home.catalog.loop(loop).loop_id
            log, joined = home.event_log(loop_id), home.joined_log(loop_id)
            try:
                entries = await log.read(0, limit=_ALL)
                _check_log(entries, traffic)
                joined_entries = await _check_rejoin(log, joined)
                assert home.catalog.set_asides(loop_id) == []
                [epoch] = home.catalog.epochs(loop_id)
                newest = max(home.catalog.versions(loop_id), key=lambda version: version.joined_offset)
                assert newest.learned == (await joined.extent())[1]
                await _check_replay(home, epoch, newest, log, joined)
                return msgspec.msgpack.encode((entries, joined_entries))
            finally:
                await log.close()
                await joined.close()

    return asyncio.run(check())


def _check_log(entries: Sequence[LogEntry], traffic: Traffic) -> None:
    assert [entry.offset for entry in entries] == list(range(len(entries)))
    times = [entry.time_us for entry in entries]
    assert times == sorted(times), "time went back"
    interactions = [entry.record for entry in entries if isinstance(entry.record, Interaction)]
    by_id = {interaction.event_id: interaction for interaction in interactions}
    assert len(by_id) == len(interactions), "an interaction was logged twice"
    chosen = {event_id: i.actions[i.chosen].id for event_id, i in by_id.items()}
    assert {event_id: chosen.get(event_id) for event_id in traffic.ranked} == traffic.ranked
    assert traffic.two_answers == []
    reports = [entry.record for entry in entries if isinstance(entry.record, Observation)]
    once = {report.report: report for report in reports if report.report is not None}  # sent again, it counts once
    counted = [*once.values(), *(report for report in reports if report.report is None)]
    observed = Counter(report.event_id for report in counted)
    assert traffic.rewarded <= observed, "a reward was lost"
    assert observed <= traffic.sent, "a reward was logged twice"


async def _check_rejoin(log: EventLog, joined: JoinedLog) -> Sequence[tuple[int, JoinedEntry]]:
    with tempfile.TemporaryDirectory() as folder:
        again = SqliteJoinedLog(Path(folder) / "again")
        joining = JoiningService(log, again, clock=lambda: 0)
        while await joining.step():
            pass
        first = await joined.read(0, limit=_ALL)
        second = await again.read(0, limit=_ALL)
        await again.close()
    assert msgspec.msgpack.encode(second) == msgspec.msgpack.encode(first)
    return first


async def _check_replay(home: Home, epoch: Epoch, newest: ModelVersion, log: EventLog, joined: JoinedLog) -> None:
    def fold(model: bytes | None) -> Fold:
        checkpoint = Checkpoint(joined_offset=0, learned=0, learned_to_us=0, model=model)
        return Fold(epoch, checkpoint, exploration=0.02, set_aside=())

    replay = fold(None)
    events, _ = await read_joined(log, joined, 0, limit=newest.joined_offset)
    for event in events:
        replay.take(event, before=lambda _: None)
    assert fold(home.models.get(epoch.loop_id, newest.model_id)).weights() == replay.weights()
