"""How a command finds the service that it calls, and a key for it."""

import os
import tomllib
from pathlib import Path
from typing import Annotated

import httpx
import msgspec
import typer

from rankward.errors import CallerError, NotFound, RankwardError, Unauthorized, WorldError

PLAYGROUND = "playground"
KEY_VARIABLE = "RANKWARD_API_KEY"
ADMIN_KEY_VARIABLE = "RANKWARD_ADMIN_KEY"

EndpointOption = Annotated[
    str, typer.Option(envvar="RANKWARD_ENDPOINT", help="Of the service: http://HOST:PORT, as a client is given it.")
]
KeyOption = Annotated[
    str | None,
    typer.Option(
        help=f"A key of the loop. If left out: {KEY_VARIABLE}, or what DATA/keys.toml has.", show_default=False
    ),
]
CalledLoopOption = Annotated[
    str | None,
    typer.Option(
        "--loop", metavar="LOOP", help=f"The loop to call; {PLAYGROUND} if no key is given.", show_default=False
    ),
]
AdminEndpointOption = Annotated[
    str | None,
    typer.Option(
        "--endpoint",
        envvar="RANKWARD_ENDPOINT",
        help="Of a service elsewhere, instead of a data folder on this machine.",
        show_default=False,
    ),
]
AdminKeyOption = Annotated[
    str | None,
    typer.Option("--key", envvar=ADMIN_KEY_VARIABLE, help="The admin key of that service.", show_default=False),
]
ENDPOINT = "http://127.0.0.1:8080"


class Access(msgspec.Struct, frozen=True):
    """Where to call, and with what."""

    endpoint: str  # without a slash at its end
    key: str


def access(endpoint: str, key: str | None, loop: str | None, data: Path) -> Access:
    """Find the endpoint and the key.

    A loop that was named is named in the path too, so that a key of another loop is refused.

    Args:
        endpoint: of the service.
        key: as given; None: look for it.
        loop: as given; None: the key selects it.
        data: the data folder, which need not be there.

    Raises:
        Unauthorized: there is no key.
    """
    endpoint = endpoint.rstrip("/")
    named = f"{endpoint}/loops/{loop}" if loop else endpoint
    if key:
        return Access(named, key)
    from_environment = os.environ.get(KEY_VARIABLE)
    if from_environment and loop is None:
        return Access(endpoint, from_environment)
    kept = _kept_key(data, loop or PLAYGROUND)
    if kept:
        return Access(named, kept)
    if from_environment:
        return Access(named, from_environment)
    raise Unauthorized(
        f"there is no key for the loop {loop or PLAYGROUND}: give --key, set {KEY_VARIABLE}, or name the service's "
        f"data folder with --data ({data / 'keys.toml'} has none)"
    )


def _kept_key(data: Path, loop: str) -> str | None:
    try:
        document = tomllib.loads((data / "keys.toml").read_text())
    except (OSError, tomllib.TOMLDecodeError):
        return None
    keys: dict[str, str] = document.get("loops", {}).get(loop, {})
    return keys.get("key1") or keys.get("key2")


def refused(endpoint: str, response: httpx.Response) -> RankwardError:
    """Say why a service refused a call."""
    message = f"{endpoint} answered {response.status_code}: {_message(response)}"
    if response.status_code in {401, 403}:
        return Unauthorized(message)
    if response.status_code == 404:
        return NotFound(message)
    if response.is_server_error:
        return WorldError(message)
    return CallerError(message)


def _message(response: httpx.Response) -> str:
    """Take the message out of the contract's error body."""
    try:
        error = response.json().get("error", {})
        text = error.get("message") or response.text
        inner = (error.get("innerError") or {}).get("message")
    except (ValueError, AttributeError):
        return response.text[:300]
    return f"{text} {inner}" if inner and inner != text else str(text)
