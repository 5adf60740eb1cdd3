"""What the service says when it starts: a newcomer reads nothing else."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rankward.cli.serving import announcer
from rankward.invocation import command
from rankward.wiring import Home

if TYPE_CHECKING:
    from collections.abc import Mapping


@pytest.mark.parametrize(
    ("environment", "said"),
    [({}, f"{command()} loop keys --admin --show --data"), ({"RANKWARD_ADMIN_KEY": "secret"}, "as you set it")],
    ids=["a key that it made", "a key that was set"],
)
def test_the_start_says_how_to_get_into_the_portal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], environment: Mapping[str, str], said: str
) -> None:
    """The first page asks for a key of which nothing else has spoken."""
    data = tmp_path / "data"
    with closing(Home(data)) as home:
        home.loops.furnish(environment)
        announcer(data, "127.0.0.1", tls=False)(home, 8080)
    printed = capsys.readouterr().out

    line = next(line for line in printed.splitlines() if "with the admin key" in line)
    assert said in line
    assert "http://127.0.0.1:8080/" in printed
    assert "2 seconds" in printed, "how long rewards are waited for, in words"
    assert "secret" not in printed
