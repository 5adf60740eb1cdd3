"""Versions of models: served, deleted, rolled back to, signed and sent out, taken in from elsewhere.

roll back, import      learning goes on from that model
delete                 it starts afresh; earlier events are never learned again
"""

from __future__ import annotations

import asyncio
import copy
import enum
import hashlib
from collections.abc import Callable
from typing import BinaryIO

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from rankward.auditing import Trail
from rankward.errors import CallerError, Conflict, InvalidRequest, InvalidSettings, NotFound
from rankward.records import Bins, Interactions, ModelId, SettingsChange, TimeUs
from rankward.registry.archive import Parcel, pack, signed_bytes, unpack
from rankward.registry.sign import Origin, fingerprint, refused, verify
from rankward.registry.signing import Signing
from rankward.settings import LoopSettings, ModelImport, Numbers, as_datetime, change
from rankward.store.audit import Actor
from rankward.store.changes import change_loop
from rankward.store.ports import Catalog, Epoch, EventLog, JoinedLog, Loop, ModelStore, ModelVersion
from rankward.training.service import next_epoch
from rankward.vw.arguments import is_usable_letter, parse_policy, problem_type_of
from rankward.vw.bins import read_bins, write_bins
from rankward.vw.model_file import DERIVED, ModelHead, read_head
from rankward.vw.presets import PRESETS, learner_arguments, preset_of

_LET_IN = {
    ModelImport.NONE: frozenset[Origin](),
    ModelImport.TRUSTED: frozenset({Origin.TRUSTED}),
    ModelImport.SIGNED: frozenset({Origin.TRUSTED, Origin.FOREIGN}),
    ModelImport.ANY: frozenset(Origin),
}


class Form(enum.Enum):
    """How a model goes out."""

    BARE = enum.auto()  # as Vowpal Wabbit reads it
    WITH_BINS = enum.auto()  # bare if it has none, else in an archive with them
    SIGNED = enum.auto()  # in an archive, with its bins, signed by the installation's key


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """A model that was taken in."""

    loop: Loop
    model_id: ModelId
    origin: Origin
    signer: str | None  # subject of the certificate, and its SHA-256; None: it is not signed


class Examined(msgspec.Struct, frozen=True, kw_only=True):
    """A model from elsewhere that can be taken in."""

    model: bytes
    head: ModelHead
    origin: Origin
    signer: str | None  # see `Imported`
    settings: LoopSettings  # of the loop that serves it, its own policy among them if that is to be taken
    interactions: Interactions | None  # derived for it; None: its policy names its own
    bins: Bins | None  # that it was learned with; None: it sees numbers as they are

    @property
    def digest(self) -> str:
        """SHA-256 of the model, in hex."""
        return hashlib.sha256(self.model).hexdigest()


