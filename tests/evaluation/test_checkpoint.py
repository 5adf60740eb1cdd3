"""An evaluation that was stopped goes on from where it stood, and finds what one finds that was never stopped."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from rankward.errors import StoreUnavailable
from rankward.evaluation import service
from rankward.evaluation.checkpoint import Place, Stand
from rankward.evaluation.contender import Candidate
from rankward.evaluation.replay import Part, Replay, Setup
from rankward.evaluation.service import Batch, custom, evaluate
from rankward.joining.reward import RewardDefinition
from rankward.records import JoinedEvent
from rankward.settings import Aggregation
from tests.evaluation.logs import log as made_log

SETUP = Setup(rewards=RewardDefinition(0.0, Aggregation.EARLIEST), export_us=60_000_000)
ASKED = {
    "balanced": "balanced",
    "calm": "--cb_explore_adf --epsilon 0.05 --cb_type mtr -q ::",
    "calmer": "--cb_explore_adf --epsilon 0.02 --learning_rate 0.1 --cb_type mtr -q ::",
    "another": "--cb_explore_adf --softmax --lambda 5 --cb_type mtr",
}


def candidates() -> list[Candidate]:
    """Policies of which two share a parser."""
    return [
        msgspec.structs.replace(custom(name, policy, exploration=0.02), keeps_model=True)
        for name, policy in ASKED.items()
    ]


def played(events: Sequence[JoinedEvent], stops: Sequence[int]) -> Part:
    """Replay a log, pickled and taken out again after so many events."""
    replay = Replay(candidates(), SETUP, references=True)
    for number, event in enumerate(events):
        if number in stops:
            replay = pickle.loads(pickle.dumps(replay))  # noqa: S301 - made a moment ago
        replay.take(event)
    return replay.end()


@functools.cache
def played_at_once() -> Part:
    """Replay the same log from its beginning to its end."""
    return msgspec.structs.replace(played(made_log(1_200), []), trained=())


@pytest.mark.parametrize("stops", [[1], [499, 500, 501], [700, 701, 1_100]])
def test_a_replay_that_is_kept_and_gone_on_with_finds_the_same(stops: list[int]) -> None:
    """Before its interactions are settled, at that moment, and after it."""
    assert msgspec.structs.replace(played(made_log(1_200), stops), trained=()) == played_at_once()


class Log(msgspec.Struct, frozen=True):
    """A log that counts how often it is read. Implements `Source`."""

    events: int
    read: str  # path of a file that gets a character for each batch

    def batches(self) -> Iterator[Batch]:
        """Read it."""
        events = made_log(self.events)
        for number in range(0, self.events, 100):
            with Path(self.read).open("a") as file:
                file.write(".")
            yield Batch(events[number : number + 100], (number + 100) / self.events)


@pytest.mark.slow
def test_an_evaluation_goes_on_where_it_broke_off(tmp_path: Path) -> None:
    """A restart in the middle of hours of work costs seconds of it."""
    place = tmp_path / "kept"
    log = Log(1_200, str(tmp_path / "read"))
    part = evaluate(log, candidates(), SETUP, processes=1)
    place_of = Place(place, log, service._shares(candidates(), 1)[0], SETUP, references=True)
    replay = Replay(service._shares(candidates(), 1)[0], SETUP, references=True)
    for batch in list(log.batches())[:6]:
        for event in batch.events:
            replay.take(event)
    place_of.put(Stand(6, 600, {}, [], replay, None))
    Path(log.read).unlink()

    again = evaluate(log, candidates(), SETUP, processes=1, checkpoints=place)
    done = evaluate(log, candidates(), SETUP, processes=1, checkpoints=place)

    assert again == part
    assert done == part
    assert len(Path(log.read).read_text()) == 12, "what is done is not read once more"


def test_another_question_finds_nothing(tmp_path: Path) -> None:
    """A policy that was changed must not go on with what another had learned."""
    share = candidates()
    place = Place(tmp_path, "log", share, SETUP, references=True)
    place.put(Stand(1, 1, {}, [], None, Replay(share, SETUP, references=True).end()))
    other = [msgspec.structs.replace(share[0], exploration=0.5), *share[1:]]

    assert place.get() is not None
    assert Place(tmp_path, "log", other, SETUP, references=True).get() is None
    assert Place(tmp_path, "another log", share, SETUP, references=True).get() is None


def test_a_damaged_checkpoint_is_begun_anew(tmp_path: Path) -> None:
    """A crash while it was written, or another version's, must not end the evaluation."""
    place = Place(tmp_path, "log", candidates(), SETUP, references=True)
    place.put(Stand(1, 1, {}, [], None, None))
    for path in tmp_path.glob("*.checkpoint"):
        path.write_bytes(path.read_bytes()[:20])

    assert place.get() is None


def test_a_folder_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    """What lies in it is run when it is read."""
    tmp_path.chmod(0o777)

    with pytest.raises(StoreUnavailable, match="others can write"):
        Place(tmp_path, "log", candidates(), SETUP, references=True)
