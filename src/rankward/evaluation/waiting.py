"""Events between their decision and the end of their wait, when the learner is told of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import msgspec
import zstandard

from rankward.records import JoinedEvent, TimeUs

_PAGE = 512  # events compressed together
_OPEN = 4_096  # events kept as they are before any are compressed

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[JoinedEvent]).decode


class Waiting:
    """A queue of events. As many wait as come within a reward wait, so most of them are kept compressed."""

    def __init__(self) -> None:
        self._front: deque[JoinedEvent] = deque()
        self._packed: deque[bytes] = deque()
        self._back: list[JoinedEvent] = []

    def append(self, event: JoinedEvent) -> None:
        """Put an event at the end. Events come in the order of their due times."""
        self._back.append(event)
        if len(self._back) < _PAGE:
            return
        if self._packed or len(self._front) >= _OPEN:
            self._packed.append(zstandard.compress(_encode(self._back), 1))
        else:
            self._front.extend(self._back)
        self._back = []

    def due(self, until_us: TimeUs) -> Iterator[JoinedEvent]:
        """Take out, from the front, the events whose wait is over at a time."""
        while self._front or self._refill():
            if self._front[0].entry.due_us > until_us:
                return
            yield self._front.popleft()

    def _refill(self) -> bool:
        if self._packed:
            self._front.extend(_decode(zstandard.decompress(self._packed.popleft())))
        else:
            self._front.extend(self._back)
            self._back = []
        return bool(self._front)
