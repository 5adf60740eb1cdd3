"""The model over HTTP: download, properties, reset."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import random
import socket
import threading
import zipfile
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from rankward.api.options import ApiOptions
from rankward.api.service import UPLOADS_AT_ONCE
from rankward.api.upload import receive_upload
from rankward.errors import StorageFull
from rankward.registry.archive import pack
from rankward.settings import Limits, LoopSettings, ModelImport
from tests.models import learned, mutated
from tests.service import ADMIN_KEY, KEY_HEADER, PATIENCE_S, RunningService, eventually, request

if TYPE_CHECKING:
    from tests.service import LoopClient

pytestmark = pytest.mark.slow

NEVER = "0001-01-01T00:00:00+00:00"
BEGUN = datetime.now(UTC)


@pytest.fixture(scope="module")
def untrained(service: RunningService) -> LoopClient:
    """A loop that never learned."""
    return service.new_loop()


@pytest.fixture(scope="module")
def trained(service: RunningService) -> LoopClient:
    """A loop with a model, which no test changes."""
    return _trained(service)


def _trained(service: RunningService) -> LoopClient:
    """Make a loop that has learned that pasta is good and that ramen is not."""
    settings = LoopSettings(
        model_export_frequency=timedelta(milliseconds=100),
        policy="--cb_explore_adf --epsilon 0.2 --cb_type mtr -l 0.5",
        preset=None,
    )
    loop = service.new_loop(settings)
    _train(service, loop)
    return loop


def _train(service: RunningService, loop: LoopClient) -> None:
    for n in range(60):
        shown = loop.rank(request("ramen", "pasta", eventId=f"e{n}")).json()["rewardActionId"]
        loop.reward(f"e{n}", 1.0 if shown == "pasta" else 0.0)
    loop_id = service.loop(loop.loop).loop_id

    asked = 60

    def everything_is_learned() -> bool:
        versions = service.home.catalog.versions(loop_id)
        return bool(versions) and versions[0].learned == asked

    def the_model_serves() -> bool:
        nonlocal asked
        asked += 1
        return "0.1}" in loop.rank(request("ramen", "pasta")).text

    service.pass_time(loop.loop)
    eventually(everything_is_learned, "everything is learned")
    eventually(the_model_serves, "the model serves")
    service.pass_time(loop.loop)
    eventually(everything_is_learned, "what was asked meanwhile is learned too")


def test_a_loop_without_a_model_answers_no_bytes(untrained: LoopClient) -> None:
    """200, not 404: the local-inference clients count on it."""
    answer = untrained.get("/model")

    assert answer.status_code == 200
    assert answer.content == b""
    assert answer.headers["content-length"] == "0"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["last-modified"] == "Mon, 01 Jan 0001 00:00:00 GMT"


def test_a_loop_without_a_model_has_properties_of_the_year_1(untrained: LoopClient) -> None:
    """As the original answered."""
    assert untrained.get("/model/properties").json() == {"creationTime": NEVER, "lastModifiedTime": NEVER}


def test_the_model_is_the_learners_own_file(service: RunningService, trained: LoopClient) -> None:
    """A download can be opened with the learner itself; its digest is the one on record."""
    answer = trained.get("/model")

    version = service.home.catalog.versions(service.loop(trained.loop).loop_id)[0]
    assert answer.status_code == 200
    assert answer.headers["content-disposition"] == "attachment; filename=model.vw"
    assert answer.content == service.home.models.get(version.loop_id, version.model_id)
    assert b"--cb_explore_adf" in answer.content[:400]


def test_head_says_what_get_would(trained: LoopClient, untrained: LoopClient) -> None:
    """The local-inference client compares length and `Last-Modified` before it downloads."""
    for loop in (trained, untrained):
        head, get = loop.call("HEAD", "/model"), loop.get("/model")
        assert head.status_code == 200
        assert head.content == b""
        for name in ("content-length", "last-modified", "content-type", "content-disposition"):
            assert head.headers[name] == get.headers[name]


def test_properties_and_last_modified_tell_when_the_model_was_made(trained: LoopClient) -> None:
    """With an explicit offset, and never in the future."""
    properties = trained.get("/model/properties").json()
    created, modified = (datetime.fromisoformat(properties[name]) for name in ("creationTime", "lastModifiedTime"))

    assert properties["lastModifiedTime"].endswith("+00:00")
    assert BEGUN < created <= modified <= datetime.now(UTC)
    assert parsedate_to_datetime(trained.get("/model").headers["last-modified"]) == modified.replace(microsecond=0)


@pytest.mark.parametrize("version", ["v1.1-preview.3", "2022-09-01-preview"])
def test_a_signed_model_is_an_archive_that_anyone_can_verify(
    trained: LoopClient, untrained: LoopClient, version: str
) -> None:
    """With the members, the padding and the hash of the original; HEAD says its length before."""
    loop = trained.at(version)
    bare = b""
    while bare != loop.get("/model").content:  # a new one may have been published in between
        bare = loop.get("/model").content
        answer, head = loop.get("/model?signed=true"), loop.call("HEAD", "/model?signed=true")

    assert answer.headers["content-disposition"] == "attachment; filename=model.vw.zip"
    assert answer.headers["content-length"] == head.headers["content-length"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        model, signature = archive.read("model.vw"), archive.read("sha512_signature.bin")
        certificate = x509.load_der_x509_certificate(archive.read("signer.der"))
    key = certificate.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    key.verify(signature, model, padding.PKCS1v15(), hashes.SHA512())
    assert (len(signature), key.key_size) == (256, 2048)
    assert model == bare
    assert untrained.at(version).get("/model?signed=true").content == b""


@pytest.mark.parametrize("version", ["v1.0", "v1.1-preview.2"])
def test_earlier_versions_know_of_no_signatures(trained: LoopClient, version: str) -> None:
    """A parameter that an operation does not have is passed over, and there is nothing to upload to."""
    assert trained.at(version).get("/model?signed=true").headers["content-disposition"].endswith("model.vw")
    assert trained.at(version).call("PUT", "/model", b"").status_code == 405


@pytest.mark.parametrize("version", ["v1.1-preview.3", "2022-09-01-preview"])
def test_a_signed_model_moves_from_loop_to_loop(service: RunningService, trained: LoopClient, version: str) -> None:
    """With keys of the loops alone, as between two resources of the original; in chunks, as its clients send it."""
    sent = trained.at(version).get("/model?signed=true").content
    with zipfile.ZipFile(io.BytesIO(sent)) as archive:
        model = archive.read("model.vw")
    settings = service.loop(trained.loop).settings
    other = service.new_loop(settings).at(version)

    answer = other.upload(sent[n : n + 100] for n in range(0, len(sent), 100))

    assert (answer.status_code, answer.content) == (204, b"")
    assert other.get("/model").content == model
    body = other.rank(request("ramen", "pasta")).json()
    assert {action["id"]: action["probability"] for action in body["ranking"]} == {"pasta": 0.9, "ramen": 0.1}
    assert other.get("/model/properties").json()["lastModifiedTime"] != NEVER


def test_what_is_not_signed_here_needs_the_admin_key(service: RunningService) -> None:
    """Or whoever holds the key of one loop could bring a model that nobody knows."""
    loop = service.new_loop(LoopSettings()).at("v1.1-preview.3")
    model = learned()

    refused = loop.upload(model)
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "invalidModelImportSignature"
    assert loop.get("/model").content == b""

    path = f"/loops/{loop.loop}/personalizer/{loop.version}/model"
    taken = service.send("PUT", path, headers={KEY_HEADER: ADMIN_KEY}, body=model)
    assert taken.status_code == 204
    assert loop.get("/model").content == model


@pytest.mark.parametrize(
    ("body", "code", "word"),
    [
        (b"", "invalidModelImportFormat", "Input is not a valid zip file."),
        (b"{}", "invalidModelImportFormat", "Input is not a valid zip file."),
        (pack(b"garbage", b"", b""), "invalidModelImportSignature", "signer.der"),
    ],
    ids=["nothing", "json", "garbage"],
)
def test_an_upload_that_cannot_be_used_is_refused(service: RunningService, body: bytes, code: str, word: str) -> None:
    """In the original's words where they are known."""
    loop = service.new_loop().at("2022-09-01-preview")

    answer = loop.upload(body)

    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == answer.headers["x-ms-error-code"] == code
    assert word in answer.json()["error"]["message"]
    assert loop.get("/model").content == b""


