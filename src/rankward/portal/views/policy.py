"""The policy and the models of a loop: chosen, checked, exported, imported, rolled back to, cleared."""

from __future__ import annotations

import tempfile
from urllib.parse import quote

import msgspec
from starlette.responses import Response

from rankward.administration.tuning import PolicyChoice
from rankward.api.upload import receive_upload
from rankward.errors import CallerError, InvalidPolicy, InvalidRequest, Overloaded
from rankward.portal.view import DOCTOR_AGE_US, View, Visit
from rankward.store.sessions import Role
from rankward.vw.arguments import ProblemType, parse_policy, problem_type_of
from rankward.vw.presets import PRESETS, preset_of
from rankward.vw.trial import try_out

_SPOOLED_BYTES = 4 << 20
_VERSIONS = 40


class PolicyFile(msgspec.Struct, frozen=True):
    """A policy as Personalizer's portal wrote and read it."""

    name: str
    arguments: str


async def _show(visit: Visit) -> Response:
    return await _page(visit)


async def _page(visit: Visit, *, text: str | None = None, refused: CallerError | None = None) -> Response:
    name = visit.loop_name
    policy = await visit.administration.tuning.policy(name)
    several = problem_type_of(policy.policy) is ProblemType.MULTI_SLOT
    presets = [
        (preset, preset.policy(ProblemType.MULTI_SLOT if several else ProblemType.SINGLE_SLOT).text)
        for preset in PRESETS.values()
    ]
    report = await visit.administration.doctor(name)  # as it is now: it may just have been changed
    return visit.page(
        "policy",
        now=report.building,
        model_id=report.model_id,
        status=200 if refused is None else 400,
        policy=policy,
        several=several,
        presets=presets,
        text=policy.policy if text is None else text,
        checked=None,
        models=(await visit.administration.models.listed(name))[:_VERSIONS],
        retrain_days=visit.loop.settings.model_retrain_days,
        error=None if refused is None else refused.message,
    )


async def _building(visit: Visit) -> Response:
    """What an open page asks for while a model is being built."""
    report = await visit.administration.doctor(visit.loop_name, age_us=DOCTOR_AGE_US)
    return visit.page("policy_building", now=report.building, model_id=report.model_id)


async def _keep(visit: Visit) -> Response:
    """Stop building: what serves goes on."""
    try:
        kept = await visit.administration.models.keep_serving(visit.loop_name)
    except CallerError as error:  # it may have taken over just now
        return visit.redirect(_path(visit), notice=f"{error.message[:1].upper()}{error.message[1:]}.")
    await visit.doors.follow()
    return visit.redirect(
        _path(visit), notice=f"Model {kept.model_id} stays, with its policy; learning goes on from it."
    )


def _arguments(text: str) -> str:
    """Read what was typed or loaded: arguments, or a policy file with them."""
    text = text.strip()
    if not text.startswith("{"):
        return text
    try:
        return msgspec.json.decode(text, type=PolicyFile).arguments
    except msgspec.DecodeError as error:
        raise InvalidPolicy(f"that is no policy file: {error}") from error


async def _check(visit: Visit) -> Response:
    """Say of a policy that is being typed whether it can be used, and what it would be."""
    try:
        arguments = parse_policy(_arguments(visit.form.get("arguments", "")))
    except CallerError as error:
        return visit.page("policy_check", error=error.message, arguments=None, preset=None, switches=False)
    switches = arguments.problem_type is not problem_type_of(visit.loop.settings.policy)
    return visit.page("policy_check", error=None, arguments=arguments, preset=preset_of(arguments), switches=switches)


async def _set(visit: Visit) -> Response:
    text = visit.form.get("arguments", "")
    try:
        changed = await visit.administration.tuning.set_policy(
            visit.loop_name, PolicyChoice(arguments=_arguments(text))
        )
    except CallerError as error:
        return await _page(visit, text=text, refused=error)
    await visit.doors.follow()
    return visit.redirect(_path(visit), notice=" ".join(changed.effects))


