"""The worker lets go of what is no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from rankward.wiring import Home, new_loop_settings
from tests.service import RunningService, eventually, request


@pytest.mark.slow
def test_a_deleted_loop_leaves_no_files_and_disturbs_nobody(tmp_path: Path) -> None:
    """Its trainer and its open files must go first, and its name may be used again at once."""
    service = RunningService(tmp_path).start()
    try:
        client = service.client("playground")
        old = service.loop("playground").loop_id
        for number in range(10):
            assert client.rank(request("a", "b", eventId=f"e{number}")).status_code == 201
        eventually(lambda: service.loop("playground").model_id is not None, "it has learned")
        service.home.delete_loop("playground")
        assert client.rank(request("a", "b")).status_code == 401
        service.home.create_loop("playground", new_loop_settings())
        again = service.client("playground")
        eventually(lambda: again.rank(request("a", "b")).status_code == 201, "the new one ranks")
        eventually(lambda: not (service.root / "loops" / old).exists(), "the files are gone")
        assert service.stop() == 0
        assert "Traceback" not in service.output.read_text()
    finally:
        service.close()


def test_a_loop_deleted_while_nobody_works_leaves_no_files(tmp_path: Path) -> None:
    """Deleting is a promise to whoever the events are about."""
    home = Home(tmp_path)
    loop = home.create_loop("short", new_loop_settings())
    (home.folder.loops / loop.loop_id / "events").mkdir(parents=True)
    home.delete_loop("short")
    assert not (home.folder.loops / loop.loop_id).exists()
    assert "short" not in str(home.keys())
    home.close()


@pytest.mark.slow
def test_a_loop_that_is_damaged_holds_up_no_other(tmp_path: Path) -> None:
    """One broken file must not stop what has nothing to do with it."""
    service = RunningService(tmp_path).start()
    broken = service.loop("default").loop_id
    service.stop()
    try:
        for path in (service.root / "loops" / broken).rglob("*.live*"):
            path.unlink()
        (service.root / "loops" / broken / "events" / f"{0:020d}.live").write_bytes(b"no database at all" * 300)
        (service.root / "loops" / broken / "joined" / "joined.sqlite").write_bytes(b"neither is this" * 300)
        service.start()
        client = service.client("playground")
        assert client.rank(request("a", "b", eventId="e")).status_code == 201
        refused = service.client("default").rank(request("a", "b"))
        assert refused.status_code == 503
        assert "Retry-After" in refused.headers
        eventually(lambda: service.loop("playground").model_id is not None, "the other loop learns")
        assert service.output.read_text().count("cannot be opened") < 10
    finally:
        service.close()
