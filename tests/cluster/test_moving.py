"""An installation that outgrows its machine moves into a cluster, and may move back: nothing is lost on the way."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from tests.loop.circle import Circle, newest_version, weights_of
from typer.testing import CliRunner, Result

from rankward import moving
from rankward.cli.app import app
from rankward.errors import Conflict, DataFolderHeld, NotFound, StoreUnavailable
from rankward.moving import copy_in, copy_out
from rankward.settings import LoopSettings
from rankward.store.audit import AuditFilter
from rankward.store.nats.broker import Broker, BrokerOptions
from rankward.store.nats.objects import Objects
from rankward.store.sqlite.database import FileDatabase
from rankward.store.sqlite.folder import FolderLock
from rankward.store.sqlite.rows import rows_of
from rankward.wiring import Home

if TYPE_CHECKING:
    from pathlib import Path

    from rankward.cluster.servers import Server

pytestmark = pytest.mark.slow


def silent(_: str) -> None:
    """Say nothing."""


@pytest.fixture
def options(nats_server: Server) -> BrokerOptions:
    """A cluster of the test's own, which is empty."""
    return BrokerOptions(servers=(nats_server.url,), prefix=f"moving-{uuid4().hex}")


def lived(root: Path) -> None:
    """Make an installation whose loop has learned."""

    async def live() -> None:
        circle = Circle(root, LoopSettings())
        await circle.play(60)
        await circle.circle()
        circle.home.loops.set_key(None, 1)
        circle.home.study_models.put(circle.loop.loop_id, "study-0", b"learned in a study")
        await circle.close()

    asyncio.run(live())


def test_there_and_back_gives_the_same_loop_which_goes_on_learning(tmp_path: Path, options: BrokerOptions) -> None:
    """Offsets, times, models, keys and settings are those of before, and the learner goes on where it stood."""
    lived(tmp_path / "old")
    [there] = copy_in(tmp_path / "old", options, names=(), tell=silent)
    assert there.source is not None
    assert there.same
    counts = (there.source.entries.count, there.source.joined.count, there.source.models.count)
    assert counts == (121, 60, 1), "one entry is a tick"
    [back] = copy_out(options, tmp_path / "new", names=(), tell=silent)
    assert back.same
    assert back.source == there.source
    assert not (tmp_path / "new" / "node.json").exists()
    with closing(Home(tmp_path / "old")) as old, closing(Home(tmp_path / "new")) as new:
        assert new.catalog.keys() == old.catalog.keys()
        assert new.catalog.loops() == old.catalog.loops()
        noted = [each.audit.entries(AuditFilter(loops=("circle",)), limit=100) for each in (old, new)]
        assert [entry.what for entry in noted[0]] == [entry.what for entry in noted[1]] != []
        loop_id = new.catalog.loop("circle").loop_id
        assert new.study_models.get(loop_id, "study-0") == b"learned in a study"

    async def go_on(root: Path) -> tuple[object, object]:
        circle = Circle(root, LoopSettings())
        circle.pass_time(86_400)
        await circle.follow()
        outcome = await circle.rank("again", "v1")
        await circle.ranking.reward("again", 1.0)
        await circle.circle()
        weights = weights_of(circle, newest_version(circle))
        await circle.close()
        return outcome.interaction, weights

    assert asyncio.run(go_on(tmp_path / "new")) == asyncio.run(go_on(tmp_path / "old"))


