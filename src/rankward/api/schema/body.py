"""Bodies and ids as every operation reads them."""

from __future__ import annotations

from typing import Any

import msgspec

from rankward.errors import InvalidRequest
from rankward.settings import Limits

any_body = msgspec.json.Decoder(dict[str, Any])
"""Reads any JSON object."""


def decode(decoder: msgspec.json.Decoder[Any], body: bytes, *, code: str) -> Any:
    """Read a body.

    Args:
        decoder: of the type that it should have.
        body: JSON text.
        code: the contract's, for a body that is JSON and does not fit.

    Raises:
        InvalidRequest: it cannot be read.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"the body does not fit: {error}", code=code) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the body is not JSON: {error}", code="BadRequest") from error
    except RecursionError as error:
        raise InvalidRequest("the body is nested too deeply: flatten the features", code=code) from error


def check_id(value: str, what: str, *, limits: Limits, code: str) -> str:
    """Refuse an id that is empty or too long."""
    if not value:
        raise InvalidRequest(f"{what} is empty: give it 1 to {limits.id_length} characters", code=code, target=what)
    if len(value) > limits.id_length:
        raise InvalidRequest(
            f"{what} has {len(value)} characters, the bound is {limits.id_length}: shorten it",
            code=code,
            target=what,
        )
    return value
