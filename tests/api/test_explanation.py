"""What Rank says about why it chose."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from rankward.settings import LoopSettings
from tests.service import eventually, request

if TYPE_CHECKING:
    from tests.service import RunningService

pytestmark = pytest.mark.slow


def test_rank_explains_the_action_that_the_model_chose(service: RunningService) -> None:
    """Only where the loop is set to, only once there is a model, and with parts that add up to about the reward."""
    settings = LoopSettings(
        model_export_frequency=timedelta(milliseconds=100),
        policy="--cb_explore_adf --epsilon 0.2 --cb_type mtr -q vj",
        preset=None,
    )
    context: Any = [{"visitor": {"device": "phone"}}]
    with service.passing_loops():
        loop = service.new_loop(settings)
        assert loop.put("/configurations/service", {"isInferenceExplainabilityEnabled": True}).is_success
        first = loop.rank(request("ramen", "pasta", contextFeatures=context)).json()
        assert "inferenceExplanation" not in first, "there is no model yet"

        def answer(**members: Any) -> dict[str, Any]:
            """Rank, and reward what is shown."""
            body: dict[str, Any] = loop.rank(request("ramen", "pasta", contextFeatures=context, **members)).json()
            loop.reward(body["eventId"], 1.0 if body["rewardActionId"] == "pasta" else 0.0)
            return body

        for _ in range(60):
            answer()
        service.pass_time(loop.loop)

        def pasta_explained() -> float:
            [explained] = answer().get("inferenceExplanation", [{"id": "", "features": []}])
            total = math.fsum(part["score"] for part in explained["features"])
            return total if explained["id"] == "pasta" else 0.0

        eventually(lambda: pasta_explained() > 0.5, "the model expects much of pasta, and says so")
        explained = answer(eventId="one")
        [reason] = explained["inferenceExplanation"]
        assert reason["id"] == explained["rewardActionId"]
        assert "visitor.device" in {part["name"] for part in reason["features"]}
        assert "inferenceExplanation" not in answer(excludedActions=["ramen"]), "nothing was chosen"

        assert loop.put("/configurations/service", {"isInferenceExplainabilityEnabled": False}).is_success
        assert "inferenceExplanation" not in answer()
