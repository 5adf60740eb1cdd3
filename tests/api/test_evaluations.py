"""Evaluations over HTTP: asked for, followed, read, listed, applied and deleted, in every version of the contract."""

from __future__ import annotations

import json
import math
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from rankward.api.operation import P1, P2, P3, V1_0
from rankward.evaluation.findings import Findings
from rankward.ranking.explore import floored
from rankward.records import Interaction
from rankward.settings import LoopSettings
from rankward.store.studies import Study, StudyKind, StudyState
from rankward.vw.learner import Learner
from rankward.vw.presets import learner_arguments
from tests.api.guests import DISHES, POLICY, SPAN, V2022, ask, asked, finished, guest_loop, newest
from tests.service import LoopClient, RunningService, eventually

if TYPE_CHECKING:
    from pathlib import Path

    from rankward.records import JoinedEvent
    from rankward.store.ports import ModelVersion

pytestmark = pytest.mark.slow

COUNT = 240
LATER = (P1, P2, P3)


@pytest.fixture(scope="module")
def loop(service: RunningService) -> LoopClient:
    """A loop with a log, which no test changes."""
    return guest_loop(service, COUNT)


@pytest.fixture(scope="module")
def evaluation_id(loop: LoopClient) -> str:
    """An evaluation that has ended."""
    found = ask(loop.at(P3), asked())
    finished(loop, found)
    return found


@pytest.fixture(scope="module")
def events(service: RunningService, loop: LoopClient) -> list[JoinedEvent]:
    """What its log holds."""
    return service.joined(loop.loop)


def by_name(results: list[Any]) -> dict[str, Any]:
    """Policies by name."""
    return {each["name"]: each for each in results}


# v1.0 to v1.1-preview.3


@pytest.mark.parametrize("version", [V1_0, *LATER])
def test_a_new_evaluation_is_answered_as_recorded(loop: LoopClient, version: str) -> None:
    """201, a path as `Location`, the policies as they were sent, and nothing found yet."""
    answer = loop.at(version).call("POST", "/evaluations", msgspec.json.encode(asked("new")))
    body = answer.json()
    try:
        assert answer.status_code == 201
        assert answer.headers["location"] == f"/personalizer/{version}/evaluations/{body['id']}"
        assert (
            loop.service.send(
                "GET", answer.headers["location"], headers={"ocp-apim-subscription-key": loop.key}
            ).json()["id"]
            == body["id"]
        )
        [policy] = body["policyResults"]
        assert (body["name"], body["status"], body["featureImportance"]) == ("new", "pending", [])
        assert (body["startTime"], body["endTime"]) == ("2020-01-01T00:00:00Z", "2100-01-01T00:00:00Z")
        assert (policy["name"], policy["arguments"]) == ("mine", POLICY)
        later = {"optimalPolicy": "", "evaluationType": "Manual"}
        if version == V1_0:
            assert not {*later, "creationTime"} & body.keys()
            assert policy.keys() == {"name", "arguments"}
        else:
            assert later.items() <= body.items()
            assert policy["policySource"] == "Custom"
    finally:
        assert loop.delete(f"/evaluations/{body['id']}").status_code == 204


def test_a_finished_evaluation_lists_what_the_contract_lists(loop: LoopClient, evaluation_id: str) -> None:
    """Custom policies, then `online` and the baselines, which have no arguments."""
    body = loop.at(P3).get(f"/evaluations/{evaluation_id}").json()

    names = ["mine", "online", "baseline1", "baselineRand"]
    sources = ["Custom", "Online", "Baseline", "Random"]
    assert body["status"] == "completed"
    assert [each["name"] for each in body["policyResults"]] == names
    assert [each["policySource"] for each in body["policyResults"]] == sources
    found = by_name(body["policyResults"])
    assert found["online"]["arguments"] == LoopSettings().policy
    assert "arguments" not in found["baseline1"]
    assert "arguments" not in found["baselineRand"]
    assert body["optimalPolicy"] in names
    assert "rankward" not in body


