"""A proxy before the service: whose word is taken for the visitor's address, and for who they are."""

from __future__ import annotations

from typing import Any

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

BY_PROXY = "rankward.by_proxy"
"""In an ASGI scope: whether a proxy that is trusted sent the request."""


class BehindProxy:
    """Takes the visitor's address and scheme from the headers of trusted proxies, and notes that one sent a request."""

    def __init__(self, app: Any, trusted: str) -> None:
        """Wrap an application.

        Args:
            app: ASGI.
            trusted: addresses or networks, with commas.
        """
        self._app = ProxyHeadersMiddleware(app, trusted)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        client = scope.get("client")
        scope[BY_PROXY] = client is not None and client[0] in self._app.trusted_hosts
        await self._app(scope, receive, send)
