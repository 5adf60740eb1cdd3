"""Files are known by what is in them, whatever they are called."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import zstandard

from rankward.errors import InvalidRequest, NotFound
from rankward.history.files import log_files
from rankward.migration.inventory import take_stock
from rankward.migration.recognise import Kind, kind_of_bytes, kind_of_text
from tests.history.loops import lines_of, numbered
from tests.models import learned

LINE = lines_of([numbered(1)])


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (LINE, Kind.LOG),
        (b"{ broken\n" + LINE, Kind.LOG),
        (LINE[:300], Kind.LOG),
        (b'{"RewardValue":1,"EventId":"e"}\n', Kind.LOG),
        (b'{"rewardWaitTime": "PT10M",\n "defaultReward": 0}', Kind.SETTINGS),
        (b'{"name":"x","arguments":"--cb_explore_adf"}', Kind.POLICY),
        (b" \n", Kind.EMPTY),
        (b'{"hello":1}', Kind.UNKNOWN),
        (b"[1,2]", Kind.UNKNOWN),
        (b"\xff\xfe\x00", Kind.UNKNOWN),
        (b"[" * 5_000, Kind.UNKNOWN),
    ],
)
def test_text_is_known_by_its_members(text: bytes, kind: Kind) -> None:
    """Portals and scripts name their files as they like."""
    assert kind_of_text(text) is kind


def test_other_files_are_known_by_their_first_bytes() -> None:
    """Before anything tries to read them as lines."""
    assert kind_of_bytes(b"") is Kind.EMPTY
    assert kind_of_bytes(learned()[:512]) is Kind.MODEL
    assert kind_of_bytes(b"PK\3\4...") is Kind.MODEL
    assert kind_of_bytes(b"VWFB\1\0\0\0") is Kind.BINARY_LOG
    assert kind_of_bytes(LINE) is None


def test_a_folder_is_read_as_the_original_laid_it_out(tmp_path: Path) -> None:
    """Its storage holds more than what is wanted, and the order of its logs is that of time."""
    for name, content in {
        "20260101000000/data/2026/01/02_0000000000.json": LINE,
        "20260101000000/data/2026/01/01_0000000000.json.gz": gzip.compress(LINE),
        "20260202000000/data/2026/02/02_0000000001.zst": zstandard.compress(LINE),
        "20260202000000/skipped-data/2026/02/02_0000000000.json": LINE,
        "20260202000000/data/2026/02/03_0000000000.fb": b"VWFB\1\0\0\0",
        "20260202000000/data/2026/02/04_0000000000.json": b"",
        "exported-models/current": learned(),
        "exported-models/currenttrainer": learned(events=4),
        "readme.txt": b"hello",
    }.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    found = take_stock([tmp_path, tmp_path / "exported-models" / "current"])

    assert [path.name for path in found.logs] == [
        "01_0000000000.json.gz",
        "02_0000000000.json",
        "02_0000000001.zst",
    ]
    assert found.model == tmp_path / "exported-models" / "current"
    assert {Path(each.file).name for each in found.passed_over} == {
        *("02_0000000000.json", "03_0000000000.fb", "04_0000000000.json", "currenttrainer", "readme.txt")
    }
    assert set(found.logs) <= set(log_files([tmp_path]))


@pytest.mark.parametrize(
    ("contents", "why"),
    [
        ({"x.txt": b"hello"}, "is no log, model"),
        ({"x.fb": b"VWFB\1\0\0\0"}, "binary form"),
        ({"a.vw": learned(), "b.vw": learned(events=4)}, "more than one file is a model"),
        ({"a.json": b'{"defaultReward":0}', "b.json": b'{"defaultReward":1}'}, "more than one file is a settings"),
        ({"x.json": b""}, "nothing to take over"),
        ({"x.gz": gzip.compress(LINE)[:30]}, "is damaged"),
    ],
)
def test_what_cannot_be_used_is_named(contents: dict[str, bytes], why: str, tmp_path: Path) -> None:
    """So that nobody believes that it was taken over."""
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidRequest, match=why) as refusal:
        take_stock([tmp_path / name for name in contents])
    assert all(name in str(refusal.value) for name in contents) or "nothing" in why


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A slip of the pen in a path is seen at once."""
    with pytest.raises(NotFound, match="nowhere"):
        take_stock([tmp_path / "nowhere"])
