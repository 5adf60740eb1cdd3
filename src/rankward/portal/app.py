"""The portal's application: its views behind the gate, what pages load, and errors in the same look."""

from __future__ import annotations

import contextlib
import logging
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, quote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route

from rankward.api import errors
from rankward.api.app import read_body
from rankward.api.operation import V2022
from rankward.api.service import Doors
from rankward.errors import CallerError, InvalidRequest, RankwardError, StoreUnavailable
from rankward.portal.gate import Entrance, Gate, check_csrf, check_origin
from rankward.portal.rendering import Assets, Renderer
from rankward.portal.view import View, Visit, check_may
from rankward.portal.views import VIEWS
from rankward.portal.views.signing_in import signing_in_routes
from rankward.store.sessions import Sessions

logger = logging.getLogger(__name__)

_FORM = "application/x-www-form-urlencoded"


def portal(doors: Doors, sessions: Sessions, entrance: Entrance) -> Mount:
    """Make what answers below /portal."""
    assets = Assets()
    renderer, gate = Renderer(assets, doors.home.folder.root), Gate(doors, sessions, entrance)

    async def nothing_here(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException), "only what was registered for arrives here"
        said = "There is nothing here." if error.status_code == 404 else str(error.detail)
        return _refusal(doors, renderer, gate, request, error.status_code, said)

    return Mount(
        "/portal",
        app=Starlette(
            routes=[
                *signing_in_routes(gate, renderer),
                *(_route(view, doors, gate, renderer) for view in VIEWS),
                Mount(assets.base, assets),
            ],
            exception_handlers={HTTPException: nothing_here},
        ),
    )


def _route(view: View, doors: Doors, gate: Gate, renderer: Renderer) -> Route:
    async def endpoint(request: Request) -> Response:
        try:
            doors.keep_up()
            session = gate.session(request)
            if session is None:
                return _to_sign_in(request)
            form = await _form(request, doors) if view.method == "POST" else {}
            visit = Visit(doors=doors, gate=gate, renderer=renderer, request=request, session=session, form=form)
            check_may(view, visit)
            return await view.handle(visit)
        except RankwardError as error:
            answered = errors.answer(error, V2022)
            if answered.status >= 500:
                logger.error("%s: %s", view.path, error)
            said = error.message if isinstance(error, CallerError) else _told(error, gate, request)
            refused = _refusal(doors, renderer, gate, request, answered.status, said)
            if answered.retry_after_s is not None:
                refused.headers["Retry-After"] = str(answered.retry_after_s)
            return refused
        except Exception:
            logger.exception("%s %s failed", view.method, view.path)
            said = "Something went wrong here. The service's log says what."
            return _refusal(doors, renderer, gate, request, 500, said)

    return Route(view.path, endpoint, methods=[view.method])


async def _form(request: Request, doors: Doors) -> dict[str, str]:
    """Read what was sent, once it is known to come from one of the session's own pages.

    Raises:
        CallerError: it does not, or it is no form.
    """
    check_origin(request)
    header = request.headers.get("x-csrf-token")
    if header is not None:
        check_csrf(request, header)
    if request.headers.get("content-type", "").partition(";")[0].strip() != _FORM:
        if header is None:
            raise InvalidRequest(f"send a form, as {_FORM}, or its token in the header X-CSRF-Token")
        return {}  # a file, which the view itself reads
    body = await read_body(request.headers.raw, request.receive, doors.limits.body_bytes)
    form = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
    if header is None:
        check_csrf(request, form.get("csrf", ""))
    return form


def _to_sign_in(request: Request) -> Response:
    """Lead whoever is not signed in, or not any more, to where they can."""
    wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    if request.method != "GET" or "hx-request" in request.headers:
        wanted = "/portal/"
    target = f"/portal/sign-in?next={quote(wanted)}"
    if "hx-request" in request.headers:
        return Response(status_code=204, headers={"HX-Redirect": target})
    return RedirectResponse(target, 303)


def _told(error: RankwardError, gate: Gate, request: Request) -> str:
    """Say what failed in the service: with the files' names only to who has to mend it."""
    if not isinstance(error, StoreUnavailable):
        return str(error)
    try:
        session = gate.session(request)
    except RankwardError:  # the same may be what fails
        session = None
    if session is not None and session.admin:
        return str(error)
    return "what is stored of it cannot be used just now: the service's log says why"


def _refusal(doors: Doors, renderer: Renderer, gate: Gate, request: Request, status: int, said: str) -> Response:
    """Say what went wrong: as a page with the visitor's menu, or as a line of text, which the open page shows."""
    if "hx-request" in request.headers:
        return PlainTextResponse(said, status, headers={"Cache-Control": "no-store"})
    values: dict[str, Any] = {"title": HTTPStatus(status).phrase, "said": said[:1].upper() + said[1:], "status": status}
    with contextlib.suppress(RankwardError):  # the store may be what fails
        session = gate.session(request)
        if session is not None:
            visit = Visit(doors=doors, gate=gate, renderer=renderer, request=request, session=session, form={})
            values |= {"session": session, "visit": visit}
            loop = request.path_params.get("loop")
            values["menu_loop"] = loop if loop in {each.name for each in visit.loops()} else None
    return renderer.page("error", request, **values)
