"""The promises of the challengers' store, held against every backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from tests.store.test_catalog import a_loop, create

from rankward.challenge.following import epoch_of
from rankward.errors import Conflict
from rankward.settings import LoopSettings
from rankward.store.challengers import CHALLENGERS_MAX, Challenger, ChallengerState
from rankward.store.ports import Loop, SetAside

if TYPE_CHECKING:
    from tests.store.homes import Home

LOOP_ID = "1" * 32


@pytest.fixture
def home(replicated_home: Home) -> Home:
    """Also the home of a node of a cluster."""
    return replicated_home


def a_challenger(number: int = 1, **changes: object) -> Challenger:
    """Make a challenger."""
    loop = Loop(name="news", loop_id=LOOP_ID, created_us=1, settings=LoopSettings())
    made = Challenger(
        key=f"{number:032x}",
        loop_id=LOOP_ID,
        name=f"c{number}",
        created_us=number,
        preset=None,
        exploration=0.1,
        settings=loop.settings,
        epoch=epoch_of(loop, "--cb_explore_adf --epsilon 0.1", None, now_us=number),
        judged_from_us=number,
    )
    return msgspec.structs.replace(made, **changes)


def an_aside(interaction: int = 7) -> SetAside:
    """Make an event that is passed over."""
    return SetAside(loop_id=LOOP_ID, interaction=interaction, event_id="e", reason="it breaks", time_us=1)


def test_challengers_are_seen_by_whoever_opens_the_store(home: Home) -> None:
    """By loop, oldest first."""
    challengers = home.challengers()
    first, second, elsewhere = a_challenger(1), a_challenger(2), a_challenger(3, loop_id="2" * 32)
    for each in (second, first, elsewhere):
        challengers.add(each)
    assert home.challengers().listed(LOOP_ID) == [second, first]
    assert home.challengers().listed("2" * 32) == [elsewhere]


def test_a_loop_has_so_many_and_no_two_of_a_name(home: Home) -> None:
    """Each of them learns everything that the loop does."""
    challengers = home.challengers()
    challengers.add(a_challenger())
    with pytest.raises(Conflict, match="choose another name"):
        challengers.add(a_challenger(99, name="c1"))
    for number in range(2, CHALLENGERS_MAX + 1):
        challengers.add(a_challenger(number))
    with pytest.raises(Conflict, match="the bound is 5"):
        challengers.add(a_challenger(99))
    challengers.add(a_challenger(99, loop_id="2" * 32))


def test_how_far_one_is_is_written_with_it(home: Home) -> None:
    """Both or neither; without, it begins anew."""
    challengers = home.challengers()
    challengers.add(a_challenger())
    assert challengers.progress(a_challenger().key) is None
    failed = a_challenger(state=ChallengerState.FAILED, description="it broke")
    assert challengers.write(failed, progress=b"far")
    assert home.challengers().listed(LOOP_ID) == [failed]
    assert home.challengers().progress(failed.key) == b"far"
    assert challengers.write(a_challenger())
    assert home.challengers().progress(failed.key) is None


def test_what_is_removed_stays_so(home: Home) -> None:
    """Whoever still runs it is late, and must hear of it."""
    challengers = home.challengers()
    challengers.add(a_challenger())
    challengers.set_aside(a_challenger().key, an_aside())
    assert challengers.delete(a_challenger().key)
    assert not challengers.delete(a_challenger().key)
    assert not challengers.write(a_challenger(), progress=b"far")
    challengers.set_aside(a_challenger().key, an_aside())
    assert challengers.listed(LOOP_ID) == []
    assert challengers.set_asides(a_challenger().key) == []


def test_what_one_passes_over_is_its_own_and_is_forgotten_with_the_events(home: Home) -> None:
    """The loop and the other challengers can use it; once it is erased, its reason must not be left."""
    catalog, challengers = home.catalog(), home.challengers()
    for number in (1, 2):
        challengers.add(a_challenger(number))
    for _ in range(2):
        challengers.set_aside(a_challenger(1).key, an_aside(7))
    challengers.set_aside(a_challenger(1).key, an_aside(5))
    assert home.challengers().set_asides(a_challenger(1).key) == [an_aside(5), an_aside(7)]
    assert challengers.set_asides(a_challenger(2).key) == []
    catalog.forget_set_asides(LOOP_ID, [7])
    assert challengers.set_asides(a_challenger(1).key) == [an_aside(5)]


def test_they_go_with_their_loop(home: Home) -> None:
    """A loop that is deleted leaves nothing."""
    catalog, challengers = home.catalog(), home.challengers()
    loop = create(catalog, a_loop())
    challengers.add(a_challenger(1, loop_id=loop.loop_id))
    catalog.delete_loop(loop.name)
    assert challengers.listed(loop.loop_id) == []
