"""The promises of the studies' store, held against every backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from rankward.errors import Conflict, Overloaded
from rankward.settings import LoopSettings
from rankward.store.ports import Epoch, Loop
from rankward.store.studies import AskedPolicy, Study, StudyKind, StudyState

if TYPE_CHECKING:
    from tests.store.homes import Home

LOOP_ID = "1" * 32


@pytest.fixture
def home(replicated_home: Home) -> Home:
    """Also the home of a node of a cluster."""
    return replicated_home


def a_study(number: int = 1, **changes: object) -> Study:
    """Make a study that waits."""
    study = Study(
        key=f"{number:032x}",
        kind=StudyKind.EVALUATION,
        loop_id=LOOP_ID,
        study_id=f"e/{number}",
        name="week 3",
        created_us=number,
        start_us=10,
        end_us=20,
        settings=LoopSettings(),
        forgotten_before=0,
        time_limit_s=3_600.0,
        policies=(AskedPolicy("mine", "--cb_explore_adf"),),
    )
    return msgspec.structs.replace(study, **changes)


def test_a_study_is_found_by_whoever_opens_the_store(home: Home) -> None:
    """By its id within its loop and kind, by its key, and in lists, oldest first."""
    studies = home.studies()
    first, second = a_study(1), a_study(2)
    other_kind = a_study(3, study_id="e/1", kind=StudyKind.IMPORTANCE)
    other_loop = a_study(4, study_id="e/1", loop_id="2" * 32)
    for study in (first, second, other_kind, other_loop):
        studies.add(study, waiting_max=10)

    seen = home.studies()
    assert seen.find(LOOP_ID, StudyKind.EVALUATION, "e/1") == first
    assert seen.find(LOOP_ID, StudyKind.IMPORTANCE, "e/1") == other_kind
    assert seen.find("2" * 32, StudyKind.EVALUATION, "e/1") == other_loop
    assert seen.find(LOOP_ID, StudyKind.EVALUATION, "e/9") is None
    assert (seen.by_key(second.key), seen.by_key("nothing")) == (second, None)
    assert seen.listed(LOOP_ID, StudyKind.EVALUATION) == [first, second]
    assert seen.unfinished() == [first, second, other_kind, other_loop]


def test_an_id_is_taken_once(home: Home) -> None:
    """The first one stays as it is."""
    studies = home.studies()
    studies.add(a_study(), waiting_max=10)
    with pytest.raises(Conflict, match="choose another id"):
        studies.add(a_study(2, study_id="e/1", name="other"), waiting_max=10)
    assert studies.find(LOOP_ID, StudyKind.EVALUATION, "e/1") == a_study()


def test_the_queue_is_bounded(home: Home) -> None:
    """By what is not finished, in all loops together."""
    studies = home.studies()
    studies.add(a_study(1), waiting_max=2)
    studies.add(a_study(2, loop_id="2" * 32, state=StudyState.RUNNING), waiting_max=2)
    with pytest.raises(Overloaded, match="the bound is 2"):
        studies.add(a_study(3), waiting_max=2)
    studies.write(a_study(1, state=StudyState.FAILED))
    studies.add(a_study(3), waiting_max=2)


def test_what_was_found_is_written_with_its_study(home: Home) -> None:
    """Both or neither, and both go together."""
    studies = home.studies()
    study = a_study()
    studies.add(study, waiting_max=10)
    done = msgspec.structs.replace(study, state=StudyState.SUCCEEDED, attempts=1, optimal="mine")

    assert studies.found(study.key) is None
    assert studies.write(done, found=b"numbers" * 1_000)
    assert home.studies().found(study.key) == b"numbers" * 1_000
    assert home.studies().by_key(study.key) == done
    assert studies.unfinished() == []
    assert studies.delete(LOOP_ID, StudyKind.EVALUATION, "e/1") == done
    assert studies.delete(LOOP_ID, StudyKind.EVALUATION, "e/1") is None
    assert (studies.found(study.key), studies.by_key(study.key)) == (None, None)


def test_who_comes_late_writes_nothing(home: Home) -> None:
    """A process that was taken for dead must not end what was begun again, nor bring back what was deleted."""
    studies = home.studies()
    study = a_study(attempts=1)
    studies.add(study, waiting_max=10)
    again = msgspec.structs.replace(study, attempts=2, state=StudyState.RUNNING)
    assert studies.write(again)

    assert not studies.write(msgspec.structs.replace(study, state=StudyState.SUCCEEDED), found=b"late")
    assert (studies.by_key(study.key), studies.found(study.key)) == (again, None)
    studies.delete(LOOP_ID, StudyKind.EVALUATION, "e/1")
    assert not studies.write(again, found=b"late")
    assert studies.found(study.key) is None


def test_an_attempt_is_begun_once(home: Home) -> None:
    """Of two workers that would run a study, one does."""
    studies = home.studies()
    study = a_study()
    studies.add(study, waiting_max=10)
    begun = msgspec.structs.replace(study, state=StudyState.RUNNING, attempts=1, holder="one")
    assert studies.begin(begun)
    assert not home.studies().begin(msgspec.structs.replace(begun, holder="two"))
    assert studies.by_key(study.key) == begun
    assert studies.begin(msgspec.structs.replace(begun, attempts=2, holder="two"))


def test_a_loop_takes_its_studies_along(home: Home) -> None:
    """A loop of the same name, made later, must not find them."""
    catalog, studies = home.catalog(), home.studies()
    loop = Loop(name="news", loop_id=LOOP_ID, created_us=5, settings=LoopSettings())
    epoch = Epoch(
        epoch_id=0,
        loop_id=LOOP_ID,
        state="building",
        reason="created",
        created_us=5,
        policy="--cb_explore_adf",
        derives_interactions=False,
        default_reward=0.0,
        reward_aggregation="earliest",
        since_us=0,
    )
    catalog.create_loop(loop, [], epoch)
    study = a_study()
    studies.add(study, waiting_max=10)
    studies.write(study, found=b"numbers")

    catalog.delete_loop("news")

    assert (studies.by_key(study.key), studies.found(study.key)) == (None, None)
