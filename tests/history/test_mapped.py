"""Tables of others as decisions: what a mapping says, what it refuses, and what rows become."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
import zstandard
from pyarrow import parquet

from rankward.dsjson.read import Skipped
from rankward.errors import InvalidRequest
from rankward.history.columns import ROLES, read_map
from rankward.history.sources import open_source
from rankward.ranking.features import FeatureBounds
from rankward.records import History, Interaction
from rankward.settings import Limits

WIDE = ("chosen=shown", "probability=p_*", "reward=clicked", "context=*", "time=when", "action.price=price_*")
TABLE = """when,shown,p_tea,p_soup,price_tea,price_soup,clicked,age,city
2026-01-01T10:00:00,tea,0.75,0.25,2.5,4,1,31,Bonn
2026-01-01T10:00:05,soup,0.5,0.5,2.5,4,,,Köln
"""


def rows(path: Path, *mapping: str) -> list[History | Skipped]:
    """Read a table to its end."""
    source = open_source(
        path, bounds=FeatureBounds(), limits=Limits(), reward_wait_us=60_000_000, mapping=read_map(mapping)
    )
    found: list[History | Skipped] = []
    while more := source.read():
        found += more
    source.close()
    return found


def written(folder: Path, text: str, name: str = "table.csv") -> Path:
    """Write a table."""
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def events(path: Path, *mapping: str) -> list[tuple[History, Interaction]]:
    """Read a table without flaws."""
    found = []
    for each in rows(path, *mapping):
        assert isinstance(each, History), each
        assert isinstance(each.interaction, Interaction)
        found.append((each, each.interaction))
    return found


def why(path: Path, *mapping: str) -> str:
    """Read a table of one flaw, and say which."""
    [flaw] = [each for each in rows(path, *mapping) if isinstance(each, Skipped)]
    return flaw.why


def test_a_row_becomes_a_decision(tmp_path: Path) -> None:
    """Numbers are numbers, what is empty is not there, and a column for each action says what each was like."""
    first, second = events(written(tmp_path, TABLE), *WIDE)
    assert first[0].time_us == datetime(2026, 1, 1, 10, tzinfo=UTC).timestamp() * 1_000_000
    assert [each.value for each in first[0].observations] == [1.0]
    assert first[1].context == b'[{"age":31.0,"city":"Bonn"}]'
    assert [(each.id, each.features) for each in first[1].actions] == [
        ("tea", b'[{"price":2.5}]'),
        ("soup", b'[{"price":4.0}]'),
    ]
    assert (first[1].pmf, first[1].chosen, first[1].event_id) == ((0.75, 0.25), 0, "table.csv:1")
    assert (second[1].context, second[0].observations) == ('[{"city":"Köln"}]'.encode(), ())


def test_parquet_means_the_same(tmp_path: Path) -> None:
    """The types are those of the file, and what is read is what the rows of CSV say."""
    table = pa.table(
        {
            "when": [datetime(2026, 1, 1, 10, 0, 0, tzinfo=UTC), datetime(2026, 1, 1, 10, 0, 5, tzinfo=UTC)],
            "shown": ["tea", "soup"],
            "p_tea": [0.75, 0.5],
            "p_soup": [0.25, 0.5],
            "price_tea": [2.5, 2.5],
            "price_soup": [4.0, 4.0],
            "clicked": [True, None],
            "age": [31.0, float("nan")],
            "city": ["Bonn", "Köln"],
        }
    )
    parquet.write_table(table, tmp_path / "table.csv")
    assert rows(tmp_path / "table.csv", *WIDE) == rows(written(tmp_path / "..", TABLE), *WIDE)


def test_moments_in_nanoseconds_are_moments(tmp_path: Path) -> None:
    """As pandas wrote them for years: what is below a microsecond is cut off."""
    moment = pa.array([1_767_225_600_000_001_999], pa.timestamp("ns"))
    table = pa.table({"a": ["x"], "p": [1.0], "r": [1], "t": moment})
    parquet.write_table(table, tmp_path / "table.parquet")
    [(one, _)] = events(tmp_path / "table.parquet", "chosen=a", "probability=p", "reward=r", "actions=x", "time=t")
    assert one.time_us == 1_767_225_600_000_001


def test_a_damaged_file_is_said_to_be_so(tmp_path: Path) -> None:
    """In one line, and not by a trace of the library's."""
    parquet.write_table(
        pa.table({"a": ["x"] * 1_000, "p": [1.0] * 1_000, "r": [1] * 1_000}), tmp_path / "table.parquet"
    )
    whole = bytearray((tmp_path / "table.parquet").read_bytes())
    whole[4:60] = b"\xff" * 56
    (tmp_path / "table.parquet").write_bytes(whole)
    with pytest.raises(InvalidRequest, match="is damaged"):
        rows(tmp_path / "table.parquet", "chosen=a", "probability=p", "reward=r", "actions=x")


