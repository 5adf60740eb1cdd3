"""`rankward model`: the versions of a loop's model."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
import typer
from rich.text import Text

from rankward.cli.terminal import (
    DATA,
    DataOption,
    JsonOption,
    LoopArgument,
    OneLineErrors,
    YesOption,
    home_at,
    opened,
    out,
    table,
    when,
)
from rankward.errors import Conflict, InvalidRequest, NotFound
from rankward.registry.service import Registry
from rankward.registry.sign import Origin, fingerprint
from rankward.settings import Limits
from rankward.store.ports import Loop, ModelVersion
from rankward.telemetry import find_version
from rankward.vw.trial import try_out
from rankward.wiring import Home

app = typer.Typer(cls=OneLineErrors, help="Versions of a loop's model.", no_args_is_help=True)

T = TypeVar("T")

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="Id of the version, from `rankward model list`.")]


@app.command("list")
def list_models(loop: LoopArgument, data: DataOption = DATA, as_json: JsonOption = False) -> None:
    """List the versions that are kept, newest first."""
    with home_at(data) as home:
        found = home.catalog.loop(loop)
        versions = home.catalog.versions(found.loop_id)
    if as_json:
        typer.echo(msgspec.json.encode([{"serving": v.model_id == found.model_id, **_fields(v)} for v in versions]))
        return
    if not versions:
        out().print(f"Loop {loop} has no model yet: `rankward doctor {loop}` says what it waits for.", markup=False)
        return
    made = table("", "model", "made", "epoch", "learned", "bytes", "policy", right=("epoch", "learned", "bytes"))
    for version in versions:
        serving = version.model_id == found.model_id
        made.add_row(
            Text("●", style="green") if serving else "",
            Text(version.model_id, style="bold" if serving else ""),
            when(version.created_us),
            str(version.epoch_id) if version.epoch_id else "—",
            f"{version.learned:,}",
            f"{version.size_bytes:,}",
            version.policy,
        )
    out().print(made)


def _fields(version: msgspec.Struct) -> dict[str, object]:
    return msgspec.structs.asdict(version)


@app.command("export")
def export_model(
    loop: LoopArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="To write; - is standard output.", allow_dash=True)],
    model: Annotated[str | None, typer.Option(help="Id of the version; the one that serves if left out.")] = None,
    signed: Annotated[
        bool, typer.Option("--signed", help="A zip file of the model, signed with the installation's key.")
    ] = False,
    data: DataOption = DATA,
) -> None:
    """Write a model to a file, as Vowpal Wabbit reads it, or signed, as `model import` takes it anywhere."""
    with home_at(data) as home:
        found = home.catalog.loop(loop)
        if model is None and found.model_id is None:
            raise NotFound(f"loop {loop} has no model yet: `rankward doctor {loop}` says what it waits for")
        wanted = _version(home, found, model or str(found.model_id))
        content = home.models.get(found.loop_id, wanted.model_id)
        if signed:
            content = _change(home, lambda registry: registry.signed(content))
    if str(file) == "-":
        sys.stdout.buffer.write(content)
        return
    if file.exists():
        raise Conflict(f"{file} exists already: choose another name")
    file.write_bytes(content)
    out().print(f"{file}: model {wanted.model_id}, {len(content):,} bytes", markup=False)


@app.command("import")
def import_model(
    loop: LoopArgument,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            readable=True,
            help="To go on from: a model.vw, or the zip file of a signed one.",
        ),
    ],
    take_policy: Annotated[
        bool, typer.Option("--take-policy", help="Give the loop the policy that the model was trained with.")
    ] = False,
    limit_bytes: Annotated[
        int,
        typer.Option(envvar="RANKWARD_LIMIT_MODEL_BYTES", min=1, help="Bytes of the model that are taken at the most."),
    ] = Limits().model_bytes,
    data: DataOption = DATA,
) -> None:
    """Serve a model from elsewhere, and go on learning from it.

    Its signature is verified, if it has one, and it is tried in a process of its own first. Where it cannot be used,
    nothing is changed.
    """
    with home_at(data) as home, file.open("rb") as sent:
        taken = _change(
            home,
            lambda registry: registry.import_model(
                loop, sent, bound=limit_bytes, by_admin=True, try_out=try_out, take_policy=take_policy
            ),
        )
    out().print(f"{_ORIGINS[taken.origin]}{f': {taken.signer}' if taken.signer else ''}", markup=False, soft_wrap=True)
    if take_policy:
        out().print(f"Policy: {taken.loop.settings.policy}", markup=False, soft_wrap=True)
    _say_serving(taken.loop)


_ORIGINS = {
    Origin.TRUSTED: "Signed by this installation, or one that it trusts",
    Origin.FOREIGN: "Signed by somebody that this installation does not know; the signature is good",
    Origin.UNSIGNED: "Not signed",
}


@app.command("signing-key")
def signing_key(
    replace: Annotated[bool, typer.Option("--replace", help="Make a new key.")] = False,
    adopt: Annotated[
        Path | None,
        typer.Option(
            "--import",
            metavar="PEM",
            exists=True,
            dir_okay=False,
            help="Sign with this RSA key, unencrypted PEM, with its certificate if it has one.",
        ),
    ] = None,
    trust: Annotated[
        Path | None,
        typer.Option(
            "--trust",
            metavar="CERTIFICATE",
            exists=True,
            dir_okay=False,
            help="Trust what another installation signs: its certificate, PEM or DER (signer.der).",
        ),
    ] = None,
    forget_others: Annotated[
        bool, typer.Option("--forget-others", help="Trust nothing but the key that signs now.")
    ] = False,
    data: DataOption = DATA,
) -> None:
    """Show the key that models are signed with and the certificates that are trusted, or change them.

    A key that is replaced goes on being trusted, until --forget-others is given.
    """
    if sum([replace, adopt is not None, trust is not None, forget_others]) > 1:
        raise InvalidRequest("give one of --replace, --import, --trust and --forget-others")
    with home_at(data) as home:
        if replace:
            ring = home.signing.replace()
        elif adopt is not None:
            ring = home.signing.adopt(adopt.read_bytes())
        elif trust is not None:
            ring = home.signing.trust(trust.read_bytes())
        elif forget_others:
            ring = home.signing.forget_others()
        else:
            ring = home.signing.keyring()
        kept = home.folder.signing
    made = table("", "subject", "valid from", "SHA-256")
    for number, certificate in enumerate(ring.certificates):
        role = "signs" if number == 0 else "trusted"
        subject = certificate.subject.rfc4514_string()
        made.add_row(role, subject, f"{certificate.not_valid_before_utc:%Y-%m-%d}", fingerprint(certificate))
    out().print(made)
    out().print(Text(f"The key lies in {kept}.", style="dim"), soft_wrap=True)


@app.command()
def rollback(loop: LoopArgument, model: ModelArgument, data: DataOption = DATA) -> None:
    """Serve an earlier version, and go on learning from it."""
    with home_at(data) as home:
        changed = _change(home, lambda registry: registry.roll_back(loop, model))
    _say_serving(changed)


@app.command()
def delete(loop: LoopArgument, data: DataOption = DATA, yes: YesOption = False) -> None:
    """Forget what a loop has learned: decisions are uniform until there is a new model.

    Earlier events stay in the log and are never learned again. The versions stay, and can be rolled back to.
    """
    with home_at(data) as home:
        home.catalog.loop(loop)
        if not yes:
            typer.confirm(f"Forget what the loop {loop} has learned?", abort=True)
        _change(home, lambda registry: registry.delete(loop))
    out().print(f"Loop {loop} starts afresh.", markup=False)


def _version(home: Home, loop: Loop, model_id: str) -> ModelVersion:
    version = find_version(home.catalog.versions(loop.loop_id), model_id)
    if version is None:
        raise NotFound(f"loop {loop.name} keeps no model {model_id}: `rankward model list` names those it does")
    return version


def _change(home: Home, change: Callable[[Registry], Awaitable[T]]) -> T:
    async def run() -> T:
        async with opened(home) as found:
            return await change(found.registry)

    return asyncio.run(run())


def _say_serving(loop: Loop) -> None:
    out().print(f"Loop {loop.name} serves the model {loop.model_id}, and goes on learning from it.", markup=False)
