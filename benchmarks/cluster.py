"""Rows about a cluster: against the embedded store, what an event costs whom, and what a loss costs."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from statistics import median
from types import MappingProxyType

import httpx
import msgspec
import psutil
from tests.service import KEY_HEADER, eventually

from benchmarks.history import write_history
from benchmarks.installation import LOOP, RANK, alternate, installed, scratch
from benchmarks.load import Plan, measure
from benchmarks.report import Row, at_least, milliseconds
from rankward.cluster.local import NODES, LocalCluster, Part
from rankward.errors import WorldError
from rankward.loops import playground_settings
from rankward.records import Interaction
from rankward.simulate.traffic import FailoverTarget, HttpTarget
from rankward.telemetry import read_statuses
from rankward.wiring import Home

LONG = timedelta(minutes=10)
_ONE = MappingProxyType({"node": "serve"})
_RESTED_S = 5.0
_WATCHED_S = 30.0  # after a loss
_WATCHED_PER_S = 50


class Clustered:
    """A cluster with the loop `bench`, as the benchmarks of one machine know it."""

    def __init__(self, cluster: LocalCluster, home: Home) -> None:
        self.cluster = cluster
        self.home = home
        keys: dict[str, dict[str, str]] = home.loops.keys()["loops"]
        self.headers = {KEY_HEADER: keys[LOOP]["key1"]}
        self.endpoint = next(iter(cluster.endpoints.values()))

    @property
    def loop_id(self) -> str:
        """Of the loop."""
        return self.home.catalog.loop(LOOP).loop_id

    def plan(self, *, actions: int, seconds: float, connections: int = 32) -> Plan:
        """Plan Ranks for the loop."""
        port = int(self.endpoint.rpartition(":")[2])
        return Plan(
            port=port, path=RANK, headers=self.headers, actions=actions, connections=connections, seconds=seconds
        )

    def settle(self, **settings: timedelta) -> None:
        """Change settings of the loop, by their names on the wire."""
        body = {name: f"PT{value.total_seconds():g}S" for name, value in settings.items()}
        address = f"{self.endpoint}/personalizer/v1.0/configurations/service"
        answer = httpx.put(address, json=body, headers=self.headers, timeout=30)
        assert answer.status_code == 200, f"the settings are refused: {answer.text}"

    def learn(self, *, seconds: float) -> None:
        """Let the loop learn from some traffic, and then hold still."""
        plan = self.plan(actions=10, seconds=seconds, connections=4)
        measure(msgspec.structs.replace(plan, reward_share=0.5, warmup_s=0.0))
        eventually(lambda: self.home.catalog.loop(LOOP).model_id is not None, "a model is published")
        self.settle(rewardWaitTime=LONG)
        time.sleep(playground_settings().reward_wait.total_seconds() + 2)


@contextlib.contextmanager
def clustered(
    folder: Path,
    *,
    servers: int = 1,
    nodes: Mapping[str, str] = MappingProxyType({"node": "serve"}),
    processes: int = 1,
) -> Iterator[Clustered]:
    """Start a cluster in a folder, with the loop `bench`."""
    with LocalCluster(folder, servers=servers, nodes=nodes, http_processes=processes) as cluster:
        first = next(iter(cluster.endpoints))
        with contextlib.closing(Home(cluster.folder(first))) as home:
            home.loops.create(LOOP, playground_settings())
            made = Clustered(cluster, home)
            asked = [f"{each}/personalizer/v1.0/configurations/service" for each in cluster.endpoints.values()]
            eventually(
                lambda: all(httpx.get(each, headers=made.headers).status_code == 200 for each in asked),
                "every node serves the loop",
            )
            yield made


def cluster(quick: bool) -> Iterator[Row]:
    """A cluster against the embedded store, and by itself."""
    for processes in (1, 2):
        yield from _ranking(quick, processes)
    yield from _catching_up(quick)
    yield from _costs(quick)
    yield from _reaching(quick)
    yield from _failing_over()


def _ranking(quick: bool, processes: int) -> Iterator[Row]:
    """Rank at full speed: one node that does everything and one server, against the embedded store."""
    with (
        scratch() as embedded_folder,
        installed(embedded_folder, workers=processes) as embedded,
        scratch() as folder,
        clustered(folder, processes=processes) as cluster,
    ):
        for each in (embedded, cluster):
            each.learn(seconds=2 if quick else 4)
        seconds = 1 if quick else 3
        plans = {
            "embedded": embedded.plan(actions=10, seconds=seconds),
            "cluster": cluster.plan(actions=10, seconds=seconds),
        }
        found = alternate(plans, rounds=2 if quick else 5)
    what = f"Rank in a cluster, one node, one server, {processes} HTTP processes, 10 actions, 32 connections"
    rate = {name: median(run.rate_per_s for run in runs) for name, runs in found.items()}
    p99 = {name: median(run.p99_ms for run in runs) for name, runs in found.items()}
    yield Row(
        f"{what}: throughput",
        f"{rate['cluster']:,.0f}/s",
        f"embedded {rate['embedded']:,.0f}/s",
        *at_least(rate["cluster"], rate["embedded"], 0.6),
    )
    yield Row(
        f"{what}: p99",
        milliseconds([run.p99_ms for run in found["cluster"]]),
        f"embedded {milliseconds([run.p99_ms for run in found['embedded']])}",
        f"{p99['cluster'] / p99['embedded']:.2f}",
        "",
        None,
    )


def _catching_up(quick: bool) -> Iterator[Row]:
    """A log that nobody has joined or learned: by a new worker, which fetches it first, and by an embedded one."""
    events = 50_000 if quick else 200_000  # what is joined is told once a second
    with scratch() as folder:
        write_history(folder / "data", events=events)
        with installed(folder, workers=1) as embedded:
            alone = _pace(embedded.service.home, events)
    with scratch() as folder, clustered(folder, nodes={"api": "api", "worker": "worker"}) as cluster:
        [worker] = [part for part in cluster.cluster.nodes if part.name == "worker"]
        worker.end()
        worker.reap()
        _forget_replica(cluster.cluster.folder("worker"))
        write_history(cluster.cluster.folder("api"), events=events)
        time.sleep(playground_settings().reward_wait.total_seconds())
        worker.start()
        eventually((cluster.cluster.folder("worker") / "catalog.sqlite").exists, "the worker has begun")
        with contextlib.closing(Home(cluster.cluster.folder("worker"))) as home:
            among = _pace(home, events)
    for name, ours, its in (("joining", among[0], alone[0]), ("training", among[1], alone[1])):
        yield Row(
            f"{name}, of {events:,} events, by a worker that fetches them, joins and learns, all at once",
            f"{ours:,.0f}/s",
            f"embedded {its:,.0f}/s",
            f"{ours / its:.2f}",
            "",
            None,
        )


def _forget_replica(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name != "node.json":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _pace(home: Home, events: int) -> tuple[float, float]:
    """Watch a loop being joined and learned. Returns the rates of both, after the first fifth."""
    reached: list[dict[int, float]] = [{}, {}]

    def done() -> bool:
        loop = next((loop for loop in home.catalog.loops() if loop.name == LOOP), None)
        if loop is None:
            return False
        joining, training = read_statuses(home.board.read(loop.loop_id))
        now_s = time.perf_counter()
        counts = (
            0 if joining is None else joining.counts.get("joined", 0),
            training[-1].joined_offset if training else 0,
        )
        for count, times in zip(counts, reached, strict=True):
            if count < events or count not in times:
                times[count] = now_s  # when it was last no more than that, or first all
        return min(counts) >= events

    eventually(done, "everything is joined and learned", within_s=1_800)
    return _steady(reached[0], events), _steady(reached[1], events)


def _steady(times: Mapping[int, float], events: int) -> float:
    """Tell the rate after the first fifth, or after what was seen first, if that was more."""
    first, last = max((count for count in times if count <= events // 5), default=min(times)), max(times)
    return (last - first) / (times[last] - times[first])


def _costs(quick: bool) -> Iterator[Row]:
    """What an event costs each part: processor time, and bytes on disk before anything is sealed.

    As much is sent as is taken: what a part does for many events at once is done so under load.
    """
    seconds = 8 if quick else 20
    with scratch() as folder, clustered(folder, nodes={"api": "api", "worker": "worker"}) as cluster:
        cluster.learn(seconds=2)
        cluster.settle(rewardWaitTime=playground_settings().reward_wait)
        start_s, start = time.perf_counter(), _spent(cluster)
        time.sleep(_RESTED_S)
        before, bytes_before = _spent(cluster), _bytes(cluster)
        rested_s = time.perf_counter() - start_s
        at_rest = {name: (before[name] - start.get(name, 0.0)) / rested_s for name in before}
        start_s = time.perf_counter()
        plan = cluster.plan(actions=10, seconds=seconds, connections=16)
        measured = measure(msgspec.structs.replace(plan, reward_share=0.5, warmup_s=0.0))
        eventually(lambda: _unfinished(cluster) == 0, "everything is joined and learned")
        after, bytes_after = _spent(cluster), _bytes(cluster)
        took_s = time.perf_counter() - start_s
    more = {
        name: (after[name] - before.get(name, 0.0) - at_rest.get(name, 0.0) * took_s) / measured.total * 1e6
        for name in after
    }
    sizes = {name: (bytes_after[name] - bytes_before[name]) / measured.total for name in bytes_after}
    events = f"{measured.total:,} decisions, {measured.rate_per_s:,.0f}/s"
    for what, found, unit in (
        ("CPU at rest", {name: share * 1e3 for name, share in at_rest.items()}, " ms a second"),
        ("CPU of a decision with half a reward, above that", more, " µs"),
        ("bytes of such a decision, nothing sealed or trimmed", sizes, ""),
    ):
        told = ", ".join(f"{name} {value:,.0f}{unit}" for name, value in sorted(found.items()))
        yield Row(f"a node for HTTP, a worker, one server: {what}", told, events, "", "", None)


def _spent(cluster: Clustered) -> dict[str, float]:
    """Seconds of CPU by what was done: by the node and role, and by the servers."""
    found: defaultdict[str, float] = defaultdict(float)
    for part in cluster.cluster.parts:
        assert part.pid is not None, "it runs"
        first = psutil.Process(part.pid)
        for process in (first, *first.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                times, words = process.cpu_times(), process.cmdline()
                role = words[words.index("rankward.roles") + 1] if "rankward.roles" in words else "supervisor"
                name = "JetStream" if part in cluster.cluster.servers else f"{part.name}/{role}"
                found[name] += times.user + times.system
    return found


def _bytes(cluster: Clustered) -> dict[str, int]:
    home = cluster.home
    assert home.broker is not None, "it is a node's"
    broker = home.broker
    stream = broker.call(lambda: broker.js.stream_info(broker.stream("events", cluster.loop_id)))
    loop = home.folder.loops / cluster.loop_id
    kept = {name: sum(each.stat().st_size for each in (loop / name).rglob("*")) for name in ("events", "joined")}
    return {
        "stream": stream.state.bytes,
        "event log": kept["events"],
        "joined log": kept["joined"],
    }


def _unfinished(cluster: Clustered) -> int:
    """How many events are not joined and learned yet."""
    home = Home(cluster.cluster.folder("worker"))
    try:
        joining, training = read_statuses(home.board.read(cluster.loop_id))
    finally:
        home.close()
    if joining is None or not training:
        return 1
    waiting = joining.counts.get("ranked", 0) - joining.counts.get("joined", 0)
    return waiting + joining.end - joining.head + training[-1].joined_end - training[-1].joined_offset


def _reaching(quick: bool) -> Iterator[Row]:
    """How long a model takes to each process that decides: until the last decision with an older one."""
    with scratch() as folder, clustered(folder, servers=3, nodes=NODES, processes=2) as cluster:
        cluster.settle(rewardWaitTime=timedelta(seconds=1), modelExportFrequency=timedelta(seconds=1))
        plan = cluster.plan(actions=10, seconds=20 if quick else 60, connections=8)
        plan = msgspec.structs.replace(plan, rate_per_s=_WATCHED_PER_S, reward_share=0.5)
        ports = [int(each.rpartition(":")[2]) for each in cluster.cluster.endpoints.values()]
        with ThreadPoolExecutor() as pool:
            list(pool.map(measure, [msgspec.structs.replace(plan, port=port) for port in ports]))
        reached_s = asyncio.run(_last_older_decisions(cluster))
    yield Row(
        "a model: from when it is made until every HTTP process decides with it, three servers, two nodes with two "
        f"processes each, {_WATCHED_PER_S} decisions a second at each node",
        f"median {median(reached_s):.2f} s, longest {max(reached_s):.2f} s",
        f"{len(reached_s)} models",
        "",
        "under 1 s",
        max(reached_s) < 1,
    )


async def _last_older_decisions(cluster: Clustered) -> list[float]:
    """For each model but the first: how long after it was made the last decision was taken with an older one, in s."""
    home = cluster.home
    versions = sorted(home.catalog.versions(cluster.loop_id), key=lambda version: version.created_us)
    ages = {version.model_id: age for age, version in enumerate(versions)}
    last_us = [0] * len(versions)  # of decisions with each
    log = home.event_log(cluster.loop_id)
    try:
        next_offset = 0
        while entries := await log.read(next_offset, limit=10_000):
            next_offset = entries[-1].offset + 1
            for entry in entries:
                if isinstance(entry.record, Interaction) and entry.record.model_id in ages:
                    last_us[ages[entry.record.model_id]] = entry.time_us
    finally:
        await log.close()
    older_us = itertools.accumulate(last_us, max)
    pairs = [(last, version.created_us) for last, version in zip(older_us, versions[1:], strict=False)]
    return [max(0, last - created) / 1e6 for last, created in pairs if created < max(last_us)]


def _failing_over() -> Iterator[Row]:
    """For how long nothing is answered when a part is killed, and for how long nobody leads a loop."""
    with scratch() as folder, clustered(folder, servers=3, nodes=NODES) as cluster:
        home, running = cluster.home, cluster.cluster
        broker = home.broker
        assert broker is not None, "it is a node's"
        events = broker.stream("events", cluster.loop_id)

        def leading_server() -> str:
            info = broker.call(lambda: broker.js.stream_info(events))
            return "" if info.cluster is None else info.cluster.leader or ""

        def leader() -> str:
            lead = home.catalog.leads().get(cluster.loop_id)
            return "" if lead is None else lead.holder

        eventually(lambda: leader() != "" and leading_server() != "", "there are leaders")
        last_endpoint = list(running.endpoints)[-1]
        for what, name in (
            ("the server that leads the event log's stream", leading_server()),
            ("a node", last_endpoint),
        ):
            gap_s = asyncio.run(_longest_gap(cluster, _part(running, name)))
            yield Row(
                f"kill -9 of {what}, three servers, two nodes: longest time without a decision",
                f"{gap_s:.1f} s",
                "",
                "",
                "",
                None,
            )
        before = leader()
        killed_s = time.perf_counter()
        _kill(_part(running, before))
        eventually(lambda: leader() not in {before, ""}, "another worker leads the loop")
        taken_s = time.perf_counter() - killed_s
        yield Row(
            "kill -9 of the worker that leads a loop: until another does",
            f"{taken_s:.1f} s",
            "",
            "",
            "under 10 s",
            taken_s < 10,
        )


def _part(cluster: LocalCluster, name: str) -> Part:
    return next(part for part in cluster.parts if part.name == name)


def _kill(part: Part) -> None:
    """Kill all of its processes, as the loss of its machine does."""
    assert part.pid is not None, "it runs"
    first = psutil.Process(part.pid)
    for process in (first, *first.children(recursive=True)):
        process.kill()


async def _longest_gap(cluster: Clustered, victim: Part) -> float:
    """Ask for one decision after the other, kill, and go on. Returns the longest wait for one, in seconds."""
    body = ([{"place": {"kind": "home"}}], [("tea", [{"hot": True}]), ("mate", [{"hot": False}])])
    async with contextlib.AsyncExitStack() as stack:
        key = cluster.headers[KEY_HEADER]
        addresses = cluster.cluster.endpoints.values()
        targets = [await stack.enter_async_context(HttpTarget(each, key, timeout_s=6.0)) for each in addresses]
        target = FailoverTarget(targets)
        answered_s: list[float] = []
        start_s = time.perf_counter()
        killed = False
        while time.perf_counter() - start_s < _WATCHED_S + 2:
            if not killed and time.perf_counter() - start_s > 2:
                _kill(victim)
                killed = True
            with contextlib.suppress(WorldError):
                await target.rank(*body)
                answered_s.append(time.perf_counter())
            cluster.cluster.tend()
    return max(later - earlier for earlier, later in pairwise(answered_s))
