"""Lists in pages, and what may be asked of them: `top`, `skip`, `maxpagesize` and `filter`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar
from urllib.parse import quote, urlencode

import msgspec

from rankward.errors import InvalidRequest

PAGE_SIZE = 100
_INT32_MAX = 2_147_483_647
_CODE = "InvalidRequest"
_TERM = re.compile(r"\s*(\w+)\s+(eq|ne)\s+'((?:[^']|'')*)'\s*")
_METADATA = "metadata="

T = TypeVar("T")


class Page(msgspec.Struct, frozen=True):
    """A part of a list."""

    top: int | None  # how many in all its pages together; None: all there are
    skip: int  # how many to leave out before
    size: int  # how many at most in this one


def read_page(query: Mapping[str, str]) -> Page:
    """Read which part of a list is asked for.

    Raises:
        InvalidRequest: one of them is no number that can be.
    """
    top = _number(query, "top", 0)
    skip = _number(query, "skip", 0)
    size = _number(query, "maxpagesize", 1)
    return Page(top, skip or 0, PAGE_SIZE if size is None else size)


def _number(query: Mapping[str, str], name: str, low: int) -> int | None:
    text = query.get(name)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > len(str(_INT32_MAX)) or int(text) > _INT32_MAX:
        raise InvalidRequest(f"{name} {text[:20]!r} is no number from {low} on", code=_CODE, target=name)
    if int(text) < low:
        raise InvalidRequest(f"{name} {text} is less than {low}", code=_CODE, target=name)
    return int(text)


def cut(found: Sequence[T], page: Page) -> tuple[Sequence[T], Page | None]:
    """Take a page out of a list. Returns it with the one that follows; None: it is the last."""
    end = len(found) if page.top is None else min(len(found), page.skip + page.top)
    until = min(end, page.skip + page.size)
    taken = found[page.skip : until]
    if until >= end:
        return taken, None
    return taken, Page(None if page.top is None else page.top - len(taken), until, page.size)


def link(address: str, query: Mapping[str, str], page: Page) -> str:
    """Write where a page is.

    Args:
        address: of the list, without a query.
        query: of the call before; what is not of paging is repeated.
        page: the one to link to.
    """
    paging = {"top": page.top, "skip": page.skip, "maxpagesize": page.size}
    kept = {name: value for name, value in query.items() if name not in paging}
    numbers = {name: str(value) for name, value in paging.items() if value is not None}
    return f"{address}?{urlencode(kept | numbers, quote_via=quote)}"


def read_filter(text: str | None, members: Mapping[str, Callable[[T], str]]) -> Callable[[T], bool]:
    """Read a filter such as `metadata=evaluationType eq 'Manual' and status ne 'Failed'`.

    Args:
        text: of the query; None: everything passes.
        members: how to read each member that can be asked about, by its name.

    Raises:
        InvalidRequest: it is no such filter.
    """
    if text is None or not text.strip():
        return lambda _: True
    terms: list[tuple[Callable[[T], str], bool, str]] = []
    rest = text.strip().removeprefix(_METADATA)
    while True:
        found = _TERM.match(rest)
        if found is None or found[1] not in members:
            raise InvalidRequest(
                f"filter {text[:80]!r} cannot be read: write MEMBER eq 'VALUE' or MEMBER ne 'VALUE', several joined by "
                f"and; members are {', '.join(members)}",
                code=_CODE,
                target="filter",
            )
        terms.append((members[found[1]], found[2] == "eq", found[3].replace("''", "'")))
        rest = rest[found.end() :]
        if not rest:
            break
        joint, _, rest = rest.partition(" ")
        if joint != "and":
            rest = "?"  # the next look at it says what can be read
    return lambda each: all((read(each) == value) == wanted for read, wanted, value in terms)
