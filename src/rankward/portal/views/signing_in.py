"""Signing in and out: the pages that whoever is not in may see."""

from __future__ import annotations

from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from rankward.api.app import read_body
from rankward.errors import CallerError, InvalidRequest, Overloaded, RankwardError
from rankward.portal.gate import COOKIE, Gate, check_csrf, check_origin
from rankward.portal.rendering import Renderer

_BODY_BYTES = 4_096


def signing_in_routes(gate: Gate, renderer: Renderer) -> list[Route]:
    """Make the routes."""

    def page(request: Request, *, wanted: str, error: RankwardError | None = None, status: int = 200) -> Response:
        expired = error is None and COOKIE in request.cookies
        said = str(error)[:1].upper() + str(error)[1:] if error else None
        return renderer.page("sign_in", request, status=status, wanted=wanted, error=said, expired=expired)

    async def show(request: Request) -> Response:
        wanted = _within(request.query_params.get("next", ""))
        if gate.session(request) is not None:
            return RedirectResponse(wanted, 303)
        return page(request, wanted=wanted)

    async def sign_in(request: Request) -> Response:
        wanted = "/portal/"
        try:
            check_origin(request)
            form = await _form(request)
            wanted = _within(form.get("next", ""))
            answer = RedirectResponse(wanted, 303)
            await gate.admit_with_key(form.get("key", "").strip(), request, answer)
        except Overloaded as error:
            refused = page(request, wanted=wanted, error=error, status=429)
            refused.headers["Retry-After"] = str(error.retry_after_s)
            return refused
        except CallerError as error:
            return page(request, wanted=wanted, error=error, status=403)
        except RankwardError as error:
            return page(request, wanted=wanted, error=error, status=503)
        return answer

    async def sign_out(request: Request) -> Response:
        answer = RedirectResponse("/portal/sign-in", 303)
        try:
            check_origin(request)
            check_csrf(request, (await _form(request)).get("csrf", ""))
        except CallerError:
            return answer  # somebody else's doing: they stay signed in
        gate.sign_out(request, answer)
        return answer

    return [
        Route("/sign-in", show),
        Route("/sign-in", sign_in, methods=["POST"]),
        Route("/sign-out", sign_out, methods=["POST"]),
    ]


async def _form(request: Request) -> dict[str, str]:
    body = await read_body(request.headers.raw, request.receive, _BODY_BYTES)
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True))
    except UnicodeDecodeError as error:
        raise InvalidRequest("the form is not text in UTF-8") from error


def _within(path: str) -> str:
    """Where to go after signing in: a page of the portal, whatever somebody wrote into the link."""
    return path if path.startswith("/portal/") and "\\" not in path and "\n" not in path else "/portal/"
