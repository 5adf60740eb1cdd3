"""The promises of the imports' store, held against every backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from tests.store.test_catalog import a_loop, create

from rankward.errors import NotFound, Overloaded
from rankward.ranking.features import FeatureBounds
from rankward.settings import Limits
from rankward.store.audit import Actor, Door
from rankward.store.imports import ImportState, LogImport
from rankward.store.sqlite.imports import UNFINISHED_MAX

if TYPE_CHECKING:
    from pathlib import Path

    from tests.store.homes import Home

    from rankward.store.imports import Imports

LOOP_ID = "1" * 32


@pytest.fixture
def home(replicated_home: Home) -> Home:
    """Also the home of a node of a cluster."""
    return replicated_home


def send(imports: Imports, folder: Path, key: str) -> LogImport:
    """Send a file. Returns what is on record."""
    file = folder / f"sent-{key}"
    file.write_bytes(b"lines")
    wanted = LogImport(
        key=key,
        name="log.json",
        size_bytes=5,
        created_us=1,
        actor=Actor("ada", Door.PORTAL),
        trains=False,
        limits=Limits(),
        bounds=FeatureBounds(),
    )
    imports.add(wanted, file)
    assert not file.exists(), "it was moved"
    return next(each for each in imports.listed() if each.key == key)


def over(found: LogImport, *, at_us: int = 9) -> LogImport:
    """What it is when all is imported."""
    return msgspec.structs.replace(found, state=ImportState.DONE, ended_us=at_us)


def test_all_nodes_list_an_import_and_the_one_that_has_the_file_runs_it(home: Home, tmp_path: Path) -> None:
    """Whoever looks need not know where it was sent to."""
    one, two = home.imports(LOOP_ID, node="one"), home.imports(LOOP_ID, node="two")
    first, second = send(one, tmp_path, "1"), send(two, tmp_path, "2")

    for node in (one, two):
        assert node.listed() == [second, first]
    assert (one.unfinished(), two.unfinished()) == ([first], [second])
    path = one.file(first)
    assert path is not None
    assert path.read_bytes() == b"lines"
    assert two.file(first) is None
    assert home.imports("2" * 32, node="one").listed() == []


def test_any_node_calls_off_an_import_that_is_not_over(home: Home, tmp_path: Path) -> None:
    """Whoever has the file sees to it, and removes it."""
    one, two = home.imports(LOOP_ID, node="one"), home.imports(LOOP_ID, node="two")
    found = send(one, tmp_path, "1")
    assert one.is_wanted("1")

    two.cancel("1")

    assert not one.is_wanted("1")
    assert [each.cancelled for each in one.unfinished()] == [True]
    assert one.write(msgspec.structs.replace(found, state=ImportState.RUNNING))
    assert [each.cancelled for each in two.listed()] == [True], "who runs it does not take that back"
    assert one.write(over(found))
    assert one.file(found) is None
    for key in ("1", "none"):
        with pytest.raises(NotFound):
            two.cancel(key)


def test_what_is_over_stays_so_and_its_file_goes_when_its_node_is_back(home: Home, tmp_path: Path) -> None:
    """It may have been called off while the node that runs it was away, and was thought to be gone."""
    one, two = home.imports(LOOP_ID, node="one"), home.imports(LOOP_ID, node="two")
    found = send(one, tmp_path, "1")
    assert two.write(over(found))
    assert one.file(found) is not None

    assert not one.write(msgspec.structs.replace(found, state=ImportState.RUNNING))
    assert one.unfinished() == []
    one.tidy(before_us=0)
    assert one.file(found) is None


def test_so_many_wait_and_the_last_that_are_over_are_kept(home: Home, tmp_path: Path) -> None:
    """Files wait on disks that have other things to do; and a list that only grows is not read."""
    imports = home.imports(LOOP_ID)
    for number in range(UNFINISHED_MAX):
        send(imports, tmp_path, f"0{number}")
    with pytest.raises(Overloaded, match="are not over yet"):
        send(imports, tmp_path, "09")
    assert not list(tmp_path.glob("imports-/09*")), "what is refused leaves nothing"
    for found in imports.unfinished():
        imports.write(over(found))
    for number in range(20, 30):
        imports.write(over(send(imports, tmp_path, str(number))))
    assert [each.key for each in imports.listed()] == [str(number) for number in range(29, 19, -1)]


def test_a_loop_that_is_deleted_takes_its_imports_with_it(home: Home, tmp_path: Path) -> None:
    """Their names are of that loop's users."""
    loop = create(home.catalog(), a_loop())
    imports = home.imports(loop.loop_id)
    send(imports, tmp_path, "1")
    home.catalog().delete_loop(loop.name)
    assert imports.listed() == []