def test_a_loop_can_be_closed_to_uploads(service: RunningService) -> None:
    """The contract has a code for an operation that is switched off."""
    settings = msgspec.structs.replace(LoopSettings(), model_import=ModelImport.NONE)

    answer = service.new_loop(settings).at("v1.1-preview.3").upload(learned())

    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "invalidApiAccess")


def test_hostile_models_leave_the_service_alone(service: RunningService) -> None:
    """Sent with the admin key, so that each is tried: every one is refused or works, and the service lives."""
    loop = service.new_loop(LoopSettings()).at("v1.1-preview.3")
    path = f"/loops/{loop.loop}/personalizer/{loop.version}/model"
    before = service.children()
    dice = random.Random(7)
    for _ in range(20):
        answer = service.send("PUT", path, headers={KEY_HEADER: ADMIN_KEY}, body=mutated(learned(), dice))
        assert answer.status_code in {204, 400}, answer.text
        if answer.status_code == 400:
            assert answer.json()["error"]["code"] == "invalidModelImportFormat"
        assert loop.rank(request("ramen", "pasta")).status_code == 201
    assert service.children() == before


def test_an_upload_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    """Before it is kept, however it comes; JSON has a limit of its own, which is not this one's."""
    limits = msgspec.structs.replace(Limits(), body_bytes=1_000, model_bytes=10_000)
    running = RunningService(tmp_path, options=ApiOptions(limits=limits))
    try:
        loop = running.start().new_loop(LoopSettings()).at("v1.1-preview.3")
        for body in (bytes(10_001), (bytes(1_000) for _ in range(11))):
            answer = loop.upload(body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "payloadSizeExceeded")
        assert loop.upload(bytes(9_000)).json()["error"]["code"] == "invalidModelImportFormat"
        assert loop.call("PUT", "/configurations/policy", bytes(1_001)).json()["error"]["code"] == "payloadSizeExceeded"
        assert list((running.root / "run").glob("tmp*")) == []
    finally:
        running.close()