@pytest.mark.parametrize("packed", [gzip.compress, zstandard.compress])
def test_packed_tables_are_tables(tmp_path: Path, packed: object) -> None:
    """Whatever they are called."""
    assert callable(packed)
    (tmp_path / "table.csv").write_bytes(packed(b"\xef\xbb\xbf" + TABLE.encode()))
    assert len(events(tmp_path / "table.csv", *WIDE)) == 2


def test_a_mapping_may_be_a_file(tmp_path: Path) -> None:
    """One is kept beside the table that it is for."""
    toml = written(
        tmp_path,
        'chosen = "shown"\nprobability = "p_*"\nreward = "clicked"\ntime = "when"\n'
        'context = "*"\n[action]\nprice = "price_*"\n',
        "map.toml",
    )
    assert read_map([str(toml)]) == read_map(WIDE)


def test_the_probability_of_the_chosen_action_may_be_all_there_is(tmp_path: Path) -> None:
    """Then the rest is spread, and the ids of the actions are given."""
    path = written(tmp_path, "a;p;r;x\n2;0.5;0.25;3\n")
    [(_, one)] = events(path, "chosen=a", "probability=p", "reward=r", "actions=1,2,3", "context.user=x")
    assert (one.pmf, one.chosen, one.context) == ((0.25, 0.5, 0.25), 1, b'[{"user":{"x":3.0}}]')


def test_actions_may_be_listed_by_row(tmp_path: Path) -> None:
    """As JSON: of ids, or of objects with features."""
    path = written(tmp_path, 'a,p,r,offered\nx,0.5,1,"[""x"",""y""]"\ny,1,0,"[{""id"":""y"",""size"":2}]"\n')
    first, second = events(path, "chosen=a", "probability=p", "reward=r", "actions_json=offered")
    assert [each.id for each in first[1].actions] == ["x", "y"]
    assert [(each.id, each.features) for each in second[1].actions] == [("y", b'[{"size":2}]')]


def test_an_action_without_a_probability_was_not_on_offer(tmp_path: Path) -> None:
    """And one of probability 0 was, though it could not be drawn."""
    path = written(tmp_path, "a,p_x,p_y,p_z,r\nx,1,,0,1\n")
    [(_, one)] = events(path, "chosen=a", "probability=p_*", "reward=r")
    assert ([each.id for each in one.actions], one.pmf) == (["x", "z"], (1.0, 0.0))


def test_names_may_look_like_numbers(tmp_path: Path) -> None:
    """A postal code is none, and `07` is not 7."""
    path = written(tmp_path, "a,p,r,zip,n\nx,1,1,07,07\n")
    [(_, one)] = events(path, "chosen=a", "probability=p", "reward=r", "actions=x", "context=*", "text=zip")
    assert one.context == b'[{"zip":"07","n":7.0}]'