class Registry:
    """Changes which model serves. Any process may have one: the catalog keeps two changes from crossing."""

    def __init__(
        self,
        catalog: Catalog,
        models: ModelStore,
        signing: Signing,
        *,
        log: Callable[[str], EventLog],
        joined: Callable[[str], JoinedLog],
        clock: Callable[[], TimeUs],
        trail: Trail,
    ) -> None:
        """Prepare.

        Args:
            catalog: of loops and versions.
            models: bytes of versions.
            signing: the installation's key, and whom it trusts.
            log: gives a loop's event log, by loop id.
            joined: gives a loop's joined log, by loop id.
            clock: the time.
            trail: where changes are noted.
        """
        self._catalog = catalog
        self._models = models
        self._signing = signing
        self._log = log
        self._joined = joined
        self._clock = clock
        self._trail = trail

    def by(self, actor: Actor) -> Registry:
        """Return the same, for changes that somebody else makes."""
        theirs = copy.copy(self)
        theirs._trail = self._trail.by(actor)
        return theirs

    async def delete(self, name: str) -> Loop:
        """Forget what was learned. Decisions are uniform until there is a new model."""

        async def once(loop: Loop) -> Loop:
            end = (await self._log(loop.loop_id).extent()).end
            fresh = msgspec.structs.replace(loop, model_id=None, forgotten_before=end)
            now_us = self._clock()
            epoch = next_epoch(fresh, now_us=now_us, reason="the model was deleted", days=0)
            return self._catalog.update_loop(fresh, epoch=epoch, retire=True)

        before = self._catalog.loop(name).model_id
        changed = await change_loop(self._catalog, name, once)
        self._trail.note("model deleted", loop=name, before={"model": before or ""}, after={"model": ""})
        return changed

    async def roll_back(self, name: str, model_id: ModelId) -> Loop:
        """Serve an earlier version, and go on learning from it.

        Raises:
            NotFound: the version is not kept.
            InvalidSettings: it decides for single slots and the loop for several, or the other way round.
        """
        loop = self._catalog.loop(name)
        version = self.version(loop, model_id)
        _check_kind(version, loop.settings)
        await asyncio.to_thread(self._models.get, loop.loop_id, model_id)
        changed = await self._go_on_from(
            name, version, f"rolled back to {model_id}", check=lambda settings: _check_kind(version, settings)
        )
        self._trail.note(
            "model promoted", loop=name, before={"model": loop.model_id or ""}, after={"model": version.model_id}
        )
        return changed

    async def keep_serving(self, name: str) -> Loop:
        """Stop building a new model. The one that serves stays, with the policy and the rewards that it learned by.

        Learning goes on from it, at the present place of the log. How much it explores stays as it is set now.

        Raises:
            CallerError: none is being built, or none serves yet.
        """
        loop = self._catalog.loop(name)

        def check(_: LoopSettings) -> None:
            if not any(epoch.state == "building" for epoch in self._catalog.epochs(loop.loop_id)):
                raise _not_now("no model is being built: there is nothing to stop")

        check(loop.settings)
        serving = next((each for each in self._catalog.epochs(loop.loop_id) if each.state == "serving"), None)
        if loop.model_id is None or serving is None:
            raise _not_now("no model serves yet: there is none to keep")
        version = self.version(loop, loop.model_id)
        policy = parse_policy(version.policy)
        changes: dict[str, object] = {
            "policy": policy.text if policy.epsilon is None else policy.with_epsilon(loop.settings.exploration).text,
            "preset": preset_of(policy),
            "default_reward": serving.default_reward,
            "reward_aggregation": serving.reward_aggregation,
            "numbers": Numbers.RAW if version.bins is None else Numbers.BINS,
        }
        changed = await self._go_on_from(name, version, f"kept {version.model_id}", changes, check=check)
        self._trail.note_settings("settings changed", name, loop.settings, changed.settings)
        self._trail.note("building stopped", loop=name, detail=f"model {version.model_id} is kept")
        return changed

    async def exported(self, version: ModelVersion, form: Form) -> bytes:
        """Write a version for elsewhere, as `import_model` takes it. The same version gives the same bytes.

        Raises:
            NotFound: its bytes are gone.
            InvalidRequest: it has bins, and was to go without them.
        """
        bins = None if version.bins is None or not version.bins.edges else write_bins(version.bins)
        if form is Form.BARE and bins is not None:
            raise InvalidRequest(
                f"model {version.model_id} sees intervals beside numbers (numbers=bins), which a bare model does not "
                "hold: it would decide otherwise elsewhere. Take it signed (signed=true, or --signed), with its "
                "bins beside it, or set the loop's numbers to raw",
                code="InvalidRequest",
                target="model",
            )

        def write() -> bytes:
            model = self._models.get(version.loop_id, version.model_id)
            if form is Form.SIGNED:
                ring = self._signing.keyring()
                signature = ring.sign(signed_bytes(model, bins))
                certificate = ring.certificate.public_bytes(serialization.Encoding.DER)
                return pack(model, certificate, signature, bins=bins)
            return model if bins is None else pack(model, bins=bins)

        return await asyncio.to_thread(write)

    async def import_model(
        self,
        name: str,
        file: BinaryIO,
        *,
        bound: int,
        by_admin: bool,
        try_out: Callable[[str, bytes], None],
        take_policy: bool = False,
    ) -> Imported:
        """Serve a model from elsewhere, and go on learning from it.

        Args:
            name: of the loop.
            file: what was sent: an archive as `exported` makes it, or a bare model. It can be read from any place.
            bound: bytes of the model.
            by_admin: whether models are let in whatever the loop's `model_import` says.
            try_out: loads a model with the given arguments where it can do no harm; raises InvalidRequest if it cannot.
            take_policy: give the loop the model's policy, in the same stroke. Otherwise it must be the loop's already.

        Raises:
            InvalidRequest: it is not let in, or is no model that the loop can go on from. Nothing is changed then.
            Conflict: the loop's policy was changed while the model was tried. It serves on as it did.
        """
        settings = self._catalog.loop(name).settings
        found = await self.examine(
            settings, file, bound=bound, by_admin=by_admin, try_out=try_out, take_policy=take_policy
        )
        settings, interactions = found.settings, found.interactions
        digest = await asyncio.to_thread(lambda: found.digest)
        bins = "" if found.bins is None else f" {found.bins}"
        named = hashlib.sha256(f"{digest} {settings.policy} {interactions}{bins}".encode()).hexdigest()
        loop = self._catalog.loop(name)
        version = ModelVersion(
            model_id=f"import-{named[:16]}",
            loop_id=loop.loop_id,
            epoch_id=0,
            created_us=self._clock(),
            joined_offset=0,
            learned=0,
            learned_to_us=0,
            policy=settings.policy,
            interactions=interactions,
            bins=found.bins,
            resumable=False,
            size_bytes=len(found.model),
            digest=digest,
        )
        await asyncio.to_thread(self._models.put, loop.loop_id, version.model_id, found.model)
        self._catalog.add_version(version)
        changes = _policy_of(found.head) if take_policy else {}
        old = loop
        loop = await self._go_on_from(
            name,
            version,
            f"imported {version.model_id}",
            changes,
            check=lambda now: None if take_policy else _check_tried(settings, now),
        )
        self._trail.note_settings("settings changed", name, old.settings, loop.settings)
        self._trail.note(
            "model imported",
            loop=name,
            detail=found.signer or str(found.origin),
            before={"model": old.model_id or ""},
            after={"model": version.model_id},
        )
        return Imported(loop=loop, model_id=version.model_id, origin=found.origin, signer=found.signer)

    async def examine(
        self,
        settings: LoopSettings,
        file: BinaryIO,
        *,
        bound: int,
        by_admin: bool,
        try_out: Callable[[str, bytes], None],
        take_policy: bool = False,
    ) -> Examined:
        """Make sure that a model from elsewhere can be served, and change nothing.

        Args:
            settings: of the loop that is to serve it.
            file: see `import_model`, as for the others.
            bound: bytes of the model.
            by_admin: whether models are let in whatever `model_import` says.
            try_out: loads a model.
            take_policy: whether the loop is to have the model's policy.

        Raises:
            InvalidRequest: it is not let in, or is no model that such a loop can go on from.
        """
        ring = await asyncio.to_thread(self._signing.keyring)

        def admit() -> tuple[Parcel, Origin, x509.Certificate | None, ModelHead]:
            parcel = unpack(file, bound=bound)
            origin, signer = Origin.UNSIGNED, None
            if parcel.certificate is not None and parcel.signature is not None:
                origin, signer = verify(parcel.signed, parcel.certificate, parcel.signature, ring=ring)
            elif parcel.certificate is not None or parcel.signature is not None:
                raise refused("one of its certificate and its signature is missing")
            if not by_admin:
                _check_let_in(origin, signer, settings.model_import)
            return parcel, origin, signer, _head(parcel.model)

        parcel, origin, signer, head = await asyncio.to_thread(admit)
        if take_policy:
            settings = change(settings, _policy_of(head), now=as_datetime(self._clock()))
        interactions = _derived(head) if _derives(settings) else None
        arguments = learner_arguments(settings.policy, interactions, settings.exploration)
        await asyncio.to_thread(try_out, arguments, parcel.model)
        return Examined(
            model=parcel.model,
            head=head,
            origin=origin,
            signer=describe(signer) if signer else None,
            settings=settings,
            interactions=interactions,
            bins=_bins(parcel),
        )

    async def _go_on_from(
        self,
        name: str,
        version: ModelVersion,
        reason: str,
        changes: dict[str, object] | None = None,
        *,
        check: Callable[[LoopSettings], None],
    ) -> Loop:
        """Serve a version. `check` raises if the loop's settings, as they are by now, do not go with it."""

        async def once(loop: Loop) -> Loop:
            check(loop.settings)
            _, joined_end = await self._joined(loop.loop_id).extent()
            settings = change(loop.settings, changes or {}, now=as_datetime(self._clock()))
            served = msgspec.structs.replace(loop, settings=settings, model_id=version.model_id)
            epoch: Epoch = msgspec.structs.replace(
                next_epoch(served, now_us=self._clock(), reason=reason),
                policy=version.policy,
                derives_interactions=version.interactions is not None,
                interactions=version.interactions,
                derives_rate=False,  # what was gone back to on purpose is not replaced by itself
                rate=version.rate,
                derives_bins=False,
                bins=version.bins,
                base=version.model_id,
                start=joined_end,
                since_us=0,
                history_since_us=self._clock(),  # what came before, the model may have learned
            )
            written = self._catalog.update_loop(served, epoch=epoch, retire=True)
            self.version(loop, version.model_id)  # from here on it is kept; it must not have gone just before
            if settings != loop.settings:
                record = SettingsChange(settings=msgspec.Raw(msgspec.json.encode(settings)), cause=reason)
                await self._log(loop.loop_id).append([record])
            return written

        return await change_loop(self._catalog, name, once)

    def version(self, loop: Loop, model_id: ModelId) -> ModelVersion:
        """Find a version.

        Raises:
            NotFound: it is not kept.
        """
        for version in self._catalog.versions(loop.loop_id):
            if version.model_id == model_id:
                return version
        raise NotFound(f"loop {loop.name} keeps no model {model_id}: `rankward model list` names those it does")


