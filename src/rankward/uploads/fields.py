"""Numbers of the fields, kinds and union members in `events.fbs`, by which they are known on the wire."""

from __future__ import annotations

import enum
import struct

PREAMBLE = struct.Struct(">BBHI")
"""Before a batch: reserved, version, message type, size of what follows."""
VERSION = 0
MESSAGE_TYPE = 13  # a batch of generic events
TIMESTAMP_BYTES = 12
IDENTITY, DEDUP = "IDENTITY", "DEDUP"


class PayloadType(enum.IntEnum):
    """What an event holds."""

    CB = 0
    CCB = 1
    SLATES = 2
    OUTCOME = 3
    CA = 4
    DEDUP_INFO = 5
    MULTI_STEP = 6
    EPISODE = 7


class Encoding(enum.IntEnum):
    """How an event's payload is written."""

    IDENTITY = 0
    ZSTD = 1


class Mode(enum.IntEnum):
    """Who decided: `records.LearningMode`."""

    ONLINE = 0
    APPRENTICE = 1
    LOGGING_ONLY = 2


class Kind(enum.IntEnum):
    """What stands in a union."""

    NONE = 0
    NUMBER = 1
    LITERAL = 2


class EventBatch(enum.IntEnum):
    """See `events.fbs`."""

    EVENTS = 0
    METADATA = 1


class SerializedEvent(enum.IntEnum):
    """See `events.fbs`."""

    PAYLOAD = 0


class BatchMetadata(enum.IntEnum):
    """See `events.fbs`."""

    CONTENT_ENCODING = 0
    ORIGINAL_EVENT_COUNT = 1


class Event(enum.IntEnum):
    """See `events.fbs`."""

    META = 0
    PAYLOAD = 1


class Metadata(enum.IntEnum):
    """See `events.fbs`."""

    ID = 0
    CLIENT_TIME_UTC = 1
    APP_ID = 2
    PAYLOAD_TYPE = 3
    PASS_PROBABILITY = 4
    ENCODING = 5


class CbEvent(enum.IntEnum):
    """See `events.fbs`."""

    DEFERRED_ACTION = 0
    ACTION_IDS = 1
    CONTEXT = 2
    PROBABILITIES = 3
    MODEL_ID = 4
    LEARNING_MODE = 5


class MultiSlotEvent(enum.IntEnum):
    """See `events.fbs`."""

    CONTEXT = 0
    SLOTS = 1
    MODEL_ID = 2
    DEFERRED_ACTION = 3
    BASELINE_ACTIONS = 4
    LEARNING_MODE = 5


class SlotEvent(enum.IntEnum):
    """See `events.fbs`."""

    ACTION_IDS = 0
    PROBABILITIES = 1
    ID = 2


class NumericOutcome(enum.IntEnum):
    """See `events.fbs`."""

    VALUE = 0


class NumericIndex(enum.IntEnum):
    """See `events.fbs`."""

    INDEX = 0


class OutcomeEvent(enum.IntEnum):
    """See `events.fbs`. Before the value of a union stands its kind."""

    VALUE_TYPE = 0
    VALUE = 1
    INDEX_TYPE = 2
    INDEX = 3
    ACTION_TAKEN = 4


class DedupInfo(enum.IntEnum):
    """See `events.fbs`."""

    IDS = 0
    VALUES = 1
