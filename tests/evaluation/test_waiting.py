"""Events that wait for the end of their reward wait."""

from hypothesis import given
from hypothesis import strategies as st

from rankward.evaluation.waiting import Waiting
from tests.evaluation.logs import event


@given(st.lists(st.integers(0, 3_000), max_size=6))
def test_events_come_out_as_they_went_in(looks: list[int]) -> None:
    """However many are kept compressed meanwhile."""
    waiting, out = Waiting(), []
    events = _EVENTS
    put = 0
    for look in sorted(looks):
        for each in events[put:look]:
            waiting.append(each)
        put = max(put, look)
        until = events[min(look, len(events) - 1)].entry.time_us
        out += list(waiting.due(until))
        assert len(out) == sum(each.entry.due_us <= until for each in events[:put])
    assert out == events[: len(out)]


_EVENTS = [event(number, wait_us=900 * 60_000_000) for number in range(3_000)]


def test_a_long_queue_keeps_its_order() -> None:
    """A wait of days is many events."""
    waiting = Waiting()
    events = [event(number) for number in range(8_000)]
    for each in events:
        waiting.append(each)
    assert list(waiting.due(events[-1].entry.due_us)) == events
    assert not list(waiting.due(events[-1].entry.due_us))
