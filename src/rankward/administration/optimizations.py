"""Automatic optimizations of loops: shown, and begun by hand."""

from __future__ import annotations

from rankward.optimization.rules import obstacle
from rankward.optimization.schedule import following
from rankward.optimization.service import OptimizationService
from rankward.optimization.view import NewOptimization, OptimizationHistory, OptimizationView, view
from rankward.optimization.watcher import read_watched
from rankward.store.optimizations import Optimization, OptimizationState
from rankward.wiring import Home


class OptimizationAdministration:
    """Searches for better policies, and what came of them."""

    def __init__(self, home: Home, optimizing: OptimizationService) -> None:
        """Prepare.

        Args:
            home: the installation.
            optimizing: finds and begins runs.
        """
        self._home = home
        self._optimizing = optimizing

    async def history(self, name: str) -> OptimizationHistory:
        """Show a loop's optimizations, newest first, and when the next one is due."""
        loop = self._home.catalog.loop(name)
        return OptimizationHistory(
            next_us=following(loop.settings, created_us=loop.created_us, now_us=self._home.clock()),
            obstacle=obstacle(loop.settings, loop.model_id),
            runs=tuple([self._shown_run(run) for run in self._optimizing.listed(loop)]),
        )

    async def show(self, name: str, optimization_id: str) -> OptimizationView:
        """Show one of a loop's optimizations.

        Raises:
            NotFound: there is none of the id.
        """
        return self._shown_run(self._optimizing.find(self._home.catalog.loop(name), optimization_id))

    def _shown_run(self, run: Optimization) -> OptimizationView:
        watches = run.state is OptimizationState.WATCHING
        return view(run, read_watched(self._home.board.read(run.loop_id)) if watches else None)

    async def begin(self, name: str, wanted: NewOptimization) -> OptimizationView:
        """Search a loop's log for a better policy, in the background: see `optimization.service`.

        Raises:
            InvalidRequest: its log cannot tell a better policy, or there is nothing in it.
            Conflict: another run goes on.
        """
        loop = self._home.catalog.loop(name)
        return view(await self._optimizing.begin(loop, due_us=None, dry_run=wanted.dry_run))
