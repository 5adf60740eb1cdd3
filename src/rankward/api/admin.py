"""Administration over HTTP: loops, keys, settings, policies and models, for whoever has the admin key."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rankward.administration.challengers import ChallengerView
from rankward.administration.earnings import Span
from rankward.administration.events import ToForget
from rankward.administration.imports import ImportView
from rankward.administration.loops import CreatedLoop, KeyView, LoopView, NewKey, NewLoop
from rankward.administration.models import ModelView
from rankward.administration.service import Administration
from rankward.administration.tuning import Changed, PolicyChoice, PolicyView, PresetView
from rankward.api import errors
from rankward.api.app import read_body
from rankward.api.operation import V2022
from rankward.api.schema.body import decode
from rankward.api.service import Doors
from rankward.doctor.report import Report
from rankward.erasure import Forgotten
from rankward.errors import InvalidRequest, NotFound, RankwardError
from rankward.optimization.view import NewOptimization, OptimizationHistory, OptimizationView
from rankward.registry.compare import Comparison
from rankward.store.audit import Actor, Door
from rankward.watching.apprentice import Apprenticeship
from rankward.watching.comparison import LiveComparison
from rankward.watching.exploration import Exploration
from rankward.watching.figures import ActionBoard, Series

logger = logging.getLogger(__name__)


class AdminCall(msgspec.Struct, frozen=True):
    """A request with the admin key."""

    administration: Administration
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Any  # of the operation's type; None: it has none

    @property
    def name(self) -> str:
        """Of the loop."""
        return self.path["loop"]


class AdminOperation(msgspec.Struct, frozen=True, kw_only=True):
    """An operation under `/admin`."""

    name: str
    method: str
    path: str
    summary: str
    handle: Callable[[AdminCall], Awaitable[Any]]
    response: Any = None  # type of the answer; None: it has no body; bytes: a file
    request: Any = None  # type of the body; None: it has none
    success: int = 200
    query: tuple[tuple[str, str], ...] = ()  # parameters that it needs, with what each is
    options: tuple[tuple[str, str], ...] = ()  # parameters that can be left out
    follows: bool = False  # whether this process should take over what was changed before it answers


async def _delete_loop(call: AdminCall) -> None:
    await call.administration.loops.show(call.name)
    if call.query.get("confirm") != call.name:
        raise InvalidRequest(
            f"everything that the loop {call.name} logged and learned would be removed: say so with "
            f"?confirm={call.name}",
            code="InvalidRequest",
            target="confirm",
        )
    await call.administration.loops.delete(call.name)


async def _regenerate(call: AdminCall) -> NewKey:
    slot = call.path["slot"]
    if slot not in {"1", "2"}:
        raise NotFound(f"a loop has the keys 1 and 2, not {slot[:20]!r}")
    return await call.administration.loops.regenerate_key(call.name, int(slot))


async def _download(call: AdminCall) -> bytes:
    signed = call.query.get("signed", "false").lower() == "true"
    return await call.administration.models.read(call.name, call.path["model"], signed=signed)


async def _compare(call: AdminCall) -> Comparison:
    missing = [name for name in ("first", "second") if not call.query.get(name)]
    if missing:
        raise InvalidRequest(
            "name two versions to compare: ?first=MODEL&second=MODEL", code="InvalidRequest", target=missing[0]
        )
    return await call.administration.models.compare(call.name, call.query["first"], call.query["second"])


def _span(call: AdminCall) -> Span:
    return Span(start=call.query.get("from"), end=call.query.get("to"), step=call.query.get("step"))


_LOOP = "/admin/loops/{loop}"
_SPAN = (
    ("from", "Beginning of the span, of decisions, as ISO 8601; if left out, a day before its end."),
    ("to", "End of the span, exclusive, as ISO 8601; if left out, now."),
)

ADMIN_OPERATIONS: tuple[AdminOperation, ...] = (
    AdminOperation(
        name="listLoops",
        method="GET",
        path="/admin/loops",
        summary="List the loops.",
        handle=lambda call: call.administration.loops.listed(),
        response=list[LoopView],
    ),
    AdminOperation(
        name="createLoop",
        method="POST",
        path="/admin/loops",
        summary="Add a loop. The answer holds its keys, this once.",
        handle=lambda call: call.administration.loops.create(call.body),
        request=NewLoop,
        response=CreatedLoop,
        success=201,
        follows=True,
    ),
    AdminOperation(
        name="showLoop",
        method="GET",
        path=_LOOP,
        summary="Show a loop.",
        handle=lambda call: call.administration.loops.show(call.name),
        response=LoopView,
    ),
    AdminOperation(
        name="deleteLoop",
        method="DELETE",
        path=_LOOP,
        summary="Remove a loop with its log, its models and its keys.",
        handle=_delete_loop,
        success=204,
        query=(("confirm", "The loop's name, once more."),),
        follows=True,
    ),
    AdminOperation(
        name="listKeys",
        method="GET",
        path=f"{_LOOP}/keys",
        summary="Show the beginnings of a loop's keys.",
        handle=lambda call: call.administration.loops.keys(call.name),
        response=list[KeyView],
    ),
    AdminOperation(
        name="regenerateKey",
        method="POST",
        path=f"{_LOOP}/keys/{{slot}}/regenerate",
        summary="Make a new key 1 or 2. The old one opens nothing from then on.",
        handle=_regenerate,
        response=NewKey,
        follows=True,
    ),
    AdminOperation(
        name="showSettings",
        method="GET",
        path=f"{_LOOP}/settings",
        summary="Show every setting of a loop.",
        handle=lambda call: call.administration.tuning.settings(call.name),
        response=dict[str, str],
    ),
    AdminOperation(
        name="changeSettings",
        method="PATCH",
        path=f"{_LOOP}/settings",
        summary="Change settings, all of them or none.",
        handle=lambda call: call.administration.tuning.change_settings(call.name, call.body),
        request=dict[str, str],
        response=Changed,
        follows=True,
    ),
    AdminOperation(
        name="showPolicy",
        method="GET",
        path=f"{_LOOP}/policy",
        summary="Show a loop's policy, and what is trained under it.",
        handle=lambda call: call.administration.tuning.policy(call.name),
        response=PolicyView,
    ),
    AdminOperation(
        name="setPolicy",
        method="PUT",
        path=f"{_LOOP}/policy",
        summary="Give a loop another policy, by its arguments or the name of a preset.",
        handle=lambda call: call.administration.tuning.set_policy(call.name, call.body),
        request=PolicyChoice,
        response=Changed,
        follows=True,
    ),
    AdminOperation(
        name="resetPolicyByAdmin",
        method="DELETE",
        path=f"{_LOOP}/policy",
        summary="Restore Personalizer's own policy.",
        handle=lambda call: call.administration.tuning.reset_policy(call.name),
        response=Changed,
        follows=True,
    ),
    AdminOperation(
        name="showEarnings",
        method="GET",
        path=f"{_LOOP}/earnings",
        summary="Show what a loop earned over time, beside its baseline and chance.",
        handle=lambda call: call.administration.earnings.series(call.name, _span(call)),
        response=Series,
        options=(*_SPAN, ("step", "Length of a stretch, such as 1h or PT1H; if left out, what makes a chart.")),
    ),
    AdminOperation(
        name="showActions",
        method="GET",
        path=f"{_LOOP}/actions",
        summary="Show what became of a loop's actions: how often each was offered and chosen, and what it earned.",
        handle=lambda call: call.administration.earnings.actions(call.name, _span(call)),
        response=ActionBoard,
        options=_SPAN,
    ),
    AdminOperation(
        name="showComparison",
        method="GET",
        path=f"{_LOOP}/comparison",
        summary="Say whether a loop is better than its baseline and than chance, beyond doubt.",
        handle=lambda call: call.administration.earnings.comparison(call.name),
        response=LiveComparison,
    ),
    AdminOperation(
        name="showApprentice",
        method="GET",
        path=f"{_LOOP}/apprentice",
        summary="Show how well an apprentice matches its baseline, and whether it is time to let it decide.",
        handle=lambda call: call.administration.earnings.apprentice(call.name),
        response=Apprenticeship,
    ),
    AdminOperation(
        name="showExploration",
        method="GET",
        path=f"{_LOOP}/exploration",
        summary="Show what a loop paid for exploring in the last week, and what would be better.",
        handle=lambda call: call.administration.earnings.exploration(call.name),
        response=Exploration,
    ),
    AdminOperation(
        name="listChallengers",
        method="GET",
        path=f"{_LOOP}/challengers",
        summary="List the policies that learn beside the one that serves, with how they stand against it.",
        handle=lambda call: call.administration.challengers.listed(call.name),
        response=list[ChallengerView],
    ),
    AdminOperation(
        name="addChallenger",
        method="PUT",
        path=f"{_LOOP}/challengers/{{challenger}}",
        summary="Let a policy learn beside the one that serves: up to five for each loop.",
        handle=lambda call: call.administration.challengers.add(call.name, call.path["challenger"], call.body),
        request=PolicyChoice,
        response=ChallengerView,
        success=201,
    ),
    AdminOperation(
        name="removeChallenger",
        method="DELETE",
        path=f"{_LOOP}/challengers/{{challenger}}",
        summary="Remove a challenger with what it has learned.",
        handle=lambda call: call.administration.challengers.remove(call.name, call.path["challenger"]),
        success=204,
    ),
    AdminOperation(
        name="promoteChallenger",
        method="POST",
        path=f"{_LOOP}/challengers/{{challenger}}/promote",
        summary="Make a challenger's policy, and what it has learned, the loop's own.",
        handle=lambda call: call.administration.challengers.promote(call.name, call.path["challenger"]),
        response=LoopView,
        follows=True,
    ),
    AdminOperation(
        name="listImports",
        method="GET",
        path=f"{_LOOP}/imports",
        summary="List the files that were sent in the portal to be imported, newest first, with how far they are.",
        handle=lambda call: call.administration.imports.listed(call.name),
        response=list[ImportView],
    ),
    AdminOperation(
        name="cancelImport",
        method="DELETE",
        path=f"{_LOOP}/imports/{{key}}",
        summary="Cancel an import. What it has imported stays.",
        handle=lambda call: call.administration.imports.cancel(call.name, call.path["key"]),
        success=204,
    ),
    AdminOperation(
        name="keepServing",
        method="POST",
        path=f"{_LOOP}/policy/keep",
        summary="Stop building a new model, and keep the one that serves, with its policy and rewards.",
        handle=lambda call: call.administration.models.keep_serving(call.name),
        response=LoopView,
        follows=True,
    ),
    AdminOperation(
        name="listModels",
        method="GET",
        path=f"{_LOOP}/models",
        summary="List the versions of a loop's model, newest first.",
        handle=lambda call: call.administration.models.listed(call.name),
        response=list[ModelView],
    ),
    AdminOperation(
        name="compareModels",
        method="GET",
        path=f"{_LOOP}/models/compare",
        summary="Compare what two versions would do in the newest decisions.",
        handle=_compare,
        response=Comparison,
        query=(("first", "Id of a version."), ("second", "Id of another.")),
    ),
    AdminOperation(
        name="downloadModel",
        method="GET",
        path=f"{_LOOP}/models/{{model}}",
        summary="Download a version.",
        handle=_download,
        response=bytes,
        options=(("signed", "Whether to sign it, in a zip file: true or false."),),
    ),
    AdminOperation(
        name="promoteModel",
        method="POST",
        path=f"{_LOOP}/models/{{model}}/promote",
        summary="Serve a version, and go on learning from it: to promote one, or to roll back.",
        handle=lambda call: call.administration.models.roll_back(call.name, call.path["model"]),
        response=LoopView,
        follows=True,
    ),
    AdminOperation(
        name="forgetModel",
        method="DELETE",
        path=f"{_LOOP}/models",
        summary="Forget what a loop has learned. The versions stay.",
        handle=lambda call: call.administration.models.delete(call.name),
        response=LoopView,
        follows=True,
    ),
    AdminOperation(
        name="forgetEvents",
        method="POST",
        path=f"{_LOOP}/forget",
        summary="Erase events from the logs: by their ids, or all of a subject.",
        handle=lambda call: call.administration.events.forget(call.name, call.body),
        request=ToForget,
        response=Forgotten,
    ),
    AdminOperation(
        name="listOptimizations",
        method="GET",
        path=f"{_LOOP}/optimizations",
        summary="List the optimizations of a loop, newest first, and when the next one is due.",
        handle=lambda call: call.administration.optimizations.history(call.name),
        response=OptimizationHistory,
    ),
    AdminOperation(
        name="showOptimization",
        method="GET",
        path=f"{_LOOP}/optimizations/{{optimization}}",
        summary="Show an optimization: what it found, what was made of it, and what came of that.",
        handle=lambda call: call.administration.optimizations.show(call.name, call.path["optimization"]),
        response=OptimizationView,
    ),
    AdminOperation(
        name="optimize",
        method="POST",
        path=f"{_LOOP}/optimizations",
        summary="Search the log for a better policy now, in the background, and apply one that is better beyond doubt.",
        handle=lambda call: call.administration.optimizations.begin(call.name, call.body),
        request=NewOptimization,
        response=OptimizationView,
        success=201,
    ),
    AdminOperation(
        name="examineLoop",
        method="GET",
        path=f"{_LOOP}/doctor",
        summary="Say what a loop waits for, and why it is not learning.",
        handle=lambda call: call.administration.doctor(call.name),
        response=Report,
    ),
    AdminOperation(
        name="listPresets",
        method="GET",
        path="/admin/presets",
        summary="List the named policies.",
        handle=lambda call: call.administration.tuning.presets(),
        response=list[PresetView],
    ),
)


def admin_routes(doors: Doors) -> list[Route]:
    """Make the routes of every operation."""
    return [_route(operation, doors) for operation in ADMIN_OPERATIONS]


def _route(operation: AdminOperation, doors: Doors) -> Route:
    decoder = None if operation.request is None else msgspec.json.Decoder(operation.request)

    async def endpoint(request: Request) -> Response:
        try:
            doors.keep_up()
            await doors.check_admin(request.headers.raw)
            body = await read_body(request.headers.raw, request.receive, doors.limits.body_bytes)
            decoded = None if decoder is None else decode(decoder, body, code="InvalidRequest")
            actor = Actor(doors.keys.who(request.headers.raw), Door.HTTP)
            call = AdminCall(doors.administration.by(actor), request.path_params, request.query_params, decoded)
            answer = await operation.handle(call)
            if operation.follows:
                await doors.follow()
        except RankwardError as error:
            return refusal(error)
        except Exception:
            logger.exception("%s failed", operation.name)
            return _refused(errors.unexpected())
        return _answer(operation, answer)

    return Route(operation.path, endpoint, methods=[operation.method])


def _answer(operation: AdminOperation, answer: Any) -> Response:
    headers = {"Cache-Control": "no-store"}
    if operation.response is None:
        return Response(status_code=operation.success, headers=headers)
    if operation.response is bytes:
        headers["Content-Disposition"] = "attachment; filename=model.vw"
        return Response(answer, operation.success, headers, media_type="application/octet-stream")
    return Response(msgspec.json.encode(answer), operation.success, headers, media_type="application/json")


def refusal(error: RankwardError) -> Response:
    """Answer an error in the contract's shape."""
    return _refused(errors.answer(error, V2022))


def _refused(refused: errors.ErrorAnswer) -> Response:
    headers = {} if refused.retry_after_s is None else {"Retry-After": str(refused.retry_after_s)}
    return Response(refused.body, refused.status, headers, media_type="application/json")
