"""How requests may arrive: paths, keys, headers, bodies, TLS."""

from __future__ import annotations

import http.client
import json
import re
import socket
from typing import TYPE_CHECKING

import pytest

from rankward.api.options import ApiOptions
from tests.certificates import self_signed
from tests.service import ADMIN_KEY, KEY_HEADER, PATIENCE_S, LoopClient, RunningService, eventually, request

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

RANK = "/personalizer/v1.0/rank"
BODY = json.dumps(request("a", "b")).encode()
BODY_BOUND = 1_048_576


@pytest.fixture(scope="module")
def loop(service: RunningService) -> LoopClient:
    """A loop whose settings nobody changes."""
    return service.new_loop()


@pytest.fixture(scope="module")
def other(service: RunningService) -> LoopClient:
    """Another one."""
    return service.new_loop()


# Paths


@pytest.mark.parametrize(
    "target", ["//personalizer/v1.0/rank", "/personalizer/v1.0/rank/", "/personalizer/v1.0/rank?x=1"]
)
def test_slashes_and_queries_do_not_matter(service: RunningService, loop: LoopClient, target: str) -> None:
    """Every official client joins endpoint and path by plain concatenation."""
    assert service.send("POST", target, headers={KEY_HEADER: loop.key}, body=BODY).status_code == 201


@pytest.mark.parametrize("prefix", ["/loops/{}", "//loops/{}/", "/loops/{}//"])
def test_a_loop_may_be_named_by_the_path(service: RunningService, loop: LoopClient, prefix: str) -> None:
    """`http://HOST/loops/NAME` is an endpoint too."""
    target = prefix.format(loop.loop) + RANK

    assert service.send("POST", target, headers={KEY_HEADER: loop.key}, body=BODY).status_code == 201


def test_another_method_is_refused_with_those_allowed(service: RunningService, loop: LoopClient) -> None:
    """In the gateway's words."""
    answer = loop.get("/rank")

    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
    assert answer.json()["error"]["code"] == "405"


@pytest.mark.parametrize(
    "target", ["/personalizer/v1.0/ranks", "/personalizer/v9/rank", "/loops/x/personalizer/v1.0", "/nothing"]
)
def test_an_unknown_path_is_refused_in_the_gateways_words(service: RunningService, target: str) -> None:
    """Before a key is asked for: it is nobody's."""
    answer = service.send("POST", target, body=BODY)

    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.json()["error"]["code"] == "404"


# Keys


@pytest.mark.parametrize("slot", [1, 2])
def test_either_key_opens_the_loop(service: RunningService, slot: int) -> None:
    """So that one can be rotated while the other serves."""
    headers = {KEY_HEADER: service.key("default", slot)}

    assert service.send("POST", RANK, headers=headers, body=BODY).status_code == 201


@pytest.mark.parametrize(
    "name", ["ocp-apim-subscription-key", "OCP-APIM-SUBSCRIPTION-KEY", "Ocp-Apim-Subscription-Key"]
)
def test_the_case_of_the_key_header_does_not_matter(service: RunningService, loop: LoopClient, name: str) -> None:
    """As of any header."""
    assert service.send("POST", RANK, headers={name: loop.key}, body=BODY).status_code == 201


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_key_may_come_as_a_bearer_token(service: RunningService, loop: LoopClient, scheme: str) -> None:
    """Clients of the later versions can be given nothing else than a token."""
    assert service.send("POST", RANK, headers={"Authorization": f"{scheme} {loop.key}"}, body=BODY).status_code == 201


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {KEY_HEADER: ""},
        {KEY_HEADER: "0" * 32},
        {"Authorization": "Bearer nonsense"},
        {"Authorization": "Basic dXNlcjpwYXNz"},
        {KEY_HEADER: "gr\u00fc\u00df"},
    ],
)
def test_without_a_key_nothing_opens(service: RunningService, headers: dict[str, str]) -> None:
    """401 in the gateway's words, and no hint of whether the loop exists."""
    for target in (RANK, "/loops/default" + RANK, "/loops/nobody" + RANK):
        answer = service.send("POST", target, headers=headers, body=BODY)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "401"


def test_a_loops_key_opens_nothing_of_another_loop(
    service: RunningService, loop: LoopClient, other: LoopClient
) -> None:
    """Neither by path nor by what was logged: not for reading, not for writing."""
    refused = [
        ("POST", "/rank"),
        ("POST", "/events/e1/reward"),
        ("POST", "/events/e1/activate"),
        ("GET", "/configurations/service"),
        ("PUT", "/configurations/service"),
        ("GET", "/configurations/policy"),
        ("DELETE", "/configurations/policy"),
        ("GET", "/model"),
        ("HEAD", "/model"),
        ("DELETE", "/model"),
        ("GET", "/model/properties"),
        ("GET", "/logs/properties"),
        ("DELETE", "/logs"),
    ]
    before = service.entries(other.loop)
    for method, path in refused:
        target = f"/loops/{other.loop}/personalizer/v1.0{path}"
        answer = service.send(method, target, headers={KEY_HEADER: loop.key}, body=BODY)
        assert answer.status_code == 401, (method, path)
    assert service.entries(other.loop) == before


