"""The whole circle over three nodes: one answers HTTP, two work. Each can be killed or paused, and none is missed."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec
import psutil
import pytest
from tests.faults.audit import audit_nodes
from tests.faults.traffic import Traffic
from tests.history.loops import lines_of, numbered
from tests.service import ADMIN_KEY, LoopClient, RunningService, eventually, request
from tests.store.test_studies import a_study
from tests.test_import_run import events_of, send
from typer.testing import CliRunner

from rankward.administration.imports import ImportView
from rankward.cli import app
from rankward.errors import DataFolderHeld
from rankward.evaluation.findings import Findings
from rankward.loops import playground_settings
from rankward.records import Interaction
from rankward.store.imports import ImportState
from rankward.store.nats.broker import BrokerOptions
from rankward.store.studies import AskedPolicy, Study, StudyKind, StudyState
from rankward.wiring import Home

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rankward.cluster.servers import Server
    from rankward.store.ports import Lead

pytestmark = pytest.mark.slow

KEY = "the-key-of-the-circle"
_names = itertools.count()


class Trio:
    """An api node and two workers on one server."""

    def __init__(self, folder: pytest.TempPathFactory, server: Server) -> None:
        def node(name: str, part: str) -> RunningService:
            options = BrokerOptions(servers=(server.url,), prefix="circle", node=name)
            return RunningService(folder.mktemp(name), node=options, part=part)

        self.server = server
        self.api = node("api", "api")
        self.workers = {name: node(name, "worker") for name in ("one", "two")}

    @property
    def nodes(self) -> list[RunningService]:
        """All three."""
        return [self.api, *self.workers.values()]

    def new_loop(self, **settings: object) -> str:
        """Make a loop that no other test uses. Returns its name."""
        name = f"circle-{next(_names)}"
        changed = msgspec.structs.replace(playground_settings(), **settings)
        self.api.home.loops.create(name, changed, {1: KEY + name})
        return name

    def lead(self, loop: str, *, after: int = 0, other_than: str = "") -> Lead:
        """Who leads a loop, under a term that is later than another. One that was slow may have lost it meanwhile."""
        catalog = self.api.home.catalog
        loop_id = catalog.loop(loop).loop_id
        found: list[Lead] = []

        def led() -> bool:
            lead = catalog.leads().get(loop_id)
            if lead is not None and lead.term > after and lead.holder not in {"", other_than}:
                found.append(lead)
            return bool(found)

        eventually(led, f"a worker leads {loop}")
        return found[0]

    def learn(self, loop: str) -> None:
        """Wait until something more has been learned and serves."""
        known = self.api.loop(loop).model_id
        eventually(lambda: self.api.loop(loop).model_id != known, f"{loop} learns")

    def traffic(self, loop: str) -> Traffic:
        """Begin to rank and reward."""
        return Traffic([self.api.url], KEY + loop, clients=2, pause_s=0.02)

    def hold_to_promises(self, loop: str, traffic: Traffic) -> None:
        """Wait until all is learned, and compare every node's files with what was acknowledged, and with each other."""
        audit_nodes(self.nodes, loop, traffic)


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory, nats_server: Server) -> Iterator[Trio]:
    """Three nodes, shared by the tests of this file."""
    trio = Trio(tmp_path_factory, nats_server)
    try:
        with ThreadPoolExecutor() as pool:  # they do not need each other
            list(pool.map(RunningService.start, trio.nodes))
        yield trio
    finally:
        with ThreadPoolExecutor() as pool:
            list(pool.map(RunningService.close, trio.nodes))


def test_what_one_node_is_told_another_learns_and_the_first_serves(trio: Trio) -> None:
    """Rank and Reward at one node, joining at all, training at one of the workers."""
    loop = trio.new_loop()
    trio.lead(loop)
    traffic = trio.traffic(loop)
    try:
        eventually(lambda: _models(trio, loop)[-1:] not in ([], [None]), "the api node decides with a model")
    finally:
        traffic.end()
    assert _models(trio, loop)[0] is None
    trio.hold_to_promises(loop, traffic)


def _models(trio: Trio, loop: str) -> list[str | None]:
    return [record.model_id for record in trio.api.records(loop) if isinstance(record, Interaction)]