def test_the_arithmetic_is_the_contracts(loop: LoopClient, evaluation_id: str, events: list[JoinedEvent]) -> None:
    """By hand from the log: sums of weighted rewards, plain IPS, and its Gaussian interval."""
    found = by_name(loop.at(P3).get(f"/evaluations/{evaluation_id}").json()["policyResults"])
    weights: dict[str, list[float]] = {"online": [], "baseline1": [], "baselineRand": []}
    rewards = []
    for event in events:
        decision = event.interaction
        assert isinstance(decision, Interaction)
        p_log = decision.pmf[decision.chosen]
        rewards.append(event.entry.observations[0].value)
        weights["online"].append(1.0)
        weights["baseline1"].append((decision.chosen == 0) / p_log)
        weights["baselineRand"].append(1 / len(DISHES) / p_log)

    for name, each in weights.items():
        total = found[name]["totalSummary"]
        weighted = [weight * reward for weight, reward in zip(each, rewards, strict=True)]
        mean = sum(weighted) / COUNT
        squares = sum(value * value for value in weighted)
        assert total["ipsEstimatorDenominator"] == COUNT
        assert total["ipsEstimatorNumerator"] == pytest.approx(sum(weighted))
        assert total["snipsEstimatorDenominator"] == pytest.approx(sum(each))
        assert total["averageReward"] == pytest.approx(mean)
        assert (total["aggregateTimeWindow"], total["timeStamp"]) == ("PT0S", "2100-01-01T00:00:00Z")
        if name == "online":
            assert total["confidenceInterval"] == 0
            assert not {"nonZeroProbability", "sumOfSquares"} & total.keys()
        else:
            half = 1.96 * math.sqrt((squares - COUNT * mean * mean) / (COUNT - 1) / COUNT)
            assert total["sumOfSquares"] == pytest.approx(squares)
            assert total["nonZeroProbability"] == sum(weight > 0 for weight in each)
            assert total["confidenceInterval"] == pytest.approx(half, rel=1e-4)


def test_windows_add_up_to_the_whole(loop: LoopClient, evaluation_id: str) -> None:
    """Every width covers the log once, the finest first."""
    for policy in loop.get(f"/evaluations/{evaluation_id}").json()["policyResults"]:
        widths = [window["aggregateTimeWindow"] for window in policy["summary"]]
        assert list(dict.fromkeys(widths)) == ["PT5M", "PT1H", "PT6H", "P1D"]
        for width in set(widths):
            within = [window for window in policy["summary"] if window["aggregateTimeWindow"] == width]
            total = sum(window["ipsEstimatorNumerator"] for window in within)
            assert total == pytest.approx(policy["totalSummary"]["ipsEstimatorNumerator"])
            assert sum(window["ipsEstimatorDenominator"] for window in within) == COUNT
        assert not {"averageReward"} & policy["totalSummary"].keys(), "v1.0 does not know it"


def test_features_are_grouped_and_named_as_recorded(loop: LoopClient, evaluation_id: str) -> None:
    """Strings with their values, and the action's id and its only feature go together."""
    found = loop.at(P3).get(f"/evaluations/{evaluation_id}").json()["featureImportance"]

    assert ["guest.isadult", "guest.ischild"] in [sorted(group) for group in found]
    assert ["FromUrl.hour"] in found
    together = next(group for group in found if "i.idsoup" in group)
    assert {"j.dishsoup", "i.idcurry", "j.dishsalad"} <= set(together)


def test_the_list_leaves_windows_out(loop: LoopClient, evaluation_id: str) -> None:
    """As recorded: totals are there, windows are not."""
    listed = loop.at(P3).get("/evaluations").json()
    found = next(each for each in listed if each["id"] == evaluation_id)

    assert all("totalSummary" in policy and "summary" not in policy for policy in found["policyResults"])


def test_details_are_there_when_asked_for(loop: LoopClient, evaluation_id: str) -> None:
    """Our own estimates stand beside the contract's, under a name of their own."""
    body = loop.get(f"/evaluations/{evaluation_id}?details=true").json()
    mine = by_name(body["policyResults"])["mine"]["rankward"]

    assert body["rankward"]["judged"] == COUNT
    assert body["rankward"]["trusted"] is True
    assert mine["intervalAlways"][0] <= mine["value"] <= mine["intervalAlways"][1]
    assert mine["verdict"] in {"better", "worse", "undecided"}