def test_an_event_of_one_loop_is_unknown_to_another(
    service: RunningService, loop: LoopClient, other: LoopClient
) -> None:
    """A reward goes to the loop whose key came with it."""
    loop.rank(request("a", "b", eventId="shared"))
    other.reward("shared", 1)

    assert [record.event_id for record in service.records(other.loop)] == ["shared"]
    assert not [record for record in service.records(loop.loop) if type(record).__name__ == "Observation"]


def test_the_admin_key_opens_every_loop_that_is_named(service: RunningService, loop: LoopClient) -> None:
    """It selects none by itself."""
    headers = {KEY_HEADER: ADMIN_KEY}

    assert service.send("POST", f"/loops/{loop.loop}{RANK}", headers=headers, body=BODY).status_code == 201
    for target, code in ((RANK, "resourceNotFound"), ("/loops/nobody" + RANK, "frontEndNotFound")):
        answer = service.send("POST", target, headers=headers, body=BODY)
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == code


def test_a_rotated_key_stops_working_and_the_other_goes_on(service: RunningService) -> None:
    """Without a restart, within a moment."""
    loop = service.new_loop()
    second = LoopClient(service, loop.loop, service.key(loop.loop, 2), "v1.0")

    service.home.loops.set_key(loop.loop, 1)
    fresh = service.client(loop.loop)

    assert second.get("/model/properties").status_code == 200
    eventually(lambda: fresh.get("/model/properties").status_code == 200, "the new key opens the loop")
    assert loop.get("/model/properties").status_code == 401


# Headers and bodies


def test_headers_of_the_official_clients_are_ignored(loop: LoopClient) -> None:
    """None of them may get in the way."""
    answer = loop.call(
        "POST",
        "/rank",
        BODY,
        **{
            "X-BingApis-SDK-Client": "Python-SDK",
            "x-ms-client-request-id": "4a5b",
            "x-ms-return-client-request-id": "true",
            "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "User-Agent": "azsdk-python-ai-personalizer/unknown",
            "Accept": "application/json",
        },
    )

    assert answer.status_code == 201


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=UTF-8", "application/json;charset=utf-8", "text/json", "text/plain", ""]
)
def test_the_content_type_does_not_matter(loop: LoopClient, content_type: str) -> None:
    """Recorded traffic has it in any case, and on bodies that are empty."""
    assert loop.call("POST", "/rank", BODY, **{"Content-Type": content_type}).status_code == 201


def test_answers_are_not_to_be_cached_and_bear_an_id(loop: LoopClient) -> None:
    """The three headers and the id that the original sent, on good answers and on refusals."""
    answers = [
        loop.rank(request("a", "b")),
        loop.reward("e1", 1),
        loop.get("/model"),
        loop.reward("e1", 7),
        loop.get("/rank"),
    ]

    for answer in answers:
        assert answer.headers["cache-control"] == "no-store, must-revalidate, no-cache"
        assert answer.headers["pragma"] == "no-cache"
        assert answer.headers["expires"] == "0"
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert len({answer.headers["apim-request-id"] for answer in answers}) == len(answers)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_a_body_may_come_in_chunks(service: RunningService, loop: LoopClient, size: int) -> None:
    """Some clients do not know the length beforehand."""
    pieces = [BODY[start : start + size] for start in range(0, len(BODY), size)]

    assert service.send("POST", RANK, headers={KEY_HEADER: loop.key}, body=pieces).status_code == 201


def _padded(length: int) -> bytes:
    body = json.dumps(request("a", "b", padding="")).encode()
    return body.replace(b'"padding": ""', b'"padding": "' + b"x" * (length - len(body)) + b'"')


def test_a_body_at_the_bound_is_read(loop: LoopClient) -> None:
    """The bound is inclusive."""
    body = _padded(BODY_BOUND)

    assert len(body) == BODY_BOUND
    assert loop.call("POST", "/rank", body).status_code == 201


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_beyond_the_bound_is_refused(service: RunningService, loop: LoopClient, *, chunked: bool) -> None:
    """With the bound in words, whether the length was said beforehand or not; the next request is served."""
    body = _padded(BODY_BOUND + 1)
    pieces = [body[start : start + 65_536] for start in range(0, len(body), 65_536)] if chunked else body

    answer = service.send("POST", RANK, headers={KEY_HEADER: loop.key}, body=pieces)

    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "payloadSizeExceeded"
    assert "1048576 bytes" in answer.json()["error"]["message"]
    assert loop.rank(request("a", "b")).status_code == 201


def test_a_body_too_long_is_refused_before_it_is_sent(service: RunningService, loop: LoopClient) -> None:
    """Nothing is read into memory, and a client that waits for `100 Continue` is spared the upload."""
    head = f"POST {RANK} HTTP/1.1\r\nHost: x\r\n{KEY_HEADER}: {loop.key}\r\nContent-Length: 9000000000\r\n"

    with socket.create_connection(("127.0.0.1", service.port), PATIENCE_S) as connection:
        connection.sendall(head.encode() + b"Expect: 100-continue\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 400 ")


