"""Tells what a file of an old resource is, by what is in it."""

from __future__ import annotations

import enum
from collections.abc import Set

import msgspec

from rankward.settings import SETTINGS
from rankward.vw.model_file import is_model


class Kind(enum.StrEnum):
    """What a file is."""

    LOG = "log"
    MODEL = "model"  # bare, or with its signature in an archive
    SETTINGS = "settings"
    POLICY = "policy"
    EMPTY = "empty"
    BINARY_LOG = "binary log"
    UNKNOWN = "unknown"


WHY_NOT = {
    Kind.EMPTY: "it is empty",
    Kind.BINARY_LOG: "it is a log in the original's binary form, which is not read: mirror it as JSON",
    Kind.UNKNOWN: "it is no log, model, service configuration or learning policy",
}
"""Why files of a kind are of no use."""

_ARCHIVE = b"PK"
_BINARY_LOG = b"VWFB"
_LOG_MARKS = (b'"_label_cost"', b'"_outcomes"', b'"_multi"', b'"_label_ca"', b'"RewardValue"')
_POLICY_MEMBER = "arguments"
_SETTINGS_MEMBERS = frozenset(setting.wire for setting in SETTINGS.values() if setting.wire is not None)

_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def kind_of_bytes(beginning: bytes) -> Kind | None:
    """Tell what a file is by its first few hundred bytes. None: it is text or compressed, so its lines have to tell."""
    if not beginning:
        return Kind.EMPTY
    if is_model(beginning) or beginning.startswith(_ARCHIVE):
        return Kind.MODEL
    return Kind.BINARY_LOG if beginning.startswith(_BINARY_LOG) else None


def kind_of_text(beginning: bytes) -> Kind:
    """Tell what a file of text is.

    Args:
        beginning: some hundred lines, decompressed; all of them, if the file has no more.

    >>> kind_of_text(b'{"rewardWaitTime": "PT10M"}')
    <Kind.SETTINGS: 'settings'>
    """
    if not beginning.strip():
        return Kind.EMPTY
    try:
        members: Set[str] = _decode_members(beginning).keys()
    except (msgspec.DecodeError, RecursionError):
        members = set()  # more than one line of a log, or none
    if _POLICY_MEMBER in members:
        return Kind.POLICY
    if _SETTINGS_MEMBERS & members:
        return Kind.SETTINGS
    return Kind.LOG if any(mark in beginning for mark in _LOG_MARKS) else Kind.UNKNOWN
