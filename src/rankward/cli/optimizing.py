"""`rankward optimize`: search a loop's log for a better policy, and apply it if it is better beyond doubt."""

from typing import Annotated

import msgspec
import typer
from rich.text import Text

from rankward.cli.access import AdminEndpointOption, AdminKeyOption
from rankward.cli.terminal import DATA, DataOption, JsonOption, LoopArgument, administer, out, table, when
from rankward.errors import InvalidRequest
from rankward.optimization.view import NewOptimization, OptimizationHistory, OptimizationView
from rankward.store.optimizations import OptimizationState, Watched

_COLOURS = {
    OptimizationState.CONFIRMED: "green",
    OptimizationState.WATCHING: "cyan",
    OptimizationState.SEARCHING: "cyan",
    OptimizationState.ROLLED_BACK: "red",
    OptimizationState.FAILED: "red",
    OptimizationState.REFUSED: "yellow",
    OptimizationState.SKIPPED: "yellow",
}


def optimize(
    loop: LoopArgument,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Do all but apply what is found.")] = False,
    history: Annotated[
        bool, typer.Option("--history", help="Show the runs so far, and when the next one is due, instead.")
    ] = False,
    run: Annotated[
        str | None,
        typer.Option("--run", metavar="ID", help="Show one of them, with all that happened.", show_default=False),
    ] = None,
    data: DataOption = DATA,
    endpoint: AdminEndpointOption = None,
    key: AdminKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search a loop's log for a better policy now, in the background, as automatic optimization does on its schedule.

    One that is better beyond doubt is applied, watched, and rolled back if it turns out worse. It needs a running
    service.
    """
    if (dry_run and history) or (run is not None and (dry_run or history)):
        raise InvalidRequest(
            "--dry-run, --history and --run do not go together: the first begins a run, the others show"
        )
    if history:
        found = administer(data, endpoint, key, lambda admin: admin.optimizations.history(loop))
        if as_json:
            typer.echo(msgspec.json.encode(found))
        else:
            _show_history(loop, found)
        return
    shown = administer(
        data,
        endpoint,
        key,
        lambda admin: (
            admin.optimizations.begin(loop, NewOptimization(dry_run=dry_run))
            if run is None
            else admin.optimizations.show(loop, run)
        ),
    )
    if as_json:
        typer.echo(msgspec.json.encode(shown))
    elif run is not None:
        _show_run(shown)
    else:
        out().print(
            f"Begun: the log is searched in the background. `rankward optimize {loop} --run {shown.optimization_id}` "
            "says what comes of it.",
            markup=False,
        )


def _show_history(loop: str, found: OptimizationHistory) -> None:
    if found.next_us is None:
        out().print(
            f"Automatic optimization is off: `rankward settings set {loop} is_auto_optimization_enabled=true`.",
            markup=False,
        )
    else:
        out().print(f"The next optimization is due at {when(found.next_us)}.", markup=False)
    if found.obstacle is not None:
        out().print(Text(f"It could not be begun now: {found.obstacle}.", style="yellow"))
    if not found.runs:
        out().print("There was none so far.")
        return
    made = table("run", "begun", "by", "state", "why")
    for each in found.runs:
        made.add_row(
            each.optimization_id,
            when(each.created_us),
            "schedule" if each.due_us is not None else "hand",
            Text(each.state, style=_COLOURS.get(each.state, "")),
            each.why,
        )
    out().print(made)


def _show_run(run: OptimizationView) -> None:
    made = table("", "")
    rows = [
        ("run", run.optimization_id + (", dry" if run.dry_run else "")),
        ("state", f"{run.state}: {run.why}" if run.why else str(run.state)),
        ("decisions from", f"{when(run.start_us)} to {when(run.end_us)}, {run.judged:,} of them judge"),
        ("evaluation", run.evaluation_id or "none"),
        ("tried", f"{run.tried} policies, drawn with seed {run.seed}" if run.tried else "nothing"),
    ]
    if run.replaced is not None:
        rows.append(("applied", f"{when(run.applied_us or 0)}, {run.policy}"))
        rows.append(("replaced", f"model {run.replaced.model_id}, {run.replaced.policy}"))
    if run.watched is not None:
        rows.append(("since then", _watched(run.watched)))
    for name, text in rows:
        made.add_row(Text(name, style="dim"), Text(text))
    out().print(made)
    if run.finalists:
        out().print()
        finalists = table("finalist", "difference", "at least", "at most", "verdict", "policy")
        for each in run.finalists:
            finalists.add_row(
                Text(each.name, style="bold" if each.name == run.promoted else ""),
                *("—" if figure is None else f"{figure:+.4g}" for figure in (each.difference, each.low, each.high)),
                each.verdict,
                each.arguments,
            )
        out().print(finalists)
    out().print()
    steps = table("when", "what")
    for step in run.steps:
        steps.add_row(when(step.time_us), step.what)
    out().print(steps)


def _watched(watched: Watched) -> str:
    if watched.difference is None:
        return f"no decision compares them yet; watched until {when(watched.until_us)}"
    return (
        f"{watched.difference:+.4g} a decision, {watched.low:+.4g} to {watched.high:+.4g}, over {watched.events:,} "
        f"decisions; watched until {when(watched.until_us)}"
    )
