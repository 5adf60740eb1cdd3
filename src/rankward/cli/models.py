"""`rankward model`: the versions of a loop's model."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.text import Text

from rankward.administration.loops import LoopView
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
    administer_service,
    home_at,
    opened,
    out,
    table,
    when,
)
from rankward.errors import Conflict, InvalidRequest, NotFound
from rankward.registry.service import Imported
from rankward.registry.sign import Origin, fingerprint
from rankward.settings import Limits
from rankward.store.ports import Loop
from rankward.vw.trial import try_out

app = typer.Typer(cls=OneLineErrors, help="Versions of a loop's model.", no_args_is_help=True)

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="Id of the version, from `rankward model list`.")]


@app.command("list")
def list_models(
    loop: LoopArgument,
    data: DataOption = DATA,
    endpoint: AdminEndpointOption = None,
    key: AdminKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the versions that are kept, newest first."""
    found = administer(data, endpoint, key, lambda admin: admin.models.listed(loop))
    if as_json:
        typer.echo(
            msgspec.json.encode([{"serving": each.serving, **msgspec.structs.asdict(each.version)} for each in found])
        )
        return
    if not found:
        out().print(f"Loop {loop} has no model yet: `rankward doctor {loop}` says what it waits for.", markup=False)
        return
    made = table("", "model", "made", "epoch", "learned", "bytes", "policy", right=("epoch", "learned", "bytes"))
    for each in found:
        version = each.version
        made.add_row(
            Text("●", style="green") if each.serving else "",
            Text(version.model_id, style="bold" if each.serving else ""),
            when(version.created_us),
            str(version.epoch_id) if version.epoch_id else "—",
            f"{version.learned:,}",
            f"{version.size_bytes:,}",
            version.policy,
        )
    out().print(made)


@app.command("export")
def export_model(
    loop: LoopArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="To write; - is standard output.", allow_dash=True)],
    model: Annotated[str | None, typer.Option(help="Id of the version; the one that serves if left out.")] = None,
    signed: Annotated[
        bool, typer.Option("--signed", help="A zip file of the model, signed with the installation's key.")
    ] = False,
    data: DataOption = DATA,
    endpoint: AdminEndpointOption = None,
    key: AdminKeyOption = None,
) -> None:
    """Write a model to a file, as Vowpal Wabbit reads it, or signed, as `model import` takes it anywhere."""

    async def fetch(admin: Administrator) -> tuple[str, bytes]:
        wanted = model or (await admin.loops.show(loop)).model_id
        if wanted is None:
            raise NotFound(f"loop {loop} has no model yet: `rankward doctor {loop}` says what it waits for")
        return wanted, await admin.models.read(loop, wanted, signed=signed)

    if str(file) != "-" and file.exists():
        raise Conflict(f"{file} exists already: choose another name")
    model_id, content = administer(data, endpoint, key, fetch)
    if str(file) == "-":
        sys.stdout.buffer.write(content)
        return
    file.write_bytes(content)
    out().print(f"{file}: model {model_id}, {len(content):,} bytes", markup=False)


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
    endpoint: AdminEndpointOption = None,
    key: AdminKeyOption = None,
) -> None:
    """Serve a model from elsewhere, and go on learning from it.

    Its signature is verified, if it has one, and it is tried in a process of its own first. Where it cannot be used,
    nothing is changed. A service elsewhere has a limit of its own.
    """
    if endpoint is not None:
        if take_policy:
            raise InvalidRequest(
                "--take-policy works on a data folder: give the loop of a service its policy first, with "
                "`rankward policy set`"
            )
        model = file.read_bytes()
        _say_serving(administer_service(endpoint, key, lambda admin: admin.models.import_model(loop, model)))
        return
    with home_at(data) as home, file.open("rb") as sent:

        async def take_in() -> Imported:
            async with opened(home) as found:
                return await found.registry.import_model(
                    loop, sent, bound=limit_bytes, by_admin=True, try_out=try_out, take_policy=take_policy
                )

        taken = asyncio.run(take_in())
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
def rollback(
    loop: LoopArgument,
    model: ModelArgument,
    data: DataOption = DATA,
    endpoint: AdminEndpointOption = None,
    key: AdminKeyOption = None,
) -> None:
    """Serve an earlier version, and go on learning from it."""
    _say_serving(administer(data, endpoint, key, lambda admin: admin.models.roll_back(loop, model)))


@app.command()
def delete(
    loop: LoopArgument,
    data: DataOption = DATA,
    endpoint: AdminEndpointOption = None,
    key: AdminKeyOption = None,
    yes: YesOption = False,
) -> None:
    """Forget what a loop has learned: decisions are uniform until there is a new model.

    Earlier events stay in the log and are never learned again. The versions stay, and can be rolled back to.
    """

    async def forget(admin: Administrator) -> None:
        await admin.loops.show(loop)
        if not yes:
            typer.confirm(f"Forget what the loop {loop} has learned?", abort=True)
        await admin.models.delete(loop)

    administer(data, endpoint, key, forget)
    out().print(f"Loop {loop} starts afresh.", markup=False)


@app.command("compare")
def compare_models(
    loop: LoopArgument,
    first: ModelArgument,
    second: ModelArgument,
    data: DataOption = DATA,
    endpoint: AdminEndpointOption = None,
    key: AdminKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare what two versions would do in the newest decisions."""
    found = administer(data, endpoint, key, lambda admin: admin.models.compare(loop, first, second))
    if as_json:
        typer.echo(msgspec.json.encode(found))
        return
    made = table("", "", right=("",))
    made.add_row("decisions", f"{found.decisions:,}")
    made.add_row("the same action is likeliest", f"{found.same_best_share:.1%}")
    made.add_row("distance of probabilities, mean", f"{found.distance_mean:.3f}")
    made.add_row("distance of probabilities, most", f"{found.distance_max:.3f}")
    out().print(made)
    out().print(Text("A distance of 0: the same probabilities; of 1: nothing in common.", style="dim"))


def _say_serving(loop: Loop | LoopView) -> None:
    out().print(f"Loop {loop.name} serves the model {loop.model_id}, and goes on learning from it.", markup=False)
