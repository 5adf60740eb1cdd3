"""Everything that can be wrong with a question about a log: each is refused with its code, and nothing is begun."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from rankward.api.operation import P3
from rankward.api.options import ApiOptions
from rankward.settings import Limits
from tests.api.guests import POLICY, SPAN, asked, guest_loop, newest
from tests.service import LoopClient, RunningService

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

INVALID, DATES = "invalidEvaluationContract", "invalidDateTimesInEvaluationContract"
CONFIGURATION, CONTRACT = "invalidPolicyConfiguration", "invalidPolicyContract"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A service that allows an evaluation of at most 20 events, and none that waits."""
    limits = Limits(evaluation_events=20, evaluations_waiting=0)
    running = RunningService(tmp_path_factory.mktemp("strict"), options=ApiOptions(limits=limits))
    try:
        yield running.start()
    finally:
        running.close()


@pytest.fixture(scope="module")
def loop(service: RunningService) -> LoopClient:
    """A loop with ten events."""
    return guest_loop(service, 10)


def body(**members: Any) -> bytes:
    """A good question, but for these members. Those of None are left out."""
    return json.dumps({name: value for name, value in {**asked(), **members}.items() if value is not None}).encode()


def with_policy(name: Any, arguments: Any) -> bytes:
    """A good question, but for its only policy."""
    return body(policies=[{"name": name, "arguments": arguments}])


def policies(count: int) -> list[dict[str, str]]:
    """So many policies with names of their own."""
    return [{"name": f"p{number}", "arguments": POLICY} for number in range(count)]


QUESTIONS: dict[str, tuple[bytes, str, str]] = {
    # What it is: the body, the code, and a word that the message must have.
    "no body": (b"", "badRequest", "JSON"),
    "cut short": (b'{"name":', "badRequest", "JSON"),
    "not UTF-8": (b'{"name":"\xff"}', "badRequest", "JSON"),
    "an array": (b"[]", INVALID, "object"),
    "null": (b"null", INVALID, "object"),
    "nothing in it": (b"{}", INVALID, "name"),
    "no name": (body(name=None), INVALID, "name"),
    "an empty name": (body(name=""), INVALID, "name"),
    "a long name": (body(name="n" * 257), INVALID, "name"),
    "a number for a name": (body(name=7), INVALID, "name"),
    "no start": (body(startTime=None), INVALID, "startTime"),
    "no end": (body(endTime=None), INVALID, "endTime"),
    "a start that is a number": (body(startTime=20200101), INVALID, "startTime"),
    "an empty start": (body(startTime=""), INVALID, "startTime"),
    "a start that is no moment": (body(startTime="last week"), INVALID, "startTime"),
    "a thirteenth month": (body(startTime="2026-13-01"), INVALID, "startTime"),
    "a 30th of February": (body(endTime="2026-02-30T00:00:00Z"), INVALID, "endTime"),
    "a zone that is none": (body(endTime="2026-02-03T00:00:00+99:00"), INVALID, "endTime"),
    "the end before the start": (body(startTime="2026-02-03", endTime="2026-02-02"), DATES, "before"),
    "no time at all": (body(startTime="2026-02-03", endTime="2026-02-03T00:00:00Z"), DATES, "before"),
    "the same moment in two zones": (
        body(startTime="2026-02-03T02:00:00+02:00", endTime="2026-02-03T00:00:00Z"),
        DATES,
        "before",
    ),
    "no policies": (body(policies=None), INVALID, "policies"),
    "policies that are null": (json.dumps({**asked(), "policies": None}).encode(), INVALID, "policies"),
    "policies that are text": (body(policies="mine"), INVALID, "policies"),
    "a policy that is text": (body(policies=["--cb_explore_adf"]), INVALID, "policies"),
    "a policy without a name": (body(policies=[{"arguments": POLICY}]), INVALID, "name"),
    "a policy without arguments": (body(policies=[{"name": "mine"}]), INVALID, "arguments"),
    "a policy with an empty name": (with_policy("", POLICY), INVALID, "called"),
    "a policy with a blank name": (with_policy("  ", POLICY), INVALID, "called"),
    "a policy with a long name": (with_policy("n" * 257, POLICY), INVALID, "name"),
    "a policy called online": (with_policy("Online", POLICY), INVALID, "always judged"),
    "a policy called baseline1": (with_policy("baseline1", POLICY), INVALID, "always judged"),
    "a policy called BaselineRand": (with_policy("BaselineRand", POLICY), INVALID, "always judged"),
    "two of one name": (body(policies=policies(2) + policies(1)), "duplicateCustomPolicyNames", "p0"),
    "two of one name but for case": (
        body(policies=[{"name": "A", "arguments": POLICY}, {"name": "a", "arguments": POLICY}]),
        "duplicateCustomPolicyNames",
        "name of its own",
    ),
    "eleven policies": (body(policies=policies(11)), "maximumEvaluationCustomPoliciesExceeded", "10"),
    "no arguments": (with_policy("mine", ""), CONTRACT, ""),
    "long arguments": (with_policy("mine", "--cb_explore_adf " + "x" * 1024), INVALID, "arguments"),
    "arguments that are a number": (with_policy("mine", 7), INVALID, "arguments"),
    "no algorithm": (with_policy("mine", "--epsilon 0.2"), CONFIGURATION, ""),
    "a file that would be written": (with_policy("mine", "--cb_explore_adf -f x"), CONFIGURATION, ""),
    "a file that would be read": (with_policy("mine", "--cb_explore_adf -i /etc/passwd"), CONTRACT, ""),
    "a socket that would be opened": (with_policy("mine", "--cb_explore_adf --daemon"), CONFIGURATION, ""),
    "an option that nobody knows": (with_policy("mine", "--cb_explore_adf --nothing"), CONFIGURATION, ""),
    "a policy for several slots": (with_policy("mine", "--ccb_explore_adf"), CONFIGURATION, "ccb_explore_adf"),
    "an exploration beyond all": (with_policy("mine", "--cb_explore_adf --epsilon 2"), CONFIGURATION, ""),
    "a search that is text": (body(enableOfflineExperimentation="yes"), INVALID, "enableOfflineExperimentation"),
    "a search that is a number": (body(enablePolicyOptimization=1), INVALID, "enablePolicyOptimization"),
    "a span before the log": (body(endTime="2020-01-02"), "noLogsExistInDateRange", "decision"),
    "a span after the log": (body(startTime="2099-01-02"), "noLogsExistInDateRange", "decision"),
}


