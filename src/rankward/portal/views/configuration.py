"""A loop's settings: what each does, what a change will do before it is made, what was changed, and the way back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import msgspec
from starlette.responses import Response

from rankward.administration.effects import effect_of
from rankward.administration.tuning import OPERATORS_ONLY, Changed, PolicyChoice
from rankward.auditing import seen
from rankward.errors import CallerError, Conflict, NotFound
from rankward.portal.view import View, Visit
from rankward.settings import READ_ONLY, SETTINGS, LoopSettings, Setting, brief, choices, parse
from rankward.store.audit import AuditEntry, AuditFilter
from rankward.store.sessions import Role
from rankward.vw.presets import PERSONALIZER

_GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Reward", ("reward_wait", "default_reward", "reward_aggregation", "reward_min", "reward_max")),
    ("Deciding", ("learning_mode", "exploration", "is_inference_explainability_enabled")),
    ("Learning", ("model_export_frequency", "model_retrain_days", "model_import")),
    ("Log", ("log_retention_days", "log_mirror_enabled", "log_mirror_sas_uri")),
)
_REST = "Optimization and more"
_SECRET = frozenset({"log_mirror_sas_uri"})  # shown in part; left empty, it stays as it is
_HISTORY = 20
_WIDEST = 2**31 - 1  # what the contract's whole numbers go up to


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """A setting, as its form shows it."""

    name: str
    label: str
    setting: Setting
    value: str  # as it is, or as somebody wants it
    placeholder: str
    choices: tuple[str, ...]
    bounds: str
    effect: str
    locked: bool  # whether the visitor may not change it
    is_default: bool


async def _show(visit: Visit) -> Response:
    return _form(visit)


async def _edit(visit: Visit) -> Response:
    """Go back from the question whether to do it, with what was typed."""
    return _form(visit)


def _form(visit: Visit, *, refused: CallerError | None = None) -> Response:
    loop = visit.loop
    named = {name for _, names in _GROUPS for name in names}
    rest = tuple([name for name in SETTINGS if name not in named | READ_ONLY])
    groups = [(title, [_field(visit, name) for name in names]) for title, names in (*_GROUPS, (_REST, rest))]
    wanted = AuditFilter(loops=[loop.name], what="settings changed")
    history = visit.doors.home.audit.entries(wanted, limit=_HISTORY)
    return visit.page(
        "configuration",
        status=200 if refused is None else 400,
        groups=groups,
        preset=loop.settings.preset,
        history=[(entry, _is_undoable(visit, entry)) for entry in history],
        error=None if refused is None else refused.message,
        faulty=_name_of(refused.target) if refused is not None else None,
        may_change=visit.may(Role.OPERATOR, loop.name),
    )


def _field(visit: Visit, name: str) -> Field:
    setting, settings = SETTINGS[name], visit.loop.settings
    value = getattr(settings, name)
    hidden = name in _SECRET
    shown = seen(name, settings) if hidden else brief(value)
    return Field(
        name=name,
        label=name.removeprefix("is_").replace("sas_uri", "address").replace("_", " ").capitalize(),
        setting=setting,
        value=visit.form.get(name, "" if hidden else shown),
        placeholder=shown if hidden else "",
        choices=choices(name),
        bounds=_bounds(setting),
        effect=effect_of(name),
        locked=not visit.may(Role.OPERATOR, visit.loop_name) or (name in OPERATORS_ONLY and not visit.session.admin),
        is_default=value == getattr(LoopSettings(), name),
    )


def _bounds(setting: Setting) -> str:
    low, above, high = (_bound(value) for value in (setting.low, setting.above, setting.high))
    unit = f" {setting.unit}" if setting.unit and setting.unit != "fraction" else ""
    if low is not None:
        return f"{low} to {high}{unit}" if high is not None else f"{low}{unit} or more"
    if above is not None:
        return f"more than {above}" + (f", up to {high}" if high is not None else "") + unit
    return unit.strip()


def _bound(value: object) -> str | None:
    """Write a bound; None: there is none that anybody would come to."""
    if value is None or value == _WIDEST:
        return None
    if isinstance(value, timedelta) and not value:
        return "0"
    return f"{value:g}" if isinstance(value, int | float) else brief(value)


def _name_of(target: str | None) -> str | None:
    """Find the setting that an error is about, by its own name or the contract's."""
    return next((name for name, setting in SETTINGS.items() if target in {name, setting.wire}), None)


def _changes(visit: Visit) -> dict[str, str]:
    """Read which settings are to be other than they are.

    Raises:
        InvalidSettings: one cannot be read.
    """
    settings = visit.loop.settings
    changes = {}
    for name in SETTINGS:
        text = visit.form.get(name)
        if text is None or name in READ_ONLY or (name in _SECRET and not text.strip()):
            continue
        if parse(name, text.strip()) != getattr(settings, name):
            changes[name] = text.strip()
    return changes


