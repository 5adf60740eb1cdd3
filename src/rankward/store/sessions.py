"""Who is signed in to the portal. All processes of an installation see the same sessions."""

from __future__ import annotations

import enum
from typing import Protocol

import msgspec

from rankward.records import TimeUs


class Role(enum.IntEnum):
    """What somebody may do. Each role may do what the ones before it may."""

    VIEWER = 1  # look
    OPERATOR = 2  # change a loop: settings, policy, models, log; what a loop's key may do
    ADMIN = 3  # make and remove loops, renew keys, and see every change


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who signed in."""

    digest: bytes  # SHA-256 of the token in the cookie
    who: str  # for people and the audit trail
    loops: dict[str, Role]  # by name; "*" stands for every loop
    created_us: TimeUs
    seen_us: TimeUs  # of the last request, to the minute
    key_digest: bytes | None = None  # of the key it was signed in with: it ends when that is renewed; None: no key
    proxied: bool = False  # whether a proxy says with each request who it is
    admin: bool = False

    def role_in(self, loop: str) -> Role | None:
        """Say what they may do in a loop; None: they do not see it."""
        if self.admin:
            return Role.ADMIN
        return max(
            (role for name, role in self.loops.items() if name in {loop, "*"}),
            default=None,
        )


class Attempts(msgspec.Struct, frozen=True):
    """How often somebody failed to sign in lately."""

    from_here: int  # from this address
    everywhere: int


class Sessions(Protocol):
    """Sessions, and failures to begin one. They need not outlive the installation's processes."""

    def begin(self, session: Session) -> None:
        """Add a session."""

    def find(self, digest: bytes) -> Session | None:
        """Find a session by the digest of its token."""

    def touch(self, digest: bytes, now_us: TimeUs) -> None:
        """Write when a session was seen last."""

    def leave_notice(self, digest: bytes, notice: str) -> None:
        """Keep a sentence for the next page that a session sees, in place of one that waits."""

    def take_notice(self, digest: bytes) -> str | None:
        """Take what was left for the next page; None: nothing was."""

    def end(self, digest: bytes) -> None:
        """Remove a session. It need not be there."""

    def expire(self, *, created_before_us: TimeUs, seen_before_us: TimeUs) -> None:
        """Remove the sessions that were begun or seen last before these times."""

    def note_failure(self, address: str, now_us: TimeUs, *, forget_before_us: TimeUs) -> None:
        """Note that somebody failed to sign in, and forget older failures."""

    def attempts(self, address: str, since_us: TimeUs) -> Attempts:
        """Count the failures since a time."""

    def forgive(self, address: str) -> None:
        """Forget the failures of an address."""

    def close(self) -> None:
        """Let go of the files."""
