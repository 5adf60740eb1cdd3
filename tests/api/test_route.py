"""Where paths of the contract lead."""

from __future__ import annotations

import re

import pytest

from rankward.api.openapi import contract_path
from rankward.api.operation import ALL, V2022, Operation
from rankward.api.operations import OPERATIONS
from rankward.api.route import RouteError, route


def found(method: str, path: bytes) -> tuple[str, str | None, str]:
    """Operation, loop and id of a path that leads somewhere."""
    target = route(method, path)
    assert target is not None, "the path is one of the contract's"
    return target.operation.name, target.loop, target.path_id


def refusal(method: str, path: bytes) -> RouteError:
    """What a path that leads nowhere is refused with."""
    with pytest.raises(RouteError) as refused:
        route(method, path)
    return refused.value


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_every_operation_is_found_in_every_version_that_has_it(operation: Operation) -> None:
    """One resource answers all versions at once. Two operations may share a place, in versions of their own."""
    asked = (operation.method, operation.path)
    for version in ALL:
        path = re.sub(r"{\w+}", "e1", contract_path(operation, version)).encode()
        query = b"api-version=2022-09-01-preview" if version == V2022 else b""
        if version in operation.versions:
            target = route(operation.method, path, query)
            assert target is not None
            assert (target.operation, target.version) == (operation, version)
        elif not any((op.method, op.path) == asked and version in op.versions for op in OPERATIONS):
            with pytest.raises(RouteError):
                route(operation.method, path, query)


def test_the_newest_version_stands_in_the_query() -> None:
    """Without it, or with another, the path leads nowhere."""
    target = route("POST", b"/loops/shop/personalizer/events/a%2Fb/reward", b"x=1&api-version=2022-09-01-preview")

    assert target is not None
    assert (target.operation.name, target.version, target.loop, target.path_id) == ("reward", V2022, "shop", "a/b")
    for query in (b"", b"api-version=2023-01-01", b"api-version=v1.0", b"api-version="):
        with pytest.raises(RouteError, match="2022-09-01-preview") as refused:
            route("POST", b"/personalizer/rank", query)
        assert refused.value.status == 404


@pytest.mark.parametrize(
    "path",
    [
        b"/personalizer/v1.0/rank",
        b"//personalizer/v1.0/rank",
        b"///personalizer//v1.0/rank/",
        b"/personalizer/v1%2E0/%72ank",
    ],
)
def test_slashes_and_escapes_do_not_matter(path: bytes) -> None:
    """Clients join an endpoint that ends in a slash with a path that begins with one; any letter may be escaped."""
    assert found("POST", path) == ("rank", None, "")


@pytest.mark.parametrize(
    ("segment", "event_id"),
    [
        (b"order-1", "order-1"),
        (b"a%2Fb%2fc", "a/b/c"),
        (b"%2F", "/"),
        (b"gr%C3%BC%C3%9Fe", "grüße"),
        (b"%F0%9F%8D%9C", "🍜"),
        (b"a%20b+c", "a b+c"),
        (b"100%25", "100%"),
        (b"%2E%2E", ".."),
        (b"reward", "reward"),
        (b"a%00b", "a\0b"),
    ],
)
def test_an_event_id_may_hold_anything(segment: bytes, event_id: str) -> None:
    """The path is taken apart before it is decoded, so that a slash inside an id stays inside."""
    assert found("POST", b"/personalizer/v1.0/events/" + segment + b"/reward") == ("reward", None, event_id)


@pytest.mark.parametrize(
    ("path", "loop"),
    [
        (b"/loops/shop/personalizer/v1.0/rank", "shop"),
        (b"//loops/shop//personalizer/v1.0/rank", "shop"),
        (b"/loops/%73hop/personalizer/v1.0/rank", "shop"),
        (b"/loops/loops/personalizer/v1.0/rank", "loops"),
    ],
)
def test_a_loop_may_stand_in_the_path(path: bytes, loop: str) -> None:
    """An endpoint `http://HOST/loops/NAME` is the same contract for the loop of that name."""
    assert found("POST", path) == ("rank", loop, "")


@pytest.mark.parametrize(
    "path",
    [b"/", b"", b"/docs", b"/loops/shop", b"/loops/shop/rank", b"/loops", b"/person", b"/xpersonalizer/v1.0/rank"],
)
def test_other_paths_are_left_to_the_pages(path: bytes) -> None:
    """Only what begins as the contract's paths do is answered in the contract's words."""
    assert route("GET", path) is None


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", b"/personalizer", 404, "/personalizer/VERSION/OPERATION"),
        ("GET", b"/personalizer/v1.0", 404, "/personalizer/VERSION/OPERATION"),
        ("POST", b"/personalizer/v2.0/rank", 404, "v1.1-preview.3"),
        ("POST", b"/personalizer/rank", 404, "/personalizer/VERSION/OPERATION"),
        ("POST", b"/personalizer/v1.0/ranks", 404, "no such operation"),
        ("POST", b"/personalizer/v1.0/events/reward", 404, "no such operation"),
        ("POST", b"/personalizer/v1.0/events//reward", 404, "no such operation"),
        ("POST", b"/personalizer/v1.0/events/a/b/reward", 404, "no such operation"),
        ("POST", b"/personalizer/v1.0/events/e1/punish", 404, "no such operation"),
        ("GET", b"/personalizer/v1.0/rank", 405, "POST"),
        ("HEAD", b"/personalizer/v1.0/rank", 405, "POST"),
        ("POST", b"/personalizer/v1.0/model", 405, "DELETE or GET or HEAD"),
        ("PATCH", b"/personalizer/v1.0/configurations/policy", 405, "DELETE or GET or PUT"),
        ("POST", b"/personalizer/v1.0/events/%FF/reward", 400, "UTF-8"),
        ("POST", b"/personalizer/v1.0/events/%ED%A0%80/reward", 400, "UTF-8"),
        ("POST", b"/loops/%FF/personalizer/v1.0/rank", 400, "UTF-8"),
    ],
)
def test_a_path_that_leads_nowhere_says_where_to_go(method: str, path: bytes, status: int, words: str) -> None:
    """Whoever mistypes a path should not have to guess."""
    refused = refusal(method, path)

    assert refused.status == status
    assert words in refused.message


def test_a_wrong_method_is_answered_with_those_allowed() -> None:
    """HTTP asks for the header `Allow` with a 405."""
    assert refusal("POST", b"/personalizer/v1.0/model").headers == ((b"allow", b"DELETE, GET, HEAD"),)


def test_head_is_there_for_the_model_only() -> None:
    """Local-inference clients ask with HEAD whether there is a newer model."""
    assert found("HEAD", b"/personalizer/v1.1-preview.3/model")[0] == "getModel"
