"""Pages and filters of lists, by themselves."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankward.api.schema.paging import cut, link, read_filter, read_page
from rankward.errors import InvalidRequest


@given(
    count=st.integers(0, 30),
    top=st.none() | st.integers(0, 40),
    skip=st.integers(0, 40),
    size=st.integers(1, 12),
)
def test_following_links_shows_each_once(count: int, top: int | None, skip: int, size: int) -> None:
    """However the pages are cut, together they are the part that was asked for, in order."""
    items = list(range(count))
    query = {"skip": str(skip), "maxpagesize": str(size), "filter": "a b'&="}
    if top is not None:
        query["top"] = str(top)
    seen: list[int] = []
    pages = 0
    while True:
        taken, following = cut(items, read_page(query))
        seen += taken
        pages += 1
        assert len(taken) <= size
        if following is None:
            break
        linked = urlsplit(link("http://host/path", query, following))
        query = {name: value for name, [value] in parse_qs(linked.query).items()}
        assert query["filter"] == "a b'&="
    assert seen == (items[skip:] if top is None else items[skip : skip + top])
    assert pages <= max(1, -(-len(seen) // size))


def test_filters_are_read() -> None:
    """As the contract's example has it, with and without its prefix; quotes are doubled."""
    members = {"status": lambda text: text, "kind": lambda _: "it's"}
    assert read_filter(None, members)("x")
    assert read_filter("metadata=status eq 'x'", members)("x")
    assert not read_filter("status ne 'x'", members)("x")
    assert read_filter("status eq 'x' and kind eq 'it''s'", members)("x")
    assert not read_filter("status eq 'x' and kind ne 'it''s'", members)("x")
    for wrong in ("status", "status eq x", "status gt 'x'", "status eq 'x' kind eq 'y'", "status eq 'x' and"):
        with pytest.raises(InvalidRequest, match="cannot be read"):
            read_filter(wrong, members)
