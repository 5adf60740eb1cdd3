"""`rankward serve`: everything on one machine; and `rankward api`: of a cluster's node, what answers HTTP."""

import logging
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
import typer
from rich.text import Text

from rankward import __version__, supervisor
from rankward.api.identity import IdentityProvider
from rankward.api.options import ApiOptions
from rankward.cli.archives import ArchiveOption, settle_archive
from rankward.cli.bundles import unbundled
from rankward.cli.nodes import WAIT_S, NatsOption, Servers, WaitOption, make_node, require_node
from rankward.cli.terminal import DATA, DataOption, out, table
from rankward.doctor.words import in_full
from rankward.invocation import command, data_option
from rankward.ranking.features import FeatureBounds
from rankward.settings import Limits, bounds_in, check_limits
from rankward.wiring import Home

API = "api"
"""The command that is this one without a worker, for the node of a cluster."""
API_HELP = """Answer HTTP for a cluster, until Ctrl-C: learning is left to `rankward worker`, on this or other machines.

Any number of them may stand behind a load balancer. The data folder is this node's alone, and may be empty at first.
"""
_OPTIONS = ApiOptions()
_LIMITS = Limits()
_BOUNDS = FeatureBounds()
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104


def _limit(name: str, help_text: str) -> Any:
    return typer.Option(
        f"--limit-{name.replace('_', '-')}",
        envvar=f"RANKWARD_LIMIT_{name.upper()}",
        help=help_text,
        min=1,
        rich_help_panel="Limits of one request",
    )


class DoorOptions(NamedTuple):
    """How HTTP is answered, and whom others vouch for: see `ApiOptions`."""

    tls_cert: Annotated[
        str | None, typer.Option(envvar="RANKWARD_TLS_CERT", metavar="FILE", help="Certificate (chain), PEM.")
    ] = None
    tls_key: Annotated[
        str | None, typer.Option(envvar="RANKWARD_TLS_KEY", metavar="FILE", help="Its private key, PEM.")
    ] = None
    trusted_proxies: Annotated[
        str | None,
        typer.Option(
            envvar="RANKWARD_TRUSTED_PROXIES",
            metavar="ADDRESSES",
            help="Whose forwarding headers are believed: addresses or networks, with commas.",
        ),
    ] = None
    oidc_issuer: Annotated[
        str | None,
        typer.Option(
            envvar="RANKWARD_OIDC_ISSUER",
            metavar="URL",
            help="An identity provider (OpenID Connect) whose tokens are accepted as `Authorization: Bearer`.",
        ),
    ] = None
    oidc_audience: Annotated[
        str, typer.Option(envvar="RANKWARD_OIDC_AUDIENCE", help="The audience that its tokens must be for.")
    ] = ""
    oidc_claim: Annotated[
        str,
        typer.Option(
            envvar="RANKWARD_OIDC_CLAIM", help="The claim that lists what a token opens: loop:NAME, loop:*, admin."
        ),
    ] = "roles"
    oidc_client_id: Annotated[
        str | None,
        typer.Option(
            envvar="RANKWARD_OIDC_CLIENT_ID",
            help="By which the provider knows the portal: people then sign in through it. The secret, if there is one, "
            "is in RANKWARD_OIDC_CLIENT_SECRET.",
        ),
    ] = None
    proxy_user_header: Annotated[
        str | None,
        typer.Option(
            envvar="RANKWARD_PROXY_USER_HEADER",
            metavar="HEADER",
            help="In which a trusted proxy says who uses the portal: it must remove what others send under this name.",
        ),
    ] = None
    proxy_grants_header: Annotated[
        str,
        typer.Option(
            envvar="RANKWARD_PROXY_GRANTS_HEADER",
            metavar="HEADER",
            help="In which it says what they are granted: view:NAME, view:*, loop:NAME, loop:*, admin.",
        ),
    ] = _OPTIONS.proxy_grants_header
    request_log: Annotated[
        str,
        typer.Option(
            envvar="RANKWARD_REQUEST_LOG",
            metavar="file|stdout|off",
            help="Where a line for each request goes; `file` is DATA/run/requests-N.jsonl.",
        ),
    ] = "file"


class LimitOptions(NamedTuple):
    """How much one request may be: see `Limits`, which has some that are set by their variables alone."""

    body_bytes: Annotated[int, _limit("body_bytes", "Bytes of a body.")] = _LIMITS.body_bytes
    model_bytes: Annotated[int, _limit("model_bytes", "Bytes of a model that is imported.")] = _LIMITS.model_bytes
    actions: Annotated[int, _limit("actions", "Actions of a Rank.")] = _LIMITS.actions
    id_length: Annotated[int, _limit("id_length", "Characters of an id.")] = _LIMITS.id_length
    pending_appends: Annotated[
        int, _limit("pending_appends", "Records waiting for the disk in one process, before it answers 503.")
    ] = _LIMITS.pending_appends


class BoundOptions(NamedTuple):
    """How much one array of features may hold: see `FeatureBounds`."""

    depth: Annotated[int, _limit("depth", "Levels of features.")] = _BOUNDS.depth
    features: Annotated[int, _limit("features", "Features of one array.")] = _BOUNDS.features
    name_length: Annotated[int, _limit("name_length", "Characters of a name.")] = _BOUNDS.name_length
    string_length: Annotated[int, _limit("string_length", "Characters of a value.")] = _BOUNDS.string_length