def test_a_search_lists_its_finalists_as_found(loop: LoopClient) -> None:
    """After the custom policies and before `online`, with arguments, under the contract's names."""
    found = finished(loop.at(P3), ask(loop.at(P3), asked(enableOfflineExperimentation=True)), "?details=true")
    sources = [each["policySource"] for each in found["policyResults"]]
    finalists = [each for each in found["policyResults"] if each["policySource"] == "OfflineExperimentation"]

    assert found["status"] == "completed"
    assert sources == ["Custom", *["OfflineExperimentation"] * len(finalists), "Online", "Baseline", "Random"]
    assert 1 <= len(finalists) <= 3
    assert all(each["name"].startswith(("Hyper", "Inter-len")) for each in finalists)
    assert all(each["arguments"].startswith("--cb_explore_adf") for each in finalists)
    assert found["rankward"]["search"]


def test_a_search_in_too_short_a_log_says_so(service: RunningService) -> None:
    """Whoever asked for better policies must not take their absence for a finding."""
    loop = guest_loop(service, 20, seed=7)
    found = finished(loop, ask(loop, asked(enableOfflineExperimentation=True)))

    assert found["status"] == "completed"
    assert "too few decisions" in found["description"]


# 2022-09-01-preview


def test_the_newest_version_creates_under_the_callers_id(loop: LoopClient) -> None:
    """200 without a body or a content type; the id is taken from then on."""
    answer = newest(loop, "PUT", "/evaluations/mine%2F1", asked("mine/1"))
    again = newest(loop, "PUT", "/evaluations/mine%2F1", asked("mine/1"))
    running = newest(loop, "GET", "/evaluations/mine%2F1", **SPAN).json()

    assert (answer.status_code, answer.content) == (200, b"")
    assert "content-type" not in answer.headers
    assert (again.status_code, again.json()["error"]["code"]) == (400, "evaluationAlreadyExists")
    assert again.headers["x-ms-error-code"] == "evaluationAlreadyExists"
    if running["status"] == "Running":
        never = "0001-01-01T00:00:00"
        assert running["content"] == {"startTime": never, "endTime": never, "intervalInMinutes": 0, "value": []}
    assert newest(loop, "DELETE", "/evaluations/mine%2F1").status_code == 204
    gone = newest(loop, "GET", "/evaluations/mine%2F1", **SPAN)
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "evaluationNotFound")


def test_the_newest_version_shows_the_same_evaluation(loop: LoopClient, evaluation_id: str) -> None:
    """What was made through an older contract is read through the newest: names and shapes are translated."""
    old = loop.at(P3).get(f"/evaluations/{evaluation_id}").json()
    new = newest(loop, "GET", f"/evaluations/{evaluation_id}", **SPAN).json()

    assert (new["status"], new["evaluationType"]) == ("Succeeded", "Manual")
    assert new["optimalPolicy"] == old["optimalPolicy"]
    assert new["content"]["startTime"] == "2020-01-01T00:00:00Z"
    assert new["content"]["intervalInMinutes"] == 5
    totals = {name: each["totalSummary"] for name, each in by_name(old["policyResults"]).items()}
    for policy in new["content"]["value"]:
        total, summary = totals[policy["name"]], policy["summary"]
        assert policy["slotId"] == ""
        assert summary["expectedReward"] == pytest.approx(total["averageReward"])
        low, high = summary["confidenceInterval"]
        assert (low + high) / 2 == pytest.approx(summary["expectedReward"])
        if policy["name"] != "online":
            assert (high - low) / 2 == pytest.approx(total["confidenceInterval"])
        last = policy["timeseries"]["data"][-1]
        assert last["expectedReward"] == pytest.approx(summary["expectedReward"]), "the series is cumulative"


