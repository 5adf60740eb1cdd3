"""The commands do what their help says, and fail in one line."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import zipfile
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from typer.testing import CliRunner

from rankward import __version__
from rankward.cli import app
from rankward.cli.access import access
from rankward.cli.events import newest, rank_request
from rankward.errors import InvalidRequest, Unauthorized
from rankward.records import Action, Activation, Features, Interaction, LearningMode, Observation, Record, Tick
from rankward.vw.learner import Learner
from rankward.vw.presets import learner_arguments
from rankward.wiring import Home
from tests.service import PATIENCE_S, eventually, request

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from typer.testing import Result

ACTIONS = tuple(Action(name, Features(f'[{{"name":"{name}"}}]'.encode())) for name in ("a", "b"))
DECISION = Interaction(
    event_id="e1",
    context=Features(b"[]"),
    actions=ACTIONS,
    pmf=(0.25, 0.75),
    chosen=1,
    learning_mode=LearningMode.ONLINE,
    reward_wait_us=1_000_000,
)


class Shell:
    """Runs commands on a data folder."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self._runner = CliRunner()

    def __call__(self, *arguments: str, stdin: bytes | None = None) -> Result:
        """Run a command, whatever becomes of it."""
        environment = {"RANKWARD_DATA": str(self.data), "RANKWARD_ENDPOINT": "", "RANKWARD_API_KEY": ""}
        return self._runner.invoke(app, list(arguments), env=environment, input=stdin)

    def ok(self, *arguments: str, stdin: bytes | None = None) -> str:
        """Run a command that works. Returns what it printed."""
        result = self(*arguments, stdin=stdin)
        assert result.exit_code == 0, result.output
        return result.stdout

    def refused(self, *arguments: str) -> str:
        """Run a command that does not work. Returns the one line that it says why."""
        result = self(*arguments)
        assert result.exit_code == 1, result.output
        assert result.stdout == ""
        [line] = result.stderr.splitlines()
        assert line.startswith("error: ")
        return line

    def json(self, *arguments: str, stdin: bytes | None = None) -> Any:
        """Run a command with --json. Returns what it said."""
        return msgspec.json.decode(self.ok(*arguments, "--json", stdin=stdin))


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A shell beside a data folder as a first start makes it."""
    with closing(Home(tmp_path / "data")) as home:
        home.loops.furnish({})
    return Shell(tmp_path / "data")


def append(shell: Shell, *records: Record) -> None:
    """Write to the log of the loop `playground`."""

    async def run(home: Home) -> None:
        log = home.event_log(home.catalog.loop("playground").loop_id)
        await log.append(list(records))
        await log.close()

    with closing(Home(shell.data)) as home:
        asyncio.run(run(home))


def keys_of(shell: Shell, loop: str) -> Any:
    """The keys that are kept of a loop."""
    with closing(Home(shell.data)) as home:
        loops: Any = home.loops.keys()["loops"]
        return loops[loop]


def test_the_version_is_told(shell: Shell) -> None:
    """The first thing that a bug report needs."""
    assert shell.ok("--version") == f"rankward {__version__}\n"


def test_every_command_has_help(shell: Shell) -> None:
    """`--help` is the manual that is always at hand."""
    assert "serve" in shell.ok("--help")
    commands = ["serve", "rank", "reward", "tail", "simulate", "doctor", "backup", "restore"]
    groups = {
        "loop": ["create", "list", "show", "delete", "keys"],
        "settings": ["show", "set"],
        "policy": ["show", "set", "reset"],
        "model": ["list", "export", "import", "rollback", "delete", "compare", "signing-key"],
    }
    for words in [[each] for each in commands] + [[noun, verb] for noun, verbs in groups.items() for verb in verbs]:
        assert "Usage" in shell.ok(*words, "--help")


def test_nothing_is_made_where_there_is_no_data_folder(tmp_path: Path) -> None:
    """A mistyped --data must not leave an empty installation behind."""
    shell = Shell(tmp_path / "nowhere")
    for words in (["loop", "list"], ["doctor"], ["loop", "create", "shop"], ["tail", "default"]):
        assert "there is no data folder" in shell.refused(*words)
    assert not shell.data.exists()


# Loops and keys


def test_a_loop_is_made_listed_shown_and_removed(shell: Shell) -> None:
    """The life of a loop, without a service."""
    shell.ok("loop", "create", "shop")
    shell.ok("loop", "create", "old-shop", "--preset", "personalizer")
    found = {loop["name"]: loop for loop in shell.json("loop", "list")}
    assert list(found) == ["default", "old-shop", "playground", "shop"]
    assert found["shop"]["exploration"] == 0.02
    assert found["old-shop"]["exploration"] == 0.2
    assert shell.json("loop", "show", "shop")["preset"] == "balanced"
    assert "shop" in shell.ok("loop", "list")
    assert "balanced" in shell.ok("loop", "show", "shop")

    assert shell("loop", "delete", "shop", stdin=b"n\n").exit_code == 1
    shell.ok("loop", "delete", "shop", "--yes")
    assert "there is no loop 'shop'" in shell.refused("loop", "show", "shop")


def test_a_loop_that_cannot_be_made_is_refused(shell: Shell) -> None:
    """One line says why."""
    assert "already" in shell.refused("loop", "create", "default")
    assert "cannot name a loop" in shell.refused("loop", "create", "Größe 1")
    assert "there is no preset" in shell.refused("loop", "create", "shop", "--preset", "nope")


def test_keys_are_masked_unless_they_are_asked_for(shell: Shell) -> None:
    """Somebody may be looking over a shoulder."""
    keys = keys_of(shell, "default")
    masked = shell.ok("loop", "keys", "default")
    assert keys["key1"] not in masked
    assert keys["key1"][:4] in masked
    shown = shell.ok("loop", "keys", "default", "--show")
    assert keys["key1"] in shown
    assert keys["key2"] in shown
    assert shell.ok("loop", "keys", "default", "--show", "--plain") == keys["key1"] + "\n"
    assert len(shell.ok("loop", "keys", "--admin", "--plain")) == 33


def test_one_key_is_renewed_and_the_other_stays(shell: Shell) -> None:
    """Keys are changed while clients go on with the other one."""
    before = keys_of(shell, "default")
    new = shell.ok("loop", "keys", "default", "--regenerate", "2", "--plain").strip()
    after = keys_of(shell, "default")
    assert after == {"key1": before["key1"], "key2": new}
    assert new != before["key2"]


def test_a_key_of_ones_own_is_not_written_down(shell: Shell) -> None:
    """Only its digest is kept, and the command says so."""
    with closing(Home(shell.data)) as home:
        home.loops.set_key("default", 1, "my own key")
    assert "set by you" in shell.ok("loop", "keys", "default", "--show")
    assert "not written down" in shell.refused("loop", "keys", "default", "--plain")
    assert "name a loop" in shell.refused("loop", "keys")


# Settings and policy


def test_settings_are_changed_together(shell: Shell) -> None:
    """The difference is shown, and what it does to the model."""
    said = shell.ok("settings", "set", "playground", "reward_wait=10m", "default_reward=0.5")
    assert "2s" in said
    assert "10m" in said
    assert "a new one learns" in said
    found = shell.json("settings", "show", "playground")
    assert (found["reward_wait"], found["default_reward"]) == ("PT10M", "0.5")
    assert "reward_wait" in shell.ok("settings", "show")
    assert "How long after a Rank" in shell.ok("settings", "show", "playground")


def test_a_change_without_a_new_epoch_says_that_learning_goes_on(shell: Shell) -> None:
    """Nobody should fear for a model that is not touched."""
    assert "it goes on learning" in shell.ok("settings", "set", "playground", "exploration=0.1")
    assert "Nothing changed" in shell.ok("settings", "set", "playground", "exploration=0.1")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("colour=red", "there is no setting 'colour'"),
        ("reward_wait", "write name=value"),
        ("reward_wait=soon", "cannot be read"),
        ("default_reward=7", "at most 1.0"),
        ("policy=--cb_explore_adf", "policy set"),
        ("last_configuration_edit=2026-01-01T00:00:00Z", "cannot be set"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(shell: Shell, change: str, why: str) -> None:
    """And the ones beside it are not changed either."""
    assert why in shell.refused("settings", "set", "default", "exploration=0.9", change)
    assert shell.json("settings", "show", "default")["exploration"] == "0.2"


@pytest.mark.slow
def test_a_policy_is_written_as_the_learner_takes_it(shell: Shell) -> None:
    """With quotes or without: its options are not ours."""
    for words in (["--cb_explore_adf", "--epsilon", "0.1", "-q", "::"], ["--cb_explore_adf --epsilon 0.1 -q ::"]):
        shell.ok("policy", "set", "default", "--preset", "balanced")
        shell.ok("policy", "set", "default", *words)
        found = shell.json("policy", "show", "default")
        assert found == {"policy": "--cb_explore_adf --epsilon 0.1 -q ::", "preset": None, "exploration": 0.1}
    shell.ok("policy", "reset", "default")
    assert shell.json("policy", "show", "default")["preset"] == "personalizer"
    assert "squarecb" in shell.ok("policy", "show", "playground")


def test_a_policy_that_opens_files_is_refused(shell: Shell) -> None:
    """The allow-list holds on this door too."""
    assert "error" in shell.refused("policy", "set", "default", "--cb_explore_adf", "-f", "x")
    assert "one of the two" in shell.refused("policy", "set", "default")


# Models


def model() -> bytes:
    """A model as another installation with the original's policy would export it."""
    policy = "--cb_explore_adf --epsilon 0.2 --power_t 0 -l 0.001 --cb_type mtr -q ::"
    learner = Learner(learner_arguments(policy, None, 0.2))
    learner.learn(Features(b'[{"hour":9}]'), ACTIONS, chosen=0, probability=0.5, reward=1.0)
    saved = learner.save()
    learner.close()
    return saved