@pytest.mark.parametrize("case", QUESTIONS)
def test_a_question_that_cannot_be_asked_is_refused(loop: LoopClient, case: str) -> None:
    """Through the old contract and the newest one alike."""
    sent, code, word = QUESTIONS[case]
    old = loop.at(P3).call("POST", "/evaluations", sent)
    target = "/personalizer/evaluations/e1?api-version=2022-09-01-preview"
    new = loop.service.send("PUT", target, headers={"Ocp-Apim-Subscription-Key": loop.key}, body=sent)

    for answer in (old, new):
        assert answer.status_code == 400, answer.text
        error = answer.json()["error"]
        assert error["code"] == code
        assert word in error["message"] + error.get("target", "")
    assert loop.at(P3).get("/evaluations").json() == []


def test_too_long_a_queue_is_refused(loop: LoopClient) -> None:
    """With a time after which to come again."""
    answer = loop.at(P3).call("POST", "/evaluations", body())

    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "operationNotAllowed")
    assert answer.headers["retry-after"] == "60"


def test_too_much_of_a_log_is_refused(service: RunningService) -> None:
    """With the bound, so that the span can be cut."""
    answer = guest_loop(service, 21).at(P3).call("POST", "/evaluations", body())

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "logsSizeExceedAllowedLimit")
    assert "20" in answer.json()["error"]["message"]


def test_an_empty_log_is_refused(service: RunningService) -> None:
    """Rather than an evaluation of nothing."""
    answer = service.new_loop().at(P3).call("POST", "/evaluations", body())

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "noLogsExistInDateRange")


READS: dict[str, tuple[dict[str, str], str, str]] = {
    "no start": ({"endTime": "2026-01-02"}, "invalidRequest", "startTime"),
    "no end": ({"startTime": "2026-01-02"}, "invalidRequest", "endTime"),
    "a start that is no moment": ({**SPAN, "startTime": "x"}, "invalidRequest", "startTime"),
    "an empty end": ({**SPAN, "endTime": ""}, "invalidRequest", "endTime"),
    "the end before the start": ({"startTime": "2026-01-02", "endTime": "2026-01-01"}, DATES, "before"),
    "an interval of seven minutes": ({**SPAN, "intervalInMinutes": "7"}, "invalidRequest", "intervalInMinutes"),
    "an interval of text": ({**SPAN, "intervalInMinutes": "five"}, "invalidRequest", "intervalInMinutes"),
    "an interval below nothing": ({**SPAN, "intervalInMinutes": "-5"}, "invalidRequest", "intervalInMinutes"),
    "a window that is none": ({**SPAN, "window": "Sliding"}, "invalidRequest", "window"),
    "hours that expand": ({**SPAN, "intervalInMinutes": "60"}, "invalidRequest", "window"),
    "hours that expand, said": ({**SPAN, "intervalInMinutes": "60", "window": "Expanding"}, "invalidRequest", "window"),
    "minutes that roll": ({**SPAN, "intervalInMinutes": "5", "window": "Rolling"}, "invalidRequest", "window"),
    "minutes that roll, unsaid": ({**SPAN, "window": "Rolling"}, "invalidRequest", "window"),
}


