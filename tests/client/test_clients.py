"""Clients: decisions in time or the baseline, rewards behind the page's back, and nothing raised."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

import rankward
from rankward.client.calls import UnansweredError, read_refusal
from rankward.errors import InvalidRequest
from rankward.records import Activation, Interaction, Observation
from rankward.settings import Aggregation, LoopSettings
from tests.client.networks import (
    Held,
    canned_service,
    held_service,
    lossy_service,
    refused_endpoint,
    silent_service,
)
from tests.service import PATIENCE_S, RunningService, eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.service import LoopClient

ACTIONS = {name: {"dish": {"name": name}} for name in ("soup", "salad", "stew")}
CONTEXT = {"visitor": {"device": "phone"}}
LONG_S = PATIENCE_S  # a deadline that a busy machine keeps, too
REFUSAL = b'{"error":{"code":"%d","message":"as a test has it"}}'


def answer(status: int, body: bytes, *headers: bytes) -> bytes:
    """Write an HTTP answer."""
    lines = [b"HTTP/1.1 %d X" % status, b"content-length: %d" % len(body), b"connection: close", *headers]
    return b"\r\n".join([*lines, b"", body])


def observed(loop: LoopClient) -> list[tuple[str, float]]:
    """The rewards in a loop's log."""
    return [(r.event_id, r.value) for r in loop.service.records(loop.loop) if isinstance(r, Observation)]


# With a service


@pytest.mark.slow
def test_a_decision_comes_from_the_service_and_its_reward_gets_there(service: RunningService) -> None:
    """The whole way, as a page uses it."""
    loop = service.new_loop()
    with rankward.Client(service.url, loop.key, timeout_s=LONG_S) as client:
        decision = client.rank(CONTEXT, ACTIONS, excluded=["soup"])
        client.reward(decision.event_id, 0.5)
        assert client.flush(LONG_S)
        assert client.stats == rankward.ClientStats(decisions=1, sent=1)
    assert not decision.fallback
    assert dict(decision.ranking)["soup"] == 0.0
    [logged] = [r for r in service.records(loop.loop) if isinstance(r, Interaction)]
    assert (logged.event_id, logged.actions[logged.shown].id) == (decision.event_id, decision.action_id)
    assert observed(loop) == [(decision.event_id, 0.5)]


@pytest.mark.slow
def test_the_asynchronous_client_does_the_same(service: RunningService) -> None:
    """Many at once, on one event loop."""
    loop = service.new_loop()

    async def visit() -> None:
        async with rankward.AsyncClient(service.url, loop.key, timeout_s=LONG_S) as client:
            decisions = await asyncio.gather(*[client.rank(CONTEXT, ACTIONS, deferred=True) for _ in range(20)])
            for decision in decisions:
                client.activate(decision.event_id)
                client.reward(decision.event_id, 1.0)
            assert await client.flush(LONG_S)
            assert client.stats.sent == 40
            assert not any(decision.fallback for decision in decisions)

    asyncio.run(visit())
    assert len(observed(loop)) == 20
    assert len([r for r in service.records(loop.loop) if isinstance(r, Activation)]) == 20


@pytest.mark.slow
def test_rewards_of_one_event_arrive_in_order(service: RunningService) -> None:
    """The aggregation `earliest` takes the first that arrives."""
    loop = service.new_loop()
    with rankward.Client(service.url, loop.key, timeout_s=LONG_S) as client:
        for number in range(10):
            client.reward("one event/with a slash", number / 10)
        assert client.flush(LONG_S)
    assert observed(loop) == [("one event/with a slash", number / 10) for number in range(10)]


@pytest.mark.slow
def test_a_caller_may_repeat_a_rank_under_its_own_id(service: RunningService) -> None:
    """It is answered as before, and logged once."""
    loop = service.new_loop()
    with rankward.Client(service.url, loop.key, timeout_s=LONG_S) as client:
        first = client.rank(CONTEXT, ACTIONS, event_id="mine")
        assert client.rank(CONTEXT, ACTIONS, event_id="mine") == first
    assert len(service.records(loop.loop)) == 1


