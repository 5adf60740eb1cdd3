"""Looks through the files of an old resource, and sorts them by what they are."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import msgspec

from rankward.errors import InvalidRequest, NotFound
from rankward.history.files import LogFile, is_parquet
from rankward.migration.recognise import WHY_NOT, Kind, kind_of_bytes, kind_of_text

_BEGINNING = 512
_LINES = 200  # a configuration has fewer
_LEFT_ALONE = {
    "skipped-data": "events that were never activated, set apart by the original",
    "imported-models": "a model that had been imported: the one that served is wanted",
    "currenttrainer": "the trainer's own copy of the model: the one that served is wanted",
}
"""Names within the storage layout of the original."""


class PassedOver(msgspec.Struct, frozen=True):
    """A file that is not taken over."""

    file: str
    why: str


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to take over."""

    logs: tuple[Path, ...] = ()  # in the order in which they are read
    model: Path | None = None
    settings: Path | None = None
    policy: Path | None = None
    passed_over: tuple[PassedOver, ...] = ()

    @property
    def kinds(self) -> dict[Kind, tuple[Path, ...]]:
        """The files by what they are."""
        single = {Kind.MODEL: self.model, Kind.SETTINGS: self.settings, Kind.POLICY: self.policy}
        return {kind: (path,) for kind, path in single.items() if path is not None} | {Kind.LOG: self.logs}


def take_stock(paths: Sequence[Path]) -> Inventory:
    """Recognise files, and what is in folders.

    In a folder, what is of no use is passed over, as the original's storage holds other things, too. A
    file that was named must be of use.

    Raises:
        NotFound: there is nothing of a name.
        InvalidRequest: a file was not recognised, there are two models, settings or policies, or nothing at all.
    """
    found: dict[Kind, list[Path]] = {kind: [] for kind in Kind}
    passed_over: list[PassedOver] = []
    for path, named in _files(paths):
        why = None if named else next((_LEFT_ALONE[part] for part in path.parts if part in _LEFT_ALONE), None)
        kind = _kind(path) if why is None else Kind.UNKNOWN
        why = why or WHY_NOT.get(kind)
        if why is None:
            found[kind].append(path)
        elif named and kind is not Kind.EMPTY:
            raise InvalidRequest(f"{path} cannot be taken over: {why}")
        else:
            passed_over.append(PassedOver(str(path), why))
    inventory = Inventory(
        logs=tuple(found[Kind.LOG]),
        model=_only(found, Kind.MODEL),
        settings=_only(found, Kind.SETTINGS),
        policy=_only(found, Kind.POLICY),
        passed_over=tuple(passed_over),
    )
    if not any(found.values()):
        raise InvalidRequest("there is nothing to take over: name logs, a model, a service configuration or a policy")
    return inventory


def document(path: Path) -> bytes:
    """Read a JSON document, without the mark that some editors put before it."""
    return path.read_bytes().removeprefix(codecs.BOM_UTF8)


def _files(paths: Sequence[Path]) -> Iterator[tuple[Path, bool]]:
    """Find each file once, and say whether it was named itself."""
    seen = set()
    for path in paths:
        if not path.exists():
            raise NotFound(f"there is no file or folder {path}")
        within = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
        for each in within:
            if each.resolve() not in seen:
                seen.add(each.resolve())
                yield each, each == path


def _kind(path: Path) -> Kind:
    with path.open("rb") as file:
        kind = kind_of_bytes(file.read(_BEGINNING))
    if kind is not None:
        return kind
    if is_parquet(path):
        return Kind.LOG
    with closing(LogFile(path)) as file:
        return kind_of_text(b"".join(file.lines(_LINES)).removeprefix(codecs.BOM_UTF8))


def _only(found: dict[Kind, list[Path]], kind: Kind) -> Path | None:
    paths = found[kind]
    if len(paths) > 1:
        raise InvalidRequest(f"more than one file is a {kind}: {', '.join(map(str, paths))}; name the one to take over")
    return paths[0] if paths else None
