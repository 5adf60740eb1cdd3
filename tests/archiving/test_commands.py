"""What is archived, by command."""

from __future__ import annotations

from pathlib import Path

from rankward.archiving.place import Place
from tests.archiving.test_archiving import archived, archiving, play, story_of
from tests.loop.circle import Circle
from tests.test_cli import Shell


def test_an_archive_is_listed_and_verified(tmp_path: Path) -> None:
    """By its loop, and by its address from anywhere."""
    shell = Shell(tmp_path / "data")
    url = f"file://{tmp_path}/archive"

    async def tell(circle: Circle) -> None:
        await play(circle, 5, 4, 1)
        assert "--archive" in shell.refused("logs", "archive", "list", "circle")
        circle.home.archives.settle(url)
        assert "nothing of the loop circle is archived yet" in shell.refused("logs", "archive", "list", "circle")
        await archived(archiving(circle, Place(url)))

    story_of(tell, tmp_path / "data")
    for which in ("circle", url):
        assert [span["events"] for span in shell.json("logs", "archive", "list", which)["spans"]] == [5, 4]
        assert "9 events" in shell.ok("logs", "archive", "list", which)
        assert "2 objects, 9 events: all is as it was written" in shell.ok("logs", "archive", "verify", which)
    assert "there is no archive" in shell.refused("logs", "archive", "list", f"file://{tmp_path}/elsewhere")


def test_what_happened_to_an_archive_is_found(tmp_path: Path) -> None:
    """Before somebody relies on it."""
    shell = Shell(tmp_path / "data")
    url = f"file://{tmp_path}/archive"

    async def tell(circle: Circle) -> None:
        await play(circle, 5, 4, 3, 2, 1)
        await archived(archiving(circle, Place(url)))

    story_of(tell, tmp_path / "data")
    first, second, third, _ = sorted((tmp_path / "archive").rglob("*.zst"))
    first.unlink()
    second.write_bytes(third.read_bytes())
    third.with_name("stray.dsjson.zst").write_bytes(b"")

    found = shell("logs", "archive", "verify", url, "--json")
    assert found.exit_code == 3
    for why in ("it is missing", "it is not what was written", "the index does not know of it"):
        assert why in found.stdout
    assert third.name not in found.stdout
