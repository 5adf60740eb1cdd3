"""Tokens of an identity provider (OpenID Connect): checked against its published keys, and what they open.

A token opens what one of its claims lists: `loop:NAME` a loop, `loop:*` every loop, `admin` every loop and the
administration. `view:NAME` and `view:*` open loops to look at, in the portal.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
import msgspec

from rankward.errors import CallerError, InvalidSettings, NotFound, StoreUnavailable, Unauthorized

logger = logging.getLogger(__name__)

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures that the provider alone can make: none with a shared secret."""
_SUBJECT_LENGTH = 120
_LEEWAY_S = 60  # between the provider's clock and ours
_TIMEOUT_S = 5.0
_FETCH_AGAIN_S = 30.0  # at the soonest, however many tokens name a key that is not known
_KEYS_OLD_S = 3_600.0
_LOCAL = {"127.0.0.1", "::1", "localhost"}


class Grant(msgspec.Struct, frozen=True):
    """What a token opens."""

    loops: frozenset[str]
    every_loop: bool
    admin: bool
    views: frozenset[str] = frozenset()  # loops to look at, by name; "*": every one

    def loop_for(self, named: str | None) -> str:
        """Find the loop that a request is about.

        Args:
            named: the loop in the path; None: the token selects it, which it can if it opens just one.

        Raises:
            CallerError: the token does not open the loop.
            NotFound: no loop was named, and the token opens several.
        """
        if named is not None:
            if self.every_loop or named in self.loops:
                return named
            raise CallerError(f"the token does not list loop:{named[:80]}", code="InvalidApiAccess")
        if len(self.loops) == 1 and not self.every_loop:
            return next(iter(self.loops))
        if self.every_loop or self.loops:
            raise NotFound("the token opens several loops and selects none: call /loops/NAME/personalizer/...")
        raise CallerError("the token lists no loop: the provider has to grant loop:NAME", code="InvalidApiAccess")


class IdentityProvider:
    """One provider, and the keys that it signs with."""

    def __init__(self, *, issuer: str, audience: str, claim: str) -> None:
        """Prepare. Nothing is fetched before the first token comes.

        Args:
            issuer: the provider's address, as its tokens have it under `iss`.
            audience: what the tokens are for, as they have it under `aud`.
            claim: which claim lists what a token opens.

        Raises:
            InvalidSettings: the issuer is no https address (http is for this machine alone).
        """
        parts = urlsplit(issuer)
        if not (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOCAL)) or not audience:
            raise InvalidSettings(
                f"the identity provider {issuer!r} with the audience {audience!r} cannot be used: name an https:// "
                "issuer and the audience of its tokens"
            )
        self._issuer = issuer
        self._audience = audience
        self._claim = claim
        self._keys: dict[str, jwt.PyJWK] = {}
        self._configuration: dict[str, Any] = {}
        self._fetched_s = self._tried_s = -_KEYS_OLD_S
        self._fetching = asyncio.Lock()

    async def grant(self, token: str) -> Grant:
        """Check a token, and say what it opens.

        Raises:
            Unauthorized, StoreUnavailable: see `claims`.
        """
        return granted((await self.claims(token, audience=self._audience)).get(self._claim))

    async def configuration(self) -> dict[str, Any]:
        """Return what the provider says of itself: where people sign in, and where codes are redeemed.

        Raises:
            StoreUnavailable: it cannot be had.
        """
        if "token_endpoint" not in self._configuration:
            await self._fetch()
        if not {"authorization_endpoint", "token_endpoint"} <= self._configuration.keys():
            raise StoreUnavailable(f"the identity provider {self._issuer} does not say where people sign in")
        return self._configuration

    async def claims(self, token: str, *, audience: str) -> dict[str, Any]:
        """Check a token, and return what it says.

        Args:
            token: as it was sent.
            audience: whom it has to be for.

        Raises:
            Unauthorized: it is malformed, expired, for somebody else, or not the provider's.
            StoreUnavailable: the provider's keys cannot be fetched.
        """
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError as error:
            raise Unauthorized(f"the token cannot be read: {error}") from error
        key_id, algorithm = str(header.get("kid", "")), header.get("alg")
        if algorithm not in ALGORITHMS:
            raise Unauthorized(f"the token is signed by {str(algorithm)[:20]}: use one of {', '.join(ALGORITHMS)}")
        key = await self._key(key_id)
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key=key.key,
                algorithms=[algorithm],
                audience=audience,
                issuer=self._issuer,
                leeway=_LEEWAY_S,
                options={"require": ["exp", "iss", "aud"]},
            )
        except (jwt.InvalidTokenError, TypeError, ValueError) as error:
            raise Unauthorized(f"the token is refused: {error}") from error
        return claims

    async def _key(self, key_id: str) -> jwt.PyJWK:
        if key_id not in self._keys or not self._fetching.locked():
            async with self._fetching:  # who needs a key that is being fetched waits for it
                await self._renew(key_id)
        key = self._keys.get(key_id)
        if key is None and self._fetched_s < self._tried_s:
            raise StoreUnavailable(f"the keys of the identity provider {self._issuer} cannot be had: try again later")
        if key is None:
            raise Unauthorized("the token is signed by a key that the identity provider does not publish")
        return key

    async def _renew(self, key_id: str) -> None:
        """Fetch the keys if this one is not among them, or if they are old."""
        now_s = time.monotonic()
        wanted = key_id not in self._keys or now_s - self._fetched_s > _KEYS_OLD_S
        if not wanted or now_s - self._tried_s <= _FETCH_AGAIN_S:
            return
        self._tried_s = now_s
        try:
            self._keys = await self._fetch()
            self._fetched_s = time.monotonic()
        except StoreUnavailable as error:
            if key_id not in self._keys:
                raise
            logger.warning("%s: those that are known go on serving", error)

    async def _fetch(self) -> dict[str, jwt.PyJWK]:
        try:
            async with httpx.AsyncClient(timeout=_TIMEOUT_S) as client:
                found = await client.get(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
                found.raise_for_status()
                configuration = found.json()
                if configuration["issuer"] != self._issuer:
                    raise ValueError(f"it calls itself {configuration['issuer']!r}")
                self._configuration = configuration
                published = await client.get(configuration["jwks_uri"])
                published.raise_for_status()
                keys = jwt.PyJWKSet.from_dict(published.json())
        except (httpx.HTTPError, httpx.InvalidURL, KeyError, TypeError, ValueError, jwt.PyJWTError) as error:
            raise StoreUnavailable(
                f"the keys of the identity provider {self._issuer} cannot be had: {error}"
            ) from error
        return {key.key_id or "": key for key in keys.keys}


def subject_of(token: str) -> str:
    """Read whom a token is about, without checking it: for the audit trail, once it was let in."""
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except jwt.InvalidTokenError:
        return "somebody"
    return str(claims.get("sub", "somebody"))[:_SUBJECT_LENGTH]


def granted(listed: Any) -> Grant:
    """Read what somebody is granted.

    Args:
        listed: the claim: a list of words, or one string of them.
    """
    names = listed.split() if isinstance(listed, str) else listed if isinstance(listed, list) else []
    opened = {name for name in names if isinstance(name, str)}
    admin = "admin" in opened
    return Grant(
        loops=frozenset(name.removeprefix("loop:") for name in opened if name.startswith("loop:") and name != "loop:*"),
        every_loop=admin or "loop:*" in opened,
        admin=admin,
        views=frozenset(name.removeprefix("view:") for name in opened if name.startswith("view:")),
    )
