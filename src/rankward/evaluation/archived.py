"""An archive as a log to judge by, wherever its loop is."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import msgspec

from rankward.archiving.place import Place
from rankward.archiving.reading import find_archive
from rankward.evaluation.service import Batch
from rankward.records import Offset, TimeUs

_READ = 500


class ArchivedLog(msgspec.Struct, frozen=True, kw_only=True):
    """What an archive held when it was opened. Implements `evaluation.service.Source`."""

    url: str
    end: Offset  # in the joined log: what was archived later is left out
    events: int  # that it held: after some were erased, it is another log
    since_us: TimeUs | None = None  # of decisions; None: from the first on
    until_us: TimeUs | None = None  # decisions at or after it are left out; None: to the last

    def batches(self) -> Iterator[Batch]:
        """Read it.

        Raises:
            StoreUnavailable: it does not answer, or is damaged.
        """
        archive = find_archive(Place(self.url))
        spans = archive.spans(start=0, before=self.end, since_us=self.since_us, until_us=self.until_us)
        total = sum(span.events for span in spans) or 1
        read = 0
        for span in spans:
            events = archive.events(span)
            while found := list(islice(events, _READ)):
                read += len(found)
                within = [event for event in found if self._is_within(event.entry.time_us)]
                yield Batch(within, min(1.0, read / total))

    def _is_within(self, time_us: TimeUs) -> bool:
        after = self.since_us is None or time_us >= self.since_us
        return after and (self.until_us is None or time_us < self.until_us)


def archived_log(url: str, *, since_us: TimeUs | None, until_us: TimeUs | None) -> ArchivedLog:
    """Open an archive to judge by.

    Args:
        url: of the archive of a loop, or of an installation that has archived one loop.
        since_us: see `ArchivedLog`.
        until_us: see `ArchivedLog`.

    Raises:
        NotFound: there is none.
        InvalidRequest: it is no address, or there are several.
        StoreUnavailable: it does not answer, or is damaged.
    """
    index = find_archive(Place(url)).index
    return ArchivedLog(url=url, end=index.end, events=index.events, since_us=since_us, until_us=until_us)
