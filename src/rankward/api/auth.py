"""Keys: which loop a key opens. Only digests are held, and compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence

from rankward.api.identity import subject_of
from rankward.errors import CallerError, NotFound, Unauthorized
from rankward.store.ports import Key

Headers = Sequence[tuple[bytes, bytes]]

_REFUSED = "send the loop's key in the header Ocp-Apim-Subscription-Key (or as Authorization: Bearer)"

_NAMED = 4  # characters of a key by which it is told from others
_LONG = 16  # a shorter key, which an operator has set, gives none of its characters away


class UnknownTokenError(Unauthorized):
    """What was sent is no key, but may be a token of an identity provider."""

    def __init__(self, token: str) -> None:
        super().__init__(
            "tokens of an identity provider are not accepted here: send a key of the loop, or start the service with "
            "--oidc-issuer"
        )
        self.token = token


class KeyRing:
    """All keys of an installation, by digest."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._by_digest = {key.digest: key for key in keys}

    def loop_for(self, headers: Headers, named: str | None) -> tuple[str, bool]:
        """Find the loop that a request is about.

        Args:
            headers: names in lower case.
            named: the loop in the path; None: the key alone selects it.

        Returns:
            The loop's name, and whether it was the admin key that opened it.

        Raises:
            Unauthorized: there is no key, or it does not open the loop.
            UnknownTokenError: it may be a token.
            NotFound: the admin key was sent, and no loop was named.
        """
        key = self._find(headers)
        if key.loop is not None and named is not None and not hmac.compare_digest(key.loop.encode(), named.encode()):
            raise Unauthorized(f"the key is not one of this loop: {_REFUSED}")
        loop = named or key.loop
        if loop is None:
            raise NotFound("the admin key opens every loop but selects none: call /loops/NAME/personalizer/...")
        return loop, key.loop is None

    def check_admin(self, headers: Headers) -> None:
        """Let pass whoever sends the admin key.

        Args:
            headers: names in lower case.

        Raises:
            Unauthorized: there is no key, or it is wrong.
            UnknownTokenError: it may be a token.
            CallerError: it is a loop's.
        """
        if self._find(headers).loop is not None:
            raise not_admin()

    def who(self, headers: Headers) -> str:
        """Write who sent a request that was let in, for the audit trail."""
        sent, _ = _sent(headers)
        key = self.key(sent)
        return subject_of(sent.decode("latin-1")) if key is None else describe_key(key, sent)

    def _find(self, headers: Headers) -> Key:
        sent, bearer = _sent(headers)
        if not sent:
            raise Unauthorized(f"there is no key: {_REFUSED}")
        key = self.key(sent)
        if key is None and sent == bearer and sent.count(b".") == 2:
            raise UnknownTokenError(sent.decode("latin-1"))
        if key is None:
            raise Unauthorized(f"the key is wrong: {_REFUSED}")
        return key

    def key(self, sent: bytes) -> Key | None:
        """Find what was sent among the keys; None: it is none of them."""
        return self.holding(hashlib.sha256(sent).digest())

    def holding(self, digest: bytes) -> Key | None:
        """Find the key of a digest; None: there is none any more."""
        key = self._by_digest.get(digest)
        return key if key is not None and hmac.compare_digest(key.digest, digest) else None


def _sent(headers: Headers) -> tuple[bytes, bytes]:
    """Read what was sent as a key, and as a bearer's token; empty: nothing was."""
    sent = bearer = b""
    for name, value in headers:
        if name == b"ocp-apim-subscription-key":
            return value, bearer
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            sent = bearer = value[7:].strip()
    return sent, bearer


def describe_key(key: Key, sent: bytes) -> str:
    """Write who holds a key, for the audit trail: its role, and so many of its characters that none is given away."""
    beginning = sent[:_NAMED].decode("latin-1") + "…" if len(sent) >= _LONG else "…"
    return f"admin key {beginning}" if key.loop is None else f"key {key.slot} of {key.loop} {beginning}"


def not_admin() -> CallerError:
    """Refuse whoever is known and may not administer."""
    return CallerError(
        "that does not open the administration: send the admin key, which `rankward loop keys --admin --show` prints",
        code="InvalidApiAccess",
    )