@pytest.mark.slow
def test_a_confirmed_decision_is_learned_and_one_that_came_late_is_not(service: RunningService) -> None:
    """What the service decided and nobody saw must not be taken for something that earned nothing."""
    loop = service.new_loop()
    with rankward.Client(service.url, loop.key, timeout_s=LONG_S, confirm=True) as client:
        seen = client.rank(CONTEXT, ACTIONS)
        assert client.flush(LONG_S)
    with held_service(service.port) as held, rankward.Client(held.endpoint, loop.key, confirm=True) as client:
        miss(client, held)
    logged = [r for r in service.records(loop.loop) if isinstance(r, Interaction)]
    assert len(logged) > 1
    assert all(r.deferred for r in logged)
    assert [r.event_id for r in service.records(loop.loop) if isinstance(r, Activation)] == [seen.event_id]


def miss(client: rankward.Client, held: Held, event_id: str | None = None) -> rankward.Decision:
    """Ask until the service has decided, and let it answer when the deadline is over. Returns the last decision."""
    missed = []

    def is_asked() -> bool:
        missed.append(client.rank(CONTEXT, ACTIONS, event_id=event_id))
        return held.asked.is_set()

    eventually(is_asked, "the service is asked")
    held.let_go.set()
    eventually(lambda: client.stats.late > 0, "the late answer is noticed")
    assert all(decision.fallback for decision in missed)
    return missed[-1]


@pytest.mark.slow
def test_a_reward_of_the_baseline_is_never_credited_to_what_was_drawn(service: RunningService) -> None:
    """The service may have logged another action than the one that the visitor saw."""
    loop = service.new_loop()
    with held_service(service.port) as held, rankward.Client(held.endpoint, loop.key) as client:
        decision = miss(client, held, "mine")
        assert (decision.action_id, decision.fallback, decision.probability) == ("soup", True, 1.0)
        client.reward(decision.event_id, 1.0)
        client.reward("mine", 1.0)
        client.activate("mine")
        assert client.flush(LONG_S)
        assert client.stats.withheld == 3
        assert loop.reward(decision.event_id, 1.0).status_code == 204  # as another process would, unknowing
    [logged, stray] = service.records(loop.loop)
    assert logged.event_id == "mine"
    assert stray.event_id != "mine"


@pytest.mark.slow
def test_rewards_outlive_a_service_that_is_killed_and_comes_back(tmp_path: Path) -> None:
    """They wait, and are sent when somebody is there again; decisions fall back meanwhile."""
    running = RunningService(tmp_path)
    try:
        running.start()
        loop = running.client("default")
        with rankward.Client(running.url, loop.key, timeout_s=LONG_S) as client:
            decisions = [client.rank(CONTEXT, ACTIONS) for _ in range(5)]
            running.kill()
            assert client.rank(CONTEXT, ACTIONS).fallback
            for decision in decisions:
                client.reward(decision.event_id, 1.0)
            assert not client.flush(0.3)
            eventually(lambda: client.stats.queued == 5, "none is between two queues")
            running.start()
            assert client.flush(LONG_S)
            assert not client.rank(CONTEXT, ACTIONS).fallback
            assert client.stats.fallbacks == {"unreachable": 1}
        assert {event_id for event_id, _ in observed(loop)} == {decision.event_id for decision in decisions}
    finally:
        running.close()


@pytest.mark.slow
def test_a_report_whose_answer_is_lost_is_sent_again_and_counts_once(service: RunningService) -> None:
    """Nobody can tell a lost answer from a lost request; a reward must neither vanish nor count twice."""
    loop = service.new_loop(LoopSettings(reward_aggregation=Aggregation.SUM))
    with rankward.Client(service.url, loop.key, timeout_s=LONG_S) as client:
        decision = client.rank(CONTEXT, ACTIONS)
    with lossy_service(service.port) as endpoint, rankward.Client(endpoint, loop.key) as client:
        client.reward(decision.event_id, 0.5)
        assert client.flush(LONG_S)
        assert client.stats.sent == 1
    assert observed(loop) == [(decision.event_id, 0.5)] * 2
    service.pass_time(loop.loop)
    eventually(lambda: len(service.joined(loop.loop)) == 1, "the event is joined")
    [event] = service.joined(loop.loop)
    assert [observation.value for observation in event.entry.observations] == [0.5]


