"""The joined log as files elsewhere: every event once, whatever fails on the way."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest

from rankward.errors import InvalidSettings, StoreUnavailable
from rankward.loops import new_loop_settings
from rankward.mirroring.service import CHUNK_AGE_US, MirroringService
from rankward.mirroring.target import Target, is_signed_address
from rankward.store.sqlite.folder import FileNotebook
from tests.loop.circle import Circle


class Store:
    """A container that takes blobs over HTTP, as Azure's and Amazon's do, and can be told to refuse them."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.queries: list[str] = []
        self.refusing = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                parts = urlsplit(self.path)
                outer.queries.append(parts.query)
                if not outer.refusing:
                    outer.blobs[parts.path] = body
                self.send_response(403 if outer.refusing else 201)
                self.send_header("ETag", '"1"')
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        self._thread = threading.Thread(target=self.server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


@pytest.fixture
def store() -> Iterator[Store]:
    """A container."""
    with closing(Store()) as store:
        yield store


def mirror_of(circle: Circle, notebook: Path) -> MirroringService:
    """What mirrors a loop."""
    return MirroringService(
        circle.loop.name,
        catalog=circle.home.catalog,
        log=circle.log,
        joined=circle.joined,
        notebook=FileNotebook(notebook),
        board=circle.home.board,
        clock=circle.home.clock,
        timer=circle.home.timer,
        open_target=Target,
    )


def story_of(tell: Callable[[Circle, Path], Awaitable[None]], tmp_path: Path) -> None:
    """Run a story in a loop of its own that is mirrored to a folder."""

    async def run() -> None:
        circle = Circle(tmp_path / "data", msgspec.structs.replace(new_loop_settings(), default_reward=0.25))
        try:
            await tell(circle, tmp_path)
        finally:
            await circle.close()

    asyncio.run(run())


async def sent(circle: Circle, mirror: MirroringService, target: Target) -> None:
    """Let the mirror see what there is, and then send it once it has waited long enough."""
    await mirror.step(circle.loop, target)
    circle.pass_time(CHUNK_AGE_US / 1e6 + 1)
    while await mirror.step(circle.loop, target):
        pass


def lines(folder: Path) -> list[dict[str, object]]:
    """Every line of a mirror, in the order of the blobs' names."""
    return [json.loads(line) for path in sorted(folder.rglob("*.json")) for line in path.read_text().splitlines()]


def test_every_joined_event_is_mirrored_once_and_in_order(tmp_path: Path) -> None:
    """From when the mirror is switched on."""

    async def tell(circle: Circle, folder: Path) -> None:
        target = Target(f"file://{folder}/mirror")
        mirror = mirror_of(circle, folder / "notebook.json")
        await circle.play(5, prefix="before")
        circle.pass_time(700)
        await circle.join()
        await mirror.step(circle.loop, target)
        for part in ("a", "b"):
            await circle.play(20, prefix=part)
            circle.pass_time(700)
            await circle.join()
            await sent(circle, mirror, target)

        found = [line["EventId"] for line in lines(folder / "mirror")]
        assert found == [f"{part}{number}" for part in ("a", "b") for number in range(20)]
        names = sorted(path.name[2:] for path in (folder / "mirror").rglob("*.json"))
        assert names == ["_0000000000.json", "_0000000001.json"]

    story_of(tell, tmp_path)


def test_what_is_never_learned_goes_elsewhere(tmp_path: Path) -> None:
    """Whoever trains on the lines of `data` must not learn what was not shown."""

    async def tell(circle: Circle, folder: Path) -> None:
        target = Target(f"file://{folder}/mirror")
        mirror = mirror_of(circle, folder / "notebook.json")
        await mirror.step(circle.loop, target)
        await circle.rank("shown", "v0")
        await circle.rank("unseen", "v0", deferred=True)
        circle.pass_time(700)
        await circle.join()
        await sent(circle, mirror, target)

        [data] = (folder / "mirror").glob("*/data")
        [skipped] = (folder / "mirror").glob("*/skipped-data")
        assert [(line["EventId"], line["_label_cost"]) for line in lines(data)] == [("shown", -0.25)]
        assert [(line["EventId"], line["_skipLearn"]) for line in lines(skipped)] == [("unseen", True)]

    story_of(tell, tmp_path)


def test_what_failed_is_sent_again_under_its_name(tmp_path: Path, store: Store) -> None:
    """By a process that knows nothing but what is on record: nothing is lost, nothing is there twice."""

    async def tell(circle: Circle, folder: Path) -> None:
        target = Target(f"{store.address}/account/container/sub?sv=2024&sig=abc%3D")
        mirror = mirror_of(circle, folder / "notebook.json")
        await mirror.step(circle.loop, target)
        await circle.play(20)
        circle.pass_time(700)
        await circle.join()
        store.refusing = True
        with pytest.raises(StoreUnavailable) as failed:
            await sent(circle, mirror, target)
        assert "sig" not in str(failed.value), "a signature is as good as a key"
        await circle.play(20, prefix="later")
        circle.pass_time(700)
        await circle.join()
        store.refusing = False
        mirror = mirror_of(circle, folder / "notebook.json")
        await sent(circle, mirror, target)  # what failed, at once
        await sent(circle, mirror, target)

        found = [json.loads(line)["EventId"] for _, blob in sorted(store.blobs.items()) for line in blob.splitlines()]
        assert found == [f"e{number}" for number in range(20)] + [f"later{number}" for number in range(20)]
        assert all(name.startswith("/account/container/sub/") for name in store.blobs)
        assert all("sig=abc%3D" in query for query in store.queries)

    story_of(tell, tmp_path)


def test_a_new_target_gets_what_is_joined_from_then_on(tmp_path: Path) -> None:
    """It is another mirror; the old one keeps what it has."""

    async def tell(circle: Circle, folder: Path) -> None:
        mirror = mirror_of(circle, folder / "notebook.json")
        for name in ("one", "two"):
            target = Target(f"file://{folder}/{name}")
            await mirror.step(circle.loop, target)
            await circle.play(3, prefix=name)
            circle.pass_time(700)
            await circle.join()
            await sent(circle, mirror, target)

        assert [line["EventId"] for line in lines(folder / "one")] == ["one0", "one1", "one2"]
        assert [line["EventId"] for line in lines(folder / "two")] == ["two0", "two1", "two2"]

    story_of(tell, tmp_path)


def test_a_day_has_blobs_of_its_own(tmp_path: Path) -> None:
    """As Personalizer's mirrors had: whoever reads one day needs no other."""

    async def tell(circle: Circle, folder: Path) -> None:
        target = Target(f"file://{folder}/mirror")
        mirror = mirror_of(circle, folder / "notebook.json")
        await mirror.step(circle.loop, target)
        for day in range(2):
            await circle.play(3, prefix=f"day{day}-")
            circle.pass_time(timedelta(days=1).total_seconds())
            await circle.join()
        await sent(circle, mirror, target)

        assert [len(path.read_text().splitlines()) for path in sorted((folder / "mirror").rglob("*.json"))] == [3, 3]

    story_of(tell, tmp_path)


def test_a_bucket_is_written_to(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the credentials that the service runs with."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")

    asyncio.run(Target(f"s3://bucket/logs?endpoint={store.address}").put("x/y.json", b"line\n"))

    assert store.blobs == {"/bucket/logs/x/y.json": b"line\n"}


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "nonsense",
        "https://account.blob.core.windows.net/container",
        "https://account.blob.core.windows.net/?sig=x",
        "http://store.example/account/container?sig=x",
        "ftp://host/folder",
        "s3://",
        "file://host/folder",
        "file:///",
        "http://[::1",
    ],
)
def test_an_address_that_leads_nowhere_is_refused(uri: str) -> None:
    """With those that do."""
    with pytest.raises(InvalidSettings, match="logMirrorSasUri") as refused:
        Target(uri)
    assert refused.value.code == "InvalidContainer"


def test_only_a_signature_lets_an_application_choose_the_place() -> None:
    """The others are written to with rights that are the operator's, not the application's."""
    assert is_signed_address("https://account.blob.core.windows.net/container?sv=1&sig=x")
    for uri in ("file:///etc", "s3://bucket", "http://127.0.0.1:9/a/c?sig=x", "https://host/a/c?sv=1", "http://[::1"):
        assert not is_signed_address(uri)
