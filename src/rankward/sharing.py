"""Shares of a study: some of its policies, to be judged by any worker of a cluster. Offered, run, gathered.

A share is a record like a study's own, so it is claimed, tried again and given up as those are. It is named after what
it is: whoever goes on with the study of a worker that has died finds the shares that are done, and those under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from rankward.errors import Conflict, RankwardError, ServersAway, StoreUnavailable
from rankward.evaluation.contender import Candidate
from rankward.evaluation.replay import Part, Setup
from rankward.evaluation.report import Line
from rankward.evaluation.service import CancelledError, EvaluationFailedError, Prefix, Source, Told, play_share
from rankward.records import ModelId, Offset, TimeUs
from rankward.store.studies import Study, StudyKind, StudyState
from rankward.study_log import LoopLog
from rankward.wiring import Home

SHARES = 8
"""How many shares an evaluation is dealt out in: always as many, whoever is there to take them."""
_ASK_S = 0.5
_ALL = 1 << 62


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the policies of a study, and what of its log to judge them by."""

    candidates: tuple[Candidate, ...]
    setup: Setup
    references: bool  # whether to judge `online` and the baselines, too
    until_us: TimeUs | None = None  # decisions at or after it are left out; None: the whole log is read
    batches: int | None = None  # then: of the log, to read
    archived: bool = False  # whether the archive is read, too


class ShareFindings(msgspec.Struct, frozen=True, kw_only=True):
    """What was found of a share."""

    part: Part  # what was trained, without the models
    models: tuple[ModelId, ...]  # those, in the same order, in the store of the studies' models
    events: int
    skipped: dict[str, int]
    flaws: list[Line]


def note_of(share: Study) -> str:
    """Name the note that says how far a share is."""
    return f"share-{share.key}"


class OfferedShare:
    """A share that some worker plays. Implements `evaluation.service.Player`."""

    connection = None

    def __init__(self, home: Home, study: Study, share: Share, stopped: Callable[[], bool]) -> None:
        """Offer it, unless an earlier attempt at the study has.

        Args:
            home: the installation.
            study: of which it is a share.
            share: what to do.
            stopped: whether the attempt at the study is to stop, for another to go on with it.
        """
        self._stopped = stopped
        self.told = Told()
        self._home = home
        body = msgspec.msgpack.encode(share, order="deterministic")
        digest = hashlib.sha256(study.key.encode() + body).hexdigest()
        self._record = msgspec.structs.replace(
            study,
            key=digest[:32],
            kind=StudyKind.SHARE,
            study_id=digest,
            name=study.study_id,
            policies=(),
            searches=False,
            state=StudyState.WAITING,
            attempts=0,
            interrupted=0,
            holder="",
            share_of=study.key,
            share=body,
        )
        self._asked_s = 0.0
        with contextlib.suppress(Conflict):  # it is there
            home.studies.add(self._record, waiting_max=_ALL)

    def listen(self) -> None:
        """See `evaluation.service.Player`."""
        now_s = time.monotonic()
        if self.told.part is not None or now_s - self._asked_s < _ASK_S:
            return
        self._asked_s = now_s
        share = self._home.studies.by_key(self._record.key)
        if share is None:
            raise EvaluationFailedError("a share of it was removed")
        if share.state is StudyState.SUCCEEDED:
            self.told = self._gathered()
        elif share.state.finished:
            raise EvaluationFailedError(share.description)
        elif note := self._home.board.read(share.loop_id).get(note_of(share)):
            self.told = msgspec.json.decode(note, type=Told)

    def _gathered(self) -> Told:
        content = self._home.studies.found(self._record.key)
        assert content is not None, "it was written with the state"
        found = msgspec.msgpack.decode(content, type=ShareFindings)
        trained = [
            msgspec.structs.replace(each, model=self._home.study_models.get(self._record.loop_id, model_id))
            for each, model_id in zip(found.part.trained, found.models, strict=True)
        ]
        part = msgspec.structs.replace(found.part, trained=tuple(trained))
        return Told(events=found.events, read=1.0, skipped=found.skipped, flaws=found.flaws, part=part)

    def end(self) -> None:
        """See `evaluation.service.Player`. What is done is kept until the study is over: see `forget_shares`."""
        if self.told.part is None and not self._stopped():  # nobody will ask for it: a search was out of time, perhaps
            _remove(self._home, self._record)


def offer(
    home: Home,
    study: Study,
    source: Source,
    share: Sequence[Candidate],
    setup: Setup,
    *,
    references: bool,
    stopped: Callable[[], bool],
) -> OfferedShare:
    """Offer a share of a study to all workers.

    Args:
        home: the installation.
        study: that is run here.
        source: the study's log, or the beginning of it.
        share: some of its policies.
        setup: how to judge them.
        references: whether to judge `online` and the baselines, too.
        stopped: see `OfferedShare`.
    """
    begins = (source.until_us, source.last) if isinstance(source, Prefix) else (None, None)
    what = Share(
        candidates=tuple(share),
        setup=setup,
        references=references,
        until_us=begins[0],
        batches=begins[1],
        archived=home.archives.url is not None,
    )
    return OfferedShare(home, study, what, stopped)


