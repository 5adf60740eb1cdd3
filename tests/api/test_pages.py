"""What is not the contract: first steps, documentation, health, metrics, and the log of requests."""

from __future__ import annotations

import json
import os
import re
import signal
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.service import ADMIN_KEY, KEY_HEADER, PATIENCE_S, RunningService, eventually, request

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

pytestmark = pytest.mark.slow

SECRET = "a-word-that-must-not-be-logged"


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A service with two HTTP processes."""
    running = RunningService(tmp_path_factory.mktemp("wide"), workers=2)
    try:
        yield running.start()
    finally:
        running.close()


def figures(service: RunningService, name: str) -> dict[str, float]:
    """Samples of a metric, by their labels as they are written."""
    answer = service.send("GET", "/metrics")
    assert answer.status_code == 200
    found = re.findall(rf"^{name}(?:\{{(.*)\}})? (\S+)$", answer.text, re.MULTILINE)
    return {labels: float(value) for labels, value in found}


def page(service: RunningService, path: str) -> httpx.Response:
    """A page that is there."""
    answer = service.send("GET", path)
    assert answer.status_code == 200
    return answer


# Pages


def test_the_page_is_html_that_loads_nothing_from_elsewhere(service: RunningService) -> None:
    """No script, no inline style, no other host; and no key, for whoever opens them has shown none."""
    answer = page(service, "/docs")

    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"""<script|style=|(src|href)="?(https?:)?//""", answer.text)
    assert service.key("default") not in answer.text
    assert service.key("playground") not in answer.text


def test_the_root_leads_to_the_portal(service: RunningService) -> None:
    """Whoever types the address of a service wants to see it."""
    answer = service.send("GET", "/")

    assert (answer.status_code, answer.headers["location"]) == (307, "/portal/")
    start = service.send("GET", "/start")
    assert (start.status_code, start.headers["location"]) == (307, "/portal/start")


def test_pages_find_their_style_sheet(service: RunningService) -> None:
    """It is served from here."""
    for href in set(re.findall(r'(?:href|src)="(/static/[^"]+)"', page(service, "/docs").text)):
        assert page(service, href).headers["content-type"].startswith(("text/css", "image/svg+xml"))


@pytest.mark.parametrize(
    "path", ["/static/../../api/app.py", "/static/%2e%2e/%2e%2e/api/app.py", "/static//etc/passwd"]
)
def test_static_files_are_those_of_the_portal_only(service: RunningService, path: str) -> None:
    """No path leads out of their folder."""
    assert service.send("GET", path).status_code == 404


def test_a_wrong_method_on_a_page_is_refused_with_those_allowed(service: RunningService) -> None:
    """In the gateway's words."""
    answer = service.send("POST", "/healthz")

    assert answer.status_code == 405
    assert "GET" in answer.headers["allow"]
    assert answer.json()["error"]["code"] == "405"


# Health


def test_health_says_alive_and_ready(service: RunningService) -> None:
    """Without a key: whoever watches a process has none."""
    assert page(service, "/healthz").text == "alive\n"
    assert page(service, "/readyz").text == "ready\n"


# Metrics


def test_metrics_count_over_all_processes(wide: RunningService) -> None:
    """Whichever process is asked: each answers for all."""
    loop = wide.new_loop()
    for _ in range(40):
        assert loop.rank(request("a", "b")).status_code == 201
    loop.reward("e1", 1)
    loop.reward("e1", 7)
    wanted = {
        f'loop="{loop.loop}",operation="rank",status="201"': 40,
        f'loop="{loop.loop}",operation="reward",status="204"': 1,
        f'loop="{loop.loop}",operation="reward",status="400"': 1,
    }

    def are_counted() -> bool:
        return figures(wide, "rankward_requests_total").items() >= wanted.items()

    eventually(are_counted, "each request is counted, just after it is answered")
    for _ in range(10):
        assert are_counted()
    assert figures(wide, "rankward_request_seconds_count")['operation="rank"'] >= 40
    assert figures(wide, "rankward_request_seconds_bucket")['le="+Inf",operation="rank"'] >= 40


def test_metrics_count_errors_by_code(wide: RunningService) -> None:
    """With the contract's own codes."""
    before = figures(wide, "rankward_errors_total").get('code="payloadSizeExceeded",operation="rank"', 0)

    wide.new_loop().call("POST", "/rank", b" " * 2_000_000)

    assert figures(wide, "rankward_errors_total")['code="payloadSizeExceeded",operation="rank"'] == before + 1


def test_metrics_have_a_figure_for_every_stage(wide: RunningService) -> None:
    """What waits, what is joined, how far behind each stage is, how old the model is."""
    loop = wide.client("playground")
    for n in range(5):
        loop.rank(request("a", "b", eventId=f"e{n}"))
    learned = 'loop="playground"'
    eventually(lambda: learned in figures(wide, "rankward_model_age_seconds"), "the model has an age")

    assert figures(wide, "rankward_model_age_seconds")[learned] >= 0
    eventually(
        lambda: figures(wide, "rankward_events").get('loop="playground",state="joined"') == 5, "five events are joined"
    )
    for name in ("join_lag_seconds", "join_queue", "train_queue", "train_rate", "set_aside"):
        eventually(lambda name=name: learned in figures(wide, f"rankward_{name}"), f"{name} is there")  # type: ignore[misc]


