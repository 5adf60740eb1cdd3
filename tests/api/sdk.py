"""The unmodified SDK of the original, as an application would use it."""

from __future__ import annotations

import warnings
from typing import Any, cast

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it is from 2019
    from azure.cognitiveservices.personalizer import PersonalizerClient
    from azure.cognitiveservices.personalizer.models import ErrorResponseException, RankableAction, RankRequest
    from msrest.authentication import CognitiveServicesCredentials
    from msrest.exceptions import HttpOperationError

__all__ = ["ErrorResponseException", "HttpOperationError", "client", "rank_request"]


def client(endpoint: str, key: str) -> Any:
    """Make a client. It is to be used as a context, which closes its connections."""
    return cast("Any", PersonalizerClient)(endpoint, CognitiveServicesCredentials(key))


def rank_request(event_id: str | None, *action_ids: str, **members: Any) -> Any:
    """Make the SDK's own request."""
    return cast("Any", RankRequest)(
        actions=[RankableAction(id=action_id, features=[{"dish": {"name": action_id}}]) for action_id in action_ids],
        context_features=[{"visitor": {"device": "phone", "returning": True}}],
        event_id=event_id,
        **members,
    )
