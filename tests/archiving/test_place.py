"""Where an archive lies: a folder and a bucket do the same."""

from __future__ import annotations

import pytest

from rankward.archiving.place import Place
from rankward.errors import Conflict, InvalidRequest, StoreUnavailable
from tests.archiving.bucket import Bucket


def test_what_was_written_is_read(place: Place) -> None:
    """And listed, and removed."""
    assert place.read("a/b.txt") is None
    place.write("a/b.txt", b"one")
    place.write("a/c/d.txt", b"two")
    place.write("a/b.txt", b"three")

    assert place.read("a/b.txt") == b"three"
    assert place.names("a/") == ["a/b.txt", "a/c/d.txt"]
    assert (place.folders(), place.folders("a/")) == (["a/"], ["a/c/"])
    place.remove("a/b.txt")
    place.remove("a/b.txt")
    assert place.names() == ["a/c/d.txt"]


def test_what_another_process_has_written_is_not_replaced(bucket: Bucket) -> None:
    """One that was paused and comes back must not undo what its successor did."""
    place = Place(bucket.url)
    first = place.replace("index", b"one", None)
    with pytest.raises(Conflict):
        place.replace("index", b"other", None)
    read = place.read_tagged("index")
    assert read is not None
    assert read == (b"one", first)
    place.replace("index", b"two", read.tag)

    with pytest.raises(Conflict):
        place.replace("index", b"late", read.tag)
    assert place.read("index") == b"two"


def test_a_store_that_refuses_is_named(bucket: Bucket) -> None:
    """Its operator has to know which it is, and not what its address keeps secret."""
    place = Place(f"{bucket.url}&secret=hidden")
    bucket.refusing = True

    for call in (lambda: place.write("x", b""), lambda: place.read("x"), place.names):
        with pytest.raises(StoreUnavailable, match="s3://bucket/logs") as failed:
            call()
        assert "hidden" not in str(failed.value)


@pytest.mark.parametrize("url", ["", "nonsense", "s3://", "ftp://host/x", "file://host/x", "file:///", "http://[::1"])
def test_an_address_that_leads_nowhere_is_refused(url: str) -> None:
    """With those that do."""
    with pytest.raises(InvalidRequest, match="file:///FOLDER"):
        Place(url)
