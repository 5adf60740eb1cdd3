"""A full disk, a held folder, a taken port, a folder from the future."""

from __future__ import annotations

import resource
import socket
from pathlib import Path

import psutil
import pytest

from rankward.api.options import ApiOptions
from rankward.errors import Conflict, DataFolderHeld, RankwardError, StoreUnavailable
from rankward.supervisor import serve
from rankward.wiring import Home
from tests.service import RunningService, eventually, request

LOOP = "playground"


@pytest.mark.slow
def test_a_full_disk_turns_writes_away_and_loses_nothing(tmp_path: Path) -> None:
    """What was acknowledged stays, what is refused is not there, and with room again it goes on by itself."""
    service = RunningService(tmp_path).start()
    try:
        client = service.client(LOOP)
        pid = service.children()["api0"]
        assert client.rank(request("a", "b", eventId="before")).status_code == 201
        _limit_files(pid, 4_096)  # the log keeps more in front of what is appended
        refused = []
        for number in range(10):
            answer = client.rank(request("a", "b", eventId=f"full-{number}"))
            refused.append(f"full-{number}")
            assert answer.status_code == 507, answer.text
            assert answer.json()["error"]["code"] == "insufficientStorage"
        assert client.get("/configurations/service").status_code == 200
        _limit_files(pid, resource.RLIM_INFINITY)
        assert client.rank(request("a", "b", eventId="after")).status_code == 201
        assert service.children()["api0"] == pid, "the process went on"
        logged = [record.event_id for record in service.records(LOOP)]
        assert {"before", "after"} <= set(logged)
        assert not set(refused) & set(logged)
        eventually(lambda: len(service.joined(LOOP)) == len(logged), "all of them are joined")
    finally:
        service.close()


def _limit_files(pid: int, length: int) -> None:
    """Let no file of a process grow beyond a length: to the process, the disk is full."""
    psutil.Process(pid).rlimit(psutil.RLIMIT_FSIZE, (length, resource.RLIM_INFINITY))


@pytest.mark.slow
def test_a_second_service_on_one_folder_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    """Two that both take themselves for the only one would both act."""
    service = RunningService(tmp_path).start()
    try:
        with pytest.raises(DataFolderHeld, match=f"process {service.pid}"):
            _serve(service.root, port=0)
        assert service.client(LOOP).rank(request("a")).status_code == 201
    finally:
        service.close()


@pytest.mark.slow
def test_started_again_it_goes_on_where_it_was(tmp_path: Path) -> None:
    """Same keys, same model, nothing lost."""
    service = RunningService(tmp_path).start()
    try:
        client = service.client(LOOP)
        for number in range(20):
            assert client.rank(request("a", "b", eventId=f"e{number}")).status_code == 201
            assert client.reward(f"e{number}", 1.0).status_code == 204
        service.wait_until_learned(LOOP, 20)
        assert service.stop() == 0
        model = service.loop(LOOP).model_id
        keys = service.home.loops.keys()
        service.start()
        assert service.home.loops.keys() == keys
        assert len(service.records(LOOP)) == 40
        eventually(lambda: bool(service.client(LOOP).get("/model").content), "the model is served")
        assert service.loop(LOOP).model_id == model
    finally:
        service.close()


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    """The commonest of all first errors."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Conflict, match=rf"127.0.0.1:{port}.*--port"):
            _serve(tmp_path, port=port)


def test_a_folder_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    """An older rankward must not write into what it does not understand."""
    Home(tmp_path).close()
    (tmp_path / "format").write_text("2\n")
    with pytest.raises(StoreUnavailable, match="format 2"):
        _serve(tmp_path, port=0)


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """A file where the folder should be, say."""
    (tmp_path / "data").write_text("not a folder")
    with pytest.raises(RankwardError, match="data"):
        _serve(tmp_path / "data", port=0)


def test_half_of_a_tls_pair_is_refused(tmp_path: Path) -> None:
    """To serve plain HTTP instead would be worse than not to start."""
    with pytest.raises(Conflict, match="go together"):
        _serve(tmp_path, port=0, options=ApiOptions(tls_cert="cert.pem"))


def test_a_tls_pair_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    """Certificate and key swapped, say: to say that it listens, and answer nobody, would be worse."""
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_text("not in PEM")
    options = ApiOptions(tls_cert=str(tmp_path / "cert.pem"), tls_key=str(tmp_path / "key.pem"))
    with pytest.raises(Conflict, match="swapped"):
        _serve(tmp_path / "data", port=0, options=options)
    assert not (tmp_path / "data").exists()


def _serve(root: Path, *, port: int, options: ApiOptions | None = None) -> None:
    serve(root, host="127.0.0.1", port=port, workers=1, options=options or ApiOptions(), announce=_never)


def _never(*_: object) -> None:
    raise AssertionError("it must not start")
