"""Forgetting: everything that is on record of some events, or of one person's, is taken out of a loop's logs.

Entries keep their places, so nothing else has to be joined or learned anew. What was learned stays learned, until
a new epoch learns the log without them; backups and mirrors are not reached, and the archive is left word.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

import msgspec

from rankward.errors import InvalidRequest
from rankward.records import (
    Activation,
    AnyHeader,
    AnyInteraction,
    Erased,
    EventId,
    Header,
    History,
    Observation,
    Offset,
    Record,
)
from rankward.store.ports import Catalog, EventLog, JoinedLog

IDS_MAX = 1_000
_READ = 2_000


class Forgotten(msgspec.Struct, frozen=True, kw_only=True):
    """What was erased."""

    events: int  # decisions, imported ones too
    records: int  # in all: decisions, rewards, activations


Tell = Callable[[Collection[EventId], str | None], Awaitable[None]]
"""Leaves word elsewhere: of which events, and of which subject."""


async def _nobody(event_ids: Collection[EventId], subject: str | None) -> None:
    """Nothing is kept elsewhere."""


async def forget(
    catalog: Catalog,
    log: EventLog,
    joined: JoinedLog,
    *,
    loop_id: str,
    event_ids: Collection[EventId],
    subject: str | None,
    tell: Tell = _nobody,
) -> Forgotten:
    """Erase events by their ids, or all events of a subject.

    The whole log is read, once for the ids and once more for a subject. Run again after a failure, it goes on.

    Args:
        catalog: of loops.
        log: the loop's event log.
        joined: the loop's joined log.
        loop_id: of the loop.
        event_ids: to erase; may be empty if there is a subject.
        subject: whose events to erase, too; None: nobody's.
        tell: leaves word with whoever keeps elsewhere what was joined.

    Raises:
        InvalidRequest: there is nothing to look for, or too much at once.
        WorldError: some may not have been erased.
    """
    if not event_ids and not subject:
        raise InvalidRequest("name events or a subject to forget", code="InvalidRequest", target="event_ids")
    if len(event_ids) > IDS_MAX:
        raise InvalidRequest(
            f"{len(event_ids)} event ids are more than {IDS_MAX}: forget them in several calls",
            code="InvalidRequest",
            target="event_ids",
        )
    of_subject = await _events_of(log, subject) if subject else {}
    wanted = {*event_ids, *of_subject.values()}
    await tell(wanted, subject)  # first: the log will not say any more which events were the subject's
    places, earlier = await _places_of(log, wanted)
    # What names the subject goes last: until the rest is gone, another run has to find its events.
    await log.erase({offset: place for offset, place in places.items() if offset not in of_subject})
    await log.erase({offset: place for offset, place in places.items() if offset in of_subject})
    decisions = [offset for offset, place in places.items() if _was_decision(place)]
    # A run that broke off may have come no further than the log, which does not say any more whose they were.
    await joined.erase([*earlier, *decisions], wanted)
    catalog.forget_set_asides(loop_id, [*earlier, *decisions])
    await tell(wanted, subject)  # and last: what was read before the log was erased may have been written since
    return Forgotten(events=len(decisions), records=len(places))


async def _events_of(log: EventLog, subject: str) -> dict[Offset, EventId]:
    """Find the records that name a subject, with the events that they belong to."""
    found: dict[Offset, EventId] = {}
    start = (await log.extent()).first
    while entries := await log.read(start, limit=_READ):
        for entry in entries:
            event_id = _event_of(entry.record, subject)
            if event_id is not None:
                found[entry.offset] = event_id
        start = entries[-1].offset + 1
    return found


def _event_of(record: Record, subject: str) -> EventId | None:
    """The id of the event that a record belongs to, if it is the subject's."""
    if isinstance(record, History):
        record = record.interaction
    if isinstance(record, AnyInteraction | Observation) and record.subject == subject:
        return record.event_id
    return None


async def _places_of(log: EventLog, event_ids: Collection[EventId]) -> tuple[Mapping[Offset, Erased], Sequence[Offset]]:
    """Find every record of some events, with what shall stand in its place; and the decisions that are erased."""
    places: dict[Offset, Erased] = {}
    earlier: list[Offset] = []
    start = (await log.extent()).first
    while entries := await log.read_headers(start, limit=_READ):
        for entry in entries:
            place = _place_of(entry.record, event_ids)
            if place is not None:
                places[entry.offset] = place
            elif isinstance(entry.record, Erased) and _was_decision(entry.record):
                earlier.append(entry.offset)
        start = entries[-1].offset + 1
    return places, earlier


def _was_decision(erased: Erased) -> bool:
    return erased.reward_wait_us is not None or erased.decided_us is not None


def _place_of(record: Header, event_ids: Collection[EventId]) -> Erased | None:
    match record:
        case History() if record.interaction.event_id in event_ids:
            return Erased(decided_us=record.time_us)
        case Observation() | Activation() if record.event_id in event_ids:
            return Erased()
    if isinstance(record, AnyHeader) and record.event_id in event_ids:
        return Erased(reward_wait_us=record.reward_wait_us)
    return None
