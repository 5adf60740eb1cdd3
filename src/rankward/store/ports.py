"""What the rooms may ask of a store. Every backend keeps the promises made in these docstrings."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import msgspec

from rankward.records import (
    AppendResult,
    Bins,
    Erased,
    EventId,
    HeaderEntry,
    Interactions,
    JoinedEntry,
    JoinedObservation,
    LogEntry,
    ModelId,
    Offset,
    Rate,
    Record,
    TimeUs,
)
from rankward.settings import LoopSettings


class Located(msgspec.Struct, frozen=True, gc=False):
    """Where an interaction stands, and how long it waits: all that matching a reward needs."""

    offset: Offset
    time_us: TimeUs
    reward_wait_us: int


class Lookup(msgspec.Struct, frozen=True, gc=False):
    """A search for the interactions that something reported at a place and time may be about."""

    event_id: EventId
    before: Offset  # interactions that stand before this offset
    time_us: TimeUs  # interactions whose wait ended at most a day before this time


LOOKUP_NEWEST = 64
"""A lookup finds at most this many interactions of one event id, the newest: more share no id for a reason."""
LOOKUP_BACK_US = 86_400_000_000


class LogExtent(msgspec.Struct, frozen=True):
    """What an event log holds."""

    first: Offset  # of the oldest entry that is kept; equal to `end` when there is none
    end: Offset  # that the next entry will have
    last_time_us: TimeUs  # of the newest entry ever appended; 0: there was none


class EventLog(Protocol):
    """Everything that happened, in order. It can be appended to and read; old stretches can be dropped.

    On a node of a cluster, what was appended is read a moment later; the answer to the append is right at once.
    """

    async def append(self, records: Sequence[Record], *, once: bool = False) -> Sequence[AppendResult]:
        """Store each record or not, in order, one result each; durable on return.

        Args:
            records: what happened. The log gives offsets and times; times never decrease.
            once: answer an interaction that the log already holds (same event id, same request, at most its
                reward wait plus an hour old) with `Known`, and do not store it again.

        Raises:
            StorageFull: nothing of the call was stored.
            Overloaded: too much is waiting; nothing of the call was stored.
            StoreUnavailable: the store failed. The records may or may not be found later; of a call that is too large
                for one message of a cluster's stream, perhaps only the first.
            InvalidRequest: one record is too large for such a message.
        """

    async def read(self, start: Offset, *, limit: int) -> Sequence[LogEntry]:
        """Return at most `limit` entries from `start` on, in log order, leaving no gaps.

        Entries before the log's first are not there any more: the answer then starts with the first.
        """

    async def read_headers(self, start: Offset, *, limit: int) -> Sequence[HeaderEntry]:
        """Return what `read` would, without features and actions: for a fraction of the time."""

    async def locate(self, lookups: Sequence[Lookup]) -> Sequence[Sequence[Located]]:
        """Answer each lookup with the interactions that bear its event id, oldest first.

        At most the `LOOKUP_NEWEST` newest of those that a lookup asks for are found.
        """

    def change_mark(self) -> int:
        """Return a number that differs after anything was appended, by whomever. Cheap enough to poll."""

    async def extent(self) -> LogExtent:
        """Say what the log holds now."""

    async def drop(self, *, before: Offset) -> None:
        """Forget the entries before an offset, or as many of them as whole files hold."""

    async def clear(self) -> Offset:
        """Forget every entry. Returns the offset that the next one will have: offsets are never used twice."""

    async def erase(self, places: Mapping[Offset, Erased]) -> None:
        """Put these records in the place of those that are there, so that no file of the log holds them any more.

        Durable on return. Offsets and times stay as they are. Offsets that the log does not hold are passed over.

        Raises:
            StorageFull, StoreUnavailable: some may not have been erased: do it again.
        """

    async def maintain(self, *, joined_before: Offset, keep_after_us: TimeUs) -> None:
        """Do the housekeeping: seal what is full, drop what is older than `keep_after_us` and joined."""

    async def close(self) -> None:
        """Finish what is under way and let go of all files."""


class Feed(Protocol):
    """Brings a node's replica of one loop's event log up to what the cluster has."""

    @property
    def caught_up(self) -> bool:
        """Whether the replica has what the cluster had when this was made."""

    @property
    def behind(self) -> int:
        """How many messages the replica lacks, as far as is known."""

    async def step(self) -> bool:
        """Apply what has come. Returns whether there may be more at once.

        Raises:
            StoreUnavailable: the servers do not answer, or no longer have what comes next.
        """

    async def close(self) -> None:
        """Stop reading."""


class Match(msgspec.Struct, frozen=True, gc=False):
    """An observation or activation, and the interaction whose window holds it."""

    interaction: Offset
    observation: JoinedObservation | None  # None: an activation
    offset: Offset  # of the observation or activation itself


class Unmatched(msgspec.Struct, frozen=True, gc=False):
    """An observation or activation whose interaction has not been seen: it may be early."""

    offset: Offset
    time_us: TimeUs
    event_id: EventId
    observation: JoinedObservation | None  # None: an activation
    late: bool  # its event id is known, but no window held it


class JoinState(msgspec.Struct, frozen=True):
    """How far joining has come."""

    head: Offset = 0  # in the event log: the next entry to read
    now_us: TimeUs = 0  # of the last entry read
    lanes: dict[int, Offset] = {}  # by reward wait: from where on interactions of that wait may be unjoined
    counts: dict[str, int] = {}  # for the doctor and the metrics
    erasures: int = 0  # how often something was erased: a step from before the last time must not be committed


class JoinStep(msgspec.Struct, frozen=True, kw_only=True):
    """What one step of joining changes, all of it or nothing."""

    state: JoinState
    joined: Sequence[JoinedEntry] = ()
    matches: Sequence[Match] = ()  # to keep until their interactions are joined
    early: Sequence[Unmatched] = ()  # to keep until their interactions come or two minutes have passed
    settled: Sequence[Offset] = ()  # observations that are not early any more


class JoinedLog(Protocol):
    """Interactions in the order in which their waits ended, by reference, with their observations.

    It is written by one joiner and read by trainers and evaluations.
    """

    async def state(self) -> JoinState:
        """Return the state of the last committed step."""

    async def early(self) -> Sequence[Unmatched]:
        """Return the observations whose interactions have not been seen, in log order."""

    async def matches(self, interactions: Sequence[Offset]) -> Mapping[Offset, Sequence[Match]]:
        """Return the kept matches of these interactions, each list in log order."""

    async def commit(self, step: JoinStep) -> None:
        """Write a step, durably and as a whole. Matches of the joined interactions are let go.

        Raises:
            Conflict: something was erased since the state that the step began from: begin again from what is on record.
        """

    async def erase(self, interactions: Collection[Offset], event_ids: Collection[EventId]) -> None:
        """Forget what was observed of interactions, durably.

        Args:
            interactions: event log offsets. Their entries stay, without observations.
            event_ids: observations that wait for an interaction of these ids are forgotten, too.
        """

    async def read(self, start: Offset, *, limit: int) -> Sequence[tuple[Offset, JoinedEntry]]:
        """Return at most `limit` entries from `start` on, in order, each with its offset."""

    def change_mark(self) -> int:
        """Return a number that differs after anything was committed, by whomever. Cheap enough to poll."""

    async def extent(self) -> tuple[Offset, Offset]:
        """Return the first offset that is kept and the one that the next entry will have."""

    async def drop(self, *, before: Offset) -> None:
        """Forget what is of interactions before an offset of the event log: entries, as far as whole files go."""

    async def close(self) -> None:
        """Let go of all files."""


class Loop(msgspec.Struct, frozen=True, kw_only=True):
    """One contextual bandit: its name and what it is set to."""

    name: str
    loop_id: str  # 32 hex digits, never used again
    created_us: TimeUs
    settings: LoopSettings
    revision: int = 0  # grows with every change of this loop
    model_id: ModelId | None = None  # the version that serves; None: decisions are uniform
    forgotten_before: Offset = 0  # interactions before this event log offset are never learned again


class Key(msgspec.Struct, frozen=True):
    """A stored key: its digest only."""

    loop: str | None  # None: the admin key
    slot: int  # 1 or 2
    digest: bytes  # SHA-256 of the key


class Epoch(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of training under one policy and one definition of the reward: a fold over the joined log."""

    epoch_id: int  # grows with every epoch of a loop
    loop_id: str
    state: str  # "building", "serving" or "retired"
    reason: str  # what started it, for people
    created_us: TimeUs
    policy: str  # the learner's arguments, as set
    derives_interactions: bool  # whether the namespaces of its first events give it more
    default_reward: float
    reward_aggregation: str
    since_us: TimeUs  # interactions before this time are not learned
    first_interaction: Offset = 0  # interactions before this event log offset are not learned
    base: ModelId | None = None  # the version that it goes on from; None: it starts afresh
    interactions: Interactions | None = None  # derived; None: not settled before the first event is seen
    start: Offset | None = None  # in the joined log; None: not settled yet
    history_since_us: TimeUs | None = None  # imported events before this time are not learned; None: as `since_us`
    derives_rate: bool = False  # whether the noise of its rewards may start another with another rate
    rate: Rate | None = None  # derived; None: the policy's own
    derives_bins: bool = False  # whether the numbers of its first events give it intervals
    bins: Bins | None = None  # derived; None: not settled, or numbers are seen as they are


class ModelVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A published model. Its bytes are kept beside; together they are also the trainer's checkpoint."""

    model_id: ModelId
    loop_id: str
    epoch_id: int
    created_us: TimeUs
    joined_offset: Offset  # the next joined event to learn
    learned: int  # events learned in this epoch
    learned_to_us: TimeUs  # of the newest interaction learned; 0: none
    policy: str  # the learner's arguments, as set
    interactions: Interactions | None  # derived beside them; None: none were
    resumable: bool  # whether going on from it equals never having stopped
    size_bytes: int
    digest: str  # SHA-256 of the bytes, hex
    rate: Rate | None = None  # derived beside the policy; None: the policy's own
    bins: Bins | None = None  # derived; None: numbers are seen as they are


class SetAside(msgspec.Struct, frozen=True, kw_only=True):
    """A joined event that learning passes over, and why."""

    loop_id: str
    interaction: Offset
    event_id: EventId
    reason: str
    time_us: TimeUs


class Lead(msgspec.Struct, frozen=True):
    """Which node's worker acts for a loop, where there are many: it trains, and nobody else does."""

    holder: str  # name of a node; empty: nobody
    term: int  # grows whenever somebody takes the loop: 1 for the first


class Fence(msgspec.Struct, frozen=True):
    """The loop that something is done for, and the term under which it was begun."""

    loop_id: str
    term: int


