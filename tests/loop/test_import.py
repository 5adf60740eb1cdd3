"""Models from elsewhere: let in or not, served, and learned on from."""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization

from rankward.errors import Conflict, InvalidRequest
from rankward.loops import new_loop_settings
from rankward.records import SettingsChange
from rankward.registry.archive import pack
from rankward.registry.service import Form, Imported
from rankward.registry.sign import Keyring, Origin
from rankward.settings import LoopSettings, ModelImport
from rankward.vw.model_file import read_head
from rankward.vw.presets import PERSONALIZER
from rankward.vw.trial import try_out
from rankward.wiring import Home
from tests.loop.circle import Circle, newest_version
from tests.models import learned, original, with_head

if TYPE_CHECKING:
    from pathlib import Path

    from rankward.store.ports import Loop

pytestmark = pytest.mark.slow

_DER = serialization.Encoding.DER
FAST = "--cb_explore_adf --epsilon 0.2 --power_t 0 -l 0.5 --cb_type mtr -q ::"
ORIGINAL = LoopSettings()


async def taken(
    circle: Circle, sent: bytes, *, by_admin: bool = False, take_policy: bool = False, bound: int = 1_000_000
) -> Imported:
    """Import what was sent."""
    return await circle.registry.import_model(
        "circle", io.BytesIO(sent), bound=bound, by_admin=by_admin, try_out=try_out, take_policy=take_policy
    )


async def refused(circle: Circle, sent: bytes, code: str, *, by_admin: bool = False) -> str:
    """Import what must be refused and change nothing. Returns the message."""
    before = state(circle)
    with pytest.raises(InvalidRequest) as caught:
        await taken(circle, sent, by_admin=by_admin)
    assert caught.value.code == code
    assert state(circle) == before
    return caught.value.message


def state(circle: Circle) -> tuple[Loop, object, object, list[str]]:
    """All that an import could change."""
    loop = circle.loop
    folder = circle.home.folder.loops / loop.loop_id
    files = sorted(str(path) for path in folder.rglob("*") if path.is_file())
    return loop, circle.home.catalog.epochs(loop.loop_id), circle.home.catalog.versions(loop.loop_id), files


def foreign(folder: Path, model: bytes) -> bytes:
    """Sign a model as another installation would."""
    home = Home(folder / "elsewhere")
    try:
        ring = home.signing.keyring()
    finally:
        home.close()
    return sealed(ring, model)


def sealed(ring: Keyring, model: bytes) -> bytes:
    """Sign a model with a key."""
    return pack(model, ring.certificate.public_bytes(_DER), ring.sign(model))


def test_a_signed_export_comes_back(tmp_path: Path) -> None:
    """With a key of the loop alone, and byte for byte."""

    async def story() -> None:
        circle = Circle(tmp_path / "data", ORIGINAL)
        await taken(circle, learned(), by_admin=True)
        loop = circle.loop
        exported = circle.home.models.get(loop.loop_id, str(loop.model_id))
        archive = await circle.registry.exported(newest_version(circle), Form.SIGNED)
        await circle.registry.delete("circle")

        imported = await taken(circle, archive)

        assert imported.origin is Origin.TRUSTED
        assert imported.signer is not None
        assert circle.home.models.get(loop.loop_id, imported.model_id) == exported == learned()
        assert circle.loop.model_id == imported.model_id
        await circle.close()

    asyncio.run(story())


