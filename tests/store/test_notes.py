"""The notes that the processes of a loop leave each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankward.store.sqlite.folder import FileBoard

if TYPE_CHECKING:
    from pathlib import Path


def test_a_note_that_a_power_failure_left_empty_is_not_there(tmp_path: Path) -> None:
    """Notes are renamed without a flush, since they are soon written again: whoever reads one finds all of it."""
    board = FileBoard(tmp_path)
    board.post("loop", "joining", b"{}")
    board.post("loop", "training-1", b"{}")
    (tmp_path / "loop" / "notes" / "joining.json").write_bytes(b"")
    assert board.read("loop") == {"training-1": b"{}"}
