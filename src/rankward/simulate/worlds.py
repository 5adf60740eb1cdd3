"""Every world there is, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from rankward.errors import CallerError, NotFound
from rankward.simulate.clicks import Clicks
from rankward.simulate.datasets import Digits, Triage
from rankward.simulate.delayed import Delayed
from rankward.simulate.drift import Drift
from rankward.simulate.frontpage import Frontpage
from rankward.simulate.grocery import Grocery
from rankward.simulate.world import PageWorld, Parameter, Round, World

__all__ = ["PAGE_WORLDS", "WORLDS", "Parameter", "Round", "World", "make_page_world", "make_world"]

WORLDS: dict[str, type[Grocery | Digits | Triage | Clicks | Drift | Delayed]] = {
    world.name: world for world in (Grocery, Digits, Triage, Clicks, Drift, Delayed)
}
"""What makes each world, from its parameters as keywords. `make_world` checks them first."""

PAGE_WORLDS: dict[str, type[Frontpage]] = {Frontpage.name: Frontpage}
"""The worlds in which several slots are to be filled, for `make_page_world`."""

Kind = TypeVar("Kind", bound=msgspec.Struct)


def make_world(name: str, **parameters: Parameter) -> World:
    """Make a world, its parameters given as values or as text.

    Raises:
        NotFound: there is no such world.
        CallerError: a parameter that the world does not have, or a value out of its bounds.

    >>> make_world("clicks", base_rate="0.02").parameters["base_rate"]
    0.02
    """
    kind = WORLDS.get(name)
    if kind is None:
        raise NotFound(f"there is no world `{name}`: choose one of {', '.join([*WORLDS, *PAGE_WORLDS])}")
    world: World = _make(kind, name, parameters)
    return world


def make_page_world(name: str, **parameters: Parameter) -> PageWorld:
    """Make a world of several slots. See `make_world`."""
    world: PageWorld = _make(PAGE_WORLDS[name], name, parameters)
    return world


def _make(kind: type[Kind], name: str, parameters: Mapping[str, Parameter]) -> Kind:
    known = [field.name for field in msgspec.structs.fields(kind)]
    for parameter in parameters:
        if parameter not in known:
            raise CallerError(
                f"world `{name}` has no parameter `{parameter}`: "
                + (f"it has {', '.join(known)}" if known else "it has none"),
                target=parameter,
            )
    try:
        return msgspec.convert(parameters, kind, strict=False)
    except msgspec.ValidationError as error:
        raise CallerError(f"world `{name}`: {_readable(error)}") from error


def _readable(error: msgspec.ValidationError) -> str:
    """Turn `Expected ... - at `$.name`` into `name: expected ...`."""
    what, _, where = str(error).partition(" - at `$.")
    return f"{where.rstrip('`')}: {what[:1].lower()}{what[1:]}" if where else what
