"""Every error that rankward raises on purpose.

    RankwardError
    ├── CallerError                  the caller's mistake: 4xx, saying what, against which bound, what to do
    │   ├── InvalidRequest           a Rank, Reward or other body that cannot be used
    │   ├── InvalidSettings          a setting out of its bounds, or a change that is refused
    │   ├── InvalidPolicy            learner arguments that are malformed or not allowed
    │   ├── NotFound                 no such loop, model, operation
    │   ├── Unauthorized             a missing or wrong key
    │   └── Conflict                 exists already, or is in the way
    │       └── NotLeading           another worker acts for the loop now
    └── WorldError                   the world's failure: 5xx, may be tried again
        ├── StorageFull              no room on the disk; what was acknowledged is safe
        ├── Overloaded               more work is waiting than the bound allows
        ├── StoreUnavailable         the store does not answer, or its files cannot be read
        │   ├── ReplicaOutdated      a stream does not hold any more what a replica needs next
        │   └── ServersAway          the servers of a cluster do not answer
        └── DataFolderHeld           another process holds the folder

Our own mistakes are assertions: they stop the process and are loud.
"""

from __future__ import annotations


class RankwardError(Exception):
    """Anything that rankward raises on purpose."""


class CallerError(RankwardError):
    """The caller's mistake.

    Args:
        message: what is wrong, against which bound, and what to do.
        code: the contract's name for it, such as `InvalidRankRequest`.
        target: the member of the request that is at fault.
        reason: a finer code than `code`, where there is one.
    """

    code = "BadRequest"

    def __init__(
        self, message: str, *, code: str | None = None, target: str | None = None, reason: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.target = target
        self.reason = reason


class InvalidRequest(CallerError):
    """A body that cannot be used."""


class InvalidSettings(CallerError):
    """A setting out of its bounds, or a change that is refused."""

    code = "InvalidServiceConfiguration"


class InvalidPolicy(CallerError):
    """Learner arguments that are malformed or not allowed."""

    code = "InvalidPolicyConfiguration"


class NotFound(CallerError):
    """No such loop, model or operation."""

    code = "ResourceNotFound"


class Unauthorized(CallerError):
    """A missing or wrong key."""

    code = "401"


class Conflict(CallerError):
    """Something of that name exists already, or is in the way."""


class NotLeading(Conflict):
    """Another worker acts for the loop now: whoever did so until then may change nothing more."""


class WorldError(RankwardError):
    """The world's failure: the same call may succeed later."""


class StorageFull(WorldError):
    """There is no room on the disk. What was acknowledged before is safe."""


class Overloaded(WorldError):
    """More work is waiting than the bound allows.

    Args:
        message: what is waiting, and the bound.
        retry_after_s: when to try again.
    """

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StoreUnavailable(WorldError):
    """The store does not answer, or its files cannot be read."""


class ReplicaOutdated(StoreUnavailable):
    """A stream does not hold any more what a replica needs next: it has to begin again from a snapshot."""


class ServersAway(StoreUnavailable):
    """The servers of a cluster do not answer, or not yet."""


class DataFolderHeld(WorldError):
    """Another process holds the data folder."""
