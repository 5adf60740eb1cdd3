"""How an archive is laid out: a folder for each loop, with an object for each hour and an index of them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from rankward.records import EventId, JoinedEntry, Offset, TimeUs
from rankward.settings import as_datetime

FORMAT = 1
INDEX = "index.json"
ERASING = "erasing/"
"""The folder of what is to be erased, within that of a loop."""
OBJECT_EVENTS = 65_536
"""An hour that has more gets several objects."""
ENDING = ".dsjson.zst"

_HOUR_US = 3_600_000_000


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of the joined log, and the object that holds it."""

    start: Offset  # in the joined log
    end: Offset
    events: int  # entries without an interaction, and those that were erased, are not in it
    first_us: TimeUs  # when the oldest of its events was decided
    last_us: TimeUs  # when the newest was
    wait_us: int  # the longest between a decision and its joining
    newest: Offset  # in the event log, of its events
    name: str  # of the object, within the loop's folder
    size_bytes: int
    digest: str  # SHA-256 of the object, hex


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """What is archived of a loop."""

    format: int = FORMAT
    loop: str  # its name, for people
    loop_id: str
    end: Offset = 0  # in the joined log: what comes before is archived, or was gone
    last: tuple[Offset, TimeUs] | None = None  # interaction and due time before `end`: no other history has the same
    missed: int = 0  # joined events that retention had removed before there was an archive
    spans: tuple[Span, ...] = ()  # in the order of the joined log

    @property
    def events(self) -> int:
        """How many events it holds."""
        return sum(span.events for span in self.spans)


class Erasure(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be erased from a loop's archive."""

    event_ids: tuple[EventId, ...] = ()
    subject: str | None = None  # all events of this subject, too
    before: Offset = 0  # and all whose interactions stand before this offset of the event log


def folder_of(loop: str, loop_id: str) -> str:
    """Name the folder of a loop. The id sets it apart from one that had its name before.

    >>> folder_of("shop", "0f" * 16)
    'shop/0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f/'
    """
    return f"{loop}/{loop_id}/"


def shown(url: str) -> str:
    """Write an address as it is shown: without what follows a question mark.

    >>> shown("s3://bucket/logs/?region=eu-north-1")
    's3://bucket/logs'
    """
    return url.partition("?")[0].rstrip("/")


def name_of(start: Offset, due_us: TimeUs) -> str:
    """Name the object of what was joined from an offset on: when it is written again, it takes the place of the first.

    Args:
        start: in the joined log.
        due_us: when the first of it was joined.

    >>> name_of(7, 1_760_000_000_000_000)
    '2025/10/09/08-00000000000000000007.dsjson.zst'
    """
    return f"{as_datetime(due_us):%Y/%m/%d/%H}-{start:020d}{ENDING}"


def same_hour(entries: Sequence[tuple[Offset, JoinedEntry]], due_us: TimeUs) -> int:
    """Count the leading entries that were joined in one hour.

    Args:
        entries: of the joined log, in order.
        due_us: a time of that hour.
    """
    hour = due_us // _HOUR_US
    return next((at for at, (_, each) in enumerate(entries) if each.due_us // _HOUR_US != hour), len(entries))
