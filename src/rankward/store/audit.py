"""The audit trail: who changed what, by which door. It is written with every change, and only ever grows."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from rankward.records import TimeUs


class Door(enum.StrEnum):
    """What a change came through."""

    HTTP = "http"
    PORTAL = "portal"
    COMMAND_LINE = "command line"
    AUTOMATIC = "automatic"


class Actor(msgspec.Struct, frozen=True):
    """Who makes a change."""

    who: str  # a key by its role and first characters, a person by the provider's name, or a user of the machine
    door: Door


SERVICE = Actor("the service itself", Door.AUTOMATIC)
"""Whoever has nobody behind it: what is done on schedule, or at the first start."""


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One change. Secrets are never in it."""

    time_us: TimeUs
    who: str
    door: Door
    loop: str | None  # its name; None: the change is about no loop
    what: str  # such as `settings changed`: one of few, to filter by
    detail: str = ""  # for people
    before: Mapping[str, str] = {}  # what was changed, as it was
    after: Mapping[str, str] = {}  # and as it is
    number: int = 0  # grows with every entry; 0: not written yet


class AuditFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which entries are looked for. None lets every one pass."""

    loops: Sequence[str] | None = None  # by name; entries about no loop are not among them
    what: str | None = None
    who: str | None = None  # a part of the name, whatever its case
    before: int | None = None  # entries with smaller numbers
    since_us: TimeUs | None = None


class Audit(Protocol):
    """Every change, in order. It can be appended to and read; nothing is ever taken out."""

    def append(self, entry: AuditEntry) -> AuditEntry:
        """Write a change, durably. Returns it with its number."""

    def entries(self, wanted: AuditFilter, *, limit: int) -> Sequence[AuditEntry]:
        """Return at most `limit` entries, newest first."""

    def kinds(self) -> Sequence[str]:
        """Return every `what` that has been written, in the order of the alphabet."""

    def close(self) -> None:
        """Let go of the files."""