def test_a_model_is_imported_listed_exported_and_forgotten(shell: Shell, tmp_path: Path) -> None:
    """What was learned elsewhere is not lost by a move."""
    (tmp_path / "model.vw").write_bytes(model())
    assert "has no model yet" in shell.ok("model", "list", "default")
    assert "has no model yet" in shell.refused("model", "export", "default", "-")

    shell.ok("model", "import", "default", str(tmp_path / "model.vw"))
    [found] = shell.json("model", "list", "default")
    assert found["serving"]
    assert found["model_id"] in shell.ok("model", "list", "default")
    shell.ok("model", "export", "default", str(tmp_path / "again.vw"))
    assert (tmp_path / "again.vw").read_bytes() == model()
    assert "exists already" in shell.refused("model", "export", "default", str(tmp_path / "again.vw"))

    shell.ok("model", "delete", "default", "--yes")
    assert not shell.json("model", "list", "default")[0]["serving"]
    shell.ok("model", "rollback", "default", found["model_id"])
    assert shell.json("model", "list", "default")[0]["serving"]
    assert "keeps no model nope" in shell.refused("model", "rollback", "default", "nope")


@pytest.mark.slow
def test_a_signed_model_is_exported_and_imported(shell: Shell, tmp_path: Path) -> None:
    """What was verified is said; so is that a model comes from somebody else."""
    bare, signed = str(tmp_path / "model.vw"), str(tmp_path / "model.vw.zip")
    (tmp_path / "model.vw").write_bytes(model())
    assert "Not signed" in shell.ok("model", "import", "default", bare)
    shell.ok("model", "export", "default", signed, "--signed")

    assert "Signed by this installation" in shell.ok("model", "import", "default", signed)
    shell.ok("model", "signing-key", "--replace")
    assert "Signed by this installation" in shell.ok("model", "import", "default", signed)
    shell.ok("model", "signing-key", "--forget-others")
    assert "does not know; the signature is good: CN=rankward" in shell.ok("model", "import", "default", signed)
    with zipfile.ZipFile(signed) as archive:
        archive.extract("signer.der", tmp_path)
    assert "trusted" in shell.ok("model", "signing-key", "--trust", str(tmp_path / "signer.der"))
    assert "Signed by this installation" in shell.ok("model", "import", "default", signed)


