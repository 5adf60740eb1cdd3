"""What is not the contract: health, metrics, documentation, and the portal."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from rankward import __version__
from rankward.api import errors
from rankward.api.admin import admin_routes
from rankward.api.openapi import contract_path, document
from rankward.api.operation import ALL
from rankward.api.operations import OPERATIONS
from rankward.api.service import Doors
from rankward.telemetry import LoopCollector, exposition

_SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def _shown_paths() -> set[str]:
    """Every operation's path in the first version that has it: what is shown for one holds for the others."""
    return {contract_path(op, op.versions[0]) for op in OPERATIONS}


def _groups(paths: Iterable[str]) -> list[tuple[str, list[str]]]:
    """Sort the paths that are shown by whom they are for."""
    shown = _shown_paths()
    groups: dict[str, list[str]] = {"Personalizer's contract": [], "Administration": [], "The service": []}
    contract, administration, service = groups.values()
    for path in paths:
        if path.startswith("/personalizer/"):
            contract += [path] * (path in shown)
        else:
            (administration if path.startswith("/admin") else service).append(path)
    return list(groups.items())


def pages(doors: Doors, more: Sequence[BaseRoute] = ()) -> Starlette:
    """Make the application behind the contract.

    Args:
        doors: what the pages tell of.
        more: what else is served.
    """
    templates = Environment(
        loader=PackageLoader("rankward.portal"), autoescape=select_autoescape(default=True), trim_blocks=True
    )
    collector = LoopCollector(doors.home.catalog, doors.home.board.read, doors.home.clock, doors.home.standing)
    openapi = document()
    groups = _groups(openapi["paths"])

    def page(name: str, **values: Any) -> HTMLResponse:
        return HTMLResponse(
            templates.get_template(name).render(version=__version__, **values), headers=_SECURITY_HEADERS
        )

    async def to_portal(_: Request) -> Response:
        return RedirectResponse("/portal/", 307)

    async def to_start(_: Request) -> Response:
        return RedirectResponse("/portal/start", 307)

    async def docs(_: Request) -> Response:
        return page("docs.html", openapi=openapi, versions=ALL, groups=groups)

    async def openapi_json(_: Request) -> Response:
        return JSONResponse(openapi)

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("alive\n")

    async def readyz(_: Request) -> Response:
        return PlainTextResponse("ready\n") if doors.ready else PlainTextResponse("starting\n", status_code=503)

    async def metrics(_: Request) -> Response:
        text = await asyncio.to_thread(exposition, collector)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException), "only what was registered for arrives here"
        answer = errors.gateway(error.status_code, f"there is nothing here: {error.detail}")
        headers = {"Content-Type": "application/json; charset=utf-8", **(error.headers or {})}
        return Response(answer.body, answer.status, headers=headers)

    static = StaticFiles(directory=str(resources.files("rankward.portal") / "static"))
    return Starlette(
        routes=[
            Route("/", to_portal),
            Route("/start", to_start),
            Route("/docs", docs),
            Route("/openapi.json", openapi_json),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
            *admin_routes(doors),
            Mount("/static", static),
            *more,
        ],
        exception_handlers={HTTPException: refused},
    )
