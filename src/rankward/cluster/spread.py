"""How loops are spread over the living workers, and what each of them takes, goes on with and hands over.

Rendezvous hashing: every worker has a number for every loop, and a loop belongs to whoever has the lowest among those
who have room. All who see the same workers and loops agree without a word, and when one comes or goes, few others move.
"""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Collection, Mapping

import msgspec

from rankward.store.ports import Lead

_NOBODY = Lead("", 0)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker is to do about the loops, by loop id."""

    take: Mapping[str, int]  # with the term on record
    hand_over: Collection[str]


@functools.lru_cache(maxsize=1)  # asked for several times a second, and seldom about anything else
def owners(loops: frozenset[str], workers: frozenset[str]) -> Mapping[str, str]:
    """Say whose each loop is among these workers. Nobody has more than its share, rounded up.

    >>> owners(frozenset({"a-loop"}), frozenset({"one"}))
    {'a-loop': 'one'}
    """
    if not workers:
        return {}
    bound = -(-len(loops) // len(workers))
    found: dict[str, str] = {}
    shares: Counter[str] = Counter()
    for _, worker, loop_id in sorted(
        (_number(loop_id, worker), worker, loop_id) for loop_id in loops for worker in workers
    ):
        if loop_id not in found and shares[worker] < bound:
            found[loop_id] = worker
            shares[worker] += 1
    return found


def _number(loop_id: str, worker: str) -> bytes:
    return hashlib.blake2b(f"{worker}/{loop_id}".encode(), digest_size=8).digest()


def plan(
    *,
    me: str,
    loops: Collection[str],
    leads: Mapping[str, Lead],
    living: Collection[str],
    held: Mapping[str, int],
    settled: bool,
) -> Plan:
    """Decide what a worker is to take and to hand over.

    Args:
        me: name of the worker.
        loops: ids of all loops.
        leads: what is on record.
        living: names of the workers that are alive.
        held: the loops that the worker leads, each with the term under which it does.
        settled: whether the worker has seen the others for long enough to tell that one who is missing is dead.
    """
    workers = {*living, me}
    owned = owners(frozenset(loops), frozenset(workers))
    take, hand_over = {}, []
    for loop_id in loops:
        lead = leads.get(loop_id, _NOBODY)
        if owned[loop_id] != me:
            if lead.holder == me:
                hand_over.append(loop_id)
        elif lead.holder == me:
            if held.get(loop_id) != lead.term:  # it was taken by the process before this one on the same folder
                take[loop_id] = lead.term
        elif not lead.holder or (settled and lead.holder not in workers):
            take[loop_id] = lead.term
    return Plan(take=take, hand_over=hand_over)
