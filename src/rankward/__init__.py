"""Contextual bandits as a service: rank, reward, learn."""

from rankward.client.clients import AsyncClient, Client
from rankward.client.stats import ClientStats
from rankward.decision import Decision, SlotDecision, SlotRequest, SlotsDecision
from rankward.errors import CallerError, RankwardError, WorldError
from rankward.history.table import read_log
from rankward.local import LocalLoop, open

__version__ = "0.1.0"

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
