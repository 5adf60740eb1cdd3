"""Who may see the portal: sign-in, sessions, and what keeps guesses and forged forms out."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from rankward.api.auth import describe_key
from rankward.api.identity import Grant, granted
from rankward.api.proxy import BY_PROXY
from rankward.api.service import Doors
from rankward.errors import CallerError, Overloaded, Unauthorized, WorldError
from rankward.portal.oidc import Person, SignInProvider
from rankward.records import TimeUs
from rankward.store.sessions import Role, Session, Sessions

COOKIE = "rankward_session"
IDLE_S = 3_600
"""A session ends when it was not used for this long."""
LASTS_S = 12 * 3_600
"""A session ends this long after it began, however it is used."""
FAILURES_MAX = 5
"""After so many failures within `LOCKED_S`, an address has to wait."""
LOCKED_S = 900
_SLOWED_AFTER = 20  # failures of all addresses within `LOCKED_S`, before every sign-in is slowed
_SLOWEST_S = 2.0
_WHO_LENGTH = 120
_TOUCHED_US = 60_000_000  # a session's last use is written at most this often


class Entrance(msgspec.Struct, frozen=True, kw_only=True):
    """The ways in beside a key."""

    provider: SignInProvider | None = None  # whom people may be sent to
    user_header: str | None = None  # in which a trusted proxy says who somebody is
    grants_header: str = ""  # in which it says what is granted to them, with spaces or commas


class Gate:
    """Lets people in, and knows who is in."""

    def __init__(self, doors: Doors, sessions: Sessions, entrance: Entrance) -> None:
        self._doors = doors
        self.sessions = sessions
        self.entrance = entrance
        self._clock = doors.home.clock

    def session(self, request: Request) -> Session | None:
        """Return whose request it is; None: nobody's who is signed in."""
        token = request.cookies.get(COOKIE)
        session = self.sessions.find(_digest(token)) if token else None
        if session is None:
            return None
        if session.proxied:
            person = self.proxied(request)
            if person is None or person.who != session.who:
                return None  # somebody else's turn at the proxy, or the proxy was gone around
            session = msgspec.structs.replace(session, loops=_loops(person.grant), admin=person.grant.admin)
        now_us = self._clock()
        if not self._holds(session, now_us):
            with contextlib.suppress(WorldError):  # it has run out, whether that can be written down now or not
                self.sessions.end(session.digest)
            return None
        if now_us - session.seen_us > _TOUCHED_US:
            with contextlib.suppress(WorldError):  # nothing can be written, but everything can be looked at
                self.sessions.touch(session.digest, now_us)
        return session

    def _holds(self, session: Session, now_us: TimeUs) -> bool:
        """Whether a session has not run out, and the key that it was begun with is still one."""
        if now_us - session.seen_us > IDLE_S * 1_000_000 or now_us - session.created_us > LASTS_S * 1_000_000:
            return False
        return session.key_digest is None or self._doors.keys.holding(session.key_digest) is not None

    async def admit_with_key(self, sent: str, request: Request, answer: Response) -> None:
        """Begin a session for whoever holds a key, and put its cookie onto an answer.

        The admin key makes an admin, a loop's key an operator of that loop.

        Raises:
            Unauthorized: it is no key.
            Overloaded: too many keys from this address were none.
        """
        address = request.client.host if request.client else ""
        now_us = self._clock()
        since_us = now_us - LOCKED_S * 1_000_000
        # Whoever guesses from many addresses makes it slow for all, but locks nobody out.
        everywhere = self.sessions.attempts(address, since_us).everywhere
        await asyncio.sleep(min(_SLOWEST_S, 0.1 * max(0, everywhere - _SLOWED_AFTER)))
        failed = self.sessions.attempts(address, since_us)  # from here on nothing waits: guesses at once count, too
        if failed.from_here >= FAILURES_MAX:
            raise Overloaded(
                f"{failed.from_here} keys from your address were wrong: wait {LOCKED_S // 60} minutes, then try again",
                retry_after_s=LOCKED_S,
            )
        key = self._doors.keys.key(sent.encode())
        if key is None:
            self.sessions.note_failure(address, now_us, forget_before_us=since_us)
            raise Unauthorized("that is no key of this service: look it up once more")
        self.sessions.forgive(address)
        loops = {} if key.loop is None else {key.loop: Role.OPERATOR}
        self.admit(
            request,
            answer,
            who=describe_key(key, sent.encode()),
            loops=loops,
            admin=key.loop is None,
            key_digest=key.digest,
        )

    def proxied(self, request: Request) -> Person | None:
        """Say whom a trusted proxy announces; None: nobody, or it was not one that is trusted."""
        header = self.entrance.user_header
        who = request.headers.get(header, "").strip() if header and request.scope.get(BY_PROXY) else ""
        if not who:
            return None
        listed = request.headers.get(self.entrance.grants_header, "").replace(",", " ")
        return Person(who[:_WHO_LENGTH], granted(listed))

    def admit_person(self, person: Person, request: Request, answer: Response, *, proxied: bool = False) -> None:
        """Begin a session for somebody whom a provider or a proxy knows, and put its cookie onto an answer."""
        grant = person.grant
        self.admit(request, answer, who=person.who, loops=_loops(grant), admin=grant.admin, proxied=proxied)

    def admit(
        self,
        request: Request,
        answer: Response,
        *,
        who: str,
        loops: Mapping[str, Role],
        admin: bool,
        key_digest: bytes | None = None,
        proxied: bool = False,
    ) -> None:
        """Begin a session in place of the one before, and put its cookie onto an answer."""
        now_us = self._clock()
        if before := request.cookies.get(COOKIE):
            self.sessions.end(_digest(before))
        self.sessions.expire(created_before_us=now_us - LASTS_S * 1_000_000, seen_before_us=now_us - IDLE_S * 1_000_000)
        token = secrets.token_urlsafe(32)
        self.sessions.begin(
            Session(
                digest=_digest(token),
                who=who,
                loops=dict(loops),
                admin=admin,
                created_us=now_us,
                seen_us=now_us,
                key_digest=key_digest,
                proxied=proxied,
            )
        )
        secure = request.url.scheme == "https"
        answer.set_cookie(COOKIE, token, path="/portal", httponly=True, samesite="lax", secure=secure)

    def sign_out(self, request: Request, answer: Response) -> None:
        """End a session, and take its cookie back."""
        if token := request.cookies.get(COOKIE):
            self.sessions.end(_digest(token))
        answer.delete_cookie(COOKIE, path="/portal", httponly=True, samesite="lax")


