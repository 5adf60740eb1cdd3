"""What an operation of the contract is: its call, its answer, and the versions that have it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, BinaryIO

import msgspec

from rankward.api.service import Doors
from rankward.configuration import Configuration
from rankward.errors import InvalidRequest
from rankward.ranking.service import RankingService
from rankward.registry.service import Registry
from rankward.store.audit import Actor, Door
from rankward.studies import StudyService

V1_0 = "v1.0"
P1, P2, P3 = "v1.1-preview.1", "v1.1-preview.2", "v1.1-preview.3"
V2022 = "2022-09-01-preview"
"""The one version that stands in the query, as `api-version`, and not in the path."""
ALL = (V1_0, P1, P2, P3, V2022)
JSON = b"application/json; charset=utf-8"


class Call(msgspec.Struct, frozen=True):
    """A request, once its loop is known."""

    doors: Doors
    service: RankingService
    version: str  # of the contract
    body: bytes
    path_id: str  # what stands in the path for `{eventId}` or another id; empty: the operation has none
    query: Mapping[str, str]
    by_admin: bool  # whether it came with the admin key, or a token as good
    scope: Mapping[str, Any]  # as ASGI has it
    upload: BinaryIO | None = None  # the body, where the operation takes it as a file; `body` is empty then

    @property
    def _actor(self) -> Actor:
        """Who sent it, for the audit trail."""
        return Actor(self.doors.keys.who(self.scope["headers"]), Door.HTTP)

    @property
    def configuration(self) -> Configuration:
        """What changes settings and policy, in the sender's name."""
        return self.doors.configuration.by(self._actor)

    @property
    def registry(self) -> Registry:
        """What changes models, in the sender's name."""
        return self.doors.registry.by(self._actor)

    @property
    def studies(self) -> StudyService:
        """What asks and applies evaluations, in the sender's name."""
        return self.doors.studies.by(self._actor)

    @property
    def client_request_id(self) -> str | None:
        """The caller's name for the request, which newer SDKs send again when they try it again; None: it has none."""
        for name, value in self.scope["headers"]:
            if name == b"x-ms-client-request-id" and 0 < len(value) <= self.doors.limits.id_length:
                return str(value, "latin-1")
        return None

    def flag(self, name: str) -> bool:
        """Read a yes or no of the query; absent, it is no.

        Raises:
            InvalidRequest: it is neither.
        """
        word = self.query.get(name, "false")
        if word.lower() not in {"true", "false"}:
            raise InvalidRequest(f"{name}={word[:40]!r} is neither true nor false", code="InvalidRequest", target=name)
        return word.lower() == "true"

    @property
    def path(self) -> str:
        """Where it was sent to, percent-encoded, without slashes that clients repeat."""
        segments = [segment for segment in self.scope["raw_path"].decode("latin-1").split("/") if segment]
        return "/" + "/".join(segments)

    @property
    def origin(self) -> str:
        """Scheme and host under which its sender knows the service."""
        host = next((value for name, value in self.scope["headers"] if name == b"host"), b"")
        return f"{self.scope['scheme']}://{host.decode('latin-1')}"


class Answer(msgspec.Struct, frozen=True):
    """What is sent back."""

    status: int
    body: bytes = b""
    content_type: bytes | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """A parameter of an operation's query."""

    name: str
    help: str
    kind: str = "string"  # of JSON Schema
    required: bool = False
    versions: tuple[str, ...] = ALL  # that have it


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """An operation of the contract."""

    name: str
    method: str
    path: tuple[str, ...]  # below the version; `{eventId}`, or any name in braces, stands for one segment
    handle: Callable[[Call], Awaitable[Answer]]
    summary: str
    success: int
    query: tuple[Parameter, ...] = ()
    request: Any = None  # type of the body; None: it has none; bytes: not JSON
    body_limit: str = "body_bytes"  # which of the service's limits bounds the body
    uploads: bool = False  # whether the body goes to a file as it comes, since it may be a large one
    response: Any = None  # type of the answer's body; None: it has none; bytes: not JSON
    errors: tuple[str, ...] = ()
    versions: tuple[str, ...] = ALL
    also_head: bool = False  # whether HEAD answers the same without a body
