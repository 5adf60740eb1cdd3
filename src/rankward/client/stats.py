"""What a client counts and complains of."""

from __future__ import annotations

import logging
from collections import Counter

import msgspec

from rankward.client.lock import ProcessLock
from rankward.errors import CallerError

logger = logging.getLogger("rankward.client")


class ClientStats(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a client's calls so far."""

    decisions: int = 0  # that came in time
    fallbacks: dict[str, int] = {}  # decisions that the service did not make in time, by `calls.Reason`
    late: int = 0  # of the fallbacks: the service had decided after all, and has logged what nobody saw
    queued: int = 0  # reports (rewards, activations) that wait to be sent
    sent: int = 0  # reports that the service has taken
    dropped: int = 0  # reports given up: the queue was full, the service refused them, or the client was closed
    withheld: int = 0  # reports of fallback decisions, which are not sent


class Tally:
    """Counts, from any thread."""

    def __init__(self) -> None:
        self._lock = ProcessLock()
        self._counts: Counter[str] = Counter()
        self._fallbacks: Counter[str] = Counter()
        self._known: set[object] = set()
        self._away = False
        self._gone = False

    def count(self, name: str, by: int = 1) -> None:
        """Count something by the name it has in `ClientStats`."""
        with self._lock:
            self._counts[name] += by

    def decided(self) -> None:
        """Count a decision that came in time."""
        with self._lock:
            self._counts["decisions"] += 1
            self._away = False

    def away(self, what: str, error: Exception) -> None:
        """Note that the service cannot be reached. It is logged when it is the first time since it could."""
        with self._lock:
            first, self._gone = not self._gone, True
        if first:
            logger.warning("%s: %s", what, error or repr(error))

    def back(self) -> None:
        """Note that the service was reached."""
        with self._lock:
            self._gone = False

    def fell_back(self, reason: str, error: Exception) -> None:
        """Count a fallback. It is logged when it is the first since the last decision, or the first of its kind."""
        with self._lock:
            self._fallbacks[str(reason)] += 1  # a plain word, whatever kind of string it was
            first, self._away = not self._away, True
        if isinstance(error, CallerError):
            self.complain(error)
        elif first:
            logger.warning("decisions fall back to the baseline (%s): %s", reason, error)

    def complain(self, error: CallerError) -> None:
        """Log a mistake of the caller's, once of each kind."""
        if self._is_new((type(error), error.code)):
            logger.error("%s (said once of its kind)", error)

    def stumble(self, what: str, error: Exception) -> None:
        """Log what should not have happened, with where it did, once of each kind. What runs behind goes on."""
        if self._is_new((what, type(error))):
            logger.error("%s: %r (said once of its kind)", what, error, exc_info=error)

    def _is_new(self, kind: object) -> bool:
        with self._lock:
            known = kind in self._known
            self._known.add(kind)
        return not known

    def stats(self, queued: int) -> ClientStats:
        """Say how things stand."""
        with self._lock:
            return ClientStats(queued=queued, fallbacks=dict(self._fallbacks), **self._counts)
