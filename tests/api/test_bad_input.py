"""Every case of bad input, in every version: refused with its status and code, and nothing is changed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from rankward.settings import LoopSettings
from tests.api.bad_input import CASES, GOOD, SLOTS, BadInput, with_slots
from tests.api.conforming import check_refusal
from tests.api.contract import PUBLISHED, Published
from tests.service import KEY_HEADER, LoopClient

if TYPE_CHECKING:
    from tests.service import RunningService

MULTI_SLOT_POLICY = "--ccb_explore_adf --epsilon 0.2 --power_t 0 -l 0.001 --cb_type mtr -q ::"


@pytest.fixture(scope="module")
def loop(service: RunningService) -> LoopClient:
    """A loop that must stay as it was made: nothing of what is refused here may leave a trace."""
    return service.new_loop()


@pytest.fixture(scope="module")
def slots(service: RunningService) -> LoopClient:
    """Another one, which decides for several slots."""
    return service.new_loop(LoopSettings(policy=MULTI_SLOT_POLICY, preset=None))


def is_for(case: BadInput, operation: Published) -> bool:
    """Whether a case is one of an operation."""
    path = re.sub(r"{\w+}", "[^/]+", operation.path)
    return case.method == operation.method and re.fullmatch(path, case.path.split("?")[0]) is not None


def state(loop: LoopClient) -> Any:
    """All that a request could have changed."""
    home = loop.service.home
    made = loop.service.loop(loop.loop)
    return made, loop.service.records(loop.loop), home.catalog.versions(made.loop_id), home.catalog.epochs(made.loop_id)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_refused_in_words_and_changes_nothing(loop: LoopClient, slots: LoopClient, name: str) -> None:
    """The caller learns what is wrong from the answer alone, whichever version of the contract it speaks."""
    case = CASES[name]
    asked = slots if case.slots else loop
    before = state(asked)

    for version in case.versions:
        answer = asked.at(version).call(case.method, case.path, case.body)

        assert (check_refusal(answer, version), answer.status_code) == (case.code, case.status), version
        message = answer.json()["error"]["message"]
        assert case.words in message
        assert 10 < len(message) < 500
    assert state(asked) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("headers", "target"),
    [
        ({}, "/personalizer/v1.0/rank"),
        ({KEY_HEADER: "wrong"}, "/personalizer/v1.0/rank"),
        ({KEY_HEADER: "wrong"}, "/personalizer/rank?api-version=2022-09-01-preview"),
        ({KEY_HEADER: "wrong"}, "/loops/default/personalizer/v1.0/rank"),
        ({KEY_HEADER: "wrong"}, "/loops/nobody/personalizer/v1.0/rank"),
        ({KEY_HEADER: "\u00e9"}, "/personalizer/v1.0/rank"),
        ({"Authorization": "Bearer "}, "/personalizer/v1.0/rank"),
    ],
)
def test_a_wrong_key_is_refused_before_the_body_is_looked_at(
    service: RunningService, headers: dict[str, str], target: str
) -> None:
    """Whoever has no key learns nothing of what would be wrong with the request."""
    answer = service.send("POST", target, headers=headers, body=b"{")

    assert answer.status_code == 401
    assert check_refusal(answer, "") == "401"


@pytest.mark.slow
def test_after_all_that_was_refused_the_loops_rank(loop: LoopClient, slots: LoopClient) -> None:
    """They are as they were made."""
    assert loop.rank(GOOD).status_code == 201
    assert slots.at("v1.1-preview.3").call("POST", "/multislot/rank", with_slots(SLOTS)).status_code == 201


def test_every_operation_that_takes_a_body_has_bad_input() -> None:
    """In every version that has it; and there is enough of it."""
    for operation in PUBLISHED:
        tried = [version for case in CASES.values() if is_for(case, operation) for version in case.versions]
        if operation.request is not None:
            assert set(operation.versions) <= set(tried), operation.id
    assert len(CASES) >= 150