class Catalog(Protocol):
    """Loops, keys, epochs and versions of models: small, shared by all processes, changed seldom.

    Every change is durable on return, and atomic.
    """

    def change_mark(self) -> int:
        """Return a number that differs after anything was changed, by whomever. Cheap enough to poll."""

    def change_hint(self) -> int:
        """Return a number that differs after anything was changed, cheap enough to ask for on every request.

        A change whose process died before it could give the hint is seen in `change_mark` only.
        """

    def loops(self) -> Sequence[Loop]:
        """Return every loop, by name."""

    def loop(self, name: str) -> Loop:
        """Return one loop.

        Raises:
            NotFound: there is none of that name.
        """

    def create_loop(self, loop: Loop, keys: Sequence[Key], epoch: Epoch) -> None:
        """Add a loop with its keys and first epoch.

        Raises:
            Conflict: the name is taken.
        """

    def delete_loop(self, name: str) -> None:
        """Remove a loop with its keys, epochs and versions. Its logs are files, and not removed here."""

    def update_loop(
        self,
        loop: Loop,
        *,
        epoch: Epoch | None = None,
        retire: bool = False,
    ) -> Loop:
        """Write a loop over the revision that it was read at, and perhaps start an epoch.

        Args:
            loop: as read, with its changes. The revision on record must still be its own.
            epoch: to start in the same stroke. Epochs that are still building are retired.
            retire: retire the serving epoch too.

        Returns:
            The loop with its new revision.

        Raises:
            Conflict: somebody else changed the loop meanwhile: read it and try again.
        """

    def keys(self) -> Sequence[Key]:
        """Return the digests of all keys."""

    def set_key(self, key: Key, *, first: bool = False) -> None:
        """Store a key in its slot, in place of the one before.

        Args:
            key: the key.
            first: whether there must be none before.

        Raises:
            Conflict: it opens another slot, or there is one before.
        """

    def epochs(self, loop_id: str) -> Sequence[Epoch]:
        """Return the epochs of a loop that are building or serving, oldest first."""

    def settle_epoch(self, epoch: Epoch) -> None:
        """Write what an epoch settled when it saw its first event (`interactions`, `bins`, `start`)."""

    def publish(self, version: ModelVersion, *, serve: bool) -> None:
        """Record a version whose bytes are in place.

        Args:
            version: the version. Recording one again changes nothing.
            serve: let Rank use it, make its epoch the serving one, and retire the epochs before it.
        """

    def lose_version(self, model_id: ModelId, loop_id: str) -> None:
        """Remove a version whose bytes are lost. If it served, decisions are uniform until there is another."""

    def add_version(self, version: ModelVersion) -> None:
        """Record a version that no epoch made. Recording one again changes nothing."""

    def versions(self, loop_id: str) -> Sequence[ModelVersion]:
        """Return the versions of a loop, newest first."""

    def forget_version(self, model_id: ModelId, loop_id: str) -> bool:
        """Remove a version from the list, unless it serves, an active epoch goes on from it, or a run keeps it.

        An optimization keeps the version that it has replaced.

        Returns:
            Whether it is gone, so that its bytes may go too.
        """

    def set_aside(self, event: SetAside) -> None:
        """Record an event that learning passes over. Recording it again changes nothing."""

    def set_asides(self, loop_id: str) -> Sequence[SetAside]:
        """Return the events that learning passes over, oldest first."""

    def forget_set_asides(self, loop_id: str, interactions: Collection[Offset]) -> None:
        """Remove what is on record of events that learning passes over, challengers' too: the log has them no more."""

    def leads(self) -> Mapping[str, Lead]:
        """Return who leads, by loop id. Of a loop that nobody ever led, nothing."""

    def take_lead(self, loop_id: str, holder: str, *, over_term: int) -> Fence:
        """Take a loop, under a term that is one more than the one on record.

        Args:
            loop_id: of the loop.
            holder: name of the node that takes it.
            over_term: the term on record; 0: there is none yet.

        Raises:
            Conflict: somebody else took it meanwhile.
            NotFound: there is no such loop any more.
        """

    def release_lead(self, fence: Fence) -> None:
        """Let anybody take a loop, if it is still led under this term."""

    def close(self) -> None:
        """Let go of the files."""