async def _review(visit: Visit) -> Response:
    try:
        changes = _changes(visit)
        foreseen = await visit.administration.tuning.foresee_settings(
            visit.loop_name, changes, by_operator=visit.session.admin
        )
    except CallerError as error:
        return _form(visit, refused=error)
    if not changes:
        return visit.redirect(_path(visit), notice="Nothing was changed: every setting is as it was.")
    return _ask(visit, foreseen, changes, title="Change these settings?")


def _ask(visit: Visit, foreseen: Changed, hidden: Mapping[str, str], *, title: str, said: str = "") -> Response:
    return visit.page(
        "configuration_review",
        foreseen=foreseen,
        hidden=hidden,
        question=title,
        said=said,
        revision=visit.loop.revision,
        back=_path(visit),
    )


async def _apply(visit: Visit) -> Response:
    name = visit.loop_name
    if visit.form.get("revision") != str(visit.loop.revision):
        raise Conflict("somebody changed this loop meanwhile: look at its settings once more, then change them")
    try:
        if policy := visit.form.get("policy"):
            changed = await visit.administration.tuning.set_policy(name, PolicyChoice(arguments=policy))
        else:
            changed = await visit.administration.tuning.change_settings(
                name, _changes(visit), by_operator=visit.session.admin
            )
    except CallerError as error:
        return _form(visit, refused=error)
    await visit.doors.follow()
    count = len(changed.after)
    notice = f"{count} {'setting is' if count == 1 else 'settings are'} changed. {changed.effects[-1]}"
    return visit.redirect(_path(visit), notice=notice)


async def _ask_reset(visit: Visit) -> Response:
    foreseen = await visit.administration.tuning.foresee_policy(visit.loop_name, PolicyChoice(preset=PERSONALIZER.name))
    if not foreseen.after:
        return visit.redirect(_path(visit), notice="The policy is the preset personalizer's already.")
    said = (
        "The contract's reset restores the preset `personalizer`, the original service's policy. Other settings stay."
    )
    return _ask(
        visit, foreseen, {"policy": foreseen.after["policy"]}, title="Restore the policy of Personalizer?", said=said
    )


async def _ask_undo(visit: Visit) -> Response:
    number = visit.request.path_params["number"]
    entry = _entry(visit, number)
    if entry is None or not _is_undoable(visit, entry):
        raise NotFound(f"change {number[:20]!r} of this loop cannot be undone here")
    title = "Undo this change?"
    if "policy" in entry.before:
        foreseen = await visit.administration.tuning.foresee_policy(
            visit.loop_name, PolicyChoice(arguments=entry.before["policy"])
        )
        return _ask(visit, foreseen, {"policy": entry.before["policy"]}, title=title)
    changes = dict(entry.before)
    foreseen = await visit.administration.tuning.foresee_settings(
        visit.loop_name, changes, by_operator=visit.session.admin
    )
    return _ask(visit, foreseen, changes, title=title)


def _entry(visit: Visit, number: str) -> AuditEntry | None:
    if not number.isdecimal() or len(number) > 15:
        return None
    wanted = AuditFilter(loops=[visit.loop_name], what="settings changed", before=int(number) + 1)
    entries = visit.doors.home.audit.entries(wanted, limit=1)
    return entries[0] if entries and entries[0].number == int(number) else None


def _is_undoable(visit: Visit, entry: AuditEntry) -> bool:
    """Whether what was before is known in full, and may be set again by the visitor."""
    names = set(entry.before)
    if names & _SECRET or (names & OPERATORS_ONLY and not visit.session.admin) or not names <= set(SETTINGS):
        return False
    return visit.may(Role.OPERATOR, visit.loop_name) and ("policy" not in names or names <= _BY_POLICY)


_BY_POLICY = frozenset({"policy", "preset", "exploration"})  # which all follow from the policy's arguments


def _path(visit: Visit) -> str:
    return f"/portal/loops/{visit.loop_name}/configuration"


_HERE = "/loops/{loop}/configuration"

VIEWS = (
    View(path=_HERE, handle=_show),
    View(path=_HERE, handle=_apply, method="POST", needs=Role.OPERATOR),
    View(path=f"{_HERE}/review", handle=_review, method="POST", needs=Role.OPERATOR),
    View(path=f"{_HERE}/edit", handle=_edit, method="POST", needs=Role.OPERATOR),
    View(path=f"{_HERE}/reset", handle=_ask_reset, needs=Role.OPERATOR),
    View(path=f"{_HERE}/undo/{{number}}", handle=_ask_undo, needs=Role.OPERATOR),
)
