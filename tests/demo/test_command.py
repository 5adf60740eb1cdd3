"""`rankward demo` starts by itself, and leaves nothing behind."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import IO

import httpx
import pytest

from rankward.cli.demonstration import USUAL_PORT
from rankward.demo.newsroom import LOOP, furnish
from rankward.wiring import Home
from tests.service import PATIENCE_S, eventually

pytestmark = pytest.mark.slow


def start(*arguments: str) -> subprocess.Popen[str]:
    """Start a demo."""
    return subprocess.Popen(
        [sys.executable, "-m", "rankward", "demo", *arguments], stdout=subprocess.PIPE, text=True, process_group=0
    )


def said(stream: IO[str] | None, pattern: str) -> str:
    """Read on until something is said. Returns what the pattern's group found."""
    assert stream is not None
    for line in stream:
        found = re.search(pattern, line)
        if found:
            return found[1]
    raise AssertionError(f"it never said {pattern}")


def end(demo: subprocess.Popen[str]) -> None:
    """Press Ctrl-C."""
    demo.send_signal(signal.SIGINT)
    assert demo.wait(PATIENCE_S) == 0
    assert demo.stdout is not None
    demo.stdout.close()


def test_a_demo_runs_beside_whatever_runs_and_leaves_nothing_behind() -> None:
    """It is tried on machines that have a service already; and whoever looks in must not have to clean up."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", USUAL_PORT))
            taken.listen()
        except OSError:
            pass  # then somebody else has it
        demo = start()
        try:
            address = said(demo.stdout, r"(http://\S+/demo)")
            folder = Path(said(demo.stdout, r"lie in (\S+),"))
            assert f":{USUAL_PORT}/" not in address
            eventually(lambda: _answers(address), "the page is there")
            assert folder.exists()
        finally:
            end(demo)
    assert not folder.exists()


def _answers(address: str) -> bool:
    try:
        return httpx.get(address, timeout=PATIENCE_S).status_code == 200
    except httpx.TransportError:
        return False


def test_what_is_kept_stays(tmp_path: Path) -> None:
    """A demo that has learned all morning is shown again in the afternoon."""
    kept = tmp_path / "kept"
    demo = start("--port", "0", "--keep", str(kept))
    try:
        address = said(demo.stdout, r"(http://\S+/demo)")
        eventually(lambda: _answers(address), "the page is there")
    finally:
        end(demo)
    with closing(Home(kept)) as home:
        assert LOOP in {loop.name for loop in home.catalog.loops()}
        assert furnish(home) == furnish(home)
