"""Where a path of the contract leads: to an operation, in a version, of a loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec

from rankward.api.operation import ALL, V2022, Operation
from rankward.api.operations import OPERATIONS

_BY_SHAPE: dict[tuple[str, str, int], list[Operation]] = {}
"""By version, first segment and number of segments: few share all three."""
for _operation in OPERATIONS:
    for _version in _operation.versions:
        _BY_SHAPE.setdefault((_version, _operation.path[0], len(_operation.path)), []).append(_operation)

_REMEMBERED_BYTES = 128  # a path longer than this, with its query, is not remembered
_IN_PATH = frozenset(ALL) - {V2022}


class Target(msgspec.Struct, frozen=True):
    """Where a path of the contract leads."""

    operation: Operation
    version: str  # of the contract
    loop: str | None  # named in the path; None: the key selects it
    path_id: str  # what stands for the name in braces of the operation's path; empty: there is none
    query: Mapping[str, str]


class RouteError(Exception):
    """A path of the contract that leads nowhere."""

    def __init__(self, status: int, message: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers


def route(method: str, raw_path: bytes, raw_query: bytes = b"") -> Target | None:
    """Find what a request asks for.

    The path is taken apart before it is decoded, so that an event id may hold a slash. Slashes are
    repeated by clients that join an endpoint that ends in one.

    Args:
        method: of the request.
        raw_path: percent-encoded.
        raw_query: percent-encoded, without the question mark.

    Returns:
        The target; None: the path is none of the contract's.

    Raises:
        RouteError: it begins as the contract's paths do, and leads nowhere.
    """
    if len(raw_path) + len(raw_query) <= _REMEMBERED_BYTES:
        return _remembered(method, raw_path, raw_query)
    return _find(method, raw_path, raw_query)


def _find(method: str, raw_path: bytes, raw_query: bytes) -> Target | None:
    segments = [segment for segment in raw_path.split(b"/") if segment]
    loop: str | None = None
    if len(segments) > 2 and segments[0] == b"loops" and segments[2] == b"personalizer":
        loop = _decoded(segments[1])
        segments = segments[2:]
    if not segments or segments[0] != b"personalizer":
        return None
    query = dict(parse_qsl(raw_query.decode("latin-1"), keep_blank_values=True)) if raw_query else {}
    names = [_decoded(segment) for segment in segments[1:]]
    version = names[0] if names else ""
    if version in _IN_PATH:
        names = names[1:]
    else:
        version = _queried_version(version, query)
    if not names:
        raise RouteError(404, "there is nothing here: the contract's paths are /personalizer/VERSION/OPERATION")
    candidates = _BY_SHAPE.get((version, names[0], len(names)), ())
    fitting = [operation for operation in candidates if _fits(operation.path, names)]
    for operation in fitting:
        if operation.method == method or (operation.also_head and method == "HEAD"):
            return Target(operation, version, loop, _path_id(operation.path, names), query)
    if fitting:
        allowed = {operation.method for operation in fitting}
        allowed |= {"HEAD" for operation in fitting if operation.also_head}
        listed = sorted(allowed)
        raise RouteError(405, f"use {' or '.join(listed)} here", ((b"allow", ", ".join(listed).encode()),))
    raise RouteError(404, f"API version {version} has no such operation: /docs lists those it has")


_remembered = lru_cache(maxsize=1_024)(_find)  # nearly every Rank has the same path


def _queried_version(first: str, query: dict[str, str]) -> str:
    """Find the version of a path that names none."""
    asked = query.get("api-version")
    if asked == V2022:
        return V2022
    served = f"use one of {', '.join(sorted(_IN_PATH))} in the path, or api-version={V2022} in the query"
    if asked is not None:
        raise RouteError(404, f"API version {asked[:40]!r} is not served here: {served}")
    if first[:1] == "v" and first[1:2].isdigit():
        raise RouteError(404, f"API version {first[:40]!r} is not served: {served}")
    raise RouteError(404, f"there is nothing here: the contract's paths are /personalizer/VERSION/OPERATION: {served}")


def _fits(path: Sequence[str], names: Sequence[str]) -> bool:
    return all(part == name or part[0] == "{" for part, name in zip(path, names, strict=True))


def _path_id(path: Sequence[str], names: Sequence[str]) -> str:
    return next((name for part, name in zip(path, names, strict=True) if part[0] == "{"), "")


def _decoded(segment: bytes) -> str:
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeDecodeError as error:
        raise RouteError(400, "the path is not UTF-8: percent-encode it as such") from error
