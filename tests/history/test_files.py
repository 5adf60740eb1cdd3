"""Files of logs are found, opened and known again, whatever they are called and however they are packed."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import pytest
import zstandard

from rankward.errors import InvalidRequest, NotFound
from rankward.history import files
from rankward.history.files import LogFile, binary_logs, digest_of, log_files, written

LINES = [b'{"a":1}\n', b'{"a":2}\n', b'{"a":3}']


def content(path: Path) -> list[bytes]:
    """Read a whole file."""
    file = LogFile(path)
    try:
        found = file.lines(2) + file.lines(100)
        assert file.lines(1) == []
        return found
    finally:
        file.close()


@pytest.mark.parametrize(
    "pack",
    [
        lambda raw: raw,
        gzip.compress,
        zstandard.compress,
        lambda raw: zstandard.compress(raw[:5]) + zstandard.compress(raw[5:]),
    ],
)
def test_a_file_is_opened_by_what_it_is(pack: object, tmp_path: Path) -> None:
    """Whoever copied it may have packed it, and called it anything."""
    assert callable(pack)
    path = tmp_path / "log.json"
    path.write_bytes(pack(b"".join(LINES)))
    assert content(path) == LINES


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_a_file_that_was_cut_off_says_so(pack: object, tmp_path: Path) -> None:
    """A download that stopped half-way must not pass for a whole log."""
    assert callable(pack)
    path = tmp_path / "log.json.gz"
    path.write_bytes(pack(bytes(range(256)) * 40)[:-20])
    with pytest.raises(InvalidRequest, match="damaged"):
        content(path)


def test_a_line_without_end_is_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some other file, named by mistake, must not fill the memory."""
    monkeypatch.setattr(files, "LINE_BYTES_MAX", 100)
    path = tmp_path / "film.json"
    path.write_bytes(b"x" * 101)
    with pytest.raises(InvalidRequest, match="more than 100 bytes"):
        content(path)


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_what_unpacks_to_much_is_not_unpacked_at_once(pack: object, tmp_path: Path) -> None:
    """A few kilobytes from elsewhere must not fill the memory."""
    assert callable(pack)
    path = tmp_path / "log.json"
    path.write_bytes(pack(bytes(200 * 1024**2)))
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequest, match="no log"):
            content(path)
        assert tracemalloc.get_traced_memory()[1] < 100 * 1024**2
    finally:
        tracemalloc.stop()


def test_long_lines_are_read_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of lines that are each within the bound are too much together."""
    monkeypatch.setattr(files, "_READ_BYTES_MAX", 1_000)
    path = tmp_path / "log.json"
    path.write_bytes((b"x" * 599 + b"\n") * 5)
    file = LogFile(path)
    assert [len(file.lines(100)) for _ in range(4)] == [2, 2, 1, 0]
    file.close()


def test_a_mirrored_folder_is_walked_in_the_order_of_its_events(tmp_path: Path) -> None:
    """Personalizer began a new folder at each change of its configuration, and a file for each day and hour."""
    names = [
        "20260101000000/data/2026/01/30_0000000000.json",
        "20260101000000/data/2026/01/30_0000000001_07.json",
        "20260101000000/data/2026/02/01_0000000000.json",
        "20260201120000/data/2026/02/01_0000000000.json",
        "20260201120000/data/2026/02/01_0000000001.json.gz",
    ]
    others = [
        "20260101000000/data/2026/01/30_0000000002.fb",
        "20260101000000/skipped-data/2026/01/30_0000000000.json",
        "exported-models/current",
    ]
    for name in [*reversed(names), *others]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert [str(path.relative_to(tmp_path)) for path in log_files([tmp_path])] == names
    assert binary_logs([tmp_path]) == [tmp_path / others[0]], "so that it can be said what is left out"


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    """A typing error must not look like an empty log."""
    with pytest.raises(NotFound, match="no file or folder"):
        log_files([tmp_path / "log.json"])
    with pytest.raises(NotFound, match="no file that ends in"):
        log_files([tmp_path])


def test_a_file_is_known_by_its_content(tmp_path: Path) -> None:
    """It may be moved between two runs of an import."""
    one, other = tmp_path / "a", tmp_path / "b"
    one.write_bytes(b"x")
    other.write_bytes(b"x")
    assert digest_of(one) == digest_of(other)
    other.write_bytes(b"y")
    assert digest_of(one) != digest_of(other)


@pytest.mark.parametrize("name", ["log.json", "log.json.gz", "log.json.zst"])
def test_what_is_written_bears_its_name_when_it_is_whole(name: str, tmp_path: Path) -> None:
    """A log that was cut short must not be taken for the whole."""
    path = tmp_path / name
    with written(path) as file:
        file.write(LINES[0])
        file.write(LINES[1])
        assert not path.exists()
    assert content(path) == LINES[:2]
    with pytest.raises(ZeroDivisionError):
        _write_in_part(tmp_path / f"other-{name}")
    assert [each.name for each in tmp_path.iterdir()] == [name]


def _write_in_part(path: Path) -> None:
    with written(path) as file:
        file.write(LINES[0])
        raise ZeroDivisionError
