"""What loops decided, and what became of it: looked up, explained, erased."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Collection

import msgspec

from rankward.archiving.layout import Erasure
from rankward.auditing import Trail
from rankward.erasure import Forgotten, forget
from rankward.ranking.service import Scorer
from rankward.records import AnyInteraction, EventId, Interaction, LogEntry, Offset
from rankward.store.ports import EventLog, JoinedLog, Loop, ModelVersion
from rankward.story import Story, newest, stories
from rankward.vw.arguments import ProblemType, problem_type_of
from rankward.vw.explain import Contribution
from rankward.wiring import Home


class ToForget(msgspec.Struct, frozen=True, kw_only=True):
    """Events to erase: by their ids, or all of a subject."""

    event_ids: list[str] = []
    subject: str | None = None


class EventAdministration:
    """Events in the logs of loops."""

    def __init__(
        self,
        home: Home,
        trail: Trail,
        *,
        log: Callable[[str], EventLog],
        joined: Callable[[str], JoinedLog],
    ) -> None:
        """Prepare.

        Args:
            home: the installation.
            trail: where changes are noted.
            log: gives a loop's event log, by loop id.
            joined: gives a loop's joined log, by loop id.
        """
        self._home = home
        self._trail = trail
        self._log = log
        self._joined = joined

    async def newest(
        self, name: str, *, limit: int, before: Offset | None = None
    ) -> list[tuple[LogEntry, AnyInteraction]]:
        """List a loop's decisions, newest first: see `story.newest`."""
        return await newest(self._log(self._home.catalog.loop(name).loop_id), limit=limit, before=before)

    async def stories(self, name: str, event_id: EventId) -> list[Story]:
        """Tell what is on record of an event id: see `story.stories`."""
        loop = self._home.catalog.loop(name)
        log, joined = self._log(loop.loop_id), self._joined(loop.loop_id)
        return await stories(self._home.catalog, log, joined, loop, event_id)

    async def explain(self, name: str, interaction: AnyInteraction) -> list[Contribution] | None:
        """Take apart the score that the chosen action had with the model that decided.

        Returns:
            See `vw.explain`. None: no model decided it, it is not kept any more, or its scores are no sums.
        """
        loop = self._home.catalog.loop(name)
        versions = {version.model_id: version for version in self._home.catalog.versions(loop.loop_id)}
        version = versions.get(interaction.model_id or "")
        if version is None or not isinstance(interaction, Interaction) or len(interaction.rankable) < 2:
            return None
        if problem_type_of(version.policy) is not ProblemType.SINGLE_SLOT:
            return None
        return await asyncio.to_thread(self._explain, loop, version, interaction)

    def _explain(self, loop: Loop, version: ModelVersion, interaction: Interaction) -> list[Contribution] | None:
        scorer = Scorer(version, self._home.models.get(loop.loop_id, version.model_id), loop.settings.exploration)
        try:
            return scorer.explain(interaction)
        finally:
            scorer.close()

    async def forget(self, name: str, wanted: ToForget) -> Forgotten:
        """Erase events from a loop's logs: see `erasure.forget`."""
        loop_id = self._home.catalog.loop(name).loop_id
        request = secrets.token_hex(8)

        async def tell(event_ids: Collection[EventId], subject: str | None) -> None:
            erasure = Erasure(event_ids=tuple(event_ids), subject=subject)
            await asyncio.to_thread(self._home.archives.erase, loop_id, request, erasure)

        # Opened for this alone: a log lets in one reader at a time, and the whole of it is read. Decisions under ids
        # of the caller's own would have to wait for each stretch.
        async with self._home.logs(loop_id) as (log, joined):
            forgotten = await forget(
                self._home.catalog,
                log,
                joined,
                loop_id=loop_id,
                event_ids=wanted.event_ids,
                subject=wanted.subject,
                tell=tell,
            )
        await asyncio.to_thread(self._home.forget_checkpoints, but=())  # events that wait to be learned are in them
        # Neither ids nor the subject are noted: they are to be forgotten.
        asked = "of a subject" if wanted.subject is not None else f"by {len(wanted.event_ids)} ids"
        self._trail.note("events erased", loop=name, detail=asked)
        return forgotten
