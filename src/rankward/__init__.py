"""Contextual bandits as a service: rank, reward, learn."""

from rankward.decision import Decision
from rankward.errors import CallerError, RankwardError, WorldError
from rankward.local import LocalLoop, open

__version__ = "0.1.0"

__all__ = ["CallerError", "Decision", "LocalLoop", "RankwardError", "WorldError", "__version__", "open"]
