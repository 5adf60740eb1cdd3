"""The log of a loop as a study is about it: a span of it, out of the log and the archive."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import msgspec

from rankward.evaluation.service import Batch
from rankward.records import JoinedEvent, Offset, TimeUs
from rankward.store.studies import Study
from rankward.wiring import Home

_READ = 500


class LoopLog(msgspec.Struct, frozen=True, kw_only=True):
    """A span of a loop's joined log. Implements `evaluation.service.Source`."""

    root: str  # of the installation
    loop_id: str
    start_us: TimeUs  # of decisions
    end_us: TimeUs  # those at or after it are left out
    joined_start: Offset  # from there on, in the archive where the log does not go back as far
    joined_end: Offset  # entries at or after it are left out

    @classmethod
    def of(cls, home: Home, study: Study) -> LoopLog:
        """Take the log of a study, or of a share of one, that has settled its span."""
        assert study.joined_start is not None, "it is settled at the first attempt"
        assert study.joined_end is not None, "it is settled with the start"
        return cls(
            root=str(home.folder.root),
            loop_id=study.loop_id,
            start_us=study.start_us,
            end_us=study.end_us,
            joined_start=study.joined_start,
            joined_end=study.joined_end,
        )

    def batches(self) -> Iterator[Batch]:
        """Read it.

        Raises:
            StoreUnavailable: the archive is needed, and does not answer or is damaged.
        """
        home = Home(Path(self.root))
        with asyncio.Runner() as runner:
            log, joined = home.event_log(self.loop_id), home.joined_log(self.loop_id)
            try:
                whole = home.archives.whole_log(self.loop_id, log, joined, since_us=self.start_us, until_us=self.end_us)
                for start in range(self.joined_start, self.joined_end, _READ):
                    events: list[JoinedEvent] = []
                    position, end = start, min(start + _READ, self.joined_end)
                    while position < end:
                        found, position = runner.run(whole.read(position, limit=end - position))
                        events += found
                    yield Batch(events, (end - self.joined_start) / (self.joined_end - self.joined_start))
            finally:
                runner.run(log.close())
                runner.run(joined.close())
                home.close()
