"""Signing in and out: the pages that whoever is not in may see."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from rankward.api.app import read_body
from rankward.errors import CallerError, InvalidRequest, Overloaded, RankwardError, Unauthorized
from rankward.portal.gate import COOKIE, Gate, check_csrf, check_origin
from rankward.portal.oidc import Leaving
from rankward.portal.rendering import Renderer

_BODY_BYTES = 4_096
_LEAVING = "rankward_leaving"  # the cookie of somebody who is away to sign in
_AWAY_S = 600


def signing_in_routes(gate: Gate, renderer: Renderer) -> list[Route]:
    """Make the routes."""

    def page(request: Request, *, wanted: str, error: RankwardError | None = None, status: int = 200) -> Response:
        expired = error is None and COOKIE in request.cookies
        said = str(error)[:1].upper() + str(error)[1:] if error else None
        return renderer.page(
            "sign_in",
            request,
            status=status,
            wanted=wanted,
            error=said,
            expired=expired,
            has_provider=gate.entrance.provider is not None,
        )

    async def show(request: Request) -> Response:
        wanted = _within(request.query_params.get("next", ""))
        if gate.session(request) is not None:
            return RedirectResponse(wanted, 303)
        if (person := gate.proxied(request)) is not None:
            answer = RedirectResponse(wanted, 303)
            gate.admit_person(person, request, answer, proxied=True)
            return answer
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

    async def leave(request: Request) -> Response:
        wanted = _within(request.query_params.get("next", ""))
        if gate.entrance.provider is None:
            return RedirectResponse("/portal/sign-in", 303)
        try:
            address, leaving = await gate.entrance.provider.leave(wanted, redirect_uri=_callback(request))
        except RankwardError as error:
            return page(request, wanted=wanted, error=error, status=503)
        answer = RedirectResponse(address, 303)
        kept = urlsafe_b64encode(msgspec.json.encode(leaving)).decode()
        answer.set_cookie(
            _LEAVING,
            kept,
            max_age=_AWAY_S,
            path="/portal/sign-in",
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
        )
        return answer

    async def arrive(request: Request) -> Response:
        query = request.query_params
        try:
            leaving = _left(request)
            if gate.entrance.provider is None or "error" in query:
                said = query.get("error_description") or query.get("error", "there is no provider")
                raise Unauthorized(f"the identity provider refused the sign-in: {said[:200]}")
            person = await gate.entrance.provider.arrive(
                leaving,
                state=query.get("state", ""),
                code=query.get("code", ""),
                redirect_uri=_callback(request),
            )
        except RankwardError as error:
            return page(request, wanted="/portal/", error=error, status=403 if isinstance(error, CallerError) else 503)
        answer = RedirectResponse(_within(leaving.wanted), 303)
        answer.delete_cookie(_LEAVING, path="/portal/sign-in", httponly=True, samesite="lax")
        gate.admit_person(person, request, answer)
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
        Route("/sign-in/leave", leave),
        Route("/sign-in/arrive", arrive),
        Route("/sign-out", sign_out, methods=["POST"]),
    ]


def _callback(request: Request) -> str:
    """Where the provider sends people back to."""
    return f"{request.url.scheme}://{request.url.netloc}/portal/sign-in/arrive"


def _left(request: Request) -> Leaving:
    """Read what was remembered of somebody when they left.

    Raises:
        Unauthorized: nothing was, or too long ago.
    """
    try:
        return msgspec.json.decode(urlsafe_b64decode(request.cookies.get(_LEAVING, "")), type=Leaving)
    except (ValueError, msgspec.DecodeError):
        raise Unauthorized("the sign-in took too long, or was begun in another browser: begin again") from None


async def _form(request: Request) -> dict[str, str]:
    body = await read_body(request.headers.raw, request.receive, _BODY_BYTES)
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True))
    except UnicodeDecodeError as error:
        raise InvalidRequest("the form is not text in UTF-8") from error


def _within(path: str) -> str:
    """Where to go after signing in: a page of the portal, whatever somebody wrote into the link."""
    return path if path.startswith("/portal/") and "\\" not in path and "\n" not in path else "/portal/"