class ModelStore(Protocol):
    """The bytes of models, by loop and version. A version is put before it is recorded, and not after."""

    def put(self, loop_id: str, model_id: ModelId, model: bytes) -> None:
        """Store a model, durably and as a whole, in place of one that was put but never recorded."""

    def get(self, loop_id: str, model_id: ModelId) -> bytes:
        """Return a model's bytes.

        Raises:
            NotFound: it is not there any more.
        """

    def forget(self, loop_id: str, model_id: ModelId) -> None:
        """Remove a model. It need not be there."""


class Vault(Protocol):
    """One secret of the installation. Nobody but its owner can read it where it is kept."""

    def read(self) -> bytes | None:
        """Return the secret; None: none was written yet.

        Raises:
            StoreUnavailable: it cannot be read.
        """

    def write(self, secret: bytes, *, over: bytes | None) -> bool:
        """Store the secret, durably and as a whole, if the one before is still what the caller read.

        Args:
            secret: the new one.
            over: what was read; None: there was none.

        Returns:
            Whether it was stored. If not, somebody else was quicker: read again.
        """


class Notebook(Protocol):
    """One small record that outlives the process."""

    def read(self) -> bytes | None:
        """Return what was written last; None: nothing is."""

    def write(self, content: bytes) -> None:
        """Write, durably and as a whole."""

    def remove(self) -> None:
        """Remove what was written."""


class Board(Protocol):
    """Short notes of what each process is doing, for the doctor and the metrics. They need not be durable."""

    def post(self, loop_id: str, name: str, note: bytes) -> None:
        """Put a note up, in place of the one of that name."""

    def read(self, loop_id: str) -> Mapping[str, bytes]:
        """Return all notes of a loop, by name."""

    def take_down(self, loop_id: str, name: str) -> None:
        """Remove a note. It need not be there."""