@pytest.mark.slow
def test_a_model_of_another_policy_brings_it_when_asked(shell: Shell, tmp_path: Path) -> None:
    """Otherwise the loop's policy stays, and the refusal names the one to set."""
    (tmp_path / "model.vw").write_bytes(model())
    refused = shell.refused("model", "import", "playground", str(tmp_path / "model.vw"))
    assert "give the loop the policy `--cb_explore_adf" in refused
    assert shell.json("loop", "show", "playground")["preset"] == "balanced"

    shell.ok("model", "import", "playground", str(tmp_path / "model.vw"), "--take-policy")

    shown = shell.json("loop", "show", "playground")
    assert (shown["preset"], shown["exploration"]) == ("personalizer", 0.2)


def test_the_signing_key_can_be_brought_along(shell: Shell, tmp_path: Path) -> None:
    """A key pair that somebody else takes care of; one change at a time."""
    before = shell.ok("model", "signing-key")
    key = rsa.generate_private_key(65_537, 2048)
    formats = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (tmp_path / "key.pem").write_bytes(key.private_bytes(*formats))

    after = shell.ok("model", "signing-key", "--import", str(tmp_path / "key.pem"))

    assert after != before
    assert shell.ok("model", "signing-key") == after
    assert "one of" in shell.refused("model", "signing-key", "--replace", "--forget-others")


