"""The learning policy over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from rankward.loops import new_loop_settings
from tests.service import request

if TYPE_CHECKING:
    from tests.service import LoopClient, RunningService

pytestmark = pytest.mark.slow

PATH = "/configurations/policy"
SERVICE = "/configurations/service"
DEFAULT = "--cb_explore_adf --epsilon 0.2 --power_t 0 -l 0.001 --cb_type mtr -q ::"


@pytest.fixture
def loop(service: RunningService) -> LoopClient:
    """A loop of one's own, with the original's settings."""
    return service.new_loop()


def test_an_untouched_loop_has_the_originals_policy(service: RunningService, loop: LoopClient) -> None:
    """Under the loop's own id as its name."""
    answer = loop.get(PATH)

    assert answer.status_code == 200
    assert answer.json() == {"name": service.loop(loop.loop).loop_id, "arguments": DEFAULT}


def test_a_policy_comes_back_as_sent_under_the_loops_name(service: RunningService, loop: LoopClient) -> None:
    """As recorded: the name that was sent is not kept."""
    arguments = "--cb_explore_adf --epsilon 0.2 --cb_type dr -q FF -q Fj -l 0.5"

    answer = loop.put(PATH, {"name": "mine", "arguments": arguments})

    assert answer.status_code == 200
    assert answer.json() == {"name": service.loop(loop.loop).loop_id, "arguments": arguments}
    assert answer.json() == loop.get(PATH).json()


def test_epsilon_in_the_policy_sets_the_exploration(loop: LoopClient) -> None:
    """They are one number."""
    loop.put(PATH, {"name": "x", "arguments": "--cb_explore_adf --epsilon 0.35"})

    assert loop.get(SERVICE).json()["explorationPercentage"] == 0.35


def test_the_exploration_rewrites_epsilon_in_the_policy(loop: LoopClient) -> None:
    """And the reverse; the rest of the arguments stays."""
    loop.put(SERVICE, {"explorationPercentage": 0.05})

    assert loop.get(PATH).json()["arguments"] == DEFAULT.replace("0.2", "0.05")


def test_a_policy_without_epsilon_keeps_the_exploration(loop: LoopClient) -> None:
    """What it does not say, it does not change."""
    loop.put(SERVICE, {"explorationPercentage": 0.05})
    loop.put(PATH, {"name": "x", "arguments": "--cb_explore_adf --cb_type mtr"})

    assert loop.get(SERVICE).json()["explorationPercentage"] == 0.05


def test_delete_restores_the_default_and_answers_it(service: RunningService) -> None:
    """With its exploration, for a loop that began with another preset too."""
    loop = service.new_loop(new_loop_settings())
    assert loop.get(PATH).json()["arguments"] != DEFAULT

    answer = loop.delete(PATH)

    assert answer.status_code == 200
    assert answer.json() == {"name": service.loop(loop.loop).loop_id, "arguments": DEFAULT}
    assert loop.get(PATH).json() == answer.json()
    assert loop.get(SERVICE).json()["explorationPercentage"] == 0.2


def test_options_about_input_are_stripped(loop: LoopClient) -> None:
    """The contract's own examples have `--dsjson`, so the original took it."""
    answer = loop.put(PATH, {"name": "x", "arguments": "--dsjson --cb_explore_adf --epsilon 0.2"})

    assert answer.json()["arguments"] == "--cb_explore_adf --epsilon 0.2"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"name": "x", "arguments": ""}, "invalidPolicyContract"),
        ({"name": "x", "arguments": "--cb_explore_adf " + " " * 1024}, "invalidPolicyContract"),
        ({"name": "n" * 257, "arguments": DEFAULT}, "invalidPolicyContract"),
        ({"arguments": DEFAULT}, "invalidPolicyContract"),
        ({"name": "x"}, "invalidPolicyContract"),
        ({"name": "x", "arguments": None}, "invalidPolicyContract"),
        ([], "invalidPolicyContract"),
        ({"name": "x", "arguments": "--cb_explore_adf --epsilon"}, "invalidPolicyContract"),
        ({"name": "x", "arguments": "--cb_explore_adf stray"}, "invalidPolicyContract"),
        ({"name": "x", "arguments": "--cb_explore_adf --epsilon 0.2; rm"}, "invalidPolicyContract"),
        ({"name": "x", "arguments": "--boosting 5"}, "invalidPolicyConfiguration"),
        ({"name": "x", "arguments": "--epsilon 0.2"}, "invalidPolicyConfiguration"),
        ({"name": "x", "arguments": "--cb_explore_adf --epsilon 1.5"}, "invalidPolicyConfiguration"),
        ({"name": "x", "arguments": "--cb_explore_adf -f model"}, "invalidPolicyConfiguration"),
        ({"name": "x", "arguments": "--cb_explore_adf -i model"}, "invalidPolicyConfiguration"),
        ({"name": "x", "arguments": "--cb_explore_adf --daemon"}, "invalidPolicyConfiguration"),
        ({"name": "x", "arguments": "--cats 4"}, "invalidPolicyConfiguration"),
    ],
)
def test_a_policy_that_cannot_be_used_changes_nothing(loop: LoopClient, body: Any, code: str) -> None:
    """The learner's own parser opens files and sockets: it never sees such a policy."""
    answer = loop.put(PATH, body)

    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == code
    assert loop.get(PATH).json()["arguments"] == DEFAULT
    assert loop.rank(request("a", "b")).status_code == 201
