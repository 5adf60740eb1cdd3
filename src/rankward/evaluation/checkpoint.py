"""Where a replay stands, kept in a file now and then, so that one that was stopped goes on from there.

The file is a pickle, which can do anything when it is read. So it is read only from a folder that belongs to whoever
evaluates, and where nobody else can write.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from rankward import __version__
from rankward.errors import StoreUnavailable
from rankward.evaluation.contender import Candidate
from rankward.evaluation.replay import Part, Replay, Setup
from rankward.evaluation.report import Line

logger = logging.getLogger(__name__)

EVERY_S = 20.0


class Stand(NamedTuple):
    """How far a process has come."""

    batches: int  # of the log, taken
    events: int  # in them
    skipped: dict[str, int]
    flaws: list[Line]
    replay: Replay | None  # None: it is done
    part: Part | None  # what it found; None: it is on its way


class Place:
    """Where one process of an evaluation keeps how far it has come."""

    def __init__(
        self, folder: Path, source: object, share: Sequence[Candidate], setup: Setup, *, references: bool
    ) -> None:
        """Name it after all that what is found depends on: another question finds nothing here.

        Args:
            folder: made if it is not there, and for its owner alone.
            source: the log, told apart from others by its `repr`. Its batches are always the same.
            share: of the policies.
            setup: of the replay.
            references: whether it judges those, too.

        Raises:
            StoreUnavailable: the folder cannot be used, or others can write into it.
        """
        asked = pickle.dumps((__version__, repr(source), msgspec.msgpack.encode((list(share), setup)), references))
        self._path = folder / f"{hashlib.sha256(asked).hexdigest()}.checkpoint"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = folder.stat()
        except OSError as error:
            raise StoreUnavailable(f"the folder of checkpoints {folder} cannot be used: {error}") from error
        if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise StoreUnavailable(
                f"others can write into the folder of checkpoints {folder}: make it yours alone (chmod 700), or name "
                "another"
            )

    def get(self) -> Stand | None:
        """Read how far it had come. None: nothing is kept, or nothing that can be used."""
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreUnavailable(f"the checkpoint {self._path} cannot be read: {error}") from error
        try:
            stand: Stand = pickle.loads(content)  # noqa: S301 - our own, as the docstring of the module says
        except Exception as error:
            logger.warning("a checkpoint of an evaluation cannot be used, and it begins anew: %s", error)
            return None
        return stand

    def put(self, stand: Stand) -> None:
        """Keep how far it has come. Where there is no room, it goes on without."""
        aside = self._path.with_suffix(".tmp")
        try:
            aside.write_bytes(pickle.dumps(stand))
            aside.replace(self._path)
        except OSError as error:
            aside.unlink(missing_ok=True)
            logger.warning("an evaluation cannot keep how far it has come, and would begin anew: %s", error)