def test_rolling_windows_stand_alone(loop: LoopClient, evaluation_id: str) -> None:
    """A day that holds the whole log says what the whole log says."""
    query = {**SPAN, "intervalInMinutes": "1440", "window": "Rolling"}
    value = newest(loop, "GET", f"/evaluations/{evaluation_id}", **query).json()["content"]["value"]

    assert all(1 <= len(policy["timeseries"]["data"]) <= 2 for policy in value)


def test_lists_come_in_pages_that_lead_on(service: RunningService) -> None:
    """Links are absolute, repeat version and filter, and end where the list or `top` does."""
    loop = service.new_loop()
    studies = service.home.studies
    made = failed_studies(service, loop, 7)
    for study in made:
        studies.add(study, waiting_max=100)
    try:
        first = newest(loop, "GET", "/evaluations", maxpagesize="3", filter="metadata=evaluationType eq 'Manual'")
        ids, link = [], ""
        body = first.json()
        for _ in range(5):
            ids += [each["id"] for each in body["value"]]
            if "nextLink" not in body:
                break
            link = body["nextLink"]
            assert link.startswith(service.url + "/personalizer/evaluations?")
            assert "api-version=2022-09-01-preview" in link
            assert "filter=" in link
            body = service.send(
                "GET", link.removeprefix(service.url), headers={"Ocp-Apim-Subscription-Key": loop.key}
            ).json()
        assert ids == [study.study_id for study in made]
        some = newest(loop, "GET", "/evaluations", top="4", skip="1", maxpagesize="3").json()
        assert [each["id"] for each in some["value"]] == ids[1:4]
        assert "top=1&skip=4&maxpagesize=3" in some["nextLink"]
        assert newest(loop, "GET", "/evaluations", top="0").json() == {"value": []}
        assert newest(loop, "GET", "/evaluations", skip="9").json() == {"value": []}
        filtered = newest(loop, "GET", "/evaluations", filter="status eq 'Failed' and name ne 'study 2'").json()
        assert [each["id"] for each in filtered["value"]] == [each.study_id for each in made if each.name != "study 2"]
        assert newest(loop, "GET", "/evaluations", filter="evaluationType eq 'Auto'").json() == {"value": []}
        assert filtered["value"][0].keys() == {
            *("id", "name", "startTime", "endTime", "creationTime", "status", "evaluationType"),
        }
    finally:
        for study in made:
            studies.delete(study.loop_id, study.kind, study.study_id)


def failed_studies(service: RunningService, loop: LoopClient, count: int) -> list[Any]:
    """Evaluations that failed, as a catalog may hold them."""
    return [
        Study(
            key=f"{loop.loop}-{number}",
            kind=StudyKind.EVALUATION,
            loop_id=service.loop(loop.loop).loop_id,
            study_id=f"s{number}",
            name=f"study {number}",
            created_us=1_767_225_600_000_000 + number,
            start_us=1_767_225_600_000_000,
            end_us=1_767_225_700_000_000,
            settings=LoopSettings(),
            forgotten_before=0,
            time_limit_s=60.0,
            state=StudyState.FAILED,
            description="it was made for a test",
        )
        for number in range(count)
    ]


@pytest.mark.parametrize(("version", "status"), [(V1_0, "failed"), (P3, "timeout"), (V2022, "Timeout")])
def test_time_that_ran_out_is_said_in_the_versions_words(service: RunningService, version: str, status: str) -> None:
    """v1.0 knows no timeout, so there it failed."""
    loop = service.new_loop()
    [study] = failed_studies(service, loop, 1)
    service.home.studies.add(msgspec.structs.replace(study, state=StudyState.TIMED_OUT), waiting_max=100)
    if version == V2022:
        body = newest(loop, "GET", "/evaluations/s0", **SPAN).json()
    else:
        body = loop.at(version).get("/evaluations/s0").json()

    assert (body["status"], body["description"]) == (status, "it was made for a test")


# Applying


