"""`rankward forget`: events are taken out of a loop's logs."""

from typing import Annotated

import msgspec
import typer

from rankward.administration.events import ToForget
from rankward.cli.access import AdminEndpointOption, AdminKeyOption
from rankward.cli.terminal import DATA, DataOption, JsonOption, LoopArgument, YesOption, administer, out


def forget(
    loop: LoopArgument,
    event_ids: Annotated[
        list[str] | None, typer.Argument(metavar="[EVENT_ID…]", help="Of the events.", show_default=False)
    ] = None,
    subject: Annotated[str | None, typer.Option(help="All events of this subject.", show_default=False)] = None,
    data: DataOption = DATA,
    endpoint: AdminEndpointOption = None,
    key: AdminKeyOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Erase events from the logs of a loop: decisions, rewards, activations. The service may run.

    What was learned from them stays learned, until a new epoch learns the log without them. Backups and mirrors made
    before are not reached; from the archive, they are taken within a minute.
    """
    wanted = ToForget(event_ids=event_ids or [], subject=subject)
    if not yes and (wanted.event_ids or subject):
        whose = f"of the subject {subject}" if subject else f"({len(wanted.event_ids)})"
        typer.confirm(f"Erase the events {whose} from the loop {loop} for good?", abort=True)
    done = administer(data, endpoint, key, lambda admin: admin.events.forget(loop, wanted))
    if as_json:
        typer.echo(msgspec.json.encode(done))
        return
    out().print(f"{done.events:,} events are erased, {done.records:,} records in all.", markup=False)
