"""The doctor of a process that serves: what loops are told by pages that stay open, without holding up decisions."""

from __future__ import annotations

import asyncio

from rankward.doctor.facts import gather
from rankward.doctor.findings import findings
from rankward.doctor.report import Report, report
from rankward.records import TimeUs
from rankward.store.ports import Loop
from rankward.wiring import Home

_KEPT_US = 60_000_000  # how long the report of a loop stays in memory that nobody asks for


class _Patient:
    """A loop that is asked after: its newest report, and who reads the next."""

    def __init__(self) -> None:
        self.reading = asyncio.Lock()
        self.begun_us: TimeUs = 0  # when the reading of `report` began
        self.report: Report | None = None


class Rounds:
    """Makes reports on loops. Each is read in a thread, at most one at a time of a loop, and given to all who wait."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._patients: dict[str, _Patient] = {}  # by loop id

    async def report(self, loop: Loop, *, age_us: int = 0) -> Report:
        """Say what a loop waits for, and why it is not learning.

        Args:
            loop: the loop.
            age_us: how old the report may be.
        """
        oldest_us = self._home.clock() - age_us
        patient = self._patients.setdefault(loop.loop_id, _Patient())
        async with patient.reading:
            if patient.report is None or patient.begun_us < oldest_us:
                begun_us = self._home.clock()
                patient.report = await asyncio.to_thread(self._read, loop)
                patient.begun_us = begun_us
                self._forget(begun_us - _KEPT_US)
            return patient.report

    def _read(self, loop: Loop) -> Report:
        facts = asyncio.run(gather(self._home, loop))
        return report(facts, findings(facts))

    def _forget(self, before_us: TimeUs) -> None:
        for loop_id, patient in list(self._patients.items()):
            if patient.begun_us < before_us and not patient.reading.locked():
                del self._patients[loop_id]