def test_an_applied_policy_decides_as_it_was_evaluated(service: RunningService) -> None:
    """Its arguments and its trained model are live: the very probabilities come from the kept model."""
    loop = guest_loop(service, 120, seed=2).at(P1)
    evaluation_id = ask(loop, asked())
    finished(loop, evaluation_id)
    record = service.loop(loop.loop)
    study = service.home.studies.find(record.loop_id, StudyKind.EVALUATION, evaluation_id)
    assert study is not None
    findings = msgspec.msgpack.decode(service.home.studies.found(study.key) or b"", type=Findings)
    kept = next(each for each in findings.models if each.policy_name == "mine")
    assert kept.learned == 120

    answer = loop.call("POST", "/configurations/applyFromEvaluation", reference(evaluation_id, "mine"))

    assert (answer.status_code, answer.content) == (204, b"")
    assert loop.get("/configurations/policy").json()["arguments"] == POLICY
    assert loop.get("/configurations/service").json()["explorationPercentage"] == 0.3
    body = {
        "contextFeatures": [{"guest": {"is": "child"}, "hour": 1, "always": "there"}],
        "actions": [{"id": dish, "features": [{"dish": dish}]} for dish in DISHES],
    }
    ranking = {each["id"]: each["probability"] for each in loop.rank(body).json()["ranking"]}
    model = service.home.study_models.get(record.loop_id, kept.model_id)
    learner = Learner(learner_arguments(POLICY, kept.interactions, 0.3), model)
    decision = service.joined(loop.loop)[0].interaction
    context = msgspec.json.encode(body["contextFeatures"])
    expected = floored(learner.pmf(context, decision.actions), 0.3)  # type: ignore[arg-type]
    assert [ranking[dish] for dish in DISHES] == pytest.approx(expected, abs=1e-6)
    assert loop.call("POST", "/configurations/applyFromEvaluation", reference(evaluation_id, "mine")).is_success
    back = loop.call("POST", "/configurations/applyFromEvaluation", reference(evaluation_id, "ONLINE"))
    assert back.status_code == 204, "an evaluation of one's own can be changed one's mind about"
    assert loop.get("/configurations/policy").json()["arguments"] == LoopSettings().policy


def reference(evaluation_id: str, policy_name: str) -> bytes:
    """The body of an application."""
    return json.dumps({"evaluationId": evaluation_id, "policyName": policy_name}).encode()


def test_a_loop_that_changed_meanwhile_is_not_applied_to(service: RunningService) -> None:
    """What was found of another policy, or another reward, does not hold any more."""
    loop = guest_loop(service, 30, seed=3).at(P1)
    evaluation_id = ask(loop, asked())
    finished(loop, evaluation_id)
    loop.put("/configurations/service", {"defaultReward": 0.5})

    answer = loop.call("POST", "/configurations/applyFromEvaluation", reference(evaluation_id, "mine"))

    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "operationNotAllowed")
    assert "default_reward" in answer.json()["error"]["message"]
    loop.put("/configurations/service", {"defaultReward": 0.0})
    loop.delete("/model")
    answer = loop.call("POST", "/configurations/applyFromEvaluation", reference(evaluation_id, "mine"))
    assert "deleted" in answer.json()["error"]["message"]
    assert loop.get("/configurations/policy").json()["arguments"] == LoopSettings().policy


def test_what_cannot_be_applied_is_refused_by_name(
    service: RunningService, loop: LoopClient, evaluation_id: str
) -> None:
    """Each with the code that the contract has for it."""
    record = service.loop(loop.loop)
    [failed] = failed_studies(service, loop, 1)
    service.home.studies.add(failed, waiting_max=100)
    cases = {
        (evaluation_id, "nobody"): (404, "learningSettingsNotFound"),
        (evaluation_id, "baseline1"): (404, "learningSettingsNotFound"),
        ("nothing", "mine"): (404, "evaluationNotFound"),
        ("s0", "online"): (404, "evaluationModelNotFound"),
    }
    try:
        for (evaluation, policy), (status, code) in cases.items():
            path = "/configurations/applyFromEvaluation"
            answer = loop.at(P2).call("POST", path, reference(evaluation, policy))
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), policy
    finally:
        service.home.studies.delete(record.loop_id, StudyKind.EVALUATION, "s0")
    assert loop.at(V1_0).call("POST", "/configurations/applyFromEvaluation", reference("x", "y")).status_code == 404