def test_a_setting_says_what_a_loops_key_may_import(tmp_path: Path) -> None:
    """By default nothing that was not signed here; with the admin key, everything that works."""

    async def story() -> None:
        circle = Circle(tmp_path / "data", ORIGINAL)
        model = learned()
        ours, theirs = sealed(circle.home.signing.keyring(), model), foreign(tmp_path, model)
        signature = "InvalidModelImportSignature"

        assert "not trusted here" in await refused(circle, theirs, signature)
        assert "admin key" in await refused(circle, model, signature)
        await taken(circle, ours)

        await circle.configuration.change("circle", {"model_import": ModelImport.SIGNED})
        assert "not signed" in await refused(circle, model, signature)
        assert (await taken(circle, theirs)).origin is Origin.FOREIGN

        await circle.configuration.change("circle", {"model_import": ModelImport.ANY})
        assert (await taken(circle, model)).origin is Origin.UNSIGNED

        await circle.configuration.change("circle", {"model_import": ModelImport.NONE})
        await refused(circle, ours, "InvalidApiAccess")
        for sent, origin in ((ours, Origin.TRUSTED), (theirs, Origin.FOREIGN), (model, Origin.UNSIGNED)):
            assert (await taken(circle, sent, by_admin=True)).origin is origin
        await circle.close()

    asyncio.run(story())


def test_a_signature_that_does_not_fit_is_refused_for_the_admin_key_too(tmp_path: Path) -> None:
    """Somebody has changed the model since; half a signature is none."""

    async def story() -> None:
        circle = Circle(tmp_path / "data", ORIGINAL)
        ring = circle.home.signing.keyring()
        certificate, signature = ring.certificate.public_bytes(_DER), ring.sign(learned())
        other = learned(events=5)

        await refused(circle, pack(other, certificate, signature), "InvalidModelImportSignature", by_admin=True)
        await refused(circle, pack(other, b"", b""), "InvalidModelImportSignature", by_admin=True)
        await circle.close()

    asyncio.run(story())


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"garbage" * 99,
        learned()[:-5],
        learned("--cb_explore_adf --squarecb"),
        learned("--cb_explore_adf --coin -q ::"),
        with_head(learned(), options=" --cb_explore_adf --readable_model /tmp/x"),
        with_head(learned(), id_="x --readable_model /tmp/x"),
        with_head(learned(), options=" --ccb_explore_adf --cb_sample"),
        learned("--ccb_explore_adf"),
    ],
    ids=["none", "garbage", "cut", "policy", "optimizer", "writes", "writes by its id", "problem type", "slots"],
)
def test_what_cannot_be_gone_on_from_changes_nothing(sent: bytes, tmp_path: Path) -> None:
    """Neither the loop nor its folder, with whatever key it comes."""

    async def story() -> None:
        circle = Circle(tmp_path, ORIGINAL)
        await circle.play(5)
        await refused(circle, sent, "InvalidModelImportFormat", by_admin=True)
        await circle.close()

    asyncio.run(story())


def test_a_model_beyond_the_bound_is_refused(tmp_path: Path) -> None:
    """Bare, or grown out of an archive."""

    async def story() -> None:
        circle = Circle(tmp_path, ORIGINAL)
        for sent in (learned(), pack(learned(), b"x", b"y")):
            with pytest.raises(InvalidRequest, match="larger than 100 bytes"):
                await taken(circle, sent, by_admin=True, bound=100)
        await circle.close()

    asyncio.run(story())


@pytest.mark.parametrize("policy", [FAST, "--cb_explore_adf --epsilon 0.1 --coin -q vd"])
def test_a_model_of_the_original_serves_and_goes_on_learning(policy: str, tmp_path: Path) -> None:
    """It is what people bring along: months of learning, and the policy that it was learned with."""

    async def story() -> None:
        circle = Circle(tmp_path, ORIGINAL)
        sent = original(learned(policy, events=60))

        imported = await taken(circle, sent, by_admin=True, take_policy=True)
        await circle.follow()
        outcome = await circle.rank("asked", "v1")
        assert outcome.interaction.model_id == imported.model_id

        await circle.play(200)
        await circle.circle()
        version = newest_version(circle)
        assert version.learned == 201
        assert read_head(circle.home.models.get(circle.loop.loop_id, version.model_id)).version >= (9, 11, 0)
        assert circle.loop.model_id == version.model_id
        assert await circle.play(200, prefix="later") > 0.6
        await circle.close()

    asyncio.run(story())


