"""How HTTP is answered: the same for every process of an installation."""

from __future__ import annotations

import msgspec

from rankward.ranking.features import FeatureBounds
from rankward.settings import Limits


class ApiOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How the service answers HTTP: the same for each of its processes."""

    tls_cert: str | None = None
    tls_key: str | None = None
    trusted_proxies: str | None = None  # addresses whose forwarding headers are believed; None: nobody's
    oidc_issuer: str | None = None  # an identity provider whose tokens are accepted; None: none's
    oidc_audience: str = ""
    oidc_claim: str = "roles"  # that lists what a token opens
    demo: bool = False  # whether the news site is served too: by one process only, which keeps its crowd
    oidc_client_id: str | None = None  # by which the provider knows the portal; None: nobody signs in through it
    proxy_user_header: str | None = None  # in which a trusted proxy says who somebody is; None: in none
    proxy_grants_header: str = "X-Forwarded-Groups"  # in which it says what is granted to them
    request_log: str = "file"  # "file", "stdout" or "off"
    limits: Limits = Limits()
    bounds: FeatureBounds = FeatureBounds()
