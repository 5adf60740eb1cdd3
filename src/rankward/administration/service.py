"""Everything that can be done to the loops of an installation, as somebody who runs it sees and changes them.

The HTTP API under `/admin`, the portal and the command line all stand on this, so that each does what the others do.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

from rankward.administration.challengers import ChallengerAdministration
from rankward.administration.earnings import EarningsAdministration
from rankward.administration.events import EventAdministration
from rankward.administration.imports import ImportAdministration
from rankward.administration.loops import LoopAdministration
from rankward.administration.models import ModelAdministration
from rankward.administration.optimizations import OptimizationAdministration
from rankward.administration.tuning import TuningAdministration
from rankward.auditing import Trail
from rankward.configuration import Configuration
from rankward.doctor.report import Report
from rankward.doctor.rounds import Rounds
from rankward.optimization.service import OptimizationService
from rankward.ranking.features import FeatureBounds
from rankward.registry.service import Registry
from rankward.settings import Limits
from rankward.store.audit import SERVICE, Actor
from rankward.store.ports import EventLog, JoinedLog
from rankward.wiring import Home


class Administration:
    """Everything that can be done to the loops of an installation."""

    def __init__(
        self,
        home: Home,
        configuration: Configuration,
        registry: Registry,
        *,
        log: Callable[[str], EventLog],
        joined: Callable[[str], JoinedLog],
        limits: Limits,
        bounds: FeatureBounds,
    ) -> None:
        """Prepare.

        Args:
            home: the installation.
            configuration: changes settings and policies.
            registry: changes models.
            log: gives a loop's event log, by loop id.
            joined: gives a loop's joined log, by loop id.
            limits: of one request; events that are imported are held to them, too.
            bounds: of features, likewise.
        """
        self._limits = limits
        self._bounds = bounds
        self._home = home
        self._configuration = configuration
        self._registry = registry
        self._log = log
        self._joined = joined
        self._optimizing = OptimizationService(home, log=log, joined=joined, limits=Limits())
        self._rounds = Rounds(home)
        self._actor = SERVICE

    def by(self, actor: Actor) -> Administration:
        """Return the same, for changes that somebody makes."""
        theirs = copy.copy(self)
        theirs._actor = actor
        theirs._configuration = self._configuration.by(actor)
        theirs._registry = self._registry.by(actor)
        theirs._optimizing = self._optimizing.by(actor)
        return theirs

    @property
    def _trail(self) -> Trail:
        return self._home.trail.by(self._actor)

    @property
    def loops(self) -> LoopAdministration:
        """Loops and their keys."""
        return LoopAdministration(self._home, self._actor)

    @property
    def tuning(self) -> TuningAdministration:
        """Settings and policies."""
        return TuningAdministration(self._home, self._configuration)

    @property
    def earnings(self) -> EarningsAdministration:
        """What loops earn."""
        return EarningsAdministration(self._home)

    @property
    def challengers(self) -> ChallengerAdministration:
        """Policies that learn beside those that serve."""
        return ChallengerAdministration(self._home, self._trail, log=self._log)

    @property
    def models(self) -> ModelAdministration:
        """Versions of models."""
        return ModelAdministration(self._home, self._registry, log=self._log, joined=self._joined)

    @property
    def events(self) -> EventAdministration:
        """What was decided, and what became of it."""
        return EventAdministration(self._home, self._trail, log=self._log, joined=self._joined)

    @property
    def optimizations(self) -> OptimizationAdministration:
        """Searches for better policies."""
        return OptimizationAdministration(self._home, self._optimizing)

    @property
    def imports(self) -> ImportAdministration:
        """Imports of logs."""
        return ImportAdministration(self._home, self._trail, limits=self._limits, bounds=self._bounds)

    async def doctor(self, name: str, *, age_us: int = 0) -> Report:
        """Say what a loop waits for, and why it is not learning.

        Args:
            name: of the loop.
            age_us: how old the answer may be, in microseconds.
        """
        return await self._rounds.report(self._home.catalog.loop(name), age_us=age_us)
