"""Models in the object store: what one node puts, every node can read, whatever else its folder holds."""

from __future__ import annotations

import io
from contextlib import closing
from hashlib import sha256
from typing import TYPE_CHECKING
from uuid import uuid4

import msgspec
import pytest

from rankward.errors import NotFound, StoreUnavailable
from rankward.settings import LoopSettings
from rankward.store.nats.broker import Broker, BrokerOptions
from rankward.store.nats.models import ReplicatedModelStore
from rankward.store.nats.objects import Objects
from rankward.store.ports import ModelVersion
from rankward.wiring import Home

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rankward.cluster.servers import Server

pytestmark = pytest.mark.slow

LOOP = "0" * 32


@pytest.fixture
def broker(nats_server: Server) -> Iterator[Broker]:
    """A connection, for an installation of the test's own."""
    connection = Broker(BrokerOptions(servers=(nats_server.url,), prefix=f"models-{uuid4().hex}"))
    yield connection
    connection.close()


@pytest.fixture
def objects(broker: Broker) -> Objects:
    """An empty bucket."""
    return Objects(broker, "models")


class Record:
    """What the catalog says: the digest of each version."""

    def __init__(self) -> None:
        self.digests: dict[str, str] = {}

    def __call__(self, loop_id: str, model_id: str) -> str | None:
        """Find a digest."""
        return self.digests.get(model_id) if loop_id == LOOP else None

    def publish(self, store: ReplicatedModelStore, model_id: str, model: bytes) -> None:
        """Put a model and record it, as trainers do."""
        store.put(LOOP, model_id, model)
        self.digests[model_id] = sha256(model).hexdigest()


def test_a_second_node_fetches_a_model_once(tmp_path: Path, objects: Objects) -> None:
    """What was published is read wherever it is needed, and from then on without asking any server."""
    record, model = Record(), bytes(range(256)) * 3_000  # of several chunks
    here = ReplicatedModelStore(tmp_path / "here", objects, recorded=record)
    there = ReplicatedModelStore(tmp_path / "there", objects, recorded=record)
    record.publish(here, "1-10", model)
    assert there.get(LOOP, "1-10") == model
    [stored] = objects.listed()
    objects.forget(stored.name)
    assert there.get(LOOP, "1-10") == model
    assert here.get(LOOP, "1-10") == model


def test_what_was_forgotten_is_nowhere(tmp_path: Path, objects: Objects) -> None:
    """Old versions go from the servers, too, and leave nothing there that grows."""
    record = Record()
    store = ReplicatedModelStore(tmp_path, objects, recorded=record)
    record.publish(store, "1-10", b"model")
    del record.digests["1-10"]
    store.forget(LOOP, "1-10")
    store.forget(LOOP, "never there")
    with pytest.raises(NotFound, match="1-10"):
        store.get(LOOP, "1-10")
    assert objects.listed() == []


def test_a_file_that_is_damaged_is_fetched_again(tmp_path: Path, objects: Objects) -> None:
    """A node that lost power while it wrote must not serve other weights than its neighbours."""
    record = Record()
    store = ReplicatedModelStore(tmp_path, objects, recorded=record)
    record.publish(store, "1-10", b"model")
    (tmp_path / LOOP / "models" / "1-10.vw").write_bytes(b"mo")
    assert store.get(LOOP, "1-10") == b"model"
    assert (tmp_path / LOOP / "models" / "1-10.vw").read_bytes() == b"model"


def test_a_worker_that_leads_no_more_replaces_no_version(tmp_path: Path, objects: Objects) -> None:
    """It may put other bytes under the same id before it learns that another worker leads: what is recorded counts."""
    record = Record()
    late = ReplicatedModelStore(tmp_path / "late", objects, recorded=record)
    leader = ReplicatedModelStore(tmp_path / "leader", objects, recorded=record)
    record.publish(leader, "1-10", b"recorded")
    late.put(LOOP, "1-10", b"too late")
    assert late.get(LOOP, "1-10") == b"recorded"
    assert ReplicatedModelStore(tmp_path / "new", objects, recorded=record).get(LOOP, "1-10") == b"recorded"


def test_of_what_is_overwritten_the_newest_counts_on_every_node(tmp_path: Path, objects: Objects) -> None:
    """Challengers keep their place under two names in turn: the file of whoever led before is an old one."""
    one, other = (ReplicatedModelStore(tmp_path / node, objects, "challengers") for node in ("one", "other"))
    one.put(LOOP, "a-0", b"first")
    assert other.get(LOOP, "a-0") == b"first"
    other.put(LOOP, "a-0", b"second")
    assert one.get(LOOP, "a-0") == b"second"
    one.forget(LOOP, "a-0")
    with pytest.raises(NotFound):
        other.get(LOOP, "a-0")
    assert objects.listed() == []


def test_an_object_that_is_damaged_is_not_taken(broker: Broker, objects: Objects, tmp_path: Path) -> None:
    """What the servers hold is checked, too."""
    objects.put("one", io.BytesIO(b"content"))
    bucket = broker.stream("models")

    async def damage() -> None:
        info = await (await broker.js.object_store(bucket)).get_info("one")
        await broker.js.purge_stream(f"OBJ_{bucket}", subject=f"$O.{bucket}.C.{info.nuid}")
        await broker.js.publish(f"$O.{bucket}.C.{info.nuid}", b"other")

    broker.call(damage)
    with pytest.raises(StoreUnavailable, match="damaged"):
        objects.get("one", io.BytesIO())


def test_what_an_upload_left_that_was_cut_off_is_swept(broker: Broker, objects: Objects) -> None:
    """A process that is killed while it stores a large model leaves chunks that nothing names."""
    objects.put("whole", io.BytesIO(b"content"))
    bucket = broker.stream("models")
    broker.call(lambda: broker.js.publish(f"$O.{bucket}.C.cutoff", b"half"))

    def messages() -> int:
        return broker.call(lambda: broker.js.stream_info(f"OBJ_{bucket}")).state.messages

    objects.sweep()
    assert messages() == 3, "an upload that is under way must not be touched"
    objects.sweep()
    assert messages() == 2
    target = io.BytesIO()
    assert objects.get("whole", target)
    assert target.getvalue() == b"content"


def test_what_one_node_publishes_another_reads(tmp_path: Path, broker: Broker) -> None:
    """A version is on record everywhere, so its bytes must be found everywhere, under the digest on record."""
    for node in ("one", "other"):
        (tmp_path / node).mkdir()
        (tmp_path / node / "node.json").write_bytes(msgspec.json.encode(broker.options))
    with closing(Home(tmp_path / "one")) as one, closing(Home(tmp_path / "other")) as other:
        loop = one.loops.create("newsroom", LoopSettings())
        version = ModelVersion(
            model_id="1-10",
            loop_id=loop.loop_id,
            epoch_id=1,
            created_us=1,
            joined_offset=10,
            learned=10,
            learned_to_us=1,
            policy=loop.settings.policy,
            interactions=None,
            resumable=True,
            size_bytes=5,
            digest=sha256(b"model").hexdigest(),
        )
        one.models.put(loop.loop_id, "1-10", b"model")
        one.catalog.add_version(version)
        one.study_models.put(loop.loop_id, "study-0", b"learned in a study")
        assert other.node is not None
        other.node.refresh()
        assert other.models.get(loop.loop_id, "1-10") == b"model"
        assert other.study_models.get(loop.loop_id, "study-0") == b"learned in a study"
        assert (tmp_path / "other" / "loops" / loop.loop_id / "models" / "1-10.vw").read_bytes() == b"model"