def forget_shares(home: Home, study: Study) -> None:
    """Remove the shares of a study that is over, with what was found of them."""
    for share in home.studies.listed(study.loop_id, StudyKind.SHARE):
        if share.share_of == study.key:
            _remove(home, share)


def _remove(home: Home, share: Study) -> None:
    content = home.studies.found(share.key)
    if content is not None:
        for model_id in msgspec.msgpack.decode(content, type=ShareFindings).models:
            home.study_models.forget(share.loop_id, model_id)
    home.studies.delete(share.loop_id, StudyKind.SHARE, share.study_id)


async def _joined_end(home: Home, loop_id: str) -> Offset:
    joined = home.joined_log(loop_id)
    try:
        return (await joined.extent())[1]
    finally:
        await joined.close()


class ShareRun:
    """One attempt at one share."""

    def __init__(self, home: Home, share: Study, stopped: Callable[[], bool]) -> None:
        """Prepare.

        Args:
            home: the installation.
            share: one whose record says that it runs.
            stopped: asked now and then whether to let it be.
        """
        self._home = home
        self._share = share
        self._stopped = stopped
        self._asked_s = 0.0

    def run(self) -> None:
        """Run it to its end, and write down what was found or why nothing was."""
        share = self._share
        try:
            found = self._found()
        except CancelledError:
            if self._is_over():
                _remove(self._home, share)
        except ServersAway:
            raise  # it goes on from its checkpoint when they are back
        except (RankwardError, OSError) as error:
            failed = msgspec.structs.replace(share, state=StudyState.FAILED, description=str(error))
            self._home.studies.write(failed)
        else:
            done = msgspec.structs.replace(share, state=StudyState.SUCCEEDED)
            if not self._home.studies.write(done, found=msgspec.msgpack.encode(found)):
                for model_id in found.models:
                    self._home.study_models.forget(share.loop_id, model_id)

    def _found(self) -> ShareFindings:
        share = self._share
        what = msgspec.msgpack.decode(share.share, type=Share)
        if what.archived and self._home.archives.url is None:
            raise StoreUnavailable(
                f"it reads on in the archive, and the node {self._home.name} was given none: start every node with the "
                "same --archive, or RANKWARD_ARCHIVE, and ask again"
            )
        source: Source = LoopLog.of(self._home, share)
        self._wait_for_log()
        if what.until_us is not None and what.batches is not None:
            source = Prefix(source, what.until_us, what.batches)
        told = play_share(
            source,
            what.candidates,
            what.setup,
            references=what.references,
            checkpoints=self._checkpoints,
            tell=self._tell,
        )
        assert told.part is not None, "it was played to its end"
        models = []
        for number, trained in enumerate(told.part.trained):
            models.append(f"{share.key}-{number}")
            self._home.study_models.put(share.loop_id, models[-1], trained.model)
        bare = tuple(msgspec.structs.replace(trained, model=b"") for trained in told.part.trained)
        return ShareFindings(
            part=msgspec.structs.replace(told.part, trained=bare),
            models=tuple(models),
            events=told.events,
            skipped=told.skipped,
            flaws=told.flaws,
        )

    @property
    def _checkpoints(self) -> Path:
        return self._home.checkpoints(self._share.loop_id, self._share.key)

    def _wait_for_log(self) -> None:
        """Wait until this node has joined what the study is about: its replica may be behind."""
        joined_end = self._share.joined_end
        assert joined_end is not None, "a study settles it before it offers shares"
        while asyncio.run(_joined_end(self._home, self._share.loop_id)) < joined_end:
            self._ask()
            time.sleep(_ASK_S)

    def _tell(self, told: Told) -> None:
        self._home.board.post(self._share.loop_id, note_of(self._share), msgspec.json.encode(told))
        self._ask()

    def _ask(self) -> None:
        """Find out whether to go on.

        Raises:
            CancelledError: it is to be let be.
        """
        now_s = time.monotonic()
        if self._stopped():
            raise CancelledError("the share was stopped")
        if now_s - self._asked_s >= _ASK_S:
            self._asked_s = now_s
            if self._is_over():
                raise CancelledError("its study is over")

    def _is_over(self) -> bool:
        """Whether its study is, finished or deleted, or does not want it any more. One that waits is not over."""
        if self._home.studies.by_key(self._share.key) is None:
            return True
        study = self._home.studies.by_key(self._share.share_of)
        return study is None or study.state.finished
