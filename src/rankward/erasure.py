"""Forgetting: everything that is on record of some events, or of one person's, is taken out of a loop's logs.

Entries keep their places, so nothing else has to be joined or learned anew. What was learned stays learned, until
a new epoch learns the log without them; backups and mirrors are not reached.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

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


async def forget(
    catalog: Catalog,
    log: EventLog,
    joined: JoinedLog,
    *,
    loop_id: str,
    event_ids: Collection[EventId],
    subject: str | None,
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
    wanted = set(event_ids)
    if subject:
        wanted |= await _events_of(log, subject)
    places = await _places_of(log, wanted)
    decisions = [offset for offset, place in places.items() if place.reward_wait_us is not None or place.decided_us]
    await log.erase(places)
    await joined.erase(decisions, wanted)
    catalog.forget_set_asides(loop_id, decisions)
    return Forgotten(events=len(decisions), records=len(places))


async def _events_of(log: EventLog, subject: str) -> set[EventId]:
    found: set[EventId] = set()
    start = (await log.extent()).first
    while entries := await log.read(start, limit=_READ):
        found.update(event_id for entry in entries if (event_id := _event_of(entry.record, subject)) is not None)
        start = entries[-1].offset + 1
    return found


def _event_of(record: Record, subject: str) -> EventId | None:
    """The id of the event that a record belongs to, if it is the subject's."""
    if isinstance(record, History):
        record = record.interaction
    if isinstance(record, AnyInteraction | Observation) and record.subject == subject:
        return record.event_id
    return None


async def _places_of(log: EventLog, event_ids: Collection[EventId]) -> Mapping[Offset, Erased]:
    """Find every record of some events, with what shall stand in its place."""
    places: dict[Offset, Erased] = {}
    start = (await log.extent()).first
    while entries := await log.read_headers(start, limit=_READ):
        for entry in entries:
            place = _place_of(entry.record, event_ids)
            if place is not None:
                places[entry.offset] = place
        start = entries[-1].offset + 1
    return places


def _place_of(record: Header, event_ids: Collection[EventId]) -> Erased | None:
    match record:
        case History() if record.interaction.event_id in event_ids:
            return Erased(decided_us=record.time_us)
        case Observation() | Activation() if record.event_id in event_ids:
            return Erased()
    if isinstance(record, AnyHeader) and record.event_id in event_ids:
        return Erased(reward_wait_us=record.reward_wait_us)
    return None
