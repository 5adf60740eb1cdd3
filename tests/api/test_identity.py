"""Tokens of an identity provider: what they open, and what is refused."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from rankward.api import identity
from rankward.api.identity import IdentityProvider
from rankward.api.options import ApiOptions
from rankward.errors import InvalidSettings, StoreUnavailable
from tests.service import RunningService, eventually, request

AUDIENCE = "rankward-tests"
BODY = json.dumps(request("a", "b")).encode()


class Provider:
    """A real identity provider, as small as one can be."""

    def __init__(self) -> None:
        self.keys = {"k1": rsa.generate_private_key(public_exponent=65537, key_size=2048)}
        self.published = ["k1"]
        self.fetches = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.fetches += 1
                documents: dict[str, Any] = {
                    "/.well-known/openid-configuration": {"issuer": outer.issuer, "jwks_uri": f"{outer.issuer}/keys"},
                    "/keys": {"keys": [outer.public(name) for name in outer.published]},
                }
                body = json.dumps(documents[self.path]).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self.server.server_address[1]}"
        self._thread = threading.Thread(target=self.server.serve_forever)
        self._thread.start()

    def public(self, name: str) -> dict[str, Any]:
        """A key as it is published."""
        found = jwt.algorithms.RSAAlgorithm.to_jwk(self.keys[name].public_key(), as_dict=True)
        return {**found, "kid": name, "alg": "RS256", "use": "sig"}

    def token(self, *roles: str, key: str = "k1", **claims: Any) -> str:
        """A token."""
        said = {"iss": self.issuer, "aud": AUDIENCE, "exp": time.time() + 600, "sub": "somebody", "roles": list(roles)}
        said |= claims
        kept = {name: value for name, value in said.items() if value is not None}
        return jwt.encode(kept, self.keys[key], algorithm="RS256", headers={"kid": key})

    def close(self) -> None:
        """Stop."""
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


@contextmanager
def serving(folder: Path, provider: Provider) -> Iterator[RunningService]:
    """A service that trusts a provider."""
    options = ApiOptions(oidc_issuer=provider.issuer, oidc_audience=AUDIENCE)
    with closing(RunningService(folder, options=options)) as service:
        yield service.start()


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    """A provider for all tests."""
    with closing(Provider()) as provider:
        yield provider


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory, provider: Provider) -> Iterator[RunningService]:
    """A service for all tests."""
    with serving(tmp_path_factory.mktemp("identity"), provider) as service:
        token = provider.token("loop:default")
        eventually(lambda: rank(service, token).status_code == 201, "the provider's keys are fetched")
        yield service


def rank(service: RunningService, token: str, *, loop: str | None = None) -> httpx.Response:
    """Ask for a decision."""
    place = f"/loops/{loop}" if loop else ""
    headers = {"Authorization": f"Bearer {token}"}
    return service.send("POST", f"{place}/personalizer/v1.0/rank", headers=headers, body=BODY)


@pytest.mark.slow
def test_a_token_opens_what_it_lists(trusting: RunningService, provider: Provider) -> None:
    """A loop that it names alone is selected, as a key selects one."""
    one, every, admin, none = (
        provider.token(*roles) for roles in (("loop:default",), ("loop:*",), ("admin",), ("reader",))
    )

    assert rank(trusting, one).status_code == 201
    assert rank(trusting, one, loop="default").status_code == 201
    assert rank(trusting, one, loop="playground").status_code == 403
    assert rank(trusting, every, loop="playground").status_code == 201
    assert rank(trusting, every).status_code == 404
    assert rank(trusting, admin, loop="default").status_code == 201
    assert rank(trusting, none).status_code == 403
    assert rank(trusting, provider.token(roles="loop:default reader")).status_code == 201
    for token, status in ((admin, 200), (every, 403), (one, 403)):
        answer = trusting.send("GET", "/admin/loops", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == status


@pytest.mark.slow
def test_keys_go_on_working_beside_tokens(trusting: RunningService) -> None:
    """In either header."""
    assert rank(trusting, trusting.key("default")).status_code == 201
    assert rank(trusting, "wrong").status_code == 401


@pytest.mark.slow
@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"exp": 1}, "expired"),
        ({"exp": None}, "exp"),
        ({"aud": "somebody else"}, "Audience"),
        ({"aud": None}, "aud"),
        ({"iss": "https://somewhere.example"}, "issuer"),
        ({"nbf": 4_102_444_800}, "not yet valid"),  # 2100
    ],
)
def test_a_token_that_does_not_hold_is_refused(
    trusting: RunningService, provider: Provider, claims: dict[str, Any], why: str
) -> None:
    """With what is wrong, in the gateway's shape."""
    answer = rank(trusting, provider.token("loop:default", **claims))

    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "401"
    assert why in answer.json()["error"]["message"]


