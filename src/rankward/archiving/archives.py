"""Where the logs of an installation are archived, and the way to what lies there of each of its loops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rankward.archiving.layout import Erasure, folder_of
from rankward.archiving.place import Place
from rankward.archiving.reading import Archive, open_archive
from rankward.archiving.service import ArchivingService, ask_to_erase
from rankward.archiving.whole import WholeLog
from rankward.records import Offset, TimeUs
from rankward.store.ports import Board, Catalog, EventLog, JoinedLog, Loop, Notebook


class Archives:
    """The archives of an installation's loops: all lie in one place, or nowhere."""

    def __init__(
        self,
        address: Notebook,
        catalog: Catalog,
        *,
        log: Callable[[str], EventLog],
        joined: Callable[[str], JoinedLog],
        board: Board,
        clock: Callable[[], TimeUs],
        timer: Callable[[], int],
    ) -> None:
        """Prepare.

        Args:
            address: keeps where the place is.
            catalog: of loops.
            log: opens a loop's event log, by loop id.
            joined: opens a loop's joined log, by loop id.
            board: for what archiving says of itself.
            clock: the time.
            timer: microseconds since some moment, on which no setting of the clock tells: for pauses.
        """
        self._address = address
        self._catalog = catalog
        self._log = log
        self._joined = joined
        self._board = board
        self._clock = clock
        self._timer = timer

    def place(self) -> Place | None:
        """Open the archive of the logs. None: they are not archived.

        Raises:
            InvalidRequest: its address leads nowhere, or what it needs is not installed.
        """
        url = self.url
        return None if url is None else Place(url)

    @property
    def url(self) -> str | None:
        """Where the logs are archived. None: nowhere."""
        content = self._address.read()
        return None if content is None else content.decode().strip()

    def settle(self, url: str | None) -> None:
        """Settle where the logs are archived from the next start of a worker on.

        Args:
            url: see `archiving.place.Place`; None: nowhere any more.

        Raises:
            InvalidRequest: it leads nowhere.
        """
        if url is None:
            self._address.remove()
            return
        Place(url)  # refuses what cannot be used
        self._address.write(f"{url}\n".encode())

    def of(self, loop_id: str) -> Archive | None:
        """Open the archive of a loop. None: there is none, or nothing in it yet.

        Raises:
            InvalidRequest: as of `place`.
            StoreUnavailable: it does not answer, or is damaged.
        """
        place = self.place()
        loop = next((each for each in self._catalog.loops() if each.loop_id == loop_id), None)
        return None if place is None or loop is None else open_archive(place, folder_of(loop.name, loop_id))

    def whole_log(
        self, loop_id: str, log: EventLog, joined: JoinedLog, *, since_us: TimeUs, until_us: TimeUs
    ) -> WholeLog:
        """Make what reads the decisions of a span of time out of a loop's log and its archive."""
        return WholeLog(log, joined, lambda: self.of(loop_id), since_us=since_us, until_us=until_us)

    async def archived(self, loop_id: str, since_us: TimeUs, until_us: TimeUs) -> int:
        """Count the events, decided from a time to another, that a loop's archive has and its log has not any more.

        Raises:
            StoreUnavailable: the archive does not answer, or is damaged.
        """
        if self.url is None:
            return 0
        log, joined = self._log(loop_id), self._joined(loop_id)
        try:
            return await self.whole_log(loop_id, log, joined, since_us=since_us, until_us=until_us).archived()
        finally:
            await log.close()
            await joined.close()

    def erase(self, loop_id: str, name: str, erasure: Erasure) -> None:
        """Leave word in the archive, if there is one, of what is to be erased from it: see `ask_to_erase`."""
        place = self.place()
        if place is not None:
            loop = next(loop for loop in self._catalog.loops() if loop.loop_id == loop_id)
            ask_to_erase(place, loop, name, erasure)

    async def clear(self, loop_id: str, before: Offset) -> None:
        """Leave word that what stood before an offset of a loop's event log is to be erased from its archive."""
        await asyncio.to_thread(self.erase, loop_id, f"cleared-{before:020d}", Erasure(before=before))

    def archiving(self, loop: Loop, place: Place, log: EventLog, joined: JoinedLog) -> ArchivingService:
        """Make what archives a loop, and closes its logs when it is closed."""
        return ArchivingService(
            loop, log=log, joined=joined, place=place, board=self._board, clock=self._clock, timer=self._timer
        )