@pytest.mark.parametrize("case", READS)
def test_a_cut_that_cannot_be_made_is_refused(loop: LoopClient, case: str) -> None:
    """Before anything is looked for: the id need not be anybody's."""
    query, code, word = READS[case]
    answer = newest(loop, "GET", "/evaluations/e1", **query)

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    assert word in answer.json()["error"]["message"]


LISTS = {
    "top of text": {"top": "all"},
    "top below nothing": {"top": "-1"},
    "skip below nothing": {"skip": "-1"},
    "skip beyond all": {"skip": "99999999999"},
    "pages of nothing": {"maxpagesize": "0"},
    "pages of a part": {"maxpagesize": "1.5"},
    "an empty page size": {"maxpagesize": ""},
    "a filter of words": {"filter": "all of them"},
    "a filter of a member that is none": {"filter": "metadata=colour eq 'red'"},
    "a filter that does not end": {"filter": "metadata=status eq 'Failed"},
    "a filter that is not over": {"filter": "metadata=status eq 'Failed' and"},
    "a filter of one or another": {"filter": "metadata=status eq 'Failed' or status eq 'Running'"},
}


@pytest.mark.parametrize("case", LISTS)
def test_a_list_that_cannot_be_made_is_refused(loop: LoopClient, case: str) -> None:
    """Rather than to show all, or nothing."""
    [name] = LISTS[case]
    answer = newest(loop, "GET", "/evaluations", **LISTS[case])

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalidRequest")
    assert answer.json()["error"]["target"] == name


IMPORTANCES: dict[str, tuple[bytes, str]] = {
    "no body": (b"", "badRequest"),
    "nothing in it": (b"{}", "invalidContract"),
    "an empty name": (json.dumps({"name": "", **SPAN}).encode(), "invalidContract"),
    "no start": (json.dumps({"name": "n", "endTime": "2026-01-01"}).encode(), "invalidContract"),
    "an end that is no moment": (json.dumps({"name": "n", **SPAN, "endTime": "x"}).encode(), "invalidContract"),
    "the end before the start": (
        json.dumps({"name": "n", "startTime": "2026-01-02", "endTime": "2026-01-01"}).encode(),
        DATES,
    ),
    "a span before the log": (
        json.dumps({"name": "n", **SPAN, "endTime": "2020-01-02"}).encode(),
        "noLogsExistInDateRange",
    ),
}


@pytest.mark.parametrize("case", IMPORTANCES)
def test_a_feature_importance_that_cannot_be_asked_is_refused(loop: LoopClient, case: str) -> None:
    """In the newest version, the only one that has them."""
    sent, code = IMPORTANCES[case]
    target = "/personalizer/featureImportances/f1?api-version=2022-09-01-preview"
    answer = loop.service.send("PUT", target, headers={"Ocp-Apim-Subscription-Key": loop.key}, body=sent)

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    assert newest(loop, "GET", "/featureImportances").json() == {"value": []}


REFERENCES: dict[str, bytes] = {
    "no body": b"",
    "nothing in it": b"{}",
    "no policy": b'{"evaluationId":"e"}',
    "no evaluation": b'{"policyName":"online"}',
    "an empty policy": b'{"evaluationId":"e","policyName":""}',
    "a long evaluation": json.dumps({"evaluationId": "e" * 257, "policyName": "online"}).encode(),
    "a number": b'{"evaluationId":1,"policyName":"online"}',
}


@pytest.mark.parametrize("case", REFERENCES)
def test_an_application_that_names_nothing_is_refused(loop: LoopClient, case: str) -> None:
    """`badRequest` in the old contracts, `invalidContract` in the newest where it is JSON."""
    sent = REFERENCES[case]
    old = loop.at(P3).call("POST", "/configurations/applyFromEvaluation", sent)
    target = "/personalizer/configurations/applyFromEvaluation?api-version=2022-09-01-preview"
    new = loop.service.send("POST", target, headers={"Ocp-Apim-Subscription-Key": loop.key}, body=sent)

    assert (old.status_code, old.json()["error"]["code"]) == (400, "badRequest")
    assert (new.status_code, new.json()["error"]["code"]) == (400, "invalidContract" if sent else "badRequest")


@pytest.mark.parametrize("path", ["/evaluations/nothing", "/evaluations/" + "e" * 300])
def test_an_evaluation_that_is_none_is_not_found(loop: LoopClient, path: str) -> None:
    """Whatever its id looks like."""
    for method in ("GET", "DELETE"):
        answer = loop.at(P3).call(method, path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "evaluationNotFound")