def _not_now(why: str) -> CallerError:
    return CallerError(why, code="OperationNotAllowed")


def _check_kind(version: ModelVersion, settings: LoopSettings) -> None:
    if problem_type_of(version.policy) is not problem_type_of(settings.policy):
        raise InvalidSettings(
            f"model {version.model_id} decides with --{problem_type_of(version.policy)}, the loop's policy with "
            f"--{problem_type_of(settings.policy)}: give the loop a policy of the model's kind first",
            code="InvalidPolicyConfiguration",
        )


def _check_tried(tried: LoopSettings, now: LoopSettings) -> None:
    """Make sure that a model was tried under the policy that the loop has now, whatever its exploration is by now."""
    policies = [parse_policy(settings.policy).with_epsilon(0.0).text for settings in (tried, now)]
    if tried.preset != now.preset or policies[0] != policies[1]:
        raise Conflict("the loop's policy was changed while the model was tried: import it again")


def describe(certificate: x509.Certificate) -> str:
    """Write whose a certificate is: its subject, and its SHA-256."""
    return f"{certificate.subject.rfc4514_string()}, SHA-256 {fingerprint(certificate)}"


def _check_let_in(origin: Origin, signer: x509.Certificate | None, allowed: ModelImport) -> None:
    if origin in _LET_IN[allowed]:
        return
    if allowed is ModelImport.NONE:
        raise InvalidRequest(
            "models cannot be imported with a key of this loop: use the admin key, or set its model_import",
            code="InvalidApiAccess",
            target="model",
        )
    whose = "it is not signed" if signer is None else f"it is signed by {describe(signer)}, which is not trusted here"
    raise refused(f"{whose}, and the loop's model_import is {allowed}: use the admin key, or change that setting")