def test_a_loop_goes_from_worker_to_worker_as_if_one_had_led_it(trio: Trio) -> None:
    """One sleeps past its time with a trainer in the middle of its work, one is killed, and one ends as it should.

    Each time the other goes on from the last checkpoint, and what the one that slept would publish is refused.
    """
    loop = trio.new_loop()
    first = trio.lead(loop)
    sleeper = trio.workers[first.holder]
    traffic = trio.traffic(loop)
    try:
        trio.learn(loop)
        sleeper.pause()
        second = trio.lead(loop, after=first.term, other_than=first.holder)
        trio.learn(loop)
        slept_at = len(sleeper.output.read_bytes())
        sleeper.resume()
        eventually(
            lambda: b"is led by another now" in sleeper.output.read_bytes()[slept_at:], "the sleeper has seen it"
        )

        killed = trio.workers[second.holder]
        killed.kill()
        third = trio.lead(loop, after=second.term, other_than=second.holder)
        assert third.holder == first.holder
        trio.learn(loop)
        killed.start()

        before = trio.lead(loop)
        leaving = trio.workers[before.holder]
        assert leaving.stop() == 0
        assert trio.api.home.node is not None
        trio.api.home.node.refresh()
        let_go = trio.api.home.catalog.leads()[trio.api.loop(loop).loop_id]
        assert let_go.holder != before.holder, "an upgrade must not wait until each node is taken for dead"
        trio.lead(loop, after=before.term)
        trio.learn(loop)
        leaving.start()
        for worker in trio.workers.values():
            worker.pause()
        traffic.more(50)  # Rank does not need a worker
    finally:
        for worker in trio.workers.values():
            worker.resume()
        traffic.end()
    trio.hold_to_promises(loop, traffic)
    assert set(traffic.refused) <= {(503, True)}, "a busy machine may answer so"
    versions = trio.api.home.catalog.versions(trio.api.loop(loop).loop_id)
    offsets = [version.joined_offset for version in versions]
    assert offsets == sorted(offsets, reverse=True), "an older model came after a newer one"


def test_loops_are_shared(trio: Trio) -> None:
    """Of two workers, each leads as many as the other."""
    trio.new_loop()
    catalog = trio.api.home.catalog

    def shared() -> bool:
        leads = catalog.leads()
        holders = [leads[loop.loop_id].holder for loop in catalog.loops() if loop.loop_id in leads]
        return len(holders) == len(catalog.loops()) and abs(holders.count("one") - holders.count("two")) <= 1

    eventually(shared, "each leads as many as the other")


def test_a_deleted_loop_leaves_no_files_on_any_node(trio: Trio) -> None:
    """Deleting is a promise to whoever the events are about."""
    loop = trio.new_loop()
    traffic = trio.traffic(loop)
    try:
        eventually(lambda: trio.api.loop(loop).model_id is not None, "a model serves")
    finally:
        traffic.end()
    folders = [node.root / "loops" / trio.api.loop(loop).loop_id for node in trio.nodes]
    eventually(lambda: all(folder.exists() for folder in folders), "all nodes have the loop")
    trio.api.home.loops.delete(loop)
    eventually(lambda: not any(folder.exists() for folder in folders), "the files are gone")


def test_the_servers_may_be_away_for_a_while(trio: Trio, nats_server: Server) -> None:
    """Calls are refused meanwhile, with a word on when to try again; then it goes on, and nothing was restarted."""
    loop = trio.new_loop()
    traffic = trio.traffic(loop)
    processes = [node.children().items() for node in trio.nodes]
    try:
        traffic.more(20)
        nats_server.kill()
        eventually(lambda: bool(traffic.refused), "calls are refused")
        eventually(lambda: trio.api.send("GET", "/readyz").status_code == 503, "it is not ready any more")
        nats_server.start()
        traffic.more(20)
        eventually(lambda: trio.api.send("GET", "/readyz").status_code == 200, "it is ready again")
        trio.learn(loop)
    finally:
        traffic.end()
    assert set(traffic.refused) == {(503, True)}
    assert [node.children().items() for node in trio.nodes] == processes
    trio.hold_to_promises(loop, traffic)
    for node in trio.nodes:
        _, crash, how = node.output.read_text().partition("Traceback")
        assert not crash, f"{node.name} crashed: {how[:4_000]}"


def test_a_study_is_shared_by_the_workers_and_survives_the_one_that_deals_it_out(trio: Trio) -> None:
    """Any of them judges a share of its policies; when one is killed, the other goes on with what it had."""
    loop = trio.new_loop()
    trio.lead(loop)
    traffic = trio.traffic(loop)
    try:
        trio.learn(loop)
    finally:
        traffic.end()
    home, loop_id = trio.api.home, trio.api.loop(loop).loop_id
    policies = tuple(AskedPolicy(f"p{number}", f"--cb_explore_adf --epsilon 0.{number}") for number in range(1, 5))
    study = a_study(loop_id=loop_id, start_us=0, end_us=1 << 60, policies=policies, time_limit_s=3_600.0)
    study = msgspec.structs.replace(study, automatic=True)  # nobody asks what its features are worth
    home.studies.add(study, waiting_max=10)

    def now() -> Study:
        found = home.studies.by_key(study.key)
        assert found is not None
        return found

    eventually(
        lambda: now().state.finished or bool(home.studies.listed(loop_id, StudyKind.SHARE)), "its shares are offered"
    )
    dealer = trio.workers[now().holder]
    dealer.kill()
    try:
        eventually(lambda: now().state.finished, "the other goes on with it")
    finally:
        dealer.start()
    assert (now().state, now().description) == (StudyState.SUCCEEDED, "")
    findings = msgspec.msgpack.decode(home.studies.found(study.key) or b"", type=Findings)
    assert findings.report is not None
    assert {"p1", "p2", "p3", "p4"} <= {result.name for result in findings.report.policies}
    assert findings.report.counts.judged > 0
    eventually(lambda: not home.studies.listed(loop_id, StudyKind.SHARE), "its shares are removed")


