"""Loops are spread over the workers without a word between them."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from rankward.cluster.spread import owners, plan
from rankward.store.ports import Lead

LOOPS = frozenset(f"{number:032x}" for number in range(200))
NAMES = st.frozensets(st.text("abcdef0123456789-", min_size=1, max_size=8), min_size=1, max_size=8)


@given(workers=NAMES, newcomer=st.text("xyz", min_size=1, max_size=4))
def test_who_comes_or_goes_moves_few_loops_of_others(workers: frozenset[str], newcomer: str) -> None:
    """A loop that moves stops learning for a moment."""
    without, beside = owners(LOOPS, workers), owners(LOOPS, workers | {newcomer})
    gained = [loop for loop in LOOPS if beside[loop] == newcomer]
    moved = [loop for loop in LOOPS if without[loop] != beside[loop]]
    assert len(moved) <= len(gained) + len(LOOPS) // 10


@given(workers=NAMES, count=st.integers(0, 20))
def test_nobody_has_more_than_its_share(workers: frozenset[str], count: int) -> None:
    """Two loops and two workers: each has one."""
    loops = frozenset(sorted(LOOPS)[:count])
    owned = owners(loops, workers)
    assert owned.keys() == loops
    assert max(Counter(owned.values()).values(), default=0) <= -(-count // len(workers))


def test_without_workers_loops_are_nobodys() -> None:
    """Nor is anybody asked."""
    assert owners(LOOPS, frozenset()) == {}


def _plan(
    leads: dict[str, Lead], living: list[str], held: dict[str, int] | None = None, *, settled: bool = True
) -> tuple[dict[str, int], list[str]]:
    made = plan(me="me", loops=["loop"], leads=leads, living=living, held=held or {}, settled=settled)
    return dict(made.take), list(made.hand_over)


# Of "me" and these two, the loop belongs to the one whose name says so.
LOOP = frozenset({"loop"})
MINE = next(name for name in map(str, range(100)) if owners(LOOP, frozenset({"me", name})) == {"loop": "me"})
THEIRS = next(name for name in map(str, range(100)) if owners(LOOP, frozenset({"me", name})) == {"loop": name})


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
