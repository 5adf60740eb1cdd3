"""The schema as it is written down, and the numbers that the code knows it by."""

from __future__ import annotations

import enum
import re
from pathlib import Path

from rankward.uploads import fields

SCHEMA = (Path(fields.__file__).parent / "events.fbs").read_text(encoding="utf-8")
TEXT = re.sub(r"//[^\n]*", "", SCHEMA)


def blocks(kind: str) -> dict[str, list[str]]:
    """Every block of a kind, with its members in order."""
    found = {}
    for name, body in re.findall(rf"\b{kind} (\w+)(?: : \w+)? \{{([^}}]*)\}}", TEXT):
        found[name] = [member.strip() for member in re.split(r"[;,]", body) if member.strip()]
    return found


def members(name: str) -> list[str]:
    """The members of an enumeration in the code, in the order of their numbers."""
    kind: type[enum.IntEnum] = getattr(fields, name)
    assert [member.value for member in kind] == list(range(len(kind)))
    return [member.name for member in kind]


def test_every_field_has_the_number_of_its_place() -> None:
    """A field is known on the wire by its place in the table alone; a union takes two."""
    unions = set(blocks("union"))
    for table, lines in blocks("table").items():
        expected = []
        for line in lines:
            name, kind = (part.strip() for part in line.split(":"))
            expected += [f"{name.upper()}_TYPE"] if kind in unions else []
            expected.append(name.upper())
        assert members(table) == expected, table


def test_every_enumeration_has_its_numbers() -> None:
    """Kinds of payloads, encodings and modes are numbers on the wire, too, and so are the members of a union."""
    assert {name: members(name) for name in blocks("enum")} == blocks("enum")
    for union in blocks("union").values():
        assert ["NONE", *[line.partition(":")[0].strip().upper() for line in union]] == members("Kind")