def test_imports_take_turns_and_are_listed_and_called_off_from_anywhere(trio: Trio, tmp_path: Path) -> None:
    """A file lies on the disk of the node that took it; who sent it, or wants it to end, asks any."""
    loop = trio.api.loop(trio.new_loop())
    for node in trio.nodes:
        eventually(lambda node=node: not node.home.lacks_replica(loop.loop_id), "the node has the loop")  # type: ignore[misc]
    content = lines_of([numbered(number) for number in range(500)])
    gone = tmp_path / "gone"
    gone.mkdir()
    options = BrokerOptions(servers=(trio.server.url,), prefix="circle", node="gone")
    (gone / "node.json").write_bytes(msgspec.json.encode(options))
    with closing(Home(gone)) as home:
        send(home, loop, content, tmp_path / "log.json", key="0")

    def asked(*words: str) -> str:
        to = ["--endpoint", trio.api.url, "--key", ADMIN_KEY]
        return CliRunner().invoke(app, ["logs", "imports", words[0], loop.name, *words[1:], *to]).stdout

    def listed() -> dict[str, ImportView]:
        found = msgspec.json.decode(asked("list", "--json"), type=list[ImportView])
        return {each.node: each for each in found}

    one, two = trio.workers["one"], trio.workers["two"]
    with one.home.importing(loop.loop_id) as holds:
        eventually(holds, "one may import")
        refused = pytest.raises(DataFolderHeld, match="under way on the node one")
        with refused, two.home.importing(loop.loop_id):
            pytest.fail("two would not see each other's events")
    for name, said in (("one", "500 lines imported."), ("two", "It was imported before: nothing was added.")):
        send(trio.workers[name].home, loop, content, tmp_path / "log.json", key=name)
        eventually(lambda name=name: name in listed() and listed()[name].ended_us is not None, "it is over")  # type: ignore[misc]
        assert said in listed()[name].description
    eventually(lambda: len(events_of(trio.api.home, loop)) >= 500, "the api node has them")
    assert events_of(trio.api.home, loop) == [f"e{number}" for number in range(500)]

    waits = listed()["gone"]
    assert (waits.state, waits.is_away) == (ImportState.WAITING, True)
    assert "The node gone has the file, and is away" in waits.description
    assert "It is being cancelled" in asked("cancel", waits.key)
    assert listed()["gone"].state is ImportState.CANCELLED
    assert asked("watch") == "", "nothing is left to wait for"


def test_calls_are_answered_without_the_servers_where_that_is_wanted(trio: Trio, nats_server: Server) -> None:
    """With the model that served last; what came meanwhile outlives its process, and is in the log once."""
    loop = trio.new_loop(answer_without_quorum=True)
    trio.lead(loop)
    traffic = trio.traffic(loop)
    try:
        trio.learn(loop)
        eventually(lambda: bool(_models(trio, loop)[-1:] != [None]), "the api node decides with a model")
        nats_server.kill()
        traffic.more(50)
        assert trio.api.send("GET", "/readyz").status_code == 200
        again = request("a", "b", eventId="asked-again")
        client = LoopClient(trio.api, loop, KEY + loop, "v1.0")
        first, second = (client.rank(again) for _ in range(2))
        assert (first.status_code, first.content) == (201, second.content)
        psutil.Process(trio.api.children()["api0"]).kill()
        nats_server.start()
        loop_id = trio.api.home.catalog.loop(loop).loop_id
        eventually(lambda: not trio.api.home.waiting(loop_id), "nothing waits any more")
        traffic.more(20)
    finally:
        traffic.end()
    decisions = [each for each in trio.api.records(loop) if isinstance(each, Interaction)]
    assert [each.event_id for each in decisions].count("asked-again") == 1
    assert trio.api.home.folder.spool(loop_id).joinpath("records").exists()
    trio.hold_to_promises(loop, traffic)
