"""What makes a data folder a node of a cluster, for the commands that run one; and `rankward worker`."""

import importlib.util
import logging
import secrets
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import msgspec
import typer

from rankward import __version__, supervisor
from rankward.cli.archives import ArchiveOption, settle_archive
from rankward.cli.bundles import unbundled
from rankward.cli.terminal import DATA, DataOption, out
from rankward.errors import Conflict, InvalidRequest, StoreUnavailable
from rankward.wiring import Home

if TYPE_CHECKING:
    from rankward.store.nats.broker import BrokerOptions

_PANEL = "Many machines"
_REPLICAS = 3
_NAME_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")

NatsOption = Annotated[
    str | None,
    typer.Option(
        "--nats",
        envvar="RANKWARD_NATS",
        metavar="URL[,URL]",
        help="Be a node of a cluster, on these JetStream servers: nats://HOST:4222, tls://… A folder remembers them.",
        rich_help_panel=_PANEL,
    ),
]
WaitOption = Annotated[
    float,
    typer.Option(
        "--nats-wait",
        envvar="RANKWARD_NATS_WAIT",
        metavar="SECONDS",
        min=0,
        help="How long to wait at the start for servers that do not answer yet.",
        rich_help_panel=_PANEL,
    ),
]
WAIT_S = 120.0


class Servers(NamedTuple):
    """How the servers of a cluster are spoken with, as a command is told."""

    prefix: Annotated[
        str,
        typer.Option(
            "--nats-prefix",
            envvar="RANKWARD_NATS_PREFIX",
            help="Of all streams, buckets and subjects: one for each installation on the servers.",
            rich_help_panel=_PANEL,
        ),
    ] = "rankward"
    replicas: Annotated[
        int | None,
        typer.Option(
            "--replicas",
            envvar="RANKWARD_REPLICAS",
            min=1,
            max=5,
            show_default=False,
            help="On how many servers each stream is kept: 3 where there are three or more, else 1.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    credentials: Annotated[
        str | None,
        typer.Option(
            "--nats-credentials",
            envvar="RANKWARD_NATS_CREDENTIALS",
            metavar="FILE",
            help="Credentials for the servers.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    ca: Annotated[
        str | None,
        typer.Option(
            "--nats-ca",
            envvar="RANKWARD_NATS_CA",
            metavar="FILE",
            help="Certificate of whoever signed the servers', PEM.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    accept_lazy_flush: Annotated[
        bool,
        typer.Option(
            "--accept-lazy-flush",
            envvar="RANKWARD_ACCEPT_LAZY_FLUSH",
            help="Accept servers that keep what they have acknowledged in memory for a while: a power failure loses "
            "it.",
            rich_help_panel=_PANEL,
        ),
    ] = False


@unbundled
def worker(
    data: DataOption = DATA,
    nats: NatsOption = None,
    *,
    servers: Servers,
    nats_wait: WaitOption = WAIT_S,
    archive: ArchiveOption = None,
) -> None:
    """Run a worker of a cluster, until Ctrl-C: it joins, trains and evaluates for its share of the loops.

    Any number of them share the loops. The data folder is this node's alone, and may be empty at first.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    make_node(data, nats, servers, patience_s=nats_wait)
    require_node(data)
    settle_archive(data, archive)
    supervisor.work(data, announce=_announce)


def _announce(home: Home) -> None:
    assert home.broker is not None, "the folder is a node's"
    options = home.broker.options
    out().print(f"rankward {__version__} works as node {options.node}, on {', '.join(options.shown)}", soft_wrap=True)


def require_node(data: Path) -> None:
    """Refuse a folder that is not a node's.

    Raises:
        InvalidRequest: it is not.
    """
    if not (data / "node.json").exists():
        raise InvalidRequest("say where the JetStream servers are: --nats nats://HOST:4222, or RANKWARD_NATS")


def make_node(data: Path, nats: str | None, servers: Servers, *, patience_s: float) -> None:
    """Wait for a node's servers, and write down where they are, if that is said: all its processes read it.

    Args:
        data: the folder. If it is no node's, and nothing is said of servers, there is nothing to do.
        nats: where the servers are; None: where they were the last time.
        servers: how they are spoken with.
        patience_s: how long to wait.

    Raises:
        Conflict: the folder is an embedded installation.
        StoreUnavailable: the servers do not answer, or what the connection needs is not installed.
    """
    path = data / "node.json"
    if nats is None and not path.exists():
        return
    require_package()
    from rankward.cluster.waiting import await_servers  # noqa: PLC0415
    from rankward.store.nats.broker import read_options, write_options  # noqa: PLC0415

    before = read_options(path)
    if nats is None:
        assert before is not None, "the file is there"
        await_servers(before, patience_s=patience_s).close()
        return
    if before is None and (data / "catalog.sqlite").exists():
        raise Conflict(
            f"{data} is an embedded installation: give the node an empty folder, and copy the installation into the "
            "cluster with `rankward copy`"
        )
    name = before.node if before is not None and before.node else _new_name()
    options = find_cluster(nats, servers, node=name, patience_s=patience_s)
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_options(path, options)


def require_package() -> None:
    """Make sure that what a connection needs is installed.

    Raises:
        StoreUnavailable: it is not.
    """
    if importlib.util.find_spec("nats") is None:
        raise StoreUnavailable("a package for clusters is missing: pip install 'rankward[nats]'")


def find_cluster(nats: str, servers: Servers, *, node: str = "", patience_s: float = 0.0) -> "BrokerOptions":
    """Try the servers, and say how they are spoken with. The package that the connection needs is installed.

    Args:
        nats: where they are.
        servers: how they are spoken with.
        node: name of the node that asks, if it is one.
        patience_s: how long to wait until they answer.

    Raises:
        StoreUnavailable: the servers do not answer.
    """
    from rankward.cluster.waiting import await_servers  # noqa: PLC0415
    from rankward.store.nats.broker import BrokerOptions  # noqa: PLC0415

    options = BrokerOptions(
        servers=tuple(server.strip() for server in nats.split(",") if server.strip()),
        prefix=servers.prefix,
        credentials=servers.credentials,
        tls_ca=servers.ca,
        accept_lazy_flush=servers.accept_lazy_flush,
        node=node,
    )
    broker = await_servers(options, patience_s=patience_s)
    try:
        count = broker.count_servers()
    finally:
        broker.close()
    return msgspec.structs.replace(options, replicas=servers.replicas or (_REPLICAS if count >= _REPLICAS else 1))


def _new_name() -> str:
    """Make a name for a node that tells people where it runs, and is no other's."""
    host = socket.gethostname().partition(".")[0].lower()
    kept = "".join(letter if letter in _NAME_LETTERS else "-" for letter in host)
    return f"{kept}-{secrets.token_hex(4)}"
