"""Evaluations of a loop's log: asked for, followed while they run, read, applied and deleted."""

from __future__ import annotations

import asyncio
import secrets
from urllib.parse import quote

import msgspec
from starlette.responses import Response

from rankward.errors import CallerError, InvalidRequest, NotFound
from rankward.evaluation.asking import Question
from rankward.evaluation.findings import Findings
from rankward.evaluation.report import PolicyResult, Report
from rankward.portal.lines import looks_chart
from rankward.portal.moments import read_moment, written
from rankward.portal.view import View, Visit
from rankward.settings import as_datetime
from rankward.store.sessions import Role
from rankward.store.studies import AskedPolicy, Study, StudyKind
from rankward.study_run import NOTE, StudyStatus
from rankward.vw.presets import PRESETS

_KIND = StudyKind.EVALUATION
_DAY_US = 86_400_000_000
_WEEK_US = 7 * _DAY_US


class Ranked(msgspec.Struct, frozen=True, kw_only=True):
    """A policy in the table of results."""

    result: PolicyResult
    optimal: bool
    applies: bool  # whether what it learned is kept, so that it can be applied


def progress_of(visit: Visit, study: Study) -> StudyStatus | None:
    """Tell how far a study is. None: it does not run now."""
    note = visit.doors.home.board.read(study.loop_id).get(NOTE)
    status = None if note is None else msgspec.json.decode(note, type=StudyStatus)
    return status if status is not None and (status.kind, status.study_id) == (study.kind, study.study_id) else None


async def _list(visit: Visit) -> Response:
    studies = list(reversed(visit.doors.studies.listed(visit.loop, _KIND)))
    running = next((each for each in studies if not each.state.finished), None)
    return visit.page("evaluations", studies=studies, running=running)


async def _show_new(visit: Visit) -> Response:
    now_us = visit.doors.home.clock()
    first_us = max(now_us - _WEEK_US, visit.loop.created_us)
    given = {
        "start": written(first_us),
        "end": written(now_us + 60_000_000),
        "name": "",
        "policies": "",
        "searches": "",
    }
    return _new(visit, given)


def _new(visit: Visit, given: dict[str, str], *, refused: CallerError | None = None) -> Response:
    return visit.page(
        "evaluation_new",
        status=200 if refused is None else 400,
        given=given,
        presets=PRESETS.values(),
        policy=visit.loop.settings.policy,
        error=None if refused is None else refused.message,
    )


async def _create(visit: Visit) -> Response:
    form = visit.form
    study_id = secrets.token_hex(8)
    try:
        question = Question(
            name=form.get("name", "").strip() or f"asked {as_datetime(visit.doors.home.clock()):%Y-%m-%d %H:%M}",
            start_us=read_moment(form.get("start", ""), "to evaluate from"),
            end_us=read_moment(form.get("end", ""), "to evaluate to"),
            policies=_policies(form.get("policies", "")),
            searches="searches" in form,
        )
        await visit.doors.studies.by(visit.actor).ask(visit.loop, _KIND, question, study_id=study_id)
    except CallerError as error:
        given = {each: form.get(each, "") for each in ("start", "end", "name", "policies", "searches")}
        return _new(visit, given, refused=error)
    return visit.redirect(_path(visit, study_id))


async def _show(visit: Visit) -> Response:
    study = visit.doors.studies.find(visit.loop, _KIND, str(visit.request.path_params["study"]))
    findings = await asyncio.to_thread(visit.doors.studies.findings, study)
    report = findings.report if findings is not None else None
    return visit.page(
        "evaluation",
        study=study,
        progress=progress_of(visit, study),
        report=report,
        ranked=[] if report is None or findings is None else _ranked(report, findings),
        features=[] if findings is None else findings.features[:10],
        chart=None if report is None else looks_chart(report),
    )


async def _progress(visit: Visit) -> Response:
    """What an open page asks for while a study runs; when it has ended, the page is loaded anew."""
    named = str(visit.request.path_params["kind"])
    if named not in {StudyKind.EVALUATION, StudyKind.IMPORTANCE}:
        raise NotFound(f"there are no studies of the kind {named[:20]!r}")
    kind = StudyKind(named)
    study = visit.doors.studies.find(visit.loop, kind, str(visit.request.path_params["study"]))
    if study.state.finished:
        return Response(status_code=204, headers={"HX-Refresh": "true"})
    return visit.page("study_progress", study=study, progress=progress_of(visit, study))


async def _delete(visit: Visit) -> Response:
    study = visit.doors.studies.find(visit.loop, _KIND, str(visit.request.path_params["study"]))
    visit.doors.studies.by(visit.actor).delete(visit.loop, _KIND, study.study_id)
    done = "is deleted" if study.state.finished else "is cancelled"
    return visit.redirect(_path(visit), notice=f"The evaluation {study.name} {done}.")


async def _apply(visit: Visit) -> Response:
    study_id, policy = str(visit.request.path_params["study"]), visit.form.get("policy", "")
    await visit.doors.studies.by(visit.actor).apply(visit.loop_name, study_id, policy)
    await visit.doors.follow()
    notice = f"{policy} is the loop's policy now, with what it had learned. The model before is kept, to roll back to."
    return visit.redirect(f"/portal/loops/{visit.loop_name}/policy", notice=notice)


def _path(visit: Visit, study_id: str = "") -> str:
    base = f"/portal/loops/{visit.loop_name}/evaluations"
    return f"{base}/{quote(study_id, safe='')}" if study_id else base


def _policies(text: str) -> tuple[AskedPolicy, ...]:
    """Read policies, one a line: NAME = ARGUMENTS, or the name of a preset."""
    found = []
    for line in filter(None, map(str.strip, text.splitlines())):
        name, equals, arguments = line.partition("=")
        if not equals:
            arguments = name
        preset = PRESETS.get(arguments.strip())
        if not equals and preset is None:
            raise InvalidRequest(f"{line[:80]!r} is neither NAME = ARGUMENTS nor a preset: write one of the two a line")
        found.append(AskedPolicy(name.strip(), preset.policy().text if preset is not None else arguments.strip()))
    return tuple(found)


def _ranked(report: Report, findings: Findings) -> list[Ranked]:
    """Sort the policies by their estimates, the best first; what cannot be judged comes last."""
    kept = {model.policy_name for model in findings.models}

    def order(result: PolicyResult) -> tuple[bool, float]:
        return result.estimate is None, -(result.estimate.value if result.estimate is not None else 0.0)

    return [
        Ranked(result=result, optimal=result.name == report.optimal, applies=result.name in kept)
        for result in sorted(report.overall(), key=order)
    ]


VIEWS = (
    View(path="/loops/{loop}/evaluations", handle=_list),
    View(path="/loops/{loop}/evaluations/new", handle=_show_new, needs=Role.OPERATOR),
    View(path="/loops/{loop}/evaluations/new", handle=_create, method="POST", needs=Role.OPERATOR),
    View(path="/loops/{loop}/evaluations/{study}", handle=_show),
    View(path="/loops/{loop}/evaluations/{study}/delete", handle=_delete, method="POST", needs=Role.OPERATOR),
    View(path="/loops/{loop}/evaluations/{study}/apply", handle=_apply, method="POST", needs=Role.OPERATOR),
    View(path="/loops/{loop}/studies/{kind}/{study}/progress", handle=_progress),
)
