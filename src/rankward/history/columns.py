"""What the columns of somebody's table mean: which are features, which was chosen, how likely, and what it earned.

A mapping gives roles to columns by name. In the names of context columns `*` and `?` stand for what they usually do; in
those of probabilities and of action features, one `*` stands for the id of an action: `p_*` is how likely each was.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from rankward.errors import InvalidRequest

ROLES = {
    "chosen": "the id of the action that was shown",
    "probability": "how likely that was, within (0, 1]; or with a `*`, a column for each action, empty where it was "
    "not on offer",
    "reward": "what it earned; empty: nothing was reported",
    "context": "columns with features of the situation, with commas between them; `*` is every column that has no "
    "other role",
    "context.NAMESPACE": "the same, as a group of features",
    "action.FEATURE": "a column for each action with a feature of it, a `*` where the action's id is: `price_*`",
    "actions": "ids of the actions on offer, with commas between them, where no column says which they are",
    "actions_json": "a column with the actions on offer as a JSON array: of ids, or of objects with `id` and features",
    "time": "when it was decided: ISO 8601, in UTC if it does not say, or seconds since 1970; without it, rows come a "
    "second apart",
    "event_id": "the event's id; without it, rows are named by their number",
    "text": "columns whose values are names though they look like numbers, such as postal codes",
}
"""Every role, with what it is for."""

_STAR = "*"
_COLUMNS_SHOWN = 20


class ColumnMap(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mapping, as it was asked for."""

    chosen: str
    probability: str
    reward: str
    context: dict[str, tuple[str, ...]] = {}  # patterns by namespace; empty: none
    action: dict[str, str] = {}  # patterns by feature
    actions: tuple[str, ...] = ()
    actions_json: str | None = None
    time: str | None = None
    event_id: str | None = None
    text: tuple[str, ...] = ()

    @property
    def gives_every_probability(self) -> bool:
        """Whether it says of each action how likely it was, and not of the chosen one alone."""
        return _STAR in self.probability


class Layout(NamedTuple):
    """A mapping, with the columns of a table that it means."""

    chosen: str
    reward: str
    time: str | None
    event_id: str | None
    context: Sequence[tuple[str, str]]  # namespace and column of each feature
    probability: str | None  # of the chosen action; None: there is a column for each
    probabilities: Mapping[str, str]  # column by action
    actions: Sequence[str]  # on offer in every row; empty: `actions_json` or `probabilities` says
    actions_json: str | None
    action_features: Mapping[str, Sequence[tuple[str, str]]]  # by action: name and column of each
    text: frozenset[str]

    @property
    def columns(self) -> list[str]:
        """Name all columns that are read."""
        single = (self.chosen, self.reward, self.time, self.event_id, self.probability, self.actions_json)
        named = [
            *(column for column in single if column is not None),
            *(column for _, column in self.context),
            *self.probabilities.values(),
            *(column for features in self.action_features.values() for _, column in features),
        ]
        return list(dict.fromkeys(named))


def read_map(texts: Sequence[str]) -> ColumnMap:
    """Read a mapping from `ROLE=COLUMN` pairs, or from a TOML file with the same roles.

    Args:
        texts: pairs, or the name of one file.

    Raises:
        InvalidRequest: a role is unknown, given twice, or missing, or the file is none.
    """
    if len(texts) == 1 and "=" not in texts[0]:
        return _checked(_from_file(Path(texts[0])))
    found: dict[str, Any] = {}
    for text in texts:
        role, equals, column = (part.strip() for part in text.partition("="))
        if not equals or not column:
            raise InvalidRequest(f"--map {text!r} is no mapping: write ROLE=COLUMN, or name one TOML file")
        group, dot, name = role.partition(".")
        value = tuple([each.strip() for each in column.split(",")]) if group in _LISTS else column
        if group == "context":
            _put(found.setdefault("context", {}), name, value, text)
        elif group == "action" and dot:
            _put(found.setdefault("action", {}), name, value, text)
        else:
            _put(found, role, value, text)
    return _checked(found)


_LISTS = ("context", "actions", "text")


def _put(where: dict[str, Any], name: str, value: object, text: str) -> None:
    if name in where:
        raise InvalidRequest(f"--map {text!r} gives a role that was given before: once is enough")
    where[name] = value


