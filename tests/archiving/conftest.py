"""Places to archive to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from rankward.archiving.place import Place
from tests.archiving.bucket import Bucket


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A bucket."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with closing(Bucket()) as bucket:
        yield bucket


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A folder, and a bucket."""
    if request.param == "folder":
        return Place(f"file://{tmp_path}/archive")
    bucket: Bucket = request.getfixturevalue("bucket")
    return Place(bucket.url)