def _head(model: bytes) -> ModelHead:
    try:
        return read_head(model)
    except ValueError as error:
        raise _unusable(error) from error


def _unusable(error: ValueError) -> InvalidRequest:
    return InvalidRequest(
        f"the model cannot be imported: {error}. Nothing was changed.", code="InvalidModelImportFormat", target="model"
    )


def _bins(parcel: Parcel) -> Bins | None:
    try:
        return None if parcel.bins is None else read_bins(parcel.bins)
    except ValueError as error:
        raise _unusable(ValueError(f"its bins are damaged: {error}")) from error


def _derives(settings: LoopSettings) -> bool:
    return settings.preset is not None and PRESETS[settings.preset].derives_interactions


def _derived(head: ModelHead) -> Interactions | None:
    """Read the interactions that were derived for a model. None: it has others, which its policy has to name."""
    pairs, ignored = head.values("quadratic"), "".join(head.values("ignore_linear"))
    if not all(map(is_usable_letter, [*"".join(pairs), *ignored])):
        return None
    return Interactions(pairs=pairs, ignore_linear=tuple(ignored))


def _policy_of(head: ModelHead) -> dict[str, object]:
    """Write the settings of a loop that learns as a model does."""
    try:
        policy = parse_policy(head.policy(without=DERIVED))
        preset = preset_of(policy)
        if preset is None or not PRESETS[preset].derives_interactions:
            policy = parse_policy(head.policy())
            preset = preset_of(policy)
    except ValueError as error:
        raise _unusable(error) from error
    settings: dict[str, object] = {"policy": policy.text, "preset": preset}
    return settings if policy.epsilon is None else {**settings, "exploration": policy.epsilon}