def _loops(grant: Grant) -> dict[str, Role]:
    """What somebody may do in which loop: a grant of a loop is what its key may do."""
    held = dict.fromkeys(grant.views, Role.VIEWER) | dict.fromkeys(grant.loops, Role.OPERATOR)
    return held | {"*": Role.OPERATOR} if grant.every_loop else held


def csrf_token(request: Request) -> str:
    """Make what every form of a session carries: it follows from the cookie, which no other site can read."""
    return hmac.digest(request.cookies.get(COOKIE, "").encode(), b"rankward portal form", "sha256").hex()


def check_origin(request: Request) -> None:
    """Refuse a change that another site has sent.

    Raises:
        CallerError: it has.
    """
    origin = request.headers.get("origin")
    if origin is not None:
        ours = urlsplit(origin).netloc == request.headers.get("host")
    else:
        ours = request.headers.get("sec-fetch-site", "same-origin") in {"same-origin", "none"}
    if not ours:
        raise CallerError("the form was sent from another site: open it here, and send it again", code=FORBIDDEN)


def check_csrf(request: Request, sent: str) -> None:
    """Refuse a change that did not come from one of the session's own pages.

    Raises:
        CallerError: it did not.
    """
    if not hmac.compare_digest(sent.encode(), csrf_token(request).encode()):
        raise CallerError("the form is not of this session: load the page again, then send it", code=FORBIDDEN)


FORBIDDEN = "InvalidApiAccess"
"""The code of what somebody may not do."""


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
