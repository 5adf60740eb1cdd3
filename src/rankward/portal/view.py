"""A page of the portal: where it is, who may see it, and what it is given to answer with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from rankward.administration.service import Administration
from rankward.api.service import Doors
from rankward.errors import CallerError, NotFound
from rankward.portal.gate import FORBIDDEN, Gate
from rankward.portal.rendering import Renderer
from rankward.store.audit import Actor, Door
from rankward.store.ports import Loop
from rankward.store.sessions import Role, Session

DOCTOR_AGE_US = 2_000_000
"""How old the doctor's word may be on a page: however many of them are open, he reads no more often."""


class Visit(msgspec.Struct, frozen=True, kw_only=True):
    """A request of somebody who is signed in, and may make it."""

    doors: Doors
    gate: Gate
    renderer: Renderer
    request: Request
    session: Session
    form: Mapping[str, str]  # what was sent; empty: nothing was

    @property
    def loop_name(self) -> str:
        """The loop in the path. There is one of this name, and they may see it."""
        return str(self.request.path_params["loop"])

    @property
    def loop(self) -> Loop:
        """The loop in the path, as it is set now."""
        return self.doors.home.catalog.loop(self.loop_name)

    @property
    def actor(self) -> Actor:
        """Who makes the changes, for the audit trail."""
        return Actor(self.session.who, Door.PORTAL)

    @property
    def administration(self) -> Administration:
        """What changes loops, in the visitor's name."""
        return self.doors.administration.by(self.actor)

    def may(self, role: Role, loop: str | None = None) -> bool:
        """Whether they may do what a role may; in a loop, or if none is named, anywhere."""
        if loop is None:
            return self.session.admin or any(held >= role for held in self.session.loops.values())
        held = self.session.role_in(loop)
        return held is not None and held >= role

    def loops(self) -> list[Loop]:
        """List the loops that they see, by name."""
        return [loop for loop in self.doors.home.catalog.loops() if self.may(Role.VIEWER, loop.name)]

    def page(self, template: str, *, status: int = 200, **values: Any) -> Response:
        """Render a template of templates/portal, whole page or part of one."""
        notice = None if self.is_part else self.gate.sessions.take_notice(self.session.digest)
        return self.renderer.page(
            template,
            self.request,
            status=status,
            visit=self,
            session=self.session,
            notice=notice,
            menu_loop=self.request.path_params.get("loop"),
            **values,
        )

    @property
    def is_part(self) -> bool:
        """Whether a part of a page is asked for, to be put into one that is open."""
        return "hx-request" in self.request.headers

    def redirect(self, path: str, *, notice: str | None = None) -> Response:
        """Lead to another page after a change.

        Args:
            path: from /portal on.
            notice: a sentence that is shown there, once.
        """
        if notice is not None:
            self.gate.sessions.leave_notice(self.session.digest, notice)
        if self.is_part:
            return Response(status_code=204, headers={"HX-Redirect": path})
        return RedirectResponse(path, status_code=303)


class View(msgspec.Struct, frozen=True, kw_only=True):
    """A page, or one change that a page can make."""

    path: str  # below /portal; with `{loop}`, only who may see that loop comes so far
    handle: Callable[[Visit], Awaitable[Response]]
    method: str = "GET"
    needs: Role = Role.VIEWER  # in the loop of the path, or if it has none, anywhere


def check_may(view: View, visit: Visit) -> None:
    """Let through whoever may make a request.

    Raises:
        NotFound: the loop of the path is not there, or they may not see it: which of the two is not said.
        CallerError: they may see it, but not do this.
    """
    loop = visit.request.path_params.get("loop")
    if loop is not None and (
        not visit.may(Role.VIEWER, loop) or loop not in {each.name for each in visit.doors.home.catalog.loops()}
    ):
        raise NotFound(f"there is no loop {loop[:80]!r} that you may see")
    if view.needs is Role.ADMIN and not visit.session.admin:
        raise CallerError("only an admin may do that: sign in with the admin key", code=FORBIDDEN)
    if not visit.may(view.needs, loop):
        raise CallerError(f"you may look, but not do that: it takes the role {view.needs.name.lower()}", code=FORBIDDEN)