def test_a_model_that_cannot_be_used_changes_nothing(shell: Shell, tmp_path: Path) -> None:
    """The file is tried in a process of its own first."""
    (tmp_path / "model.vw").write_bytes(b"no model")
    before = shell.json("loop", "show", "default")
    assert "not a valid zip file" in shell.refused("model", "import", "default", str(tmp_path / "model.vw"))
    (tmp_path / "model.vw").write_bytes(model()[:-3])
    assert "Nothing was changed" in shell.refused("model", "import", "default", str(tmp_path / "model.vw"))
    assert shell.json("loop", "show", "default") == before
    assert shell.json("model", "list", "default") == []


# Events


def test_events_are_shown_as_they_stand_in_the_log(shell: Shell) -> None:
    """To see whether an application does what it should, one looks at what it did."""
    append(shell, DECISION, Observation(event_id="e1", value=0.5), Activation(event_id="e1"), Tick())
    text = shell.ok("tail", "playground")
    assert "e1  → b  p=0.7500  model none" in text
    assert "→ 0.5" in text
    assert len(text.splitlines()) == 3
    lines = [msgspec.json.decode(line) for line in shell.ok("tail", "playground", "-n", "2", "--json").splitlines()]
    assert [line["kind"] for line in lines] == ["reward", "activation"]
    assert shell.ok("tail", "playground", "-n", "0") == ""


def test_the_newest_events_are_found_behind_many_ticks(shell: Shell) -> None:
    """A quiet loop logs little else than that time passes."""
    append(shell, DECISION, *[Tick()] * 1_700)

    async def run(home: Home) -> list[int]:
        log = home.event_log(home.catalog.loop("playground").loop_id)
        try:
            found, following = await newest(log, 5)
        finally:
            await log.close()
        return [*(entry.offset for entry in found), following]

    with closing(Home(shell.data)) as home:
        assert asyncio.run(run(home)) == [0, 1_701]


def test_a_request_is_made_from_options() -> None:
    """JSON is typed once for each action, and no more."""
    made = rank_request('{"hour": 9}', ['tea={"hot": true}', "x=[]", "y"], excluded=["x"], event_id="e", deferred=True)
    assert made == {
        "contextFeatures": [{"hour": 9}],
        "actions": [
            {"id": "tea", "features": [{"hot": True}]},
            {"id": "x", "features": []},
            {"id": "y", "features": [{"id": "y"}]},
        ],
        "excludedActions": ["x"],
        "eventId": "e",
        "deferActivation": True,
    }
    with pytest.raises(InvalidRequest, match="no JSON"):
        rank_request("{hour: 9}", ["a"], excluded=[], event_id=None, deferred=False)
    with pytest.raises(InvalidRequest, match="nothing to choose"):
        rank_request("[]", [], excluded=[], event_id=None, deferred=False)