@pytest.mark.slow
def test_a_rank_whose_answer_is_lost_is_asked_again(service: RunningService) -> None:
    """A connection that the service closed while nobody used it looks just like that. The event is logged once."""
    loop = service.new_loop()
    with lossy_service(service.port) as endpoint, rankward.Client(endpoint, loop.key, timeout_s=LONG_S) as client:
        assert not client.rank(CONTEXT, ACTIONS).fallback
    assert len(service.records(loop.loop)) == 1


@pytest.mark.slow
def test_a_client_works_in_a_process_that_was_forked_after_it_was_made(service: RunningService) -> None:
    """Web servers load the application first and fork afterwards; threads stay behind in the parent."""
    loop = service.new_loop()
    program = textwrap.dedent("""
        import os, sys, rankward, rankward.client.clients
        rankward.client.clients._EXIT_S = 60.0  # a busy machine may need longer
        client = rankward.Client(sys.argv[1], sys.argv[2], timeout_s=60)
        child = os.fork()
        decision = client.rank({"hour": 1}, {"a": {"x": 1}, "b": {"x": 2}})
        client.reward(decision.event_id, 1.0)
        if child:
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or decision.fallback)
        sys.exit(decision.fallback)
    """)
    ran = subprocess.run([sys.executable, "-c", program, service.url, loop.key], check=False, timeout=PATIENCE_S)
    assert ran.returncode == 0
    assert len(observed(loop)) == 2  # sent as the processes ended, though nobody closed the client


@pytest.mark.slow
def test_mistakes_are_logged_once_and_fall_back(service: RunningService, caplog: pytest.LogCaptureFixture) -> None:
    """A page is shown whatever is wrong, and the log is not filled with the same line."""
    loop = service.new_loop()
    with (
        caplog.at_level(logging.ERROR, "rankward.client"),
        rankward.Client(service.url, loop.key, timeout_s=LONG_S) as client,
        rankward.Client(service.url, "no such key", timeout_s=LONG_S) as stranger,
    ):
        for _ in range(3):
            assert client.rank(CONTEXT, {"a": {"tags": ["x"]}, "b": {"x": 1}}).action_id == "a"  # seen by the service
            assert client.rank({"x": float("nan")}, ACTIONS).fallback  # seen here
            assert stranger.rank(CONTEXT, ACTIONS).fallback
            client.reward("e", 7.0)
        stranger.reward("e", 1.0)
        assert stranger.flush(LONG_S)
        assert client.stats.fallbacks == {"refused": 3, "invalid": 3}
        assert client.stats.dropped == 3
        assert stranger.stats.dropped == 1
    said = [record.message for record in caplog.records]
    assert len(said) == 4
    assert any("actions[0]: features[0].tags[0]" in line for line in said)


@pytest.mark.slow
def test_a_strict_client_raises_mistakes(service: RunningService) -> None:
    """In a test suite they should be seen."""
    loop = service.new_loop()
    with rankward.Client(service.url, loop.key, timeout_s=LONG_S, strict=True) as client:
        with pytest.raises(rankward.CallerError, match="numbers only"):
            client.rank(CONTEXT, {"a": {"tags": ["x"]}, "b": {"x": 1}})
        with pytest.raises(rankward.CallerError, match="JSON"):
            client.rank({"x": float("nan")}, ACTIONS)
        with pytest.raises(rankward.CallerError, match="outside -1 to 1"):
            client.reward("e", 7.0)
        with pytest.raises(rankward.CallerError, match="is no id"):
            client.activate("")


# Without one


