"""`rankward compare`: is a loop better than what was done before, and what does it cost to find out."""

import msgspec
import typer
from rich.console import Group, RenderableType
from rich.text import Text

from rankward.cli.access import AdminEndpointOption, AdminKeyOption
from rankward.cli.remote import Administrator
from rankward.cli.terminal import DATA, DataOption, JsonOption, MaybeLoopArgument, administer, out, table, when
from rankward.records import LearningMode
from rankward.watching.apprentice import Apprenticeship
from rankward.watching.comparison import LiveComparison, Side, Value
from rankward.watching.exploration import Exploration

_SCREEN = 100  # characters, where it is no terminal


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """All that is told of a loop."""

    loop: str
    learning_mode: LearningMode
    comparison: LiveComparison
    exploration: Exploration
    apprentice: Apprenticeship


def compare(
    loop: MaybeLoopArgument = None,
    data: DataOption = DATA,
    endpoint: AdminEndpointOption = None,
    key: AdminKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether a loop is better than its baseline and than chance, beyond doubt, and what exploring costs.

    The intervals are true at every look together, in all but 5 % of loops: look as often as you like.
    """

    async def ask(admin: Administrator) -> list[Compared]:
        return [
            Compared(
                loop=each.name,
                learning_mode=each.learning_mode,
                comparison=await admin.earnings.comparison(each.name),
                exploration=await admin.earnings.exploration(each.name),
                apprentice=await admin.earnings.apprentice(each.name),
            )
            for each in ([await admin.loops.show(loop)] if loop else await admin.loops.listed())
        ]

    told = administer(data, endpoint, key, ask)
    if as_json:
        typer.echo(msgspec.json.encode(told[0] if loop else told))
        return
    for each in told:
        out(_SCREEN).print(_screen(each), "")


def _screen(told: Compared) -> RenderableType:
    comparison = told.comparison
    since = f"since {when(comparison.since_us)}" if comparison.since_us else "since it was created"
    title = Text.assemble((told.loop, "bold"), f"  {told.learning_mode}, {comparison.events:,} decisions {since}")
    made = table("mean reward", "value", "from", "to", "", right=("value", "from", "to"))
    rows = (
        ("online, what was decided", comparison.online, ""),
        ("baseline, the first action", comparison.baseline, ""),
        ("uniform, by chance", comparison.uniform, ""),
        ("online over baseline", comparison.over_baseline, _said(comparison.against_baseline)),
        ("online over uniform", comparison.over_uniform, _said(comparison.against_uniform)),
        ("baseline, where it was shown", comparison.shown, f"{comparison.shown_events:,} events"),
    )
    for name, value, remark in rows:
        if value is not None:
            made.add_row(Text(name, style="dim"), *_numbers(value), Text(remark))
    parts: list[RenderableType] = [title]
    if made.row_count:
        parts.append(made)
    else:
        parts.append(Text(f"Nothing is joined yet: `rankward doctor {told.loop}` says what it waits for."))
    if told.learning_mode is LearningMode.APPRENTICE:
        parts.append(Text.assemble(("apprentice  ", "dim"), told.apprentice.words))
    if comparison.events:
        parts.append(Text.assemble(("exploring  ", "dim"), told.exploration.words))
    return Group(*parts)


def _numbers(value: Value) -> tuple[str, str, str]:
    return f"{value.value:.4f}", f"{value.low:.4f}", f"{value.high:.4f}"


def _said(side: Side) -> str:
    return {
        Side.ONLINE: "better beyond doubt",
        Side.OTHER: "worse beyond doubt",
        Side.UNDECIDED: "not decided yet",
    }[side]
