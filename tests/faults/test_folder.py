"""A data folder whose machine loses its power."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rankward.store.sqlite.folder import DataFolder
from tests.faults.disks import disk, needs_root

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.fault


@needs_root
def test_a_folder_that_was_just_made_can_be_opened_after_a_power_failure(tmp_path: Path) -> None:
    """Its format is the first thing that is written, and without it nobody would know how to read the rest."""
    with disk(tmp_path, "disk", megabytes=64) as made:
        DataFolder(made.at / "data")
        made.lose_power()
        made.unmount()
        made.mount()
        assert (made.at / "data" / "format").read_text() == "1\n"
        DataFolder(made.at / "data")