def test_a_silent_service_costs_no_more_than_the_deadline() -> None:
    """A page must not wait for a service that hangs. Its connections stay open for a while, but not many."""
    with silent_service() as endpoint, rankward.Client(endpoint, "key", timeout_s=0.01) as client:
        decisions = [client.rank(CONTEXT, ACTIONS, excluded=["soup"]) for _ in range(100)]
        assert {(decision.action_id, decision.fallback) for decision in decisions} == {("salad", True)}
        assert len({decision.event_id for decision in decisions}) == 100
        assert client.stats == rankward.ClientStats(fallbacks={"timeout": 100})


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (answer(503, REFUSAL % 503, b"retry-after: 3"), "busy"),
        (answer(429, REFUSAL % 429), "busy"),
        (answer(500, b"oops"), "failed"),
        (answer(409, REFUSAL % 409), "failed"),
        (answer(301, b"", b"location: /"), "refused"),
        (answer(403, REFUSAL % 403), "refused"),
        (answer(201, b"[]"), "failed"),
        (answer(201, b'{"ranking":[],"eventId":"e","rewardActionId":"soup"}'), "failed"),
        (answer(201, b"nonsense", b"content-encoding: gzip"), "failed"),
        (b"", "unreachable"),
        (b"nonsense", "unreachable"),
    ],
)
def test_whatever_a_service_answers_something_is_shown(reply: bytes, reason: str) -> None:
    """The first action that is not excluded, whatever came back."""
    with canned_service(reply) as endpoint, rankward.Client(endpoint, "key", timeout_s=LONG_S) as client:
        decision = client.rank(CONTEXT, ACTIONS, excluded=["soup"])
        assert (decision.action_id, decision.fallback) == ("salad", True)
        assert client.stats.fallbacks == {reason: 1}


@pytest.mark.parametrize(("asked", "granted"), [("3", 3.0), ("9" * 400, 300.0), ("soon", 0.0), ("-1", 0.0)])
def test_a_service_may_ask_for_patience_within_bounds(asked: str, granted: float) -> None:
    """Or one answer of a proxy could keep all reports for ever."""
    refusal = read_refusal(503, {"retry-after": asked}, b"")
    assert isinstance(refusal, UnansweredError)
    assert refusal.retry_after_s == granted


def test_a_decision_may_take_as_long_as_the_caller_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than a report would be waited for, too: whoever allows a minute gets no baseline after ten seconds."""
    monkeypatch.setattr("rankward.client.remote._PATIENCE_S", 1e-9)
    body = b'{"ranking":[{"id":"soup","probability":1.0}],"eventId":"e","rewardActionId":"soup"}'
    with (
        canned_service(answer(201, body)) as endpoint,
        rankward.Client(endpoint, "key", timeout_s=LONG_S) as client,
    ):
        assert not client.rank(CONTEXT, {"soup": ACTIONS["soup"]}).fallback
        assert client.stats.fallbacks == {}


def test_nobody_there_is_noticed_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """And said once, not with every page."""
    with refused_endpoint() as endpoint, rankward.Client(endpoint, "key", timeout_s=LONG_S) as client:
        for _ in range(3):
            assert client.rank(CONTEXT, ACTIONS).fallback
        assert repr(client.stats.fallbacks) == "{'unreachable': 3}"
    assert len([record for record in caplog.records if "fall back" in record.message]) == 1


def test_waiting_rewards_are_bounded_and_the_oldest_go(caplog: pytest.LogCaptureFixture) -> None:
    """A service that is away for a day must not fill the application's memory."""
    with refused_endpoint() as endpoint, rankward.Client(endpoint, "key", queue_size=10) as client:
        for number in range(100):
            client.reward(f"e{number}", 1.0)
        assert not client.flush(0.01)
        eventually(lambda: (stats := client.stats).queued + stats.dropped == 100, "none is between two queues")
        assert client.stats.queued <= 26  # those under way come on top
        client.close(0.01)
        assert client.stats == rankward.ClientStats(dropped=100)


def test_a_closed_client_still_shows_something() -> None:
    """A page that is being made while the application shuts down."""
    with refused_endpoint() as endpoint:
        client = rankward.Client(endpoint, "key")
        client.close()
    client.close()
    assert client.rank(CONTEXT, ACTIONS).action_id == "soup"
    client.reward("e", 1.0)
    assert client.flush()
    assert client.stats == rankward.ClientStats(fallbacks={"closed": 1}, dropped=1)


