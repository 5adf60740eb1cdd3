"""The story of an event: what was asked and decided, what was observed of it, and what was learned of that."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from rankward.joining.reader import first_due
from rankward.joining.reward import RewardDefinition, observed_reward, training_reward
from rankward.records import (
    AnyInteraction,
    EventId,
    JoinedEntry,
    JoinedEvent,
    JoinedObservation,
    LogEntry,
    ModelId,
    Offset,
    TimeUs,
    interactions,
)
from rankward.store.ports import Catalog, EventLog, JoinedLog, Located, Lookup, Loop

_READ = 200
_LOOKED_THROUGH = 5_000  # entries of the log, for the newest decisions
_NAMESAKES = 5  # decisions under one event id that are told, the newest


class SlotReward(msgspec.Struct, frozen=True, kw_only=True):
    """What one slot of an event earned."""

    slot: str  # id; empty: the event has no slots
    observed: float  # what its observations add up to, or the default
    learned: float  # what the learner is told


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """All that is on record of one decision."""

    offset: Offset  # in the event log
    time_us: TimeUs
    due_us: TimeUs  # when its reward wait is over
    interaction: AnyInteraction
    observations: tuple[JoinedObservation, ...]  # so far, in log order
    activated: bool
    joined: bool  # whether joining has come to its end
    rewards: tuple[SlotReward, ...]  # empty: it was deferred and not activated, so there is none
    learned_by: ModelId | None  # the oldest kept version of the serving epoch that has learned it; None: none has yet
    set_aside: str | None  # why it is not learned; None: nothing speaks against it


async def newest(log: EventLog, *, limit: int, before: Offset | None = None) -> list[tuple[LogEntry, AnyInteraction]]:
    """List decisions, newest first.

    Args:
        log: the loop's event log.
        limit: how many at most. Where other entries are many, it may be fewer.
        before: only those that stand before this offset; None: all.
    """
    extent = await log.extent()
    end = extent.end if before is None else min(before, extent.end)
    last = max(extent.first, end - _LOOKED_THROUGH)
    found: list[tuple[LogEntry, AnyInteraction]] = []
    while end > last and len(found) < limit:
        begin = max(last, end - _READ)
        entries = [entry for entry in await log.read(begin, limit=end - begin) if entry.offset < end]
        found += reversed(interactions(entries))
        end = begin
    return found[:limit]


async def stories(catalog: Catalog, log: EventLog, joined: JoinedLog, loop: Loop, event_id: EventId) -> list[Story]:
    """Tell what is on record of an event id: of each decision under it, newest first.

    Imported events are not found by their ids.
    """
    extent = await log.extent()
    [found] = await log.locate([Lookup(event_id, extent.end, 0)])
    return [await _story(catalog, log, joined, loop, each) for each in list(reversed(found))[:_NAMESAKES]]


async def _story(catalog: Catalog, log: EventLog, joined: JoinedLog, loop: Loop, located: Located) -> Story:
    [entry] = await log.read(located.offset, limit=1)
    interaction = entry.record
    assert isinstance(interaction, AnyInteraction), "only interactions are located"
    due_us = located.time_us + located.reward_wait_us
    place = await _joined_at(joined, located.offset, due_us)
    if place is None:
        matches = (await joined.matches([located.offset])).get(located.offset, ())
        observations = tuple([match.observation for match in matches if match.observation is not None])
        activated = any(match.observation is None for match in matches)
        place = -1, JoinedEntry(located.offset, located.time_us, due_us, observations, activated)
    offset, joined_entry = place
    event = JoinedEvent(offset, joined_entry, interaction)
    set_asides = {each.interaction: each.reason for each in catalog.set_asides(loop.loop_id)}
    return Story(
        offset=located.offset,
        time_us=located.time_us,
        due_us=due_us,
        interaction=interaction,
        observations=joined_entry.observations,
        activated=joined_entry.activated,
        joined=offset >= 0,
        rewards=() if event.skip_learn else _rewards(event, loop),
        learned_by=_learned_by(catalog, loop, offset) if offset >= 0 else None,
        set_aside=set_asides.get(located.offset),
    )


def _rewards(event: JoinedEvent, loop: Loop) -> tuple[SlotReward, ...]:
    definition = RewardDefinition(loop.settings.default_reward, loop.settings.reward_aggregation)
    return tuple(
        [
            SlotReward(
                slot=slot.id,
                observed=observed_reward(event, definition, number),
                learned=training_reward(event, definition, number),
            )
            for number, slot in enumerate(event.interaction.slots)
        ]
    )


async def _joined_at(joined: JoinedLog, interaction: Offset, due_us: TimeUs) -> tuple[Offset, JoinedEntry] | None:
    """Find what joining made of an interaction. None: nothing yet."""
    position = await first_due(joined, due_us)
    while entries := await joined.read(position, limit=_READ):
        for offset, entry in entries:
            if entry.interaction == interaction and not entry.imported:
                return offset, entry
            if entry.due_us > due_us:
                return None
        position = entries[-1][0] + 1
    return None


def _learned_by(catalog: Catalog, loop: Loop, offset: Offset) -> ModelId | None:
    serving = [epoch.epoch_id for epoch in catalog.epochs(loop.loop_id) if epoch.state == "serving"]
    versions: Sequence[tuple[Offset, ModelId]] = sorted(
        (version.joined_offset, version.model_id)
        for version in catalog.versions(loop.loop_id)
        if version.epoch_id in serving and version.joined_offset > offset
    )
    return versions[0][1] if versions else None