def test_what_was_evaluated_is_not_learned_twice(service: RunningService) -> None:
    """Learning goes on from the first event that the evaluation has not seen, and not from the newest."""
    loop = guest_loop(service, 40, seed=4).at(P1)
    evaluation_id = ask(loop, asked())
    finished(loop, evaluation_id)
    body = {"eventId": "later", "actions": [{"id": dish, "features": [{"dish": dish}]} for dish in DISHES]}
    loop.rank(body)
    service.pass_time(loop.loop)
    eventually(lambda: len(service.joined(loop.loop)) == 41, "one more is joined")

    assert loop.call("POST", "/configurations/applyFromEvaluation", reference(evaluation_id, "mine")).is_success
    record = service.loop(loop.loop)
    [epoch] = service.home.catalog.epochs(record.loop_id)
    [base] = [each for each in service.home.catalog.versions(record.loop_id) if each.model_id == epoch.base]
    assert (epoch.start, base.joined_offset, base.learned) == (40, 40, 40)

    def published() -> ModelVersion:
        return service.home.catalog.versions(record.loop_id)[0]

    eventually(lambda: published().epoch_id == epoch.epoch_id, "the epoch publishes")
    assert published().joined_offset == 41


def test_slots_have_results_of_their_own(service: RunningService) -> None:
    """In the newest version, after those overall; the older ones show those overall alone."""
    loop = service.new_loop(
        LoopSettings(
            policy="--ccb_explore_adf --epsilon 0.3 --cb_type mtr -q ::",
            preset=None,
            model_export_frequency=timedelta(seconds=1),
        )
    ).at(P3)
    slots = [{"id": "hero", "baselineAction": "soup"}, {"id": "side", "baselineAction": "salad"}]
    for number in range(30):
        body = {"eventId": f"e{number}", "slots": slots}
        body["actions"] = [{"id": dish, "features": [{"dish": dish}]} for dish in DISHES]
        assert loop.call("POST", "/multislot/rank", msgspec.json.encode(body)).status_code == 201
        rewards = {"reward": [{"slotId": "hero", "value": float(number % 2)}]}
        loop.call("POST", f"/multislot/events/e{number}/reward", msgspec.json.encode(rewards))
    service.pass_time(loop.loop)
    eventually(lambda: len(service.joined(loop.loop)) == 30, "every event is joined")
    policy = "--ccb_explore_adf --epsilon 0.1 --cb_type mtr -q ::"
    evaluation_id = ask(loop, asked(policies=(("mine", policy),)))

    old = finished(loop, evaluation_id)
    new = newest(loop, "GET", f"/evaluations/{evaluation_id}", **SPAN).json()["content"]["value"]
    assert [each["name"] for each in old["policyResults"]] == ["mine", "online", "baseline1", "baselineRand"]
    assert [each["slotId"] for each in new] == [""] * 4 + ["hero"] * 4 + ["side"] * 4
    assert loop.call("POST", "/configurations/applyFromEvaluation", reference(evaluation_id, "mine")).is_success
    assert loop.get("/configurations/policy").json()["arguments"] == policy


# Life and death


def test_an_evaluation_survives_being_killed_in_the_middle(service: RunningService, tmp_path: Path) -> None:
    """It is run again, and its caller sees nothing but the wait."""
    own = RunningService(tmp_path)
    try:
        loop = guest_loop(own.start(), 60)
        evaluation_id = ask(loop, asked())
        loop_id = own.loop(loop.loop).loop_id

        def state() -> StudyState:
            study = own.home.studies.find(loop_id, StudyKind.EVALUATION, evaluation_id)
            assert study is not None
            return study.state

        eventually(lambda: state() is not StudyState.WAITING, "it runs")
        own.kill()
        own.start()
        assert finished(loop, evaluation_id)["status"] == "completed"
        assert own.stop() == 0
        own.start()
        assert finished(loop, evaluation_id)["status"] == "completed"
    finally:
        own.close()