def test_what_runs_behind_goes_on_after_an_answer_that_cannot_be_decoded() -> None:
    """A proxy may answer anything, once."""
    nonsense = answer(200, b"nonsense", b"content-encoding: gzip")
    with canned_service(nonsense, answer(204, b"")) as endpoint, rankward.Client(endpoint, "key") as client:
        client.reward("e1", 1.0)
        assert client.flush(LONG_S)
        assert client.stats == rankward.ClientStats(sent=1)

    settings = b'{"explorationPercentage":0.2,"rewardWaitTime":"PT10M","learningMode":"Online"}'
    replies = (nonsense, answer(200, b'{"name":"loop"}'), answer(200, settings), answer(200, b""))
    with (
        canned_service(*replies) as endpoint,
        rankward.Client(endpoint, "key", timeout_s=LONG_S, local=True, refresh_s=600) as client,
    ):
        assert not client.rank(CONTEXT, ACTIONS).fallback
        client.close(0.01)


@pytest.mark.parametrize("event_id", ["\ud800", ""])
def test_an_id_that_cannot_be_sent_is_a_mistake_and_no_more(event_id: str) -> None:
    """Ids come from requests, and those from anywhere."""
    with refused_endpoint() as endpoint, rankward.Client(endpoint, "key", timeout_s=LONG_S) as client:
        assert client.rank(CONTEXT, ACTIONS, event_id=event_id).fallback
        client.reward("e1", 1.0, slot=event_id)
        client.activate(event_id)
        assert client.stats == rankward.ClientStats(fallbacks={"invalid": 1}, dropped=1, withheld=1)


@pytest.mark.slow
def test_a_page_that_is_shown_while_the_interpreter_ends_shows_the_baseline() -> None:
    """What runs at exit may outlive the client's thread."""
    code = """
        import atexit
        import rankward

        def page():
            decision = client.rank({}, {"soup": {}, "salad": {}})
            client.reward(decision.event_id, 1.0)
            client.reward("e1", 1.0)
            print(decision.action_id, client.stats.fallbacks, client.stats.dropped)

        atexit.register(page)
        client = rankward.Client("http://127.0.0.1:9", "key")
    """
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    assert (ended.stdout, ended.stderr) == (
        "soup {'closed': 1} 1\n",
        "decisions fall back to the baseline (closed): the client is closed\n",
    )


def test_there_must_be_something_to_show() -> None:
    """Without an action nobody could say what to fall back to."""
    with refused_endpoint() as endpoint, rankward.Client(endpoint, "key") as client:
        for actions in ({}, ACTIONS):
            with pytest.raises(InvalidRequest):
                client.rank(CONTEXT, actions, excluded=list(ACTIONS))
        with pytest.raises(InvalidRequest, match="mapping"):
            client.rank(CONTEXT, 7)  # type: ignore[arg-type]


def test_a_page_that_is_given_up_leaves_nothing_behind() -> None:
    """A web framework cancels what it does for a visitor who went away."""

    async def visit() -> None:
        with silent_service() as endpoint:
            async with rankward.AsyncClient(endpoint, "key", timeout_s=LONG_S) as client:
                page = asyncio.create_task(client.rank(CONTEXT, ACTIONS))
                await asyncio.sleep(0)
                page.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await page

    asyncio.run(visit())


@pytest.mark.slow
def test_a_fork_in_the_middle_of_counting_does_not_stop_the_child() -> None:
    """Another thread may hold any of the client's locks at that moment, and it stays behind in the parent."""
    program = textwrap.dedent("""
        import os, signal, sys, threading, rankward
        client = rankward.Client("http://127.0.0.1:9", "key")
        held, over = threading.Event(), threading.Event()

        def hold():
            with client._tally._lock, client._front._lock, client._lock:
                held.set()
                over.wait()

        threading.Thread(target=hold).start()
        held.wait()
        child = os.fork()
        if not child:
            signal.alarm(int(sys.argv[1]))
            decision = client.rank({}, {"soup": {}, "salad": {}}, event_id="mine")
            client.close(0)
            os._exit(0 if decision.action_id == "soup" else 1)
        over.set()
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """)
    ran = subprocess.run([sys.executable, "-c", program, str(round(PATIENCE_S / 2))], check=False, timeout=PATIENCE_S)
    assert ran.returncode == 0


def test_importing_starts_nothing() -> None:
    """A package that starts threads or processes when it is imported cannot be imported anywhere."""
    program = "import threading, rankward; assert threading.active_count() == 1"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=PATIENCE_S).returncode == 0
