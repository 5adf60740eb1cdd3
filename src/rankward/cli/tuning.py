"""`rankward settings` and `rankward policy`: what a loop is set to, and what a change does to its model."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.text import Text

from rankward.administration.tuning import Changed, PolicyChoice
from rankward.api.schema.configuration import PolicyContract, read_policy
from rankward.cli.access import AdminEndpointOption, AdminKeyOption
from rankward.cli.remote import Administrator
from rankward.cli.terminal import (
    DATA,
    DataOption,
    JsonOption,
    LoopArgument,
    MaybeLoopArgument,
    OneLineErrors,
    administer,
    out,
    table,
)
from rankward.errors import Conflict, InvalidSettings
from rankward.settings import SETTINGS, LoopSettings, parse, show
from rankward.vw.presets import PRESETS
from rankward.vw.rates import describe

settings_app = typer.Typer(cls=OneLineErrors, help="Settings of a loop.", no_args_is_help=True)
policy_app = typer.Typer(cls=OneLineErrors, help="The learner's arguments.", no_args_is_help=True)


@settings_app.command("show")
def show_settings(
    loop: MaybeLoopArgument = None,
    data: DataOption = DATA,
    endpoint: AdminEndpointOption = None,
    key: AdminKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show settings, of one loop or of all."""

    async def gather(admin: Administrator) -> dict[str, dict[str, str]]:
        names = [loop] if loop else [each.name for each in await admin.loops.listed()]
        return {name: await admin.tuning.settings(name) for name in names}

    found = administer(data, endpoint, key, gather)
    if as_json:
        typer.echo(msgspec.json.encode(found[loop] if loop else found))
        return
    made = table("setting", *found, *(["what it is"] if loop else []))
    defaults = LoopSettings()
    for name, setting in SETTINGS.items():
        default = show(getattr(defaults, name))
        values = [
            Text(readable(name, each[name]), style="" if each[name] == default else "bold") for each in found.values()
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
    endpoint: AdminEndpointOption = None,
    key: AdminKeyOption = None,
) -> None:
    """Change settings, all of them or none."""
    wanted = {}
    for text in changes:
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidSettings(f"{text!r} is no change: write name=value, as in reward_wait=10m")
        wanted[name] = value
    _say(administer(data, endpoint, key, lambda admin: admin.tuning.change_settings(loop, wanted)))


@policy_app.command("show")
def show_policy(
    loop: LoopArgument,
    data: DataOption = DATA,
    endpoint: AdminEndpointOption = None,
    key: AdminKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a loop's policy, and the presets that there are."""
    found = administer(data, endpoint, key, lambda admin: admin.tuning.policy(loop))
    if as_json:
        answer = {"policy": found.policy, "preset": found.preset, "exploration": found.exploration}
        typer.echo(msgspec.json.encode(answer))
        return
    made = table("", "")
    made.add_row(Text("policy", style="dim"), Text(found.policy, style="bold"))
    made.add_row(Text("preset", style="dim"), found.preset or "none: a policy of your own")
    for epoch in found.epochs:
        derived = ""
        if epoch.interactions is not None:
            derived = "; pairs " + " ".join(epoch.interactions.pairs)
        if epoch.bins is not None and epoch.bins.edges:
            derived += f"; {sum(map(len, epoch.bins.edges.values()))} numbers cut into intervals"
        if epoch.rate is not None:
            derived += f"; learning {describe(epoch.rate)}"
        made.add_row(Text(f"epoch {epoch.epoch_id}", style="dim"), Text(f"{epoch.state}: {epoch.reason}{derived}"))
    out().print(made)
    out().print()
    presets = table("preset", "what it costs and gains")
    for preset in administer(data, endpoint, key, lambda admin: admin.tuning.presets()):
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
    slots: Annotated[
        bool | None,
        typer.Option(
            "--slots/--no-slots",
            help="Whether the preset is to decide for several slots of a page. As it is now, if left out.",
            show_default=False,
        ),
    ] = None,
    data: DataOption = DATA,
    endpoint: AdminEndpointOption = None,
    key: AdminKeyOption = None,
) -> None:
    """Give a loop another policy."""
    choice = PolicyChoice(arguments=" ".join(arguments or ()) or None, preset=preset, slots=slots)
    _say(administer(data, endpoint, key, lambda admin: admin.tuning.set_policy(loop, choice)))


@policy_app.command("export")
def export_policy(
    loop: LoopArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="To write; - is standard output.", allow_dash=True)],
    data: DataOption = DATA,
    endpoint: AdminEndpointOption = None,
    key: AdminKeyOption = None,
) -> None:
    """Write a loop's policy as a JSON file, as Personalizer's portal exported learning settings."""
    policy = administer(data, endpoint, key, lambda admin: admin.tuning.policy(loop)).policy
    content = msgspec.json.format(msgspec.json.encode(PolicyContract(name=loop, arguments=policy)), indent=2)
    if str(file) == "-":
        typer.echo(content)
        return
    if file.exists():
        raise Conflict(f"{file} exists already: choose another name")
    file.write_bytes(content + b"\n")
    out().print(f"{file}: {policy}", markup=False)


@policy_app.command("import")
def import_policy(
    loop: LoopArgument,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            readable=True,
            help="Learning settings, as Personalizer's portal exported them.",
        ),
    ],
    data: DataOption = DATA,
    endpoint: AdminEndpointOption = None,
    key: AdminKeyOption = None,
) -> None:
    """Give a loop the policy of a JSON file."""
    choice = PolicyChoice(arguments=read_policy(file.read_bytes()), preset=None)
    _say(administer(data, endpoint, key, lambda admin: admin.tuning.set_policy(loop, choice)))


@policy_app.command("reset")
def reset_policy(
    loop: LoopArgument, data: DataOption = DATA, endpoint: AdminEndpointOption = None, key: AdminKeyOption = None
) -> None:
    """Restore Personalizer's own policy."""
    _say(administer(data, endpoint, key, lambda admin: admin.tuning.reset_policy(loop)))


def _say(changed: Changed) -> None:
    """Say what was changed, and what that does."""
    made = table("", "", "", "")
    for name, old in changed.before.items():
        new = Text(readable(name, changed.after[name]), style="bold")
        made.add_row(Text(name, style="dim"), Text(readable(name, old)), "→", new)
    if made.row_count:
        out().print(made)
    for line in changed.effects:
        out().print(line, markup=False)


def readable(name: str, text: str) -> str:
    """Write a setting for people: durations short, where they are whole.

    >>> readable("reward_wait", "PT10M"), readable("reward_wait", "PT1M30S"), readable("log_mirror_sas_uri", "")
    ('10m', '90s', '—')
    """
    value = parse(name, text)
    if isinstance(value, timedelta):
        for unit, length in _UNITS:
            if value >= length and value % length == timedelta(0):
                return f"{value // length}{unit}"
    return text or "—"


_UNITS = (
    ("d", timedelta(days=1)),
    ("h", timedelta(hours=1)),
    ("m", timedelta(minutes=1)),
    ("s", timedelta(seconds=1)),
    ("ms", timedelta(milliseconds=1)),
)
