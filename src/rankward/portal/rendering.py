"""Turns templates into answers: nothing is rendered unescaped, and nothing is loaded from elsewhere."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

from rankward import __version__
from rankward.doctor.words import in_full, span
from rankward.invocation import DATA, command, data_option
from rankward.portal.gate import csrf_token
from rankward.portal.navigation import OF_A_LOOP, OF_ALL
from rankward.portal.sparkline import sparkline
from rankward.records import TimeUs
from rankward.settings import as_datetime
from rankward.store.sessions import Role, Session

STATIC = Path(str(resources.files("rankward.portal") / "static"))

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_CALL = re.compile("rankward [a-z]")
_THEMES = frozenset({"light", "dark"})


class Assets(StaticFiles):
    """What pages load, under an address that changes with the content: it is fetched once, and then kept."""

    def __init__(self) -> None:
        super().__init__(directory=STATIC)
        digest = hashlib.sha256()
        for path in sorted(STATIC.rglob("*")):
            if path.is_file():
                digest.update(path.relative_to(STATIC).as_posix().encode() + b"\0" + path.read_bytes())
        self.base = f"/static/{digest.hexdigest()[:16]}"  # below /portal; with all modules, which name each other

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """See `StaticFiles.file_response`."""
        answer = super().file_response(*args, **kwargs)
        answer.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        answer.headers["X-Content-Type-Options"] = "nosniff"
        return answer


class Renderer:
    """The templates, with what all of them are given."""

    def __init__(self, assets: Assets, data: Path) -> None:
        """Prepare.

        Args:
            assets: what pages load.
            data: the data folder of the service.
        """
        self._data = data
        self._templates = Environment(
            loader=PackageLoader("rankward.portal"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= {"moment": moment, "grouped": grouped, "prose": prose, "in_full": in_full}
        self._templates.globals |= {
            "version": __version__,
            "asset": lambda name: f"/portal{assets.base}/{name}",
            "of_a_loop": OF_A_LOOP,
            "of_all": OF_ALL,
            "sparkline": sparkline,
            "Role": Role,
            "command": command(),
            "counted": counted,
            "span": span,
        }

    def page(self, template: str, request: Request, *, status: int = 200, **values: Any) -> Response:
        """Render a template of templates/portal.

        Args:
            template: its name, without folder and ending.
            request: that is answered.
            status: of the answer.
            values: for the template, beside those that all have: `request`, `theme`, `csrf`, `visit`, `session`,
                `notice`, `menu_loop`, `data_option`.
        """
        theme = request.cookies.get("rankward_theme", "")
        common = {"visit": None, "session": None, "notice": None, "menu_loop": None, "status": status}
        given: dict[str, Any] = common | values
        text = self._templates.get_template(f"portal/{template}.html").render(
            request=request,
            theme=theme if theme in _THEMES else "",
            csrf=csrf_token(request),
            data_option=self._data_option(given["session"]),
            **given,
        )
        return HTMLResponse(text, status, headers=_HEADERS)

    def _data_option(self, session: Session | None) -> str:
        """Write the option that commands need: where the folder lies is told to admins alone."""
        if session is not None and session.admin:
            return data_option(self._data)
        return "" if self._data == DATA else " --data DIR"


def moment(time_us: TimeUs) -> Markup:
    """Write a moment; the page's script turns it into the reader's own time."""
    time = as_datetime(time_us).astimezone(UTC)
    return Markup('<time datetime="{}">{}</time>').format(
        time.isoformat(timespec="seconds"), f"{time:%Y-%m-%d %H:%M:%S} UTC"
    )


def prose(text: str) -> Markup:
    """Write a sentence whose `words in backticks` are code, and whose commands are called as they are here."""
    called = command()
    parts = [
        escape(part)
        if index % 2 == 0
        else Markup("<code>{}</code>").format(part.replace("rankward ", f"{called} ", 1) if _CALL.match(part) else part)
        for index, part in enumerate(text.split("`"))
    ]
    return Markup("").join(parts)


def counted(number: int, one: str) -> str:
    """Write a number with what it counts, in the plural where it takes one."""
    return f"{grouped(number)} {one if number == 1 else one + 's'}"


def grouped(number: float) -> str:
    """Write a number with its thousands apart."""
    return f"{number:,}".replace(",", "\u202f")