def test_a_copy_that_was_cut_off_leaves_nothing_to_see_and_goes_on(
    tmp_path: Path, options: BrokerOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes hours for a large installation: the line may be cut at any time."""
    lived(tmp_path / "old")

    def cut(*_: object) -> None:
        raise StoreUnavailable("the line is cut")

    with monkeypatch.context() as patched:
        patched.setattr(moving, "carry", cut)
        with pytest.raises(StoreUnavailable, match="cut"):
            copy_in(tmp_path / "old", options, names=(), tell=silent)
    broker = Broker(options)
    stored = {(each.name, each.digest) for each in Objects(broker, "parts").listed()}
    assert stored
    with pytest.raises(NotFound, match="circle"):
        copy_out(options, tmp_path / "early", names=("circle",), tell=silent)
    [copied] = copy_in(tmp_path / "old", options, names=(), tell=silent)
    assert copied.same
    assert copied.source is not None
    assert {(each.name, each.digest) for each in Objects(broker, "parts").listed()} == stored
    broker.close()
    [again] = copy_in(tmp_path / "old", options, names=(), tell=silent)
    assert again.source is None, "it is there, and may have gone on"


def test_a_copy_out_that_was_cut_off_goes_on(
    tmp_path: Path, options: BrokerOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it is done, the folder is no installation that could be served."""
    lived(tmp_path / "old")
    copy_in(tmp_path / "old", options, names=(), tell=silent)

    def cut(*_: object) -> None:
        raise StoreUnavailable("the line is cut")

    with monkeypatch.context() as patched:
        patched.setattr(moving, "_cut_loose", cut)
        with pytest.raises(StoreUnavailable, match="cut"):
            copy_out(options, tmp_path / "new", names=(), tell=silent)
    assert (tmp_path / "new" / "node.json").exists()
    [copied] = copy_out(options, tmp_path / "new", names=(), tell=silent)
    assert copied.same
    with pytest.raises(Conflict, match="not empty"):
        copy_out(options, tmp_path / "new", names=(), tell=silent)


def test_what_the_cluster_has_under_the_name_is_not_touched(tmp_path: Path, options: BrokerOptions) -> None:
    """Two installations have a loop `default` each; loops are named to choose those that can be carried."""
    for name in ("one", "other"):
        with closing(Home(tmp_path / name)) as home:
            home.loops.create("default", LoopSettings())
            home.loops.create(name, LoopSettings())
    assert len(copy_in(tmp_path / "one", options, names=(), tell=silent)) == 2
    with pytest.raises(Conflict, match="default"):
        copy_in(tmp_path / "other", options, names=(), tell=silent)
    [copied] = copy_in(tmp_path / "other", options, names=("other",), tell=silent)
    assert copied.name == "other"
    assert copied.same
    [out] = copy_out(options, tmp_path / "some", names=("other",), tell=silent)
    assert out.same
    with closing(Home(tmp_path / "some")) as home:
        assert [loop.name for loop in home.catalog.loops()] == ["other"]


def test_only_a_data_folder_that_nobody_serves_is_copied(tmp_path: Path, options: BrokerOptions) -> None:
    """What a running service acknowledged after it was copied would be lost."""
    with pytest.raises(NotFound, match="no data folder"):
        copy_in(tmp_path, options, names=(), tell=silent)
    Home(tmp_path / "served").close()
    lock = FolderLock(tmp_path / "served" / "worker.lock")
    assert lock.take()
    with pytest.raises(DataFolderHeld):
        copy_in(tmp_path / "served", options, names=(), tell=silent)
    lock.close()


def test_every_table_with_something_of_a_loop_is_carried(tmp_path: Path) -> None:
    """A table that is added later must not be forgotten."""
    Home(tmp_path).close()
    with closing(FileDatabase(tmp_path / "catalog.sqlite")) as catalog:
        tables = {name for (name,) in catalog.rows("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        carried = {rows.table for rows in rows_of(catalog.rows, "")}
    assert tables - carried == {"loop", "key", "audit", "lead", "log_import", "sqlite_sequence"}


def test_the_command_says_what_went_over(tmp_path: Path, options: BrokerOptions) -> None:
    """An operator sees that both sides hold the same, and what to do next."""
    with closing(Home(tmp_path / "old")) as home:
        home.loops.create("newsroom", LoopSettings())
    [url] = options.servers

    def copy(source: object, target: object) -> Result:
        arguments = ["copy", "--from", str(source), "--to", str(target), "--nats-prefix", options.prefix]
        return CliRunner().invoke(app, arguments)

    there = copy(tmp_path / "old", url)
    assert there.exit_code == 0, there.output
    assert "newsroom" in there.output
    assert "the same" in there.output
    back = copy(url, tmp_path / "new")
    assert back.exit_code == 0, back.output
    assert "rankward serve --data" in back.output
    assert "was there already" in copy(tmp_path / "old", url).output
    assert "--to nats://HOST:4222" in copy(tmp_path / "old", tmp_path / "new").output