def test_rows_without_a_time_come_a_second_apart(tmp_path: Path) -> None:
    """So a policy that learns along them lags by as many rows as its wait has seconds. Numbers are since 1970."""
    path = written(tmp_path, "a,p,r,t\nx,1,1,100.5\nx,1,1,101\n")
    plain = ("chosen=a", "probability=p", "reward=r", "actions=x")
    first, second = events(path, *plain)
    assert second[0].time_us - first[0].time_us == 1_000_000
    assert [each.time_us for each, _ in events(path, *plain, "time=t")] == [100_500_000, 101_000_000]


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        ("x,1.5,1,1", "outside (0, 1]"),
        ("x,0,1,1", "outside (0, 1]"),
        ("x,-0.5,1,1", "outside (0, 1]"),
        ("x,often,1,1", "'often' is no number"),
        ("x,,1,1", "'p' is empty"),
        ("x,0.5,much,1", "reward 'much' is no number"),
        ("x,0.5,nan,1", "outside"),
        ("z,0.5,1,1", "'z' is none of those on offer: x, y"),
        (",0.5,1,1", "'a' is empty"),
        ("x,0.5,1,soon", "'soon' is no moment"),
        ("x,0.5,1,1e15", "is no moment"),
        ("x,0.5,1", "3 cells, and the header 4"),
        ("x,0.5,1,1,1", "5 cells, and the header 4"),
    ],
)
def test_what_a_row_gets_wrong_is_said(tmp_path: Path, cells: str, says: str) -> None:
    """Row by row: the others count."""
    path = written(tmp_path, f"a,p,r,t\nx,0.5,1,1\n{cells}\ny,0.5,1,3\n")
    found = why(path, "chosen=a", "probability=p", "reward=r", "actions=x,y", "time=t")
    assert says in found


def test_probabilities_must_add_up(tmp_path: Path) -> None:
    """A column for each action that does not is of something else."""
    path = written(tmp_path, "a,p_x,p_y,r\nx,0.5,0.3,1\n")
    assert "do not add up to 1" in why(path, "chosen=a", "probability=p_*", "reward=r")


def test_bytes_that_are_no_text_break_their_row_alone(tmp_path: Path) -> None:
    """Another encoding is not guessed."""
    path = tmp_path / "table.csv"
    path.write_bytes(b"a,p,r,city\nx,1,1,K\xf6ln\nx,1,1,Bonn\n")
    found = rows(path, "chosen=a", "probability=p", "reward=r", "actions=x", "context=city")
    assert [type(each) for each in found] == [Skipped, History]


@pytest.mark.parametrize(
    ("mapping", "says"),
    [
        (["chosen=a", "probability=p"], "lacks the role 'reward'"),
        (["chosen=a", "probability=p", "reward=rr", "actions=x"], "has no column 'rr': it has a, p, r, t"),
        (["chosen=a", "probability=q_*", "reward=r"], "has no column 'q_*'"),
        (["chosen=a", "probability=p", "reward=r"], "in one way which actions"),
        (["chosen=a", "probability=p", "reward=r", "actions=x", "actions_json=t"], "in one way which actions"),
        (["chosen=a", "probability=p", "reward=r", "actions=x,x"], "twice"),
        (["chosen=a", "chosen=b", "probability=p", "reward=r"], "given before"),
        (["chosen=a", "probability=p", "reward=r", "actions=x", "context=city"], "has no column 'city'"),
        (["chosen=a", "probability=p", "reward=r", "actions=x", "action.price=t"], "must have one `*`"),
        (["chosen=a", "probability=p", "reward=r", "actions=x", "action.price=cost_*"], "has no column 'cost_*'"),
        (["chosen=a", "probability=p", "reward=r", "actions=x", "colour=t"], "the roles are chosen"),
        (["nonsense", "chosen=a"], "write ROLE=COLUMN"),
        (["none.toml"], "neither ROLE=COLUMN nor a file"),
    ],
)
def test_a_mapping_that_cannot_be_used_is_refused(tmp_path: Path, mapping: list[str], says: str) -> None:
    """Before anything is read, with what there is instead."""
    path = written(tmp_path, "a,p,r,t\nx,0.5,1,1\n")
    with pytest.raises(InvalidRequest) as refused:
        rows(path, *mapping)
    assert says in str(refused.value)


def test_a_file_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    """And so is a table that names a column twice."""
    with pytest.raises(InvalidRequest, match="is no TOML"):
        read_map([str(written(tmp_path, "chosen", "map.toml"))])
    with pytest.raises(InvalidRequest, match="two columns of one name"):
        rows(written(tmp_path, "a,p,r,r\n"), "chosen=a", "probability=p", "reward=r", "actions=x")


def test_a_mapping_can_be_sent_to_another_process() -> None:
    """Each process reads the table for itself."""
    assert msgspec.json.decode(msgspec.json.encode(read_map(WIDE)), type=type(read_map(WIDE))) == read_map(WIDE)


def test_the_page_names_every_role() -> None:
    """Nobody looks for them in the code."""
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()
    for role in ROLES:
        assert f"`{role.replace('NAMESPACE', 'visitor')}`" in page
