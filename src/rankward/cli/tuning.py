"""`rankward settings` and `rankward policy`: what a loop is set to, and what a change does to its model."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.text import Text

from rankward.cli.terminal import (
    DATA,
    DataOption,
    JsonOption,
    LoopArgument,
    MaybeLoopArgument,
    OneLineErrors,
    changes_of,
    home_at,
    out,
    table,
)
from rankward.configuration import Configuration
from rankward.errors import InvalidPolicy, InvalidSettings
from rankward.settings import READ_ONLY, SETTINGS, LoopSettings, parse, show
from rankward.store.ports import Epoch, Loop
from rankward.vw.presets import PRESETS

settings_app = typer.Typer(cls=OneLineErrors, help="Settings of a loop.", no_args_is_help=True)
policy_app = typer.Typer(cls=OneLineErrors, help="The learner's arguments.", no_args_is_help=True)

_EFFECTS = {
    "reward_wait": "It holds for decisions from now on; each keeps the wait it was decided with.",
    "exploration": "Every model serves with it at once; what was learned stays.",
    "model_export_frequency": "It holds from the next model on.",
    "learning_mode": "It holds for decisions from now on; earlier events are learned as they were logged.",
    "log_retention_days": "Older events are removed within a second, once they are joined.",
}


@settings_app.command("show")
def show_settings(loop: MaybeLoopArgument = None, data: DataOption = DATA, as_json: JsonOption = False) -> None:
    """Show settings, of one loop or of all."""
    with home_at(data) as home:
        loops = [home.catalog.loop(loop)] if loop else list(home.catalog.loops())
    if as_json:
        found = {each.name: {name: show(getattr(each.settings, name)) for name in SETTINGS} for each in loops}
        typer.echo(msgspec.json.encode(found[loop] if loop else found))
        return
    made = table("setting", *(each.name for each in loops), *(["what it is"] if loop else []))
    defaults = LoopSettings()
    for name, setting in SETTINGS.items():
        values = [
            Text(_readable(value), style="" if value == getattr(defaults, name) else "bold")
            for value in (getattr(each.settings, name) for each in loops)
        ]
        made.add_row(name, *values, *([Text(setting.help, style="dim")] if loop else []))
    out().print(made)
    out().print(Text("Bold: not the contract's default. Change with `rankward settings set LOOP name=value`.", "dim"))


@settings_app.command("set")
def set_settings(
    loop: LoopArgument,
    changes: Annotated[
        list[str], typer.Argument(metavar="NAME=VALUE…", help="As in reward_wait=10m default_reward=0.")
    ],
    data: DataOption = DATA,
) -> None:
    """Change settings, all of them or none."""
    wanted: dict[str, object] = {}
    for text in changes:
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidSettings(f"{text!r} is no change: write name=value, as in reward_wait=10m")
        if name in READ_ONLY:
            what = "`rankward policy set` changes it" if name in {"policy", "preset"} else "it cannot be set"
            raise InvalidSettings(f"{name} is no setting to change here: {what}", target=name)
        wanted[name] = parse(name, value)
    _change(data, loop, lambda configuration: configuration.change(loop, wanted))


@policy_app.command("show")
def show_policy(loop: LoopArgument, data: DataOption = DATA, as_json: JsonOption = False) -> None:
    """Show a loop's policy, and the presets that there are."""
    with home_at(data) as home:
        found = home.catalog.loop(loop)
        epochs = home.catalog.epochs(found.loop_id)
    settings = found.settings
    if as_json:
        answer = {"policy": settings.policy, "preset": settings.preset, "exploration": settings.exploration}
        typer.echo(msgspec.json.encode(answer))
        return
    made = table("", "")
    made.add_row(Text("policy", style="dim"), Text(settings.policy, style="bold"))
    made.add_row(Text("preset", style="dim"), settings.preset or "none: a policy of your own")
    for epoch in epochs:
        derived = ""
        if epoch.interactions is not None:
            derived = "; pairs " + " ".join(epoch.interactions.pairs)
        made.add_row(Text(f"epoch {epoch.epoch_id}", style="dim"), Text(f"{epoch.state}: {epoch.reason}{derived}"))
    out().print(made)
    out().print()
    presets = table("preset", "what it costs and gains")
    for preset in PRESETS.values():
        presets.add_row(preset.name, preset.description)
    out().print(presets)


@policy_app.command("set", context_settings={"ignore_unknown_options": True})
def set_policy(
    loop: LoopArgument,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="ARGUMENTS", help="The learner's, as in --cb_explore_adf --epsilon 0.1 -q ::"),
    ] = None,
    preset: Annotated[str | None, typer.Option(help=f"One of {', '.join(PRESETS)}, instead of arguments.")] = None,
    data: DataOption = DATA,
) -> None:
    """Give a loop another policy."""
    text = " ".join(arguments or ())
    if bool(text) == bool(preset):
        raise InvalidPolicy("give the learner's arguments, or --preset NAME: one of the two")
    if preset:
        _change(data, loop, lambda configuration: configuration.set_preset(loop, preset))
    else:
        _change(data, loop, lambda configuration: configuration.set_policy(loop, text))


@policy_app.command("reset")
def reset_policy(loop: LoopArgument, data: DataOption = DATA) -> None:
    """Restore Personalizer's own policy."""
    _change(data, loop, lambda configuration: configuration.reset_policy(loop))


def _change(data: Path, name: str, change: Callable[[Configuration], Awaitable[Loop]]) -> None:
    """Make a change and say what it was and what it does."""
    with home_at(data) as home:
        before = home.catalog.loop(name)
        epochs = {epoch.epoch_id for epoch in home.catalog.epochs(before.loop_id)}

        async def run() -> Loop:
            async with changes_of(home) as changes:
                return await change(changes.configuration)

        after = asyncio.run(run())
        started = [epoch for epoch in home.catalog.epochs(after.loop_id) if epoch.epoch_id not in epochs]
    _print_diff(before.settings, after.settings)
    for line in effects(before.settings, after.settings, started):
        out().print(line, markup=False)


def _print_diff(before: LoopSettings, after: LoopSettings) -> None:
    made = table("", "", "", "")
    for name in SETTINGS:
        old, new = getattr(before, name), getattr(after, name)
        if old != new and name != "last_configuration_edit":
            made.add_row(Text(name, style="dim"), _readable(old), "→", Text(_readable(new), style="bold"))
    if made.row_count:
        out().print(made)


def effects(before: LoopSettings, after: LoopSettings, started: Sequence[Epoch]) -> list[str]:
    """Say what a change does to what was learned.

    Args:
        before: the settings before it.
        after: the settings after it.
        started: the epochs that it has started.
    """
    changed = [name for name in SETTINGS if getattr(before, name) != getattr(after, name)]
    if not changed:
        return ["Nothing changed: it was set so already."]
    said = [f"{name}: {_EFFECTS[name]}" for name in changed if name in _EFFECTS]
    if started:
        said.append(
            f"Model: a new one learns the last {after.model_retrain_days} days of the log in the background; the old "
            "one serves until it has caught up. `rankward doctor` shows how far it is."
        )
    else:
        said.append("Model: it goes on learning.")
    return said


def _readable(value: Any) -> str:
    if value is None:
        return "—"
    if isinstance(value, timedelta) and value < timedelta(minutes=1):
        return f"{value.total_seconds():g}s"
    return show(value)