def test_uploads_at_once_are_bounded(service: RunningService) -> None:
    """Each lies on the disk until it is done, and a loop's key alone must not fill that for all loops."""
    loop = service.new_loop().at("v1.1-preview.3")
    path = f"/loops/{loop.loop}/personalizer/{loop.version}/model"
    head = f"PUT {path} HTTP/1.1\r\nHost: x\r\n{KEY_HEADER}: {loop.key}\r\nContent-Length: 1000\r\n\r\n"
    with contextlib.ExitStack() as under_way:
        for _ in range(UPLOADS_AT_ONCE):
            connection = under_way.enter_context(socket.create_connection(("127.0.0.1", service.port), PATIENCE_S))
            connection.sendall(head.encode() + b"x")

        eventually(lambda: loop.upload(b"x").status_code == 503, "all places are taken")
        assert "retry-after" in loop.upload(b"x").headers

    eventually(lambda: loop.upload(b"x").status_code == 400, "the places are free again")


def test_decisions_do_not_wait_while_a_model_is_read(service: RunningService, trained: LoopClient) -> None:
    """A model may have hundreds of megabytes, on a disk that is busy."""
    loop = service.loop(trained.loop)
    other = service.new_loop()
    model = service.root / "loops" / loop.loop_id / "models" / f"{loop.model_id}.vw"
    content = model.read_bytes()
    aside = model.rename(model.with_suffix(".aside"))
    os.mkfifo(model)  # whoever reads it waits until somebody writes
    reading = threading.Thread(target=trained.call, args=("GET", "/model"))
    try:
        reading.start()
        with model.open("wb") as file:  # which waits for the reader
            rank = threading.Thread(target=other.rank, args=(request("ramen", "pasta"),))
            rank.start()
            rank.join(PATIENCE_S / 3)
            waits = rank.is_alive()
            file.write(content)
        rank.join()
    finally:
        reading.join()
        aside.replace(model)
    assert not waits


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
def test_a_full_disk_is_said_to_be_full() -> None:
    """And is not taken for a mistake of ours, whatever the size of what did not fit."""

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"x"}

    full = Path("/dev/full").open("r+b")  # noqa: SIM115
    with pytest.raises(StorageFull):
        asyncio.run(receive_upload([], receive, full, 10))
    with contextlib.suppress(OSError):
        full.close()


def test_the_model_answers_the_originals_distribution(trained: LoopClient) -> None:
    """Epsilon-greedy: 1 - e + e/K for the best, e/K for the other; which is drawn does not change it."""
    seen: set[str] = set()
    for n in range(250):  # until both were drawn: that none of these explores has a chance of 0.9 ** 250 = 4e-12
        body = trained.rank(request("ramen", "pasta", eventId=f"asked-{n}")).json()
        assert {action["id"]: action["probability"] for action in body["ranking"]} == {"pasta": 0.9, "ramen": 0.1}
        assert body["ranking"][0]["id"] == body["rewardActionId"]
        seen.add(body["rewardActionId"])
        if len(seen) == 2:
            break
    assert seen == {"pasta", "ramen"}


def test_another_exploration_holds_for_the_model_that_serves(trained: LoopClient) -> None:
    """It needs no training: the next Rank follows it."""
    trained.put("/configurations/service", {"explorationPercentage": 0.5})
    body = trained.rank(request("ramen", "pasta")).json()
    trained.put("/configurations/service", {"explorationPercentage": 0.2})

    assert {action["id"]: action["probability"] for action in body["ranking"]} == {"pasta": 0.75, "ramen": 0.25}


def test_a_deleted_model_is_forgotten(service: RunningService) -> None:
    """Rank is uniform until the next one, which learns from later events only."""
    loop = _trained(service)
    assert loop.delete("/model").status_code == 204

    assert loop.get("/model").content == b""
    assert loop.get("/model/properties").json()["lastModifiedTime"] == NEVER
    body = loop.rank(request("ramen", "pasta")).json()
    assert [action["probability"] for action in body["ranking"]] == [0.5, 0.5]
    assert len(service.records(loop.loop)) > 60, "the log stays"