def test_a_client_that_goes_away_in_the_middle_leaves_no_trace(service: RunningService) -> None:
    """Nothing is half-written, and the process goes on."""
    loop = service.new_loop()
    head = f"POST {RANK} HTTP/1.1\r\nHost: x\r\n{KEY_HEADER}: {loop.key}\r\nContent-Length: {len(BODY)}\r\n\r\n"

    with socket.create_connection(("127.0.0.1", service.port), PATIENCE_S) as connection:
        connection.sendall(head.encode() + BODY[:-1])

    assert loop.rank(request("a", "b", eventId="whole")).status_code == 201
    assert [record.event_id for record in service.records(loop.loop)] == ["whole"]


def test_requests_sent_before_the_answers_came_are_answered_in_turn(service: RunningService, loop: LoopClient) -> None:
    """HTTP/1.1 allows it, and some proxies do it."""
    ids = [f"pipelined-{number}" for number in range(5)]
    with socket.create_connection(("127.0.0.1", service.port), PATIENCE_S) as connection:
        for event_id in ids:
            body = json.dumps({**request("a", "b"), "eventId": event_id}).encode()
            head = f"POST {RANK} HTTP/1.1\r\nhost: x\r\n{KEY_HEADER}: {loop.key}\r\ncontent-length: {len(body)}\r\n"
            last = "connection: close\r\n" if event_id == ids[-1] else ""
            connection.sendall(f"{head}{last}\r\n".encode() + body)
        answers = b"".join(iter(lambda: connection.recv(65_536), b""))

    assert re.findall(rb'"eventId":"([^"]+)"', answers) == [event_id.encode() for event_id in ids]


def test_an_offer_of_another_protocol_is_passed_over(service: RunningService, loop: LoopClient) -> None:
    """Java's own client offers HTTP/2 with every request over plain HTTP, and sends the body by itself."""
    head = (
        f"POST {RANK} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nContent-Length: {len(BODY)}\r\n"
        f"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\nUpgrade: h2c\r\n{KEY_HEADER}: {loop.key}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE_S) as connection:
        for _ in range(2):
            connection.sendall(head.encode())
            connection.sendall(BODY)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            assert answer.status == 201
            assert json.loads(answer.read())["rewardActionId"] in {"a", "b"}


def test_many_requests_share_a_connection(service: RunningService, loop: LoopClient) -> None:
    """Kept alive after good answers, refusals and answers without a body alike."""
    wanted = [
        ("POST", RANK, BODY, 201),
        ("POST", RANK, b"{", 400),
        ("GET", RANK, b"", 405),
        ("HEAD", "/personalizer/v1.0/model", b"", 200),
        ("GET", "/personalizer/v9/rank", b"not read", 404),
        ("POST", "/personalizer/v1.0/events/e/activate", b"", 204),
        ("GET", "/nothing", b"not read", 404),
        ("POST", RANK, BODY, 201),
    ]
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=PATIENCE_S)
    connection.connect()
    connection.auto_open = 0  # to open another one would be to fail
    try:
        for method, target, body, status in wanted:
            connection.request(method, target, body=body, headers={KEY_HEADER: loop.key})
            answer = connection.getresponse()
            answer.read()
            assert answer.status == status, (method, target)
    finally:
        connection.close()


# TLS


@pytest.fixture(scope="module")
def tls_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A service behind a certificate, which one of the tests stops and starts again."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = self_signed(folder)
    running = RunningService(folder, options=ApiOptions(tls_cert=str(certificate), tls_key=str(key)))
    try:
        yield running.start()
    finally:
        running.close()


def test_with_a_certificate_the_service_speaks_tls(tls_service: RunningService) -> None:
    """Several SDKs refuse plain HTTP."""
    loop = tls_service.client("default")

    assert tls_service.url.startswith("https://")
    assert loop.rank(request("a", "b", eventId="tls")).status_code == 201
    assert loop.reward("tls", 1).status_code == 204


def test_with_a_certificate_plain_http_is_not_spoken(tls_service: RunningService) -> None:
    """No key may travel in the clear by accident."""
    with socket.create_connection(("127.0.0.1", tls_service.port), PATIENCE_S) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert not connection.recv(4096).startswith(b"HTTP/")


def test_clients_that_hold_on_do_not_hold_up_the_stop(tls_service: RunningService) -> None:
    """Few clients answer TLS's farewell: to wait for it would make every Ctrl-C take ten seconds."""
    held = tls_service.connect()
    try:
        held.request("GET", "/healthz")
        assert held.getresponse().read() == b"alive\n"
        assert tls_service.stop() == 0
        assert "graceful shutdown exceeded" not in tls_service.output.read_text()
    finally:
        held.close()
        tls_service.start()
