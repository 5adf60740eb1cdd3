"""Makes what was learned beside a loop the loop's own: it serves at once, and learning goes on from there."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable

import msgspec

from rankward.auditing import Trail
from rankward.records import Bins, Interactions, ModelId, Offset, Rate, SettingsChange, TimeUs
from rankward.settings import LoopSettings, Numbers, as_datetime, change
from rankward.store.changes import change_loop
from rankward.store.ports import Catalog, EventLog, Loop, ModelStore, ModelVersion
from rankward.training.service import next_epoch
from rankward.vw.arguments import parse_policy


class Learned(msgspec.Struct, frozen=True, kw_only=True):
    """A policy, with what it has learned of a loop's log."""

    policy: str  # arguments that passed the allow-list
    preset: str | None  # that it is; None: none's
    exploration: float
    interactions: Interactions | None  # that it was trained with beside its own
    rate: Rate | None = None  # the same of its rate of learning
    bins: Bins | None = None  # where it cuts numbers; None: it sees them as they are
    learned: int  # events
    learned_to_us: TimeUs  # of the newest of them
    joined_end: Offset  # the next joined event after them
    model: bytes


async def adopt(
    learned: Learned,
    *,
    loop_name: str,
    model_id: ModelId,
    reason: str,
    cause: str,
    check: Callable[[Loop], None],
    noted: Callable[[LoopSettings], None],
    trail: Trail,
    detail: str,
    catalog: Catalog,
    models: ModelStore,
    log: Callable[[str], EventLog],
    clock: Callable[[], TimeUs],
) -> Loop:
    """Give a loop a policy with what it has learned. What served until then stays among the versions.

    Args:
        learned: the policy.
        loop_name: of the loop.
        model_id: of the version that it will be.
        reason: what starts the epoch that goes on from it, for people.
        cause: what changes the settings, for people.
        check: refuses a loop that is not the one that was judged any more.
        noted: told the loop's new settings before they hold.
        trail: where the change is noted.
        detail: what is noted of it beside.
        catalog: of loops.
        models: bytes of versions.
        log: gives a loop's event log, by loop id.
        clock: the time.
    """
    loop = catalog.loop(loop_name)
    version = ModelVersion(
        model_id=model_id,
        loop_id=loop.loop_id,
        epoch_id=0,
        created_us=clock(),
        joined_offset=learned.joined_end,
        learned=learned.learned,
        learned_to_us=learned.learned_to_us,
        policy=learned.policy,
        interactions=learned.interactions,
        rate=learned.rate,
        bins=learned.bins,
        resumable=parse_policy(learned.policy).resumes_exactly,
        size_bytes=len(learned.model),
        digest=hashlib.sha256(learned.model).hexdigest(),
    )
    await asyncio.to_thread(models.put, loop.loop_id, version.model_id, learned.model)
    catalog.add_version(version)

    async def once(loop: Loop) -> Loop:
        check(loop)
        wanted = {
            "policy": learned.policy,
            "preset": learned.preset,
            "exploration": learned.exploration,
            "numbers": Numbers.RAW if learned.bins is None else Numbers.BINS,
        }
        settings = change(loop.settings, wanted, now=as_datetime(clock()))
        served = msgspec.structs.replace(loop, settings=settings, model_id=version.model_id)
        epoch = msgspec.structs.replace(
            next_epoch(served, now_us=clock(), reason=reason),
            derives_interactions=version.interactions is not None,
            interactions=version.interactions,
            rate=version.rate,
            bins=version.bins,
            base=version.model_id,
            start=version.joined_offset,
            since_us=0,  # from `start` on, whenever it was: nothing there has been learned
            history_since_us=None,
        )
        noted(settings)
        written = catalog.update_loop(served, epoch=epoch, retire=True)
        trail.note_settings("settings changed", loop_name, loop.settings, settings)
        models_before, models_after = {"model": loop.model_id or ""}, {"model": version.model_id}
        trail.note("policy applied", loop=loop_name, detail=detail, before=models_before, after=models_after)
        record = SettingsChange(settings=msgspec.Raw(msgspec.json.encode(settings)), cause=cause)
        await log(loop.loop_id).append([record])
        return written

    return await change_loop(catalog, loop_name, once)
