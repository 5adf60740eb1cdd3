"""Nodes of a cluster that judge policies together by what only the archive has."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from rankward.archiving.layout import ENDING
from rankward.archiving.place import Place
from rankward.cluster.servers import Server
from rankward.evaluation.asking import candidates, setup_of
from rankward.evaluation.findings import Findings
from rankward.evaluation.report import Report
from rankward.evaluation.service import evaluate
from rankward.joining.reader import read_joined
from rankward.loops import new_loop_settings
from rankward.store.nats.broker import BrokerOptions, write_options
from rankward.store.studies import AskedPolicy, Study, StudyState
from rankward.study_log import LoopLog
from rankward.study_run import StudyRun
from rankward.wiring import Home
from tests.archiving.bucket import Bucket
from tests.archiving.test_archiving import HOUR_S, archived, archiving
from tests.archiving.test_whole import cut_small, forget_hours, hours
from tests.loop.circle import Circle, Clock
from tests.service import eventually
from tests.store.test_studies import a_study
from tests.test_sharing import shares_of, take

pytestmark = pytest.mark.slow

# Each is parsed in a way of its own, and has a share of its own.
POLICIES = ("--epsilon 0.2", "--epsilon 0.2 -q vd", "--bag 3 --epsilon 0.1", "--epsilon 0.1 --cb_type dr")


def judged_at_once(home: Home, study: Study) -> Report:
    """Judge a study's policies by the whole of its log, here."""
    log = LoopLog.of(home, study)
    return evaluate(log, candidates(study.policies, study.settings), setup_of(study.settings), processes=1)


def judged_together(nodes: Sequence[Home], study: Study) -> Report:
    """Have the first node deal a study out, and each in turn take a share of it."""
    home = nodes[0]
    home.studies.add(study, waiting_max=10)
    running = msgspec.structs.replace(study, state=StudyState.RUNNING, attempts=1)
    assert home.studies.begin(running)
    stopped = threading.Event()
    dealing = threading.Thread(target=StudyRun(home, running, stopped.is_set).run)
    dealing.start()
    try:
        eventually(lambda: all(len(shares_of(node, study)) == len(POLICIES) for node in nodes), "all are offered")
        for number, share in enumerate(shares_of(home, study)):
            take(nodes[number % len(nodes)], share)
    except BaseException:
        stopped.set()
        raise
    finally:
        dealing.join()
    done = home.studies.by_key(study.key)
    assert done is not None
    assert (done.state, done.description) == (StudyState.SUCCEEDED, "")
    report = msgspec.msgpack.decode(home.studies.found(study.key) or b"", type=Findings).report
    assert report is not None
    return report


def test_what_only_the_archive_has_is_judged_in_shares_as_the_log_was(
    tmp_path: Path, bucket: Bucket, nats_server: Server
) -> None:
    """Retention has taken the span on every node, and each reads what its shares need out of the one archive."""
    prefix = f"shares-{secrets.token_hex(4)}"

    async def node(name: str, clock: Clock | None = None) -> Circle:
        folder = tmp_path / name
        folder.mkdir()
        write_options(folder / "node.json", BrokerOptions(servers=(nats_server.url,), prefix=prefix, node=name))
        circle = Circle(folder, new_loop_settings(), clock)
        circle.home.archives.settle(bucket.url)
        await cut_small(circle)
        return circle

    async def story() -> None:
        one = await node("one")
        two = await node("two", one.clock)
        nodes = (one, two)
        following = [asyncio.create_task(each.home.follow()) for each in nodes]
        begun_us = one.now_us
        for count in (60, 50, 20, 5):  # in an hour each, of which the first two are asked for
            await hours(one, count)
            await two.join()
            await two.log.maintain(joined_before=0, keep_after_us=0)
        await archived(archiving(one, Place(bucket.url)))
        joined, end = await read_joined(one.log, one.joined, 0, limit=1_000)
        assert (await read_joined(two.log, two.joined, 0, limit=1_000))[0] == joined
        study = a_study(
            loop_id=one.loop.loop_id,
            start_us=begun_us,
            end_us=begun_us + 2 * round(HOUR_S * 1e6),
            settings=one.loop.settings,
            policies=tuple(AskedPolicy(f"p{n}", f"--cb_explore_adf {text}") for n, text in enumerate(POLICIES)),
            automatic=True,  # nobody asks what its features are worth
        )
        settled = msgspec.structs.replace(study, joined_start=0, joined_end=end)
        expected = await asyncio.to_thread(judged_at_once, one.home, settled)
        assert expected.counts.judged == 110
        for each in nodes:
            await forget_hours(each, 3)
            assert (await each.joined.extent())[0] >= 110
        bucket.reads.clear()

        assert await asyncio.to_thread(judged_together, [each.home for each in nodes], study) == expected
        read = Counter(name for name in bucket.reads if name.endswith(ENDING))
        assert sorted(read.values()) == [len(POLICIES)] * 2, "each share has read the two hours, once"
        for task in following:
            task.cancel()
        await asyncio.wait(following)
        for each in nodes:
            await each.close()

    asyncio.run(story())
