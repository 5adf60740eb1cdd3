"""What a worker leads, as others come and go."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from tests.store.test_catalog import a_loop, create

from rankward.cluster.leading import Leads
from rankward.store.ports import Lead
from rankward.store.sqlite.catalog import SqliteCatalog

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rankward.cluster.standing import Standing

LOOPS = [f"{number:032x}" for number in range(4)]


@dataclass
class Members:
    """Who is alive, as the test says."""

    name: str
    living: frozenset[str] = frozenset({"one", "two"})
    cut_off: bool = False
    settled: bool = True
    said: dict[str, object] = field(default_factory=dict)

    def say(self, **said: object) -> None:
        """See `leading.Members`."""
        self.said = said


class Worker:
    """One of two, on a catalog that both see."""

    def __init__(self, catalog: SqliteCatalog, name: str, *, may_work: bool = True) -> None:
        self.members = Members(name)
        self.standings: list[Standing] = []
        self.now_us = 10**15
        self.leads = Leads(
            catalog,
            self.members,
            may_work=may_work,
            tell=self.standings.append,
            clock=lambda: self.now_us,
            timer=itertools.count(2_000_000, 2_000_000).__next__,  # it is told how it stands at every turn
        )

    def turn(self, *, caught_up: bool = True, at_work: tuple[str, ...] = ()) -> set[str]:
        """Take a turn. Returns the loops that it acts for then."""
        self.leads.turn(dict.fromkeys(LOOPS, 0), caught_up=caught_up, at_work=at_work)
        return {loop_id for loop_id in LOOPS if self.leads.fence(loop_id) is not None}


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[SqliteCatalog]:
    """A catalog with some loops."""
    made = SqliteCatalog(tmp_path / "catalog.sqlite")
    for number, loop_id in enumerate(LOOPS):
        create(made, a_loop(f"loop-{number}", loop_id))
    yield made
    made.close()


def test_two_workers_share_the_loops(catalog: SqliteCatalog) -> None:
    """Nobody asks the other."""
    one, two = Worker(catalog, "one"), Worker(catalog, "two")
    assert len(one.turn()) == len(two.turn()) == 2
    assert one.turn() | two.turn() == set(LOOPS)


def test_a_worker_hands_over_when_its_processes_have_ended(catalog: SqliteCatalog) -> None:
    """What they publish last under its term must not be refused."""
    one, two = Worker(catalog, "one"), Worker(catalog, "two")
    one.members.living = frozenset({"one"})
    assert one.turn() == set(LOOPS)
    one.members.living = frozenset({"one", "two"})
    kept = one.turn(at_work=tuple(LOOPS))
    assert len(kept) == 2, "it acts for the others no more, and its processes are told to end"
    assert two.turn() == set()
    assert one.turn() == kept
    assert two.turn() == set(LOOPS) - kept


def test_a_worker_that_is_cut_off_acts_for_nothing(catalog: SqliteCatalog) -> None:
    """Others may take it for dead. If nobody did, it goes on under the same term."""
    one = Worker(catalog, "one")
    mine = one.turn()
    term = catalog.leads()[min(mine)].term
    one.members.cut_off = True
    assert one.turn() == set()
    one.members.cut_off = False
    assert one.turn() == mine
    assert catalog.leads()[min(mine)] == Lead("one", term)


def test_a_worker_that_was_taken_for_dead_begins_under_a_new_term_or_not_at_all(catalog: SqliteCatalog) -> None:
    """Its processes of before write nothing more."""
    one, two = Worker(catalog, "one"), Worker(catalog, "two")
    mine = one.turn()
    two.members.living = frozenset({"two"})
    assert two.turn() == set(LOOPS)
    assert one.turn() == set(), "it waits for what is handed over"
    two.members.living = frozenset({"one", "two"})
    two.turn()
    assert one.turn() == mine
    assert catalog.leads()[min(mine)].term == 3


def test_a_worker_takes_no_loops_before_it_has_caught_up(catalog: SqliteCatalog) -> None:
    """It would hold up what another learns now."""
    one = Worker(catalog, "one")
    one.members.living = frozenset()
    assert one.turn(caught_up=False) == set()
    assert one.members.said["works"] is False
    assert one.turn() == set(LOOPS)
    assert one.turn(caught_up=False) == set(LOOPS), "a loop that is made later is no reason to let go"
    assert one.standings[-1].caught_up


def test_how_a_node_stands_is_told_whatever_its_clock_is_set_to(catalog: SqliteCatalog) -> None:
    """Whoever reads it, and finds nothing new, takes the node for one that is not fed."""
    one = Worker(catalog, "one")
    one.turn()
    one.now_us -= 3_600_000_000
    one.turn()
    assert [standing.time_us for standing in one.standings] == [10**15, one.now_us]


def test_a_node_that_does_not_work_leads_nothing(catalog: SqliteCatalog) -> None:
    """It answers HTTP."""
    node = Worker(catalog, "one", may_work=False)
    node.members.living = frozenset()
    assert node.turn() == set()
    assert catalog.leads() == {}


def test_a_worker_that_ends_lets_go_of_everything(catalog: SqliteCatalog) -> None:
    """Others need not wait until it is taken for dead."""
    one, two = Worker(catalog, "one"), Worker(catalog, "two")
    one.turn()
    one.leads.release()
    assert {lead.holder for lead in catalog.leads().values()} == {""}
    two.members.living = frozenset({"two"})
    assert two.turn() == set(LOOPS)


def test_what_another_runs_is_left_to_it_while_it_lives(catalog: SqliteCatalog) -> None:
    """An evaluation takes hours: it is begun again only when its worker is dead."""
    one = Worker(catalog, "one")
    assert one.leads.is_elsewhere("two")
    one.members.living = frozenset({"one"})
    assert not one.leads.is_elsewhere("two")
    one.members.settled = False
    assert one.leads.is_elsewhere("two"), "it may not have been seen yet"
    assert not one.leads.is_elsewhere("one")
    assert not one.leads.is_elsewhere("")
