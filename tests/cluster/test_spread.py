"""Loops are spread over the workers without a word between them."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankward.cluster.spread import owner, plan
from rankward.store.ports import Lead

LOOPS = [f"{number:032x}" for number in range(1_000)]
NAMES = st.sets(st.text("abcdef0123456789-", min_size=1, max_size=8), min_size=1, max_size=8)


@given(workers=NAMES, newcomer=st.text("xyz", min_size=1, max_size=4))
def test_who_comes_takes_loops_and_moves_no_other(workers: set[str], newcomer: str) -> None:
    """A loop that moves stops learning for a moment: no more of them than must be."""
    before = {loop: owner(loop, workers) for loop in LOOPS[:100]}
    after = {loop: owner(loop, {*workers, newcomer}) for loop in LOOPS[:100]}
    assert all(after[loop] in {before[loop], newcomer} for loop in before)


@given(workers=NAMES)
def test_the_order_in_which_workers_are_seen_does_not_matter(workers: set[str]) -> None:
    """All have to arrive at the same answer."""
    assert owner(LOOPS[0], sorted(workers)) == owner(LOOPS[0], sorted(workers, reverse=True))


@pytest.mark.parametrize("count", [2, 3, 5])
def test_each_gets_about_as_many(count: int) -> None:
    """Or there would be no use in a second worker."""
    shares = Counter(owner(loop, [f"worker-{number}" for number in range(count)]) for loop in LOOPS)
    assert len(shares) == count
    assert min(shares.values()) > 0.7 * len(LOOPS) / count


def test_without_workers_a_loop_is_nobodys() -> None:
    """An api node asks this, too."""
    assert owner("loop", []) is None


def _plan(
    leads: dict[str, Lead], living: list[str], held: dict[str, int] | None = None, *, settled: bool = True
) -> tuple[dict[str, int], list[str]]:
    made = plan(me="me", loops=["loop"], leads=leads, living=living, held=held or {}, settled=settled)
    return dict(made.take), list(made.hand_over)


# Of "me" and these two, the loop belongs to the one whose name says so.
MINE = next(name for name in map(str, range(100)) if owner("loop", {"me", name}) == "me")
THEIRS = next(name for name in map(str, range(100)) if owner("loop", {"me", name}) == name)


def test_a_loop_that_nobody_leads_is_taken_by_its_owner() -> None:
    """A new loop must not wait for anything to expire."""
    assert _plan({}, [MINE], settled=False) == ({"loop": 0}, [])
    assert _plan({"loop": Lead("", 7)}, [MINE], settled=False) == ({"loop": 7}, [])
    assert _plan({}, [THEIRS]) == ({}, [])


def test_a_loop_of_a_dead_worker_is_taken_once_it_is_known_to_be_dead() -> None:
    """Who has only just begun to look has not seen the others yet."""
    assert _plan({"loop": Lead("dead", 7)}, [MINE], settled=False) == ({}, [])
    assert _plan({"loop": Lead("dead", 7)}, [MINE]) == ({"loop": 7}, [])


def test_a_loop_is_left_to_whoever_leads_it_and_lives() -> None:
    """It is handed over by whoever leads, or not at all."""
    assert _plan({"loop": Lead(MINE, 7)}, [MINE]) == ({}, [])


def test_a_loop_is_handed_over_to_a_better_owner() -> None:
    """So that a worker who comes gets its share."""
    assert _plan({"loop": Lead("me", 7)}, [THEIRS], {"loop": 7}) == ({}, ["loop"])
    assert _plan({"loop": Lead("me", 7)}, [MINE], {"loop": 7}) == ({}, [])


def test_what_the_process_before_this_one_led_is_taken_anew() -> None:
    """Its children may still be there: under a new term they can do no harm."""
    assert _plan({"loop": Lead("me", 7)}, [MINE], settled=False) == ({"loop": 7}, [])
    assert _plan({"loop": Lead("me", 8)}, [MINE], {"loop": 7}) == ({"loop": 8}, [])
    assert _plan({"loop": Lead("me", 7)}, [THEIRS]) == ({}, ["loop"])
