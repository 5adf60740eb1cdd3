"""Changes of a loop that others may be changing too."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from rankward.errors import Conflict
from rankward.store.ports import Catalog, Loop

_ATTEMPTS = 5  # at writing over the revision that was read


async def change_loop(catalog: Catalog, name: str, once: Callable[[Loop], Awaitable[Loop]]) -> Loop:
    """Change a loop as it is now, again if somebody else changed it meanwhile.

    Args:
        catalog: of loops.
        name: of the loop.
        once: makes the change, and raises Conflict if the loop it was given is out of date.

    Raises:
        Conflict: it was changed by others every time.
    """
    for attempt in range(_ATTEMPTS):
        try:
            return await once(catalog.loop(name))
        except Conflict:
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("the last attempt returns or raises")
