"""What is served, beside what was published: nothing is served otherwise, and the table of it is whole."""

from __future__ import annotations

import re

import pytest

from rankward.api.operation import ALL, P1, P2, P3, V1_0, V2022, Operation
from rankward.api.operations import OPERATIONS
from tests.api.contract import PUBLISHED, STATUS_BY_CODE


def place(method: str, path: str) -> tuple[str, str]:
    """Method and path, whatever stands in its braces."""
    return method, re.sub(r"{\w+}", "{}", path)


@pytest.mark.parametrize(("version", "count"), [(V1_0, 17), (P1, 21), (P2, 23), (P3, 24), (V2022, 28)])
def test_the_table_has_every_operation_of_a_version(version: str, count: int) -> None:
    """As many as the version was published with, each once."""
    places = [place(op.method, op.path) for op in PUBLISHED if version in op.versions]

    assert len(places) == len(set(places)) == count


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_an_operation_is_served_as_it_was_published(operation: Operation) -> None:
    """The same versions, status, kinds of body, and every parameter of the query."""
    where = place(operation.method, "/" + "/".join(operation.path))
    for version in operation.versions:
        published = [op for op in PUBLISHED if place(op.method, op.path) == where and version in op.versions]
        assert published, version
        for op in published:
            assert operation.success == op.success
            assert _kind(operation.request) == _kind(op.request)
            assert _kind(operation.response) == _kind(op.response)
            offered = {parameter.name: parameter.kind for parameter in operation.query if version in parameter.versions}
            assert op.query.items() <= offered.items()


@pytest.mark.parametrize("version", ALL)
def test_a_version_is_served_as_a_whole(version: str) -> None:
    """All that was published, and nothing else: by one operation in each version, though versions may differ."""
    here = [place(op.method, "/" + "/".join(op.path)) for op in OPERATIONS if version in op.versions]
    published = {place(op.method, op.path) for op in PUBLISHED if version in op.versions}

    assert len(here) == len(set(here))
    assert set(here) == published


def _kind(body: object) -> str:
    return {None: "none", bytes: "bytes"}.get(body, "JSON")  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_the_codes_of_an_operation_are_the_contracts(operation: Operation) -> None:
    """A client that knows the list knows every code."""
    assert set(operation.errors) <= STATUS_BY_CODE.keys()
