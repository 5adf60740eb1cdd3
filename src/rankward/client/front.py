"""What both clients do without waiting: they read arguments, fall back, and say what is to be reported."""

from __future__ import annotations

from collections import OrderedDict
from uuid import uuid4

from rankward.client.calls import (
    FALLBACK_PREFIX,
    Reason,
    RefusedError,
    Report,
    UnansweredError,
)
from rankward.client.lock import ProcessLock
from rankward.client.stats import Tally
from rankward.decision import check_id, check_reward
from rankward.errors import CallerError, RankwardError
from rankward.records import Activation, EventId, Observation
from rankward.settings import Limits

_LIMITS = Limits()
_REMEMBERED = 10_000  # event ids of the caller's own whose decisions fell back


class Front:
    """The manners of a client."""

    def __init__(self, *, strict: bool, tally: Tally) -> None:
        """Prepare.

        Args:
            strict: raise the caller's mistakes instead of falling back.
            tally: told of everything.
        """
        self._strict = strict
        self._tally = tally
        self._lock = ProcessLock()
        self._fallen: OrderedDict[EventId, None] = OrderedDict()

    def fall_back(self, event_id: EventId | None, error: RankwardError) -> EventId:
        """Note that a decision falls back to the baseline. Returns the event id that it gets.

        The decision has an event id of its own, which the service never saw. The one that was asked under may have
        been logged with another action drawn, and a reward of the baseline must not be credited to that.

        Args:
            event_id: the caller's own, if it named one: reports under it are withheld from here on.
            error: why the service did not decide.

        Raises:
            CallerError: it is the caller's mistake, and the client is strict.
        """
        if self._strict and isinstance(error, CallerError):
            raise error
        if isinstance(error, UnansweredError):
            reason = error.reason
        else:
            reason = Reason.REFUSED if isinstance(error, RefusedError) else Reason.INVALID
        self._tally.fell_back(reason, error)
        if event_id is not None:
            with self._lock:
                self._fallen[event_id] = None
                while len(self._fallen) > _REMEMBERED:
                    self._fallen.popitem(last=False)
        return FALLBACK_PREFIX + uuid4().hex

    def decided(self, event_id: EventId | None) -> None:
        """Note that a decision came in time, perhaps under an id whose decision once fell back."""
        if event_id is not None:
            with self._lock:
                self._fallen.pop(event_id, None)

    def reward(self, event_id: EventId, value: float, slot: str | None) -> Report | None:
        """Say what to send for a reward. None: nothing.

        Raises:
            CallerError: id or value cannot be used, and the client is strict.
        """
        try:
            if self._withheld(event_id):
                return None
            value = check_reward(value)
            slot = None if slot is None else check_id(slot, _LIMITS)
            return Observation(event_id=check_id(event_id, _LIMITS), value=value, slot=slot, report=uuid4().hex)
        except CallerError as error:
            self._refuse(error)
            return None

    def activation(self, event_id: EventId) -> Report | None:
        """Say what to send for an activation. None: nothing.

        Raises:
            CallerError: the id cannot be used, and the client is strict.
        """
        try:
            return None if self._withheld(event_id) else Activation(event_id=check_id(event_id, _LIMITS))
        except CallerError as error:
            self._refuse(error)
            return None

    def _withheld(self, event_id: EventId) -> bool:
        if not (isinstance(event_id, str) and (event_id.startswith(FALLBACK_PREFIX) or event_id in self._fallen)):
            return False
        self._tally.count("withheld")
        return True

    def _refuse(self, error: CallerError) -> None:
        if self._strict:
            raise error
        self._tally.count("dropped")
        self._tally.complain(error)