def test_metrics_never_show_a_key_or_an_event(wide: RunningService) -> None:
    """Whoever scrapes them has shown no key."""
    loop = wide.new_loop()
    loop.rank(request(SECRET, "b", eventId=SECRET))
    wide.send("POST", f"/personalizer/v1.0/{SECRET}", headers={KEY_HEADER: loop.key})
    wide.send("POST", f"/loops/{SECRET}/personalizer/v1.0/rank", headers={KEY_HEADER: loop.key})

    text = page(wide, "/metrics").text
    assert SECRET not in text
    assert loop.key not in text


# The log of requests


def test_every_request_is_one_line_without_bodies_or_keys(wide: RunningService) -> None:
    """Good ones, refused ones, unknown paths; no secret, feature, id or body in any of them."""
    loop = wide.new_loop()
    answers = [
        loop.rank(request(SECRET, "b", eventId=SECRET)),
        loop.reward(SECRET, 1),
        loop.call("POST", "/rank", SECRET.encode()),
        wide.send("POST", "/personalizer/v1.0/rank", headers={KEY_HEADER: SECRET}, body=b"{}"),
        wide.send("GET", f"/personalizer/v1.0/{SECRET}?{SECRET}", headers={KEY_HEADER: ADMIN_KEY}),
    ]
    wanted = {answer.headers["apim-request-id"] for answer in answers}

    def lines() -> list[dict[str, object]]:
        texts = [path.read_text() for path in (wide.root / "run").glob("requests-*.jsonl")]
        found = [json.loads(line) for text in texts for line in text.splitlines()]
        return [line for line in found if line["request"] in wanted]

    eventually(lambda: len(lines()) == len(answers), "all requests are logged")
    logged = sorted((line["operation"], line["status"], line.get("code")) for line in lines())
    assert logged == [
        ("rank", 201, None),
        ("rank", 400, "badRequest"),
        ("rank", 401, "401"),
        ("reward", 204, None),
        ("unknown", 404, "404"),
    ]
    written = "".join(path.read_text() for path in (wide.root / "run").glob("requests-*.jsonl"))
    written += wide.output.read_text()
    for secret in (SECRET, loop.key, ADMIN_KEY):
        assert secret not in written


def test_requests_for_pages_are_logged_too(wide: RunningService) -> None:
    """An operator who wonders who asks, and how often, finds every request in one place."""
    asked = [("GET", "/readyz", 200), ("GET", "/nothing", 404), ("POST", "/healthz", 405)]
    ids = {wide.send(method, path).headers["apim-request-id"]: status for method, path, status in asked}

    def lines() -> dict[str, tuple[object, object]]:
        texts = [path.read_text() for path in (wide.root / "run").glob("requests-*.jsonl")]
        found = [json.loads(line) for text in texts for line in text.splitlines()]
        return {line["request"]: (line["operation"], line["status"]) for line in found if line["request"] in ids}

    eventually(lambda: lines() == {name: ("page", status) for name, status in ids.items()}, "all pages are logged")
    assert figures(wide, "rankward_requests_total")['loop="",operation="page",status="404"'] >= 1


# Processes


@pytest.mark.parametrize("name", ["api1", "worker"])
def test_a_process_that_dies_is_started_again(wide: RunningService, name: str) -> None:
    """And ranking goes on meanwhile: a client that tries again is served by the others."""
    loop = wide.new_loop()
    before = wide.children()
    os.kill(before[name], signal.SIGKILL)

    eventually(lambda: wide.children().get(name) not in {None, before[name]}, f"{name} is there again")

    assert loop.rank(request("a", "b")).status_code == 201
    eventually(lambda: wide.send("GET", "/readyz").status_code == 200, "the service is ready")
    assert {other: pid for other, pid in wide.children().items() if other != name} == {
        other: pid for other, pid in before.items() if other != name
    }


def test_a_stop_leaves_no_process_behind(wide: RunningService) -> None:
    """Asked to stop, it ends cleanly, every process of it; started again, it goes on with the same keys."""
    loop = wide.new_loop()
    everyone = psutil.Process(wide.pid).children(recursive=True)

    assert wide.stop() == 0

    _, alive = psutil.wait_procs(everyone, timeout=PATIENCE_S)
    assert not alive
    wide.start()
    assert loop.rank(request("a", "b")).status_code == 201


def test_nothing_outlives_the_first_process(wide: RunningService) -> None:
    """Killed without warning, it takes the others along: a second start finds the port and the folder free."""
    loop = wide.new_loop()
    everyone = psutil.Process(wide.pid).children(recursive=True)
    os.kill(wide.pid, signal.SIGKILL)

    gone, alive = psutil.wait_procs(everyone, timeout=PATIENCE_S)
    assert not alive
    assert gone
    wide.start()
    assert loop.rank(request("a", "b")).status_code == 201
