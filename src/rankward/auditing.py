"""Notes every change in the audit trail, under the name of whoever makes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from rankward.records import TimeUs
from rankward.settings import SETTINGS, STAMPS, LoopSettings, show
from rankward.store.audit import SERVICE, Actor, Audit, AuditEntry


class Trail(msgspec.Struct, frozen=True):
    """Where one actor's changes are noted."""

    audit: Audit
    clock: Callable[[], TimeUs]
    actor: Actor = SERVICE

    def by(self, actor: Actor) -> Trail:
        """Return the trail of somebody else's changes."""
        return msgspec.structs.replace(self, actor=actor)

    def note(
        self,
        what: str,
        *,
        loop: str | None,
        detail: str = "",
        before: Mapping[str, str] | None = None,
        after: Mapping[str, str] | None = None,
    ) -> None:
        """Note a change that was just made.

        Args:
            what: one of few words, to filter by.
            loop: its name; None: it is about no loop.
            detail: for people.
            before: what was changed, as it was; never a secret.
            after: and as it is.
        """
        self.audit.append(
            AuditEntry(
                time_us=self.clock(),
                who=self.actor.who,
                door=self.actor.door,
                loop=loop,
                what=what,
                detail=detail,
                before=before or {},
                after=after or {},
            )
        )

    def note_settings(self, what: str, loop: str, old: LoopSettings, new: LoopSettings, *, detail: str = "") -> None:
        """Note what changed between two sets of settings, if anything did."""
        before, after = differences(old, new)
        if before:
            self.note(what, loop=loop, detail=detail, before=before, after=after)


def differences(old: LoopSettings, new: LoopSettings) -> tuple[dict[str, str], dict[str, str]]:
    """Write what differs between two sets of settings, before and after, as it may be seen by anyone."""
    names = [name for name in SETTINGS if getattr(old, name) != getattr(new, name) and name not in STAMPS]
    return {name: seen(name, old) for name in names}, {name: seen(name, new) for name in names}


def seen(name: str, settings: LoopSettings) -> str:
    """Write a setting without what is secret in it: whoever has a signed address may write to it."""
    text = show(getattr(settings, name))
    if name != "log_mirror_sas_uri":
        return text
    address, signed, _ = text.partition("?")
    return f"{address}?…" if signed else address
