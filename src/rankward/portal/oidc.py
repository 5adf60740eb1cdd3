"""Signing in with an identity provider: the authorization code flow of OpenID Connect, with PKCE.

What has to be remembered between leaving for the provider and coming back is in a cookie of the visitor's own, so any
process may receive them.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from typing import Any
from urllib.parse import urlencode

import httpx
import msgspec

from rankward.api.identity import Grant, IdentityProvider, granted
from rankward.errors import StoreUnavailable, Unauthorized

_TIMEOUT_S = 10.0
_WHO_LENGTH = 120


class Leaving(msgspec.Struct, frozen=True):
    """What is remembered of somebody who is away to sign in."""

    state: str  # comes back with them
    nonce: str  # comes back in the token
    verifier: str  # shows the provider that whoever redeems the code is whoever asked for it
    wanted: str  # page of the portal


class Person(msgspec.Struct, frozen=True):
    """Somebody whom the provider knows."""

    who: str
    grant: Grant


class SignInProvider:
    """Sends people to the provider, and takes them in when they come back."""

    def __init__(self, provider: IdentityProvider, *, client_id: str, client_secret: str | None, claim: str) -> None:
        """Prepare.

        Args:
            provider: whose keys tokens are signed with.
            client_id: as the provider knows this service.
            client_secret: which it gave; None: none, the service is a public client.
            claim: of the ID token, that lists what is granted.
        """
        self._provider = provider
        self._client_id = client_id
        self._client_secret = client_secret
        self._claim = claim

    async def leave(self, wanted: str, *, redirect_uri: str) -> tuple[str, Leaving]:
        """Return where to send somebody, and what to remember of them.

        Raises:
            StoreUnavailable: the provider cannot be reached.
        """
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        leaving = Leaving(state, nonce, verifier, wanted)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(leaving.verifier.encode()).digest()).rstrip(b"=").decode()
        query = urlencode(
            {
                "response_type": "code",
                "client_id": self._client_id,
                "redirect_uri": redirect_uri,
                "scope": "openid profile email",
                "state": leaving.state,
                "nonce": leaving.nonce,
                "code_challenge": challenge,
                "code_challenge_method": "S256",
            }
        )
        address = (await self._provider.configuration())["authorization_endpoint"]
        return f"{address}{'&' if '?' in address else '?'}{query}", leaving

    async def arrive(self, leaving: Leaving, *, state: str, code: str, redirect_uri: str) -> Person:
        """Take in somebody who came back.

        Raises:
            Unauthorized: they are not who left, the code is not good, or nothing is granted to them.
            StoreUnavailable: the provider cannot be reached.
        """
        if not hmac.compare_digest(state.encode(), leaving.state.encode()) or not code:
            raise Unauthorized("you came back from another sign-in than you left for: begin again")
        token = await self._redeem(code, leaving, redirect_uri)
        claims = await self._provider.claims(token, audience=self._client_id)
        if not hmac.compare_digest(str(claims.get("nonce", "")).encode(), leaving.nonce.encode()):
            raise Unauthorized("the token was made for another sign-in: begin again")
        grant = granted(claims.get(self._claim))
        who = next(str(claims[name]) for name in ("preferred_username", "email", "name", "sub") if claims.get(name))
        if not (grant.admin or grant.every_loop or grant.loops or grant.views):
            raise Unauthorized(
                f"{who[:_WHO_LENGTH]} is granted nothing here: the provider has to list admin, loop:NAME or view:NAME "
                f"in the claim {self._claim}"
            )
        return Person(who[:_WHO_LENGTH], grant)

    async def _redeem(self, code: str, leaving: Leaving, redirect_uri: str) -> str:
        """Exchange the code for an ID token."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "client_id": self._client_id,
            "code_verifier": leaving.verifier,
        }
        if self._client_secret is not None:
            form["client_secret"] = self._client_secret
        address = (await self._provider.configuration())["token_endpoint"]
        try:
            async with httpx.AsyncClient(timeout=_TIMEOUT_S) as client:
                answer = await client.post(address, data=form, headers={"Accept": "application/json"})
                answered: Any = answer.json()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise StoreUnavailable(f"the identity provider cannot be reached: {error}") from error
        if answer.status_code >= 500:
            raise StoreUnavailable(f"the identity provider answers {answer.status_code}: try again later")
        if answer.status_code >= 400 or not isinstance(answered, dict) or not isinstance(answered.get("id_token"), str):
            raise Unauthorized("the identity provider does not confirm the sign-in: begin again")
        return str(answered["id_token"])
