"""The promises of the optimizations' store, held against every backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from tests.store.test_catalog import a_loop, a_version, an_epoch, create

from rankward.errors import Conflict
from rankward.settings import LoopSettings
from rankward.store.optimizations import Optimization, OptimizationState, Replaced

if TYPE_CHECKING:
    from tests.store.homes import Home

LOOP_ID = "1" * 32


@pytest.fixture
def home(replicated_home: Home) -> Home:
    """Also the home of a node of a cluster."""
    return replicated_home


def a_run(number: int = 1, **changes: object) -> Optimization:
    """Make a run that searches."""
    run = Optimization(
        optimization_id=f"{number:012x}",
        loop_id=LOOP_ID,
        created_us=number,
        due_us=None,
        dry_run=False,
        start_us=10,
        end_us=20,
    )
    return msgspec.structs.replace(run, **changes)


def test_a_run_is_found_by_whoever_opens_the_store(home: Home) -> None:
    """By its id within its loop, and in lists, newest first."""
    optimizations = home.optimizations()
    over = a_run(1, state=OptimizationState.RETAINED, why="nothing was better")
    goes_on, other = a_run(2), a_run(1, loop_id="2" * 32)
    for run in (over, goes_on, other):
        optimizations.add(run)

    seen = home.optimizations()
    assert seen.listed(LOOP_ID) == [goes_on, over]
    assert seen.find(LOOP_ID, over.optimization_id) == over
    assert seen.find("2" * 32, over.optimization_id) == other
    assert seen.find(LOOP_ID, "9" * 12) is None
    assert seen.unfinished() == [goes_on, other]


def test_one_run_of_a_loop_goes_on_at_a_time(home: Home) -> None:
    """However many ask at once; what is over already holds up nobody."""
    optimizations = home.optimizations()
    optimizations.add(a_run(1))
    with pytest.raises(Conflict, match="goes on already"):
        home.optimizations().add(a_run(2))
    optimizations.add(a_run(3, state=OptimizationState.SKIPPED))
    optimizations.add(a_run(4, loop_id="2" * 32))
    assert optimizations.write(a_run(1, state=OptimizationState.FAILED))
    optimizations.add(a_run(2))
    assert [run.created_us for run in optimizations.listed(LOOP_ID)] == [2, 3, 1]


@pytest.mark.parametrize("state", OptimizationState)
def test_a_run_is_unfinished_until_nothing_more_comes_of_it(home: Home, state: OptimizationState) -> None:
    """Whoever goes on after a kill finds those, and only those."""
    optimizations = home.optimizations()
    optimizations.add(a_run())
    optimizations.write(a_run(state=state))
    assert bool(optimizations.unfinished()) is not state.finished


def test_a_run_of_a_deleted_loop_is_not_written(home: Home) -> None:
    """It goes with its loop, and does not come back."""
    catalog, optimizations = home.catalog(), home.optimizations()
    loop = create(catalog, a_loop())
    run = a_run(loop_id=loop.loop_id)
    optimizations.add(run)
    catalog.delete_loop(loop.name)
    assert not optimizations.write(run)
    assert optimizations.listed(loop.loop_id) == []


def test_the_replaced_version_is_kept_until_it_is_let_go(home: Home) -> None:
    """A watch of two weeks would find it pruned, and nobody could go back by hand."""
    catalog, optimizations = home.catalog(), home.optimizations()
    loop = create(catalog, a_loop())
    catalog.add_version(a_version(loop, "old", epoch_id=0))
    replaced = Replaced(settings=LoopSettings(), model_id="old", epoch=an_epoch(loop), forgotten_before=0)
    run = a_run(loop_id=loop.loop_id, replaced=replaced, keeps_replaced=True)
    optimizations.add(run)
    assert not catalog.forget_version("old", loop.loop_id)
    optimizations.write(msgspec.structs.replace(run, keeps_replaced=False))
    assert catalog.forget_version("old", loop.loop_id)
