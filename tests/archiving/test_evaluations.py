"""What is archived is judged by as if it were still in the log."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from rankward.archiving.place import Place
from rankward.errors import InvalidRequest
from rankward.evaluation.asking import Question
from rankward.evaluation.findings import Findings
from rankward.settings import Limits
from rankward.store.studies import StudyKind, StudyState
from rankward.studies import StudyService
from rankward.study_log import LoopLog
from rankward.study_run import StudyRun
from tests.archiving.bucket import Bucket
from tests.archiving.test_archiving import archived, archiving, story_of
from tests.archiving.test_whole import cut_small, forget_hours, hours, whole_of
from tests.loop.circle import Circle
from tests.store.test_studies import a_study
from tests.test_backup import decision
from tests.test_cli import Shell


@pytest.mark.slow
def test_a_study_reads_on_in_the_archive_what_retention_has_taken(tmp_path: Path, bucket: Bucket) -> None:
    """In the same batches: a process that was stopped goes on after those that it had taken."""

    async def tell(circle: Circle) -> None:
        circle.home.archives.settle(bucket.url)
        for hour, count in enumerate((270, 250, 20)):
            await circle.log.append([decision(f"{hour}-{number}") for number in range(count)])
            circle.pass_time(3_600)
            await circle.join()
            await circle.log.maintain(joined_before=0, keep_after_us=0)
        await archived(archiving(circle, Place(bucket.url)))
        loop_id, (_, end) = circle.loop.loop_id, await circle.joined.extent()
        source = LoopLog(
            root=str(circle.home.folder.root),
            loop_id=loop_id,
            start_us=0,
            end_us=1 << 60,
            joined_start=0,
            joined_end=end,
        )
        before = await asyncio.to_thread(lambda: list(source.batches()))
        assert sum(len(batch.events) for batch in before) == 540
        await forget_hours(circle, 1)
        assert await asyncio.to_thread(lambda: list(source.batches())) == before

        study = a_study(loop_id=loop_id, state=StudyState.RUNNING, attempts=1, start_us=0, end_us=1 << 60)
        study = msgspec.structs.replace(study, automatic=True, policies=())
        circle.home.studies.add(study, waiting_max=10)
        await asyncio.to_thread(StudyRun(circle.home, study, lambda: False).run)
        findings = msgspec.msgpack.decode(circle.home.studies.found(study.key) or b"", type=Findings)
        assert findings.report is not None
        assert findings.report.counts.judged == 540

    story_of(tell, tmp_path / "data")


def test_a_span_that_only_the_archive_has_can_be_asked_for(root: Path, bucket: Bucket) -> None:
    """And one that nobody has any more is refused, as ever."""

    async def tell(circle: Circle) -> None:
        await cut_small(circle)
        circle.home.archives.settle(bucket.url)
        start_us = circle.now_us
        await hours(circle, 5, 6, 7, 8)
        await archived(archiving(circle, Place(bucket.url)))
        await forget_hours(circle, 3)
        home = circle.home
        service = StudyService(
            home.catalog,
            home.studies,
            models=home.models,
            study_models=home.study_models,
            log=lambda _: circle.log,
            joined=lambda _: circle.joined,
            clock=home.clock,
            limits=Limits(),
            trail=home.trail,
            archived=lambda _, since_us, until_us: whole_of(circle, since_us, until_us).archived(),
        )
        question = Question(name="the first minute", start_us=start_us, end_us=start_us + 60_000_000)
        study = await service.ask(circle.loop, StudyKind.EVALUATION, question, study_id="one")
        assert study.start_us == start_us

        home.archives.settle(None)
        with pytest.raises(InvalidRequest, match="no decision between"):
            await service.ask(circle.loop, StudyKind.EVALUATION, question, study_id="two")

    story_of(tell, root)


@pytest.mark.slow
def test_an_archive_is_judged_by_from_anywhere(tmp_path: Path) -> None:
    """By its address alone: what it takes to judge is in it."""
    shell = Shell(tmp_path / "data")
    url = f"file://{tmp_path}/archive"

    async def tell(circle: Circle) -> None:
        await hours(circle, 50, 60, 5)
        await archived(archiving(circle, Place(url)))

    story_of(tell, tmp_path / "data")
    found = shell.json("evaluate", url, "--policy", "mine=--cb_explore_adf --epsilon 0.2", "--processes", "1")
    assert found["counts"]["judged"] == 110
    files = sorted(str(path) for path in (tmp_path / "archive").rglob("*.zst"))
    assert "alone" in shell.refused("evaluate", url, files[0])
    assert "there is no archive" in shell.refused("evaluate", f"file://{tmp_path}/elsewhere")