def test_the_loops_policy_stays_unless_it_is_to_be_taken(tmp_path: Path) -> None:
    """With it come the preset and the exploration, and the log says so, as of any change of the policy."""

    async def story() -> None:
        circle = Circle(tmp_path, new_loop_settings())
        sent = learned()
        message = await refused(circle, sent, "InvalidModelImportFormat", by_admin=True)
        assert "give the loop the policy `--cb_explore_adf --cb_type mtr --epsilon 0.2" in message

        await taken(circle, sent, by_admin=True, take_policy=True)

        settings = circle.loop.settings
        assert settings.preset == PERSONALIZER.name
        assert settings.exploration == 0.2
        assert settings.policy == read_head(sent).policy()
        entries = await circle.log.read(0, limit=100)
        [written] = [entry.record for entry in entries if isinstance(entry.record, SettingsChange)]
        assert msgspec.json.decode(written.settings, type=LoopSettings) == settings
        await circle.registry.import_model(
            "circle", io.BytesIO(sent), bound=1_000_000, by_admin=True, try_out=try_out
        )  # from now on it is the loop's own
        assert circle.loop.settings == settings
        await circle.close()

    asyncio.run(story())


def test_a_policy_that_is_set_while_a_model_is_tried_stays(tmp_path: Path) -> None:
    """The model was tried under the policy before: to serve it would be to decide by another than the loop has."""

    async def story() -> None:
        circle = Circle(tmp_path / "data", ORIGINAL)
        here = asyncio.get_running_loop()

        def set_meanwhile(arguments: str, model: bytes) -> None:
            try_out(arguments, model)
            asyncio.run_coroutine_threadsafe(circle.configuration.set_policy("circle", FAST), here).result()

        with pytest.raises(Conflict, match="import it again"):
            await circle.registry.import_model(
                "circle", io.BytesIO(learned()), bound=1_000_000, by_admin=True, try_out=set_meanwhile
            )

        assert circle.loop.model_id is None
        assert circle.loop.settings.policy == FAST
        assert {epoch.policy for epoch in circle.home.catalog.epochs(circle.loop.loop_id)} >= {FAST}
        await circle.close()

    asyncio.run(story())


def test_derived_interactions_travel_with_the_model(tmp_path: Path) -> None:
    """A loop of the preset `balanced` goes on from the export of another, with what that one had derived."""

    async def story() -> None:
        there = Circle(tmp_path / "there", new_loop_settings())
        await there.play(200)
        await there.circle()
        version = newest_version(there)
        assert version.interactions is not None
        sent = await there.registry.exported(version, Form.SIGNED)
        pmf = (await there.rank("asked", "v1")).interaction.pmf
        await there.close()

        here = Circle(tmp_path / "here", new_loop_settings())
        await taken(here, sent, by_admin=True)
        await here.follow()
        assert (await here.rank("asked", "v1")).interaction.pmf == pytest.approx(pmf)
        imported = newest_version(here)
        assert imported.interactions is not None
        assert set(imported.interactions.pairs) == set(version.interactions.pairs)
        await here.play(100)
        await here.circle()
        assert newest_version(here).learned == 101
        assert len(here.home.catalog.epochs(here.loop.loop_id)) == 1, "nothing is new, so nothing starts afresh"
        await here.close()

    asyncio.run(story())


def test_a_model_may_be_imported_again_after_learning_went_on(tmp_path: Path) -> None:
    """It is the way back when what came after was no good."""

    async def story() -> None:
        circle = Circle(tmp_path, ORIGINAL)
        first = await taken(circle, learned(), by_admin=True)
        await circle.play(50)
        await circle.circle()
        assert circle.loop.model_id != first.model_id

        again = await taken(circle, learned(), by_admin=True)

        assert again.model_id == first.model_id == circle.loop.model_id
        await circle.close()

    asyncio.run(story())
