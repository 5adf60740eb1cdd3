"""`rankward copy`: from an embedded installation into a cluster, and back."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from rankward.cli.bundles import unbundled
from rankward.cli.nodes import Servers, find_cluster, require_package
from rankward.cli.terminal import err, out, table
from rankward.errors import InvalidRequest, StoreUnavailable

_SCHEMES = ("nats://", "tls://")


@unbundled
def copy(
    source: Annotated[str, typer.Option("--from", metavar="DIR|URL[,URL]", help="Data folder, or JetStream servers.")],
    target: Annotated[str, typer.Option("--to", metavar="URL[,URL]|DIR", help="The other of the two.")],
    loops: Annotated[
        list[str] | None,
        typer.Option("--loop", metavar="NAME", help="Copy this loop; may be given several times. Default: all."),
    ] = None,
    *,
    servers: Servers,
) -> None:
    """Copy loops from a data folder into a cluster, or from a cluster into a data folder.

    Loops go over with their keys, settings, logs, models, studies and audit trail. A copy that was cut off goes on when
    it is run again, and shows nothing before it is whole. In the end, what both sides hold is compared.
    Nobody may serve the data folder meanwhile; a cluster may run, and what it takes in later is not in the copy.
    """
    into = _is_cluster(target)
    if into == _is_cluster(source):
        raise InvalidRequest("name a data folder and JetStream servers: --from DIR --to nats://HOST:4222, or back")
    require_package()
    from rankward.moving import copy_in, copy_out  # noqa: PLC0415  # an embedded installation does without

    with err().status("Looking for the cluster") as status:
        options = find_cluster(target if into else source, servers)
        if into:
            copied = copy_in(Path(source), options, names=loops or (), tell=status.update)
        else:
            copied = copy_out(options, Path(target), names=loops or (), tell=status.update)
    numbers = ("entries", "joined", "models", "rows")
    listed = table("loop", *numbers, "digest", "both sides", right=numbers)
    for loop in copied:
        if loop.source is None:
            listed.add_row(loop.name, *[""] * len(numbers), "", "was there already")
        else:
            held = [getattr(loop.source, name) for name in numbers]
            same = Text("the same", style="green") if loop.same else Text("differ", style="red")
            listed.add_row(loop.name, *[f"{each.count:,}" for each in held], held[0].digest[:12], same)
    out().print(listed)
    if not all(loop.same for loop in copied):
        raise StoreUnavailable("what arrived is not what was sent: do not rely on it, and report this")
    if into:
        kept = f"The keys in {source}/keys.toml open the loops there, too. They are written down nowhere else."
        out().print(kept, markup=False, soft_wrap=True)
    else:
        out().print(f"{target} is ready: rankward serve --data {target}", markup=False, soft_wrap=True)


def _is_cluster(place: str) -> bool:
    return place.startswith(_SCHEMES)