@pytest.mark.slow
def test_forged_tokens_are_refused(trusting: RunningService, provider: Provider) -> None:
    """Unsigned, signed with a secret that is public, by a key of one's own, or changed on the way."""
    good = provider.token("loop:default")
    head, body, signature = good.split(".")
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    claims = jwt.decode(good, options={"verify_signature": False})
    for forged in (
        jwt.encode(claims, "", algorithm="none", headers={"kid": "k1"}),
        jwt.encode(claims, "x" * 64, algorithm="HS256", headers={"kid": "k1"}),
        jwt.encode(claims, other, algorithm="RS256", headers={"kid": "k1"}),
        jwt.encode(claims, other, algorithm="RS256", headers={"kid": "unknown"}),
        f"{head}.{body}x.{signature}",
        f"{head}.{body}.",
        "a.b.c",
        "..",
    ):
        assert rank(trusting, forged).status_code == 401, forged


@pytest.mark.slow
def test_without_a_provider_a_token_is_told_apart_from_a_wrong_key(service: RunningService) -> None:
    """So that nobody looks for the mistake in the token."""
    answer = rank(service, "aaaa.bbbb.cccc")

    assert answer.status_code == 401
    assert "--oidc-issuer" in answer.json()["error"]["message"]


@pytest.mark.slow
def test_a_provider_that_is_away_is_said_to_be(tmp_path: Path) -> None:
    """503, to be tried again: the token may be good."""
    gone = Provider()
    gone.close()
    with serving(tmp_path, gone) as service:
        for _ in range(2):
            answer = rank(service, gone.token("loop:default"))
            assert answer.status_code == 503
            assert "retry-after" in answer.headers
        assert rank(service, service.key("default")).status_code == 201, "keys work all the same"


def test_tokens_that_come_together_wait_for_the_keys_together(provider: Provider) -> None:
    """A service that has just started gets its first tokens all at once."""

    async def check() -> None:
        checking = IdentityProvider(issuer=provider.issuer, audience=AUDIENCE, claim="roles")
        before = provider.fetches
        grants = await asyncio.gather(*[checking.grant(provider.token("loop:default")) for _ in range(5)])
        assert {grant.loops for grant in grants} == {frozenset({"default"})}
        assert provider.fetches == before + 2

    asyncio.run(check())


def test_keys_that_are_known_outlive_the_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour after the last fetch they are asked for again; a provider that is away then must not shut anybody out."""
    monkeypatch.setattr(identity, "_KEYS_OLD_S", 0.0)
    monkeypatch.setattr(identity, "_FETCH_AGAIN_S", 0.0)

    async def check() -> None:
        with closing(Provider()) as leaving:
            checking = IdentityProvider(issuer=leaving.issuer, audience=AUDIENCE, claim="roles")
            await checking.grant(leaving.token("loop:default"))
        assert (await checking.grant(leaving.token("admin"))).admin
        leaving.keys["k2"] = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        with pytest.raises(StoreUnavailable):
            await checking.grant(leaving.token("admin", key="k2"))

    asyncio.run(check())


@pytest.mark.parametrize("issuer", ["http://login.example", "login.example", "ftp://login.example", ""])
def test_a_provider_is_named_by_https(issuer: str) -> None:
    """Who can change its answers on the way could let in anybody."""
    with pytest.raises(InvalidSettings, match="https"):
        IdentityProvider(issuer=issuer, audience="x", claim="roles")
    with pytest.raises(InvalidSettings, match="audience"):
        IdentityProvider(issuer="https://login.example", audience="", claim="roles")