def test_a_named_loop_is_never_exchanged_for_another(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key in the environment opens one loop; what is said on the command line counts more."""
    monkeypatch.delenv("RANKWARD_API_KEY", raising=False)
    url, data = "http://host:1/", shell.data
    playground, default = keys_of(shell, "playground")["key1"], keys_of(shell, "default")["key1"]
    assert access(url, None, None, data) == type(access(url, "k", None, data))("http://host:1", playground)
    assert access(url, None, "default", data).key == default
    assert access(url, "given", "default", data).endpoint == "http://host:1/loops/default"
    assert access(url, "given", None, data).endpoint == "http://host:1"
    with pytest.raises(Unauthorized, match="no key"):
        access(url, None, "nope", data)

    monkeypatch.setenv("RANKWARD_API_KEY", "from the environment")
    assert access(url, None, None, data).key == "from the environment"
    assert access(url, None, "default", data).key == default
    assert access(url, None, "nope", data).endpoint == "http://host:1/loops/nope"


def test_a_service_that_does_not_answer_is_named(shell: Shell) -> None:
    """The most frequent mistake is that it does not run."""
    words = ["--endpoint", "http://127.0.0.1:9", "--action", "a"]
    assert "Is `rankward serve` running there?" in shell.refused("rank", *words)


# Worlds, doctor, backup


def test_worlds_are_listed_with_their_parameters(shell: Shell) -> None:
    """One cannot choose what one does not know of."""
    text = shell.ok("simulate")
    assert "grocery" in text
    assert "base_rate=0.016" in text
    assert "frontpage" in text
    assert "there is no world" in shell.refused("simulate", "nope")
    assert "NAME=VALUE" in shell.refused("simulate", "clicks", "--param", "base_rate")


def test_the_doctor_speaks_of_every_loop(shell: Shell) -> None:
    """Without a name, all of them are looked at."""
    append(shell, DECISION)
    text = shell.ok("doctor")
    assert "loop default" in text
    assert "loop playground" in text
    assert "Nobody joins and learns" in text
    found = shell.json("doctor", "playground")
    assert found["unread"] == 1
    assert {finding["name"] for finding in found["findings"]} == {"no-worker", "reward-wait"}
    assert [report["loop"] for report in shell.json("doctor")] == ["default", "playground"]


def test_a_backup_is_made_and_restored(shell: Shell, tmp_path: Path) -> None:
    """Two commands, and everything is there again."""
    append(shell, DECISION)
    shell.ok("backup", str(tmp_path / "copy.tar"))
    assert "exists already" in shell.refused("backup", str(tmp_path / "copy.tar"))
    assert "not empty" in shell.refused("restore", str(tmp_path / "copy.tar"))
    again = Shell(tmp_path / "again")
    assert "rankward serve" in again.ok("restore", str(tmp_path / "copy.tar"))
    assert "e1" in again.ok("tail", "playground")
    assert keys_of(again, "default") == keys_of(shell, "default")


# The service itself


@contextmanager
def serving(data: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run `rankward serve`, and leave none of its processes behind."""
    process = subprocess.Popen(
        [sys.executable, "-m", "rankward", "serve", "--data", str(data), "--workers", "1", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("RANKWARD_")},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        # The other processes end with the pipes that the first one held.
        if process.poll() is None:
            process.kill()
        process.communicate()


def endpoint_of(process: subprocess.Popen[str]) -> str:
    """Read where a service listens, and wait until it answers."""
    assert process.stdout is not None
    endpoint = process.stdout.readline().split()[-1]

    def is_ready() -> bool:
        try:
            return httpx.get(f"{endpoint}/readyz", timeout=PATIENCE_S).status_code == 200
        except httpx.TransportError:
            return False

    eventually(is_ready, "the service is ready")
    return endpoint


@pytest.mark.slow
def test_a_decision_and_a_reward_go_to_a_running_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way with nothing but the command line, and an end without a fuss."""
    monkeypatch.setattr("rankward.cli.events._TIMEOUT_S", PATIENCE_S)
    shell = Shell(tmp_path / "data")
    with serving(shell.data, "--port", "0") as process:
        to = ["--endpoint", endpoint_of(process)]
        decision = shell.json("rank", *to, "--context", '{"hour": 9}', "--action", 'tea={"hot": true}', "--action", "b")
        assert {ranked["id"] for ranked in decision["ranking"]} == {"tea", "b"}
        shell.ok("reward", decision["eventId"], "1", *to)
        assert decision["eventId"] in shell.ok("tail", "playground")

        body = msgspec.json.encode(rank_request("[]", ["x", "y"], excluded=[], event_id="mine", deferred=False))
        assert shell.json("rank", "-", *to, "--loop", "default", stdin=body)["eventId"] == "mine"
        assert "Show" in shell.ok("rank", "-", *to, "--loop", "default", stdin=body)
        page = request("x", "y") | {"slots": [{"id": "hero", "baselineAction": "x"}], "eventId": "page"}
        slots = [*to, "--loop", "default"]
        (tmp_path / "page.json").write_bytes(msgspec.json.encode(page))
        assert "400" in shell.refused("rank", str(tmp_path / "page.json"), *slots)
        assert "decisions are uniform" in shell.ok("policy", "set", "default", "--preset", "personalizer", "--slots")
        assert "Then: rankward reward page 1" in shell.ok("rank", "-", *slots, stdin=msgspec.json.encode(page))
        assert "slot hero of page" in shell.ok("reward", "page", "1", "--slot", "hero", *slots)
        assert "hero: 1" in shell.ok("tail", "default", "-n", "1")
        assert "hero: " in shell.ok("tail", "default", "-n", "2").splitlines()[0]
        assert "401" in shell.refused("rank", *to, "--key", "wrong", "--action", "a")
        assert "400" in shell.refused("reward", "e", "7", *to)
        assert "done: 30 events" in shell.ok("simulate", "grocery", "--events", "30", "--rate", "0", *to)
        pages = ["simulate", "frontpage", "--events", "30", "--rate", "0", *to]
        assert "`rankward policy set playground --preset balanced --slots`" in shell(*pages).stderr
        shell.ok("policy", "set", "playground", "--preset", "balanced", "--slots")
        assert "done: 30 events" in shell.ok(*pages)
        assert "90 rewards sent" in shell.ok(*pages)

        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0
        assert str(shell.data / "keys.toml") in out
        assert keys_of(shell, "default")["key1"] not in out  # it is no terminal


@pytest.mark.slow
def test_a_service_that_cannot_start_says_why_in_one_line(tmp_path: Path) -> None:
    """An operator reads this at night."""
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "format").write_text("99\n")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        tls = ["--tls-cert", str(tmp_path / "no.pem"), "--tls-key", str(tmp_path / "no.pem")]
        for arguments, why in (
            ([str(tmp_path / "data"), "--port", port], "Choose another with --port"),
            ([str(tmp_path / "data"), "--port", "0", *tls], "no.pem cannot be read"),
            ([str(tmp_path / "newer"), "--port", "0"], "has format 99"),
            ([str(tmp_path / "data"), "--port", "0", "--limit-pending-appends", "100"], "to at least 2000"),
        ):
            assert why in refusal(tmp_path, arguments)


def test_limits_without_a_flag_are_set_by_their_variables(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page of settings lists them all."""
    monkeypatch.setenv("RANKWARD_LIMIT_UPLOAD_EVENTS", "5000")
    assert "less than upload_events 5000" in shell.refused("serve", "--data", str(shell.data))


@pytest.mark.slow
def test_a_second_service_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    """Somebody who starts it twice must not end up with two ports and one worker."""
    with serving(tmp_path / "data", "--port", "0") as process:
        endpoint_of(process)
        assert "is held by another" in refusal(tmp_path, [str(tmp_path / "data"), "--port", "0"])
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0


def refusal(tmp_path: Path, arguments: Sequence[str]) -> str:
    """Start a service that does not start. Returns the line that says why."""
    data, *more = arguments
    with serving(tmp_path / data, *more) as process:
        out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert out == ""
    [line] = err.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.slow
def test_a_world_is_played_without_a_service(tmp_path: Path) -> None:
    """One command, nothing installed beside it, nothing left over."""
    shell = Shell(tmp_path / "data")
    text = shell.ok("simulate", "grocery", "--local", "--data", str(shell.data), "--events", "60", "--rate", "0")
    assert "done: 60 events" in text
    assert len(shell.ok("tail", "playground", "-n", "1000").splitlines()) == 120
    pages = ["simulate", "frontpage", "--local", "--data", str(shell.data), "--events", "20", "--rate", "0"]
    assert "`rankward policy set playground --preset balanced --slots`" in shell(*pages).stderr
    assert "done: 20 events" in shell.ok(*pages, "--loop", "pages")
    assert "--ccb_explore_adf" in shell.ok("policy", "show", "pages")
