"""Files of log lines, or tables, as a log to judge by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import msgspec

from rankward.dsjson.read import Skipped
from rankward.evaluation.replay import FLAWS_KEPT
from rankward.evaluation.report import Line
from rankward.evaluation.service import Batch
from rankward.history.columns import ColumnMap
from rankward.history.sources import open_source
from rankward.ranking.features import FeatureBounds
from rankward.records import History, JoinedEvent, LearningMode, TimeUs
from rankward.settings import Limits

OUT_OF_SPAN = "outside the span"
_SPREAD = (
    "it gives the probability of the chosen action alone, so what was left is taken to be spread evenly over the "
    "others. Estimates and intervals of a fixed length do not depend on that; intervals at every look and differences "
    "do, where there were more than two actions"
)


class LogFiles(msgspec.Struct, frozen=True, kw_only=True):
    """Log lines in files, or rows in tables, one after the other, each in its own order."""

    paths: tuple[Path, ...]
    reward_wait_us: int  # lines do not have it: a policy learns an event so long after its decision
    since_us: TimeUs | None = None  # of decisions; None: from the first on
    until_us: TimeUs | None = None  # decisions at or after it are left out; None: to the last
    mapping: ColumnMap | None = None  # what the columns of tables mean; None: they are logs

    def batches(self) -> Iterator[Batch]:
        """Read them.

        Raises:
            InvalidRequest: a file is damaged, or of no kind that is known.
            OSError: a file cannot be read.
        """
        total = sum(path.stat().st_size for path in self.paths) or 1
        done = offset = 0
        mode: LearningMode | None = None
        for path in self.paths:
            source = open_source(
                path,
                bounds=FeatureBounds(),
                limits=Limits(),
                reward_wait_us=self.reward_wait_us,
                mode=mode,
                mapping=self.mapping,
            )
            number = 0
            with closing(source):
                while found := source.read():
                    yield self._batch(
                        f"{path.name}, {source.unit}", found, number, offset, min(1.0, (done + source.position) / total)
                    )
                    number += len(found)
                    offset += len(found)
                mode = source.mode
            done += path.stat().st_size

    def _batch(self, place: str, found: Sequence[History | Skipped], number: int, offset: int, read: float) -> Batch:
        events: list[JoinedEvent] = []
        skipped: Counter[str] = Counter()
        flaws: list[Line] = []
        if offset == 0 and self.mapping is not None and not self.mapping.gives_every_probability:
            flaws.append(Line("the mapping", _SPREAD))
        for index, each in enumerate(found):
            if isinstance(each, Skipped):
                skipped[each.kind] += 1
                if len(flaws) < FLAWS_KEPT:
                    flaws.append(Line(f"{place} {number + index + 1}", each.why))
            elif self._is_within(each.time_us):
                events.append(self._joined(each, offset + index))
            else:
                skipped[OUT_OF_SPAN] += 1
        return Batch(events, read, skipped, flaws)

    def _is_within(self, time_us: TimeUs) -> bool:
        after = self.since_us is None or time_us >= self.since_us
        return after and (self.until_us is None or time_us < self.until_us)

    def _joined(self, found: History, offset: int) -> JoinedEvent:
        entry = found.joined(offset, found.time_us + self.reward_wait_us)
        return JoinedEvent(offset, entry, found.interaction)
