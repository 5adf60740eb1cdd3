"""`rankward cluster`: everything on one machine, and it goes on when a part is killed."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest
from tests.service import PATIENCE_S, eventually

if TYPE_CHECKING:
    from pathlib import Path


def servers_of(pid: int) -> set[int]:
    """The JetStream servers that a process has started."""
    return {child.pid for child in psutil.Process(pid).children() if child.name() == "nats-server"}


def decisions(output: Path) -> int:
    """How many decisions have been told of."""
    found = re.findall(r"^([\d,]+) decisions", output.read_text(), re.MULTILINE)
    return int(found[-1].replace(",", "")) if found else 0


@pytest.mark.slow
def test_a_cluster_is_tried_and_goes_on_when_a_server_is_killed(tmp_path: Path) -> None:
    """Whoever weighs a cluster sees within a minute that it does what it is for."""
    output = tmp_path / "output.txt"
    command = [sys.executable, "-m", "rankward", "cluster", "--rate", "20", "--data", str(tmp_path / "files")]
    with output.open("wb") as file:
        running = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True)
    try:
        eventually(lambda: running.poll() is not None or decisions(output) > 0, "there are decisions")
        assert running.poll() is None, output.read_text()
        before = servers_of(running.pid)
        assert len(before) == 3
        killed = min(before)
        psutil.Process(killed).kill()
        eventually(lambda: killed not in servers_of(running.pid) and len(servers_of(running.pid)) == 3, "it is back")
        known = decisions(output)
        eventually(lambda: decisions(output) > known + 20, "there are more decisions")
        told = output.read_text()
        others = psutil.Process(running.pid).children(recursive=True)
        running.send_signal(signal.SIGINT)
        running.wait(PATIENCE_S)
    finally:
        if running.poll() is None:
            for process in [*psutil.Process(running.pid).children(recursive=True), psutil.Process(running.pid)]:
                process.kill()
            running.wait()
    assert running.returncode == 0, output.read_text()
    lost = re.findall(r"lost: (.+?)(?:;|$)", told, re.MULTILINE)
    assert set(lost) == {"0 decisions, 0 rewards"}
    assert not [process for process in others if process.is_running()]
