"""JSON values of a type, as strategies: fitting, or bent out of shape somewhere."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st
from msgspec import inspect

Json = Any

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_NUMBERS = st.integers(-3, 3) | st.floats(-1e6, 1e6)
_LEAF = st.none() | st.booleans() | _NUMBERS | _TEXT | st.sampled_from([1e39, 2**70, "x" * 2_000, "", "0"])
ANYTHING: st.SearchStrategy[Json] = st.recursive(
    _LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3), max_leaves=6
)
_DATES = st.sampled_from(["2022-09-20", "2026-01-05T00:00:00Z", "2026-01-12T00:00:00", "0001-01-01T00:00:00+00:00"])
_DURATIONS = st.sampled_from(["PT5S", "PT10M", "PT4H", "P1D", "P28D", "00:10:00", "1.00:00:00"])


def fitting(kind: Any) -> st.SearchStrategy[Json]:
    """Values that a type of the contract allows."""
    return _values(inspect.type_info(kind), bent=False)


def bent(kind: Any) -> st.SearchStrategy[Json]:
    """Values of which anything may be missing, or be something else."""
    return _values(inspect.type_info(kind), bent=True) | ANYTHING


def as_body(values: st.SearchStrategy[Json]) -> st.SearchStrategy[bytes]:
    """The same as bytes on the wire."""
    return values.map(lambda value: json.dumps(value).encode())


def _values(info: inspect.Type, *, bent: bool) -> st.SearchStrategy[Json]:
    fits = _fitting(info, bent=bent)
    return fits | ANYTHING if bent and not isinstance(info, inspect.StructType) else fits


def _fitting(info: inspect.Type, *, bent: bool) -> st.SearchStrategy[Json]:
    match info:
        case inspect.StructType():
            members = {field.encode_name: _values(field.type, bent=bent) for field in info.fields}
            required = {field.encode_name for field in info.fields if field.required and not bent}
            return st.fixed_dictionaries(
                {name: values for name, values in members.items() if name in required},
                optional={name: values for name, values in members.items() if name not in required},
            )
        case inspect.ListType():
            return st.lists(_values(info.item_type, bent=bent), max_size=4)
        case inspect.StrType():
            return st.text(
                st.characters(exclude_categories=["Cs"]),
                min_size=info.min_length or 0,
                max_size=min(info.max_length or 12, 12),
            )
        case inspect.FloatType():
            low = -1e6 if info.ge is None else info.ge
            return st.floats(low, 1e6 if info.le is None else info.le)
        case inspect.IntType():
            return st.integers(info.ge, info.le)
        case inspect.BoolType():
            return st.booleans()
        case inspect.LiteralType():
            return st.sampled_from(info.values)
        case inspect.DateTimeType():
            return _DATES
        case inspect.TimeDeltaType():
            return _DURATIONS
        case inspect.DictType() | inspect.AnyType():
            return st.dictionaries(_TEXT.filter(bool), _LEAF, max_size=3)
    raise AssertionError(f"the contract has no {info}")
