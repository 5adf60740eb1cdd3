"""Signing in with an account: at an identity provider, and through a proxy that says who somebody is."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from rankward.api.options import ApiOptions
from rankward.portal.gate import COOKIE
from rankward.store.audit import AuditFilter
from tests.service import PATIENCE_S, RunningService

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

CLIENT = "rankward-portal"
SECRET = "the-clients-secret"


class Provider:
    """A real identity provider with one user, as small as one can be: it checks what a provider has to."""

    def __init__(self) -> None:
        self.roles = ["view:default", "loop:playground"]
        self.nonce: str | None = None  # to answer instead of the one that was asked for
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._asked: dict[str, dict[str, str]] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.get(self)

            def do_POST(self) -> None:
                outer.post(self)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def get(self, call: BaseHTTPRequestHandler) -> None:
        """Describe the provider, publish its key, or let the user sign in and send them back with a code."""
        parts = urlsplit(call.path)
        if parts.path == "/authorize":
            asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
            assert asked["response_type"] == "code"
            assert asked["code_challenge_method"] == "S256"
            code = f"code-{len(self._asked)}"
            self._asked[code] = asked
            back = f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}"
            call.send_response(302)
            call.send_header("Location", back)
            call.send_header("Content-Length", "0")
            call.end_headers()
            return
        public = jwt.algorithms.RSAAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        documents: dict[str, Any] = {
            "/.well-known/openid-configuration": {
                "issuer": self.issuer,
                "jwks_uri": f"{self.issuer}/keys",
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
            },
            "/keys": {"keys": [{**public, "kid": "k1", "alg": "RS256", "use": "sig"}]},
        }
        self._answer(call, 200, documents[parts.path])

    def post(self, call: BaseHTTPRequestHandler) -> None:
        """Redeem a code, once, for whoever asked for it."""
        body = call.rfile.read(int(call.headers["Content-Length"])).decode()
        form = {name: values[0] for name, values in parse_qs(body).items()}
        asked = self._asked.pop(form["code"], None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=")
        if asked is None or challenge.decode() != asked["code_challenge"] or form["client_secret"] != SECRET:
            self._answer(call, 400, {"error": "invalid_grant"})
            return
        assert form["redirect_uri"] == asked["redirect_uri"]
        claims = {
            "iss": self.issuer,
            "aud": CLIENT,
            "exp": time.time() + 3_600,
            "sub": "42",
            "email": "<b>ada</b>@example.org",
            "nonce": self.nonce or asked["nonce"],
            "roles": self.roles,
        }
        token = jwt.encode(claims, self._key, algorithm="RS256", headers={"kid": "k1"})
        self._answer(call, 200, {"id_token": token, "access_token": "x", "token_type": "Bearer"})

    def _answer(self, call: BaseHTTPRequestHandler, status: int, document: object) -> None:
        body = json.dumps(document).encode()
        call.send_response(status)
        call.send_header("Content-Type", "application/json")
        call.send_header("Content-Length", str(len(body)))
        call.end_headers()
        call.wfile.write(body)

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    """A provider for all tests."""
    with closing(Provider()) as running:
        yield running


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory, provider: Provider) -> Iterator[RunningService]:
    """A service that knows a provider, and a proxy."""
    options = ApiOptions(
        oidc_issuer=provider.issuer,
        oidc_audience="rankward",
        oidc_client_id=CLIENT,
        trusted_proxies="127.0.0.1",
        proxy_user_header="X-User",
        proxy_grants_header="X-Groups",
    )
    environment = {"RANKWARD_OIDC_CLIENT_SECRET": SECRET}
    with closing(RunningService(tmp_path_factory.mktemp("known"), options=options, environment=environment)) as running:
        yield running.start()


def cookies(answer: httpx.Response) -> dict[str, str]:
    """Read the cookies that an answer sets."""
    found = {}
    for header in answer.headers.get_list("set-cookie"):
        name, _, value = header.partition(";")[0].partition("=")
        found[name] = value
    return found


def away(service: RunningService, wanted: str = "/portal/about") -> tuple[str, dict[str, str]]:
    """Leave for the provider. Returns where it sends people back to, and the header with what was remembered."""
    left = service.send("GET", f"/portal/sign-in/leave?next={wanted}")
    assert left.status_code == 303, left.text
    back = urlsplit(signed_in_at(left.headers["location"]))
    return f"{back.path}?{back.query}", {"Cookie": f"rankward_leaving={cookies(left)['rankward_leaving']}"}


def signed_in_at(address: str) -> str:
    """Let the user sign in at the provider; it sends them back."""
    answer = httpx.get(address, timeout=PATIENCE_S)
    assert answer.status_code == 302
    return str(answer.headers["location"])


def test_an_account_signs_in_with_what_it_is_granted(known: RunningService, provider: Provider) -> None:
    """The provider knows people and their roles; the portal keeps neither passwords nor accounts."""
    provider.roles = ["view:default", "loop:playground", "something-else"]
    back, remembered = away(known)
    arrived = known.send("GET", back, headers=remembered)

    assert (arrived.status_code, arrived.headers["location"]) == (303, "/portal/about")
    session = {"Cookie": f"{COOKIE}={cookies(arrived)[COOKIE]}"}
    page = known.send("GET", "/portal/loops/default/configuration", headers=session)
    assert page.status_code == 200
    assert "You may look at these, but not change them." in page.text
    assert "&lt;b&gt;ada&lt;/b&gt;@example.org" in page.text, "a name is text"
    assert known.send("GET", "/portal/loops/default/configuration/reset", headers=session).status_code == 403
    assert known.send("GET", "/portal/loops/playground/configuration/reset", headers=session).status_code == 200
    assert known.send("GET", "/portal/new-loop", headers=session).status_code == 403


def test_whoever_is_granted_nothing_is_told_what_to_ask_for(known: RunningService, provider: Provider) -> None:
    """An empty portal would look as if the service were broken."""
    provider.roles = ["unrelated"]
    back, remembered = away(known)
    refused = known.send("GET", back, headers=remembered)

    assert refused.status_code == 403
    assert "the provider has to list admin, loop:NAME or view:NAME in the claim roles" in refused.text
    assert COOKIE not in cookies(refused)


def test_a_code_is_only_good_for_whoever_asked_for_it(known: RunningService, provider: Provider) -> None:
    """Else a link would sign somebody in as somebody else."""
    provider.roles = ["admin"]
    back, remembered = away(known)
    others_back, _ = away(known)

    assert known.send("GET", others_back, headers=remembered).status_code == 403, "another state"
    assert known.send("GET", back).status_code == 403, "another browser"
    assert known.send("GET", back, headers={"Cookie": "rankward_leaving=nonsense"}).status_code == 403
    assert known.send("GET", back, headers=remembered).status_code == 303
    assert known.send("GET", back, headers=remembered).status_code == 403, "once"


def test_a_token_of_another_sign_in_is_refused(known: RunningService, provider: Provider) -> None:
    """It may have been stolen where it was meant for."""
    back, remembered = away(known)
    provider.nonce = "another"
    try:
        refused = known.send("GET", back, headers=remembered)
    finally:
        provider.nonce = None

    assert refused.status_code == 403
    assert "made for another sign-in" in refused.text


def test_a_trusted_proxy_says_who_somebody_is(known: RunningService) -> None:
    """And what is granted to them, with each request: the session ends when the proxy says somebody else."""
    ada = {"X-User": "ada", "X-Groups": "view:default,loop:playground"}
    arrived = known.send("GET", "/portal/sign-in?next=/portal/about", headers=ada)
    assert (arrived.status_code, arrived.headers["location"]) == (303, "/portal/about")
    session = {"Cookie": f"{COOKIE}={cookies(arrived)[COOKIE]}"}

    def asks(path: str, headers: dict[str, str]) -> int:
        return known.send("GET", path, headers={**session, **headers}).status_code

    assert asks("/portal/loops/playground/configuration/reset", ada) == 200
    assert asks("/portal/loops/default/configuration/reset", ada) == 403
    assert asks("/portal/loops/default/keys", {**ada, "X-Groups": ""}) == 404, "what was granted is taken back at once"
    assert asks("/portal/about", {**ada, "X-User": "eve"}) == 303
    assert asks("/portal/about", {}) == 303
    assert known.home.audit.entries(AuditFilter(who="ada"), limit=1) == [], "looking leaves no entry"


def test_nobody_else_says_who_somebody_is(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whoever reaches the service around the proxy could be anyone."""
    options = ApiOptions(trusted_proxies="10.9.8.7", proxy_user_header="X-User", proxy_grants_header="X-Groups")
    with closing(RunningService(tmp_path_factory.mktemp("around"), options=options)) as running:
        running.start()
        forged = {"X-User": "ada", "X-Groups": "admin", "X-Forwarded-For": "10.9.8.7"}

        answer = running.send("GET", "/portal/sign-in", headers=forged)

        assert answer.status_code == 200
        assert COOKIE not in cookies(answer)