@unbundled
def serve(
    context: typer.Context,
    data: DataOption = DATA,
    host: Annotated[str, typer.Option(envvar="RANKWARD_HOST", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar="RANKWARD_PORT", min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8080,
    workers: Annotated[
        int | None,
        typer.Option(
            envvar="RANKWARD_WORKERS", min=1, show_default=False, help="HTTP processes: one for each core, at most 4."
        ),
    ] = None,
    *,
    door: DoorOptions,
    archive: ArchiveOption = None,
    limits: LimitOptions,
    bounds: BoundOptions,
    nats: NatsOption = None,
    servers: Servers,
    nats_wait: WaitOption = WAIT_S,
) -> None:
    """Run the service: HTTP, joining and learning, until Ctrl-C.

    The first start makes the loops `default` and `playground`, with their keys in DATA/keys.toml.
    """
    works = context.command.name != API
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    _check(door)
    options = ApiOptions(
        **door._asdict(),
        limits=msgspec.structs.replace(bounds_in(os.environ, Limits), **limits._asdict()),
        bounds=FeatureBounds(**bounds._asdict()),
    )
    check_limits(options.limits)
    make_node(data, nats, servers, patience_s=nats_wait)
    if not works:
        require_node(data)
    settle_archive(data, archive)
    supervisor.serve(
        data,
        host=host,
        port=port,
        workers=workers or supervisor.default_workers(),
        options=options,
        announce=announcer(data, host, tls=door.tls_cert is not None),
        works=works,
    )


def _check(door: DoorOptions) -> None:
    if door.request_log not in {"file", "stdout", "off"}:
        raise typer.BadParameter("one of file, stdout, off", param_hint="--request-log")
    if door.oidc_issuer is not None:  # refuses what cannot be used
        IdentityProvider(issuer=door.oidc_issuer, audience=door.oidc_audience, claim=door.oidc_claim)
    elif door.oidc_client_id is not None:
        raise typer.BadParameter("name the provider with --oidc-issuer", param_hint="--oidc-client-id")
    if door.proxy_user_header is not None and door.trusted_proxies is None:
        raise typer.BadParameter("name the proxies with --trusted-proxies", param_hint="--proxy-user-header")


def address(host: str, port: int, *, tls: bool = False) -> str:
    """Say where this machine reaches what listens on a host and a port."""
    name = _ANYWHERE.get(host, f"[{host}]" if ":" in host else host)
    return f"{'https' if tls else 'http'}://{name}:{port}"


def announcer(data: Path, host: str, *, tls: bool) -> Callable[[Home, int], None]:
    """Make what says, once the service listens, where it is, how to get in, and what to try first."""

    def announce(home: Home, port: int) -> None:
        endpoint = address(host, port, tls=tls)
        console = out()
        console.print(
            Text.assemble((f"rankward {__version__}", "bold"), " listens on ", (endpoint, "bold cyan")), soft_wrap=True
        )
        if host in _ANYWHERE:
            console.print("It listens on every address of this machine.")
        if not tls and host not in _LOOPBACK:
            console.print(
                Text("Keys travel in the clear: use --tls-cert and --tls-key, or a proxy that does.", style="yellow"),
                soft_wrap=True,
            )
        console.print()
        console.print(_loops(home, with_keys=sys.stdout.isatty()))
        console.print(Text(f"\nKeys lie in {home.folder.keys}", style="dim"), soft_wrap=True)
        for line in _next_steps(data, endpoint, admin_key=bool(home.loops.keys().get("admin"))):
            console.print(line, soft_wrap=True)
        sys.stdout.flush()

    return announce


def _loops(home: Home, *, with_keys: bool) -> Any:
    kept = home.loops.keys()
    keys: dict[str, Any] = kept.get("loops", {})
    made = table("loop", "learns after", "publishes every", *(["key"] if with_keys else []))
    for loop in home.catalog.loops():
        settings = loop.settings
        row = [loop.name, in_full(settings.reward_wait), in_full(settings.model_export_frequency)]
        if with_keys:
            row.append(keys.get(loop.name, {}).get("key1", "as you set it"))
        made.add_row(*row)
    return made


def _next_steps(data: Path, endpoint: str, *, admin_key: bool) -> list[Text]:
    given_data = data_option(data)
    given_endpoint = "" if endpoint == "http://127.0.0.1:8080" else f" --endpoint {endpoint}"
    environment = "" if data == DATA else f"RANKWARD_DATA={shlex.quote(str(data))} "
    called = command()
    steps = {
        "Look around": f"{endpoint}/",
        "  with the admin key": f"{called} loop keys --admin --show{given_data}" if admin_key else "as you set it",
        "See it learn": f"{called} simulate grocery{given_endpoint}{given_data}",
        "From code": f"{environment}python examples/quickstart.py{given_endpoint}",
        "Why is it not learning?": f"{called} doctor{given_data}",
    }
    return [Text.assemble((f"{name:<25}", "dim"), step) for name, step in steps.items()]
