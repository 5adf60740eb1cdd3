"""The unmodified SDK of the original, as an application would use it."""

from __future__ import annotations

import warnings
from typing import Any, cast

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it is from 2019
    from azure.cognitiveservices.personalizer import PersonalizerClient
    from azure.cognitiveservices.personalizer.models import ErrorResponseException, RankableAction, RankRequest
    from msrest.authentication import CognitiveServicesCredentials
    from msrest.exceptions import HttpOperationError, ValidationError

__all__ = [
    "ErrorResponseException",
    "HttpOperationError",
    "ValidationError",
    "client",
    "let_it_try_again",
    "rank_request",
]


def client(endpoint: str, key: str, *, certificate: str | None = None) -> Any:
    """Make a client. It is to be used as a context, which closes its connections.

    Args:
        endpoint: of the service.
        key: of a loop.
        certificate: file of one to trust; None: those of the machine.
    """
    made = cast("Any", PersonalizerClient)(endpoint, CognitiveServicesCredentials(key))
    if certificate is not None:
        made.config.connection.verify = certificate
    return made


def let_it_try_again(client: Any) -> None:
    """Make a client repeat a POST that failed, as it was written to do.

    It names the methods that it repeats by a word that urllib3 knew until 2.0; with a newer one it repeats no POST.
    """
    policy = client.config.retry_policy.policy
    policy.allowed_methods = frozenset(policy.method_whitelist)


def rank_request(event_id: str | None, *action_ids: str, **members: Any) -> Any:
    """Make the SDK's own request."""
    return cast("Any", RankRequest)(
        actions=[RankableAction(id=action_id, features=[{"dish": {"name": action_id}}]) for action_id in action_ids],
        context_features=[{"visitor": {"device": "phone", "returning": True}}],
        event_id=event_id,
        **members,
    )