def _from_file(path: Path) -> dict[str, Any]:
    try:
        found = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InvalidRequest(f"--map {path} is neither ROLE=COLUMN nor a file that can be read: {error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path} is no TOML: {error}") from error
    context = found.get("context")
    if isinstance(context, str | list):
        found["context"] = {"": context}
    if isinstance(found.get("context"), dict):
        found["context"] = {name: [each] if isinstance(each, str) else each for name, each in found["context"].items()}
    return found


def _checked(found: Mapping[str, Any]) -> ColumnMap:
    for role in ("chosen", "probability", "reward"):
        if role not in found:
            raise InvalidRequest(f"the mapping lacks the role {role!r}: {ROLES[role]}")
    try:
        mapping = msgspec.convert(found, ColumnMap)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"the mapping cannot be used ({error}): the roles are {', '.join(ROLES)}") from error
    for name, pattern in {"probability": mapping.probability, **mapping.action}.items():
        if pattern.count(_STAR) > 1 or (name in mapping.action and _STAR not in pattern):
            raise InvalidRequest(f"{pattern!r} must have one `*`, where the action's id is, as in `price_*`")
    ways = [_STAR in mapping.probability, bool(mapping.actions), mapping.actions_json is not None]
    if sum(ways) != 1:
        raise InvalidRequest(
            "the mapping must say in one way which actions are on offer: by `probability` with a `*`, by `actions`, or "
            "by `actions_json`"
        )
    if len(set(mapping.actions)) < len(mapping.actions):
        raise InvalidRequest("`actions` names an action twice")
    return mapping


def lay_out(mapping: ColumnMap, columns: Sequence[str], table: str) -> Layout:
    """Find the columns that a mapping means.

    Args:
        mapping: as it was asked for.
        columns: that there are.
        table: what to call the table in messages.

    Raises:
        InvalidRequest: a column is missing.
    """

    def missing(pattern: str) -> InvalidRequest:
        shown = ", ".join(columns[:_COLUMNS_SHOWN]) + ("" if len(columns) <= _COLUMNS_SHOWN else ", …")
        return InvalidRequest(f"{table} has no column {pattern!r}: it has {shown}")

    single = (mapping.chosen, mapping.reward, mapping.time, mapping.event_id, mapping.actions_json, *mapping.text)
    for column in single:
        if column is not None and column not in columns:
            raise missing(column)
    probabilities: dict[str, str] = {}
    if _STAR in mapping.probability:
        probabilities = _by_action(mapping.probability, columns)
    if not probabilities and mapping.probability not in columns:
        raise missing(mapping.probability)
    features: dict[str, list[tuple[str, str]]] = {}
    for name, pattern in mapping.action.items():
        by_action = _by_action(pattern, columns)
        if not by_action:
            raise missing(pattern)
        for action, column in by_action.items():
            features.setdefault(action, []).append((name, column))
    taken = {*single, mapping.probability, *probabilities.values()} - set(mapping.text)
    taken |= {column for each in features.values() for _, column in each}
    context: list[tuple[str, str]] = []
    for namespace, patterns in mapping.context.items():
        for pattern in patterns:
            matched = [column for column in columns if _matches(column, pattern) and column not in taken]
            if not matched and pattern != _STAR:
                raise missing(pattern)
            context += [(namespace, column) for column in matched if (namespace, column) not in context]
    return Layout(
        chosen=mapping.chosen,
        reward=mapping.reward,
        time=mapping.time,
        event_id=mapping.event_id,
        context=context,
        probability=None if probabilities else mapping.probability,
        probabilities=probabilities,
        actions=mapping.actions,
        actions_json=mapping.actions_json,
        action_features=features,
        text=frozenset(mapping.text),
    )


def _matches(column: str, pattern: str) -> bool:
    return column == pattern or fnmatchcase(column, pattern)


def _by_action(pattern: str, columns: Sequence[str]) -> dict[str, str]:
    """Find the columns of a pattern, by what its `*` stands for."""
    before, _, after = pattern.partition(_STAR)
    length = len(before) + len(after)
    return {
        column[len(before) : len(column) - len(after)]: column
        for column in columns
        if len(column) > length and column.startswith(before) and column.endswith(after)
    }
