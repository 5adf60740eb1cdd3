"""The features of a loop: what the newest events have of them, and what each is worth."""

from __future__ import annotations

import asyncio
import secrets

import msgspec
from starlette.responses import Response

from rankward.errors import CallerError
from rankward.evaluation.asking import Question
from rankward.evaluation.facts import Census, FeatureFacts, Remark
from rankward.evaluation.report import FeatureScore
from rankward.portal.view import View, Visit
from rankward.portal.views.evaluations import progress_of
from rankward.settings import as_datetime
from rankward.store.sessions import Role
from rankward.store.studies import Study, StudyKind, StudyState

_KIND = StudyKind.IMPORTANCE
_LOOKED_AT = 1_000  # newest decisions
_SHOWN = 200
_WEEK_US = 7 * 86_400_000_000


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A feature with all that is known of it."""

    facts: FeatureFacts
    score: FeatureScore | None  # None: the newest report does not judge it


async def _show(visit: Visit) -> Response:
    studies = list(reversed(visit.doors.studies.listed(visit.loop, _KIND)))
    unfinished = next((each for each in studies if not each.state.finished), None)
    newest = next((each for each in studies if each.state is StudyState.SUCCEEDED), None)
    scores = await asyncio.to_thread(_scores, visit, newest)
    found = await visit.administration.events.newest(visit.loop_name, limit=_LOOKED_AT)

    def look() -> Census:
        census = Census()
        for _, interaction in reversed(found):
            census.take(interaction)
        return census

    census = await asyncio.to_thread(look)
    facts = census.facts()
    by_name = {(score.namespace, score.name): score for score in scores}
    rows = [Row(facts=each, score=by_name.get((each.namespace, each.name))) for each in facts]
    rows.sort(key=lambda row: -(row.score.score if row.score is not None else -1.0))
    return visit.page(
        "features",
        rows=rows[:_SHOWN],
        left_out=max(0, len(rows) - _SHOWN),
        looked_at=census.events,
        unfinished=unfinished,
        progress=None if unfinished is None else progress_of(visit, unfinished),
        newest=newest,
        failed=next((each for each in studies[:1] if each.state in {StudyState.FAILED, StudyState.TIMED_OUT}), None),
        leaks=[each for each in facts if Remark.NEAR_UNIQUE in each.remarks],
        collisions=_collisions(facts),
        most=max([abs(each.loss or 0.0) for each in scores], default=0.0),
    )


def _scores(visit: Visit, study: Study | None) -> tuple[FeatureScore, ...]:
    findings = None if study is None else visit.doors.studies.findings(study)
    return () if findings is None else findings.features


def _collisions(facts: tuple[FeatureFacts, ...]) -> list[list[str]]:
    """Name the namespaces that the learner cannot tell apart in interactions, group by group."""
    groups = {tuple(sorted({each.namespace, *each.collides_with})) for each in facts if each.collides_with}
    return [list(group) for group in sorted(groups)]


async def _measure(visit: Visit) -> Response:
    now_us = visit.doors.home.clock()
    name = f"features {as_datetime(now_us):%Y-%m-%d %H:%M}"
    question = Question(name=name, start_us=max(0, now_us - _WEEK_US), end_us=now_us + 60_000_000)
    path = f"/portal/loops/{visit.loop_name}/features"
    try:
        await visit.doors.studies.by(visit.actor).ask(visit.loop, _KIND, question, study_id=secrets.token_hex(8))
    except CallerError as error:
        return visit.redirect(path, notice=f"It was not begun: {error.message}.")
    return visit.redirect(path, notice="The measuring has begun.")


async def _cancel(visit: Visit) -> Response:
    visit.doors.studies.by(visit.actor).delete(visit.loop, _KIND, str(visit.request.path_params["study"]))
    return visit.redirect(f"/portal/loops/{visit.loop_name}/features", notice="The measuring is cancelled.")


VIEWS = (
    View(path="/loops/{loop}/features", handle=_show),
    View(path="/loops/{loop}/features/measure", handle=_measure, method="POST", needs=Role.OPERATOR),
    View(path="/loops/{loop}/features/{study}/cancel", handle=_cancel, method="POST", needs=Role.OPERATOR),
)
