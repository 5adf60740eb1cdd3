"""`rankward`: every command, put together."""

from typing import Annotated

import typer

from rankward import __version__
from rankward.cli import (
    care,
    challengers,
    cluster,
    comparing,
    demonstration,
    evaluation,
    events,
    forgetting,
    logs,
    loops,
    migration,
    models,
    moving,
    nodes,
    optimizing,
    serving,
    simulation,
    tuning,
)
from rankward.cli.terminal import OneLineErrors

app = typer.Typer(
    name="rankward",
    cls=OneLineErrors,
    help="Contextual bandits as a service: rank, reward, learn.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rankward {__version__}")
        raise typer.Exit


@app.callback()
def _rankward(
    _version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Contextual bandits as a service: rank, reward, learn."""


_SERVICE, _LOOPS, _TRAFFIC, _EVALUATION, _CARE = "Service", "Loops", "Traffic", "Evaluation", "Care"

app.command("serve", rich_help_panel=_SERVICE)(serving.serve)
app.command(serving.API, rich_help_panel=_SERVICE, help=serving.API_HELP)(serving.serve)
app.command("worker", rich_help_panel=_SERVICE)(nodes.worker)
app.command("demo", rich_help_panel=_SERVICE)(demonstration.demo)
app.command("cluster", rich_help_panel=_SERVICE)(cluster.cluster)
app.add_typer(loops.app, name="loop", rich_help_panel=_LOOPS)
app.add_typer(tuning.settings_app, name="settings", rich_help_panel=_LOOPS)
app.add_typer(tuning.policy_app, name="policy", rich_help_panel=_LOOPS)
app.add_typer(models.app, name="model", rich_help_panel=_LOOPS)
app.add_typer(challengers.app, name="challenger", rich_help_panel=_LOOPS)
app.add_typer(logs.app, name="logs", rich_help_panel=_LOOPS)
app.add_typer(migration.app, name="migrate", rich_help_panel=_LOOPS)
app.command("rank", rich_help_panel=_TRAFFIC)(events.rank)
# So that -0.5 is taken for a reward, not for an option.
app.command("reward", rich_help_panel=_TRAFFIC, context_settings={"ignore_unknown_options": True})(events.reward)
app.command("tail", rich_help_panel=_TRAFFIC)(events.tail)
app.command("simulate", rich_help_panel=_TRAFFIC)(simulation.simulate)
app.command("compare", rich_help_panel=_EVALUATION)(comparing.compare)
app.command("evaluate", rich_help_panel=_EVALUATION)(evaluation.evaluate)
app.command("optimize", rich_help_panel=_EVALUATION)(optimizing.optimize)
app.command("doctor", rich_help_panel=_CARE)(care.doctor)
app.command("forget", rich_help_panel=_CARE)(forgetting.forget)
app.command("backup", rich_help_panel=_CARE)(care.backup)
app.command("restore", rich_help_panel=_CARE)(care.restore)
app.command("copy", rich_help_panel=_CARE)(moving.copy)


def main() -> None:
    """Run `rankward`."""
    app()
