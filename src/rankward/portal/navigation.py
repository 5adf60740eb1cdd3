"""What the portal's menu lists: each page, in the order in which it is shown."""

from __future__ import annotations

import msgspec

from rankward.store.sessions import Role


class Entry(msgspec.Struct, frozen=True):
    """A page in the menu."""

    title: str
    path: str  # below /portal; `{loop}` stands for the loop's name
    icon: str  # of the macro in templates/portal/icons.html
    needs: Role = Role.VIEWER

    def href(self, loop: str | None = None) -> str:
        """Write where it is, for a loop."""
        return "/portal" + (self.path if loop is None else self.path.replace("{loop}", loop))


OF_A_LOOP: tuple[Entry, ...] = (
    Entry("Overview", "/loops/{loop}/overview", "chart"),
    Entry("Decisions", "/loops/{loop}/decisions", "board"),
    Entry("Comparison", "/loops/{loop}/comparison", "versus"),
    Entry("Apprentice", "/loops/{loop}/apprentice", "match"),
    Entry("Configuration", "/loops/{loop}/configuration", "sliders"),
    Entry("Policy and models", "/loops/{loop}/policy", "model"),
    Entry("Evaluations", "/loops/{loop}/evaluations", "scale"),
    Entry("Optimization", "/loops/{loop}/optimizations", "target"),
    Entry("Features", "/loops/{loop}/features", "features"),
    Entry("Quick start", "/loops/{loop}/start", "start"),
    Entry("Logs", "/loops/{loop}/logs", "log"),
    Entry("Keys", "/loops/{loop}/keys", "key"),
)
"""Pages about one loop. The first of them is where a loop's name leads to."""

OF_ALL: tuple[Entry, ...] = (
    Entry("Loops", "/", "loops"),
    Entry("Audit", "/audit", "audit"),
    Entry("About", "/about", "about"),
)
"""Pages about the installation."""
