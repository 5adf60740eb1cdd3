"""Contextual bandits as a service: rank, reward, learn."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rankward.client.clients import AsyncClient, Client
    from rankward.client.stats import ClientStats
    from rankward.decision import Decision, SlotDecision, SlotRequest, SlotsDecision
    from rankward.errors import CallerError, RankwardError, WorldError
    from rankward.history.table import read_log
    from rankward.local import LocalLoop, open

__version__ = "0.1.0"

_HOME_OF = {
    "AsyncClient": "rankward.client.clients",
    "CallerError": "rankward.errors",
    "Client": "rankward.client.clients",
    "ClientStats": "rankward.client.stats",
    "Decision": "rankward.decision",
    "LocalLoop": "rankward.local",
    "RankwardError": "rankward.errors",
    "SlotDecision": "rankward.decision",
    "SlotRequest": "rankward.decision",
    "SlotsDecision": "rankward.decision",
    "WorldError": "rankward.errors",
    "open": "rankward.local",
    "read_log": "rankward.history.table",
}
__all__ = [
    "AsyncClient",
    "CallerError",
    "Client",
    "ClientStats",
    "Decision",
    "LocalLoop",
    "RankwardError",
    "SlotDecision",
    "SlotRequest",
    "SlotsDecision",
    "WorldError",
    "__version__",
    "open",
    "read_log",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is: every process of the service imports this package, and few need it all."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_HOME_OF[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
