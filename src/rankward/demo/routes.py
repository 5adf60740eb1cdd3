"""The demo over HTTP: its page, what that is made of, and what it asks for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Any

import msgspec
from jinja2 import Environment, PackageLoader, select_autoescape
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from rankward import __version__
from rankward.api import errors
from rankward.api.app import read_body
from rankward.api.operation import V2022
from rankward.api.schema.body import decode
from rankward.demo.newsroom import LOOP, REWARD_WAIT_S, Newsroom, Opinion, Scene
from rankward.demo.stories import STORIES, Topic
from rankward.demo.world import Reader
from rankward.errors import InvalidRequest, RankwardError

_BODY_BYTES = 4_096
_SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def demo_routes(newsroom: Newsroom) -> list[BaseRoute]:
    """Make what is served under `/demo`."""
    templates = Environment(
        loader=PackageLoader("rankward.demo"), autoescape=select_autoescape(default=True), trim_blocks=True
    )

    async def page(request: Request) -> Response:
        shown = templates.get_template("demo.html").render(
            version=__version__,
            topics=list(Topic),
            wait_s=REWARD_WAIT_S,
            origin=str(request.base_url).rstrip("/"),
            portal=f"/portal/loops/{LOOP}",
        )
        return HTMLResponse(shown, headers=_SECURITY_HEADERS)

    async def stories(_: Request) -> Response:
        return Response(msgspec.json.encode(STORIES), 200, _SECURITY_HEADERS, "application/json")

    def asks(path: str, kind: Any, handle: Callable[[Any], Awaitable[Any]]) -> Route:
        """Serve something that the page asks for by JSON; None is answered as 204."""
        decoder = msgspec.json.Decoder(kind)

        async def answer(request: Request) -> Response:
            try:
                # No form of another site can send this type, and no script of another site may.
                if request.headers.get("content-type") != "application/json":
                    raise InvalidRequest("send Content-Type: application/json")
                body = await read_body(request.headers.raw, request.receive, _BODY_BYTES)
                answered = await handle(decode(decoder, body, code="InvalidRequest"))
            except RankwardError as error:
                refused = errors.answer(error, V2022)
                return Response(refused.body, refused.status, _SECURITY_HEADERS, "application/json")
            if answered is None:
                return Response(status_code=204, headers=_SECURITY_HEADERS)
            return Response(msgspec.json.encode(answered), 200, _SECURITY_HEADERS, "application/json")

        return Route(path, answer, methods=["POST"])

    async def take(opinion: Opinion) -> None:
        newsroom.take(opinion)

    async def start_over(_: Any) -> None:
        await newsroom.start_over()

    async def view(reader: Reader) -> Any:
        return newsroom.view(reader)

    static = StaticFiles(directory=str(resources.files("rankward.demo") / "static"))
    return [
        Route("/demo", page),
        Route("/demo/stories", stories),
        asks("/demo/page", Reader, newsroom.front_page),
        asks("/demo/opinion", Opinion, take),
        asks("/demo/view", Reader, view),
        asks("/demo/scene", Scene, newsroom.set_scene),
        asks("/demo/start-over", dict[str, str], start_over),
        Mount("/demo/static", static),
    ]