async def _reset(visit: Visit) -> Response:
    changed = await visit.administration.tuning.reset_policy(visit.loop_name)
    await visit.doors.follow()
    return visit.redirect(_path(visit), notice=" ".join(changed.effects))


async def _export(visit: Visit) -> Response:
    policy = PolicyFile(name=visit.loop_name, arguments=visit.loop.settings.policy)
    content = msgspec.json.format(msgspec.json.encode(policy), indent=2)
    return _file(content, f"{visit.loop_name}-policy.json", "application/json")


async def _download(visit: Visit) -> Response:
    model_id, signed = str(visit.request.path_params["model"]), "signed" in visit.request.query_params
    content = await visit.administration.models.read(visit.loop_name, model_id, signed=signed)
    return _file(content, f"{visit.loop_name}-{model_id}.vw{'.zip' if signed else ''}", "application/octet-stream")


async def _roll_back(visit: Visit) -> Response:
    model_id = str(visit.request.path_params["model"])
    await visit.administration.models.roll_back(visit.loop_name, model_id)
    await visit.doors.follow()
    return visit.redirect(_path(visit), notice=f"Model {model_id} serves, and learning goes on from it.")


async def _import(visit: Visit) -> Response:
    doors = visit.doors
    if doors.importing.locked():
        raise Overloaded("another model is being imported: try again when it is done", retry_after_s=5)
    async with doors.importing:
        with tempfile.SpooledTemporaryFile(_SPOOLED_BYTES) as file:
            bound = doors.limits.model_bytes
            await receive_upload(visit.request.headers.raw, visit.request.receive, file, bound)  # type: ignore[arg-type]
            imported = await doors.registry.by(visit.actor).import_model(
                visit.loop_name,
                file,  # type: ignore[arg-type]
                bound=bound,
                by_admin=visit.session.admin,
                try_out=try_out,
                take_policy="take-policy" in visit.request.query_params,
            )
    await doors.follow()
    return visit.redirect(_path(visit), notice=f"Model {imported.model_id} was imported, and serves.")


async def _clear(visit: Visit) -> Response:
    wanted = [each for each in ("log", "model", "policy") if each in visit.form]
    name = visit.loop_name
    if not wanted or visit.form.get("confirm") != name:
        raise InvalidRequest(f"tick what is to be cleared, and type {name} to say so: nothing was cleared")
    if "policy" in wanted:
        await visit.administration.tuning.reset_policy(name)
    if "model" in wanted:
        await visit.administration.models.delete(name)
    if "log" in wanted:
        await visit.doors.configuration.by(visit.actor).clear_log(name)
    await visit.doors.follow()
    return visit.redirect(_path(visit), notice=f"Cleared: {', '.join(wanted)}.")


def _file(content: bytes, name: str, media_type: str) -> Response:
    headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}", "Cache-Control": "no-store"}
    return Response(content, media_type=media_type, headers=headers)


def _path(visit: Visit) -> str:
    return f"/portal/loops/{visit.loop_name}/policy"


VIEWS = (
    View(path="/loops/{loop}/policy", handle=_show),
    View(path="/loops/{loop}/policy", handle=_set, method="POST", needs=Role.OPERATOR),
    View(path="/loops/{loop}/policy/check", handle=_check, method="POST", needs=Role.OPERATOR),
    View(path="/loops/{loop}/policy/building", handle=_building),
    View(path="/loops/{loop}/policy/keep", handle=_keep, method="POST", needs=Role.OPERATOR),
    View(path="/loops/{loop}/policy/reset", handle=_reset, method="POST", needs=Role.OPERATOR),
    View(path="/loops/{loop}/policy/export", handle=_export),
    View(path="/loops/{loop}/models/import", handle=_import, method="POST", needs=Role.OPERATOR),
    View(path="/loops/{loop}/models/{model}", handle=_download),
    View(path="/loops/{loop}/models/{model}/serve", handle=_roll_back, method="POST", needs=Role.OPERATOR),
    View(path="/loops/{loop}/clear", handle=_clear, method="POST", needs=Role.OPERATOR),
)
