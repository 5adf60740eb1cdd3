"""`rankward challenger`: policies that learn beside the one that serves, and how they stand against it."""

from typing import Annotated

import msgspec
import typer
from rich.text import Text

from rankward.administration.challengers import ChallengerView
from rankward.administration.loops import LoopView
from rankward.administration.tuning import PolicyChoice
from rankward.cli.access import AdminEndpointOption, AdminKeyOption
from rankward.cli.remote import Administrator
from rankward.cli.terminal import (
    DATA,
    DataOption,
    JsonOption,
    LoopArgument,
    OneLineErrors,
    YesOption,
    administer,
    out,
    table,
)
from rankward.errors import InvalidRequest, NotFound
from rankward.evaluation.report import Verdict
from rankward.vw.presets import PRESETS

app = typer.Typer(
    cls=OneLineErrors,
    help="Challengers: policies that learn beside the one that serves.",
    no_args_is_help=True,
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Of the challenger.")]
_COLOURS = {Verdict.BETTER: "green", Verdict.WORSE: "red"}


@app.command("add", context_settings={"ignore_unknown_options": True})
def add(
    loop: LoopArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="For the challenger: 1 to 64 of a-z, 0-9, - and _.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="ARGUMENTS", help="The learner's, as in --cb_explore_adf --epsilon 0.1 -q ::"),
    ] = None,
    preset: Annotated[str | None, typer.Option(help=f"One of {', '.join(PRESETS)}, instead of arguments.")] = None,
    data: DataOption = DATA,
    endpoint: AdminEndpointOption = None,
    key: AdminKeyOption = None,
) -> None:
    """Let a policy learn beside the one that serves: up to five for each loop."""
    choice = PolicyChoice(arguments=" ".join(arguments or ()) or None, preset=preset)
    added = administer(data, endpoint, key, lambda admin: admin.challengers.add(loop, name, choice))
    out().print(
        f"{added.name} learns beside loop {loop}, from the newest part of its log on: {added.policy}", markup=False
    )
    out().print(f"It is judged by decisions from now on: `rankward challenger list {loop}` shows it.", markup=False)


@app.command("list")
def list_challengers(
    loop: LoopArgument,
    data: DataOption = DATA,
    endpoint: AdminEndpointOption = None,
    key: AdminKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """List a loop's challengers with how they stand, oldest first. Their intervals hold however often you look."""
    found = administer(data, endpoint, key, lambda admin: admin.challengers.listed(loop))
    if as_json:
        typer.echo(msgspec.json.encode(found))
        return
    if not found:
        out().print(f"Loop {loop} has no challengers: `rankward challenger add` makes one.", markup=False)
        return
    made = table(
        *("challenger", "decisions", "reward", "served", "ahead", "95 % at any time", "verdict", "policy"),
        right=("decisions", "reward", "served", "ahead"),
    )
    for each in found:
        made.add_row(
            Text(each.name, style="bold"),
            f"{each.decisions:,}",
            _figure(each.reward),
            _figure(each.reward_served),
            _figure(each.ahead, sign="+"),
            _interval(each),
            Text(each.verdict, style=_COLOURS.get(Verdict(each.verdict), "")),
            each.policy,
        )
    out().print(made)
    for each in found:
        for remark in _remarks(each):
            out().print(f"{each.name}: {remark}", markup=False)


def _figure(value: float | None, *, sign: str = "") -> str:
    return "—" if value is None else f"{value:{sign}.4f}"


def _interval(view: ChallengerView) -> str:
    if view.ahead_low is None or view.ahead_high is None:
        return "—"
    return f"{view.ahead_low:+.4f} … {view.ahead_high:+.4f}"


def _remarks(view: ChallengerView) -> list[str]:
    remarks = [view.description] if view.description else []
    if view.waits:
        remarks.append("it waits until the loop's own training has caught up")
    if view.behind:
        remarks.append(f"behind by {view.behind:,} joined events")
    return remarks


@app.command("remove")
def remove(
    loop: LoopArgument,
    name: NameArgument,
    data: DataOption = DATA,
    endpoint: AdminEndpointOption = None,
    key: AdminKeyOption = None,
) -> None:
    """Remove a challenger with what it has learned."""
    administer(data, endpoint, key, lambda admin: admin.challengers.remove(loop, name))
    out().print(f"{name} is gone.", markup=False)


@app.command("promote")
def promote(
    loop: LoopArgument,
    name: NameArgument,
    data: DataOption = DATA,
    endpoint: AdminEndpointOption = None,
    key: AdminKeyOption = None,
    yes: YesOption = False,
) -> None:
    """Make a challenger's policy, and what it has learned, the loop's own. It serves at once."""

    async def find(admin: Administrator) -> ChallengerView:
        for each in await admin.challengers.listed(loop):
            if each.name == name:
                return each
        raise NotFound(f"loop {loop} has no challenger {name!r}: `rankward challenger list {loop}` names those it has")

    async def change(admin: Administrator) -> LoopView:
        return await admin.challengers.promote(loop, name)

    view = administer(data, endpoint, key, find)
    if view.verdict != Verdict.BETTER and not yes:
        raise InvalidRequest(
            f"{name} is not better beyond doubt ({view.verdict}: {_interval(view)}, {view.decisions:,} decisions): "
            "wait, or say --yes",
            target="yes",
        )
    changed = administer(data, endpoint, key, change)
    out().print(f"Model {changed.model_id} serves now, and learning goes on from it: {changed.policy}", markup=False)
