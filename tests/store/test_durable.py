"""Small files that are there whole or not at all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from rankward.store.sqlite.durable import PRIVATE, write_durably

if TYPE_CHECKING:
    from pathlib import Path


def test_threads_that_write_a_file_at_once_each_write_it_whole(tmp_path: Path) -> None:
    """Two requests may fetch the same model at the same moment."""
    path = tmp_path / "model.vw"
    contents = [bytes([number]) * 1_000_000 for number in range(8)]
    with ThreadPoolExecutor(len(contents)) as pool:
        list(pool.map(lambda content: write_durably(path, content, mode=PRIVATE), contents))
    assert path.read_bytes() in contents
    assert path.stat().st_mode & 0o777 == PRIVATE
    assert [each.name for each in tmp_path.iterdir()] == ["model.vw"]
