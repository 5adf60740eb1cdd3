"""What a loop decided: its actions over a span, the newest events, and any event's whole story."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

import msgspec
from starlette.responses import JSONResponse, Response

from rankward.errors import NotFound
from rankward.portal.lines import probability_chart
from rankward.portal.spans import choices, span_of
from rankward.portal.view import View, Visit
from rankward.records import AnyInteraction, LogEntry, MultiSlotInteraction, TimeUs
from rankward.vw.explain import Contribution

_ACTIONS = 50
_DRAWN = 6  # actions in the chart: as many as can be told apart
_NEWEST = 20
_CONTRIBUTIONS = 15  # of an explanation, the weightiest


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A decision in the list."""

    time_us: TimeUs
    event_id: str
    shown: str  # ids of the actions shown, in the order of their slots
    probability: float  # of what was drawn; of several slots the lowest
    offered: int
    mode: str
    model_id: str | None


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """A contribution, drawn from the middle: to the right what speaks for the action."""

    name: str
    score: float
    length: float  # within [0, 50], of the score furthest from 0


async def _show(visit: Visit) -> Response:
    home = visit.doors.home
    span = span_of(visit.request.query_params.get("span"), home.clock())
    board = await asyncio.to_thread(
        home.figures().actions, visit.loop, from_us=span.from_us, to_us=span.to_us, limit=_ACTIONS
    )
    return visit.page("decisions", settings=visit.loop.settings, span=span, choices=choices(), board=board)


async def _probabilities(visit: Visit) -> Response:
    home, loop = visit.doors.home, visit.loop
    span = span_of(visit.request.query_params.get("span"), home.clock())
    figures = home.figures()

    def read() -> dict[str, object]:
        board = figures.actions(loop, from_us=span.from_us, to_us=span.to_us, limit=_DRAWN)
        ids = [action.action_id for action in board.actions]
        return probability_chart(figures.action_series(loop, ids, from_us=span.from_us, to_us=span.to_us))

    return JSONResponse(await asyncio.to_thread(read))


async def _newest(visit: Visit) -> Response:
    found = await visit.administration.events.newest(visit.loop_name, limit=_NEWEST)
    return visit.page("decisions_newest", rows=[_row(*each) for each in found])


def _row(entry: LogEntry, interaction: AnyInteraction) -> Row:
    shown = interaction.shown if isinstance(interaction, MultiSlotInteraction) else [interaction.shown]
    return Row(
        time_us=entry.time_us,
        event_id=interaction.event_id,
        shown=", ".join([interaction.actions[index].id for index in shown]),
        probability=min([choice.probability for choice in interaction.choices if choice.actions], default=1.0),
        offered=len(interaction.actions),
        mode=interaction.learning_mode,
        model_id=interaction.model_id,
    )


async def _find(visit: Visit) -> Response:
    """Lead from the search field to the event's own address."""
    event_id = visit.request.query_params.get("id", "").strip()
    return visit.redirect(f"/portal/loops/{visit.loop_name}/events/{quote(event_id, safe='')}")


async def _event(visit: Visit) -> Response:
    event_id = str(visit.request.path_params["event"])
    found = await visit.administration.events.stories(visit.loop_name, event_id)
    if not found:
        raise NotFound(
            f"the log holds no decision under the event id {event_id[:256]!r}: it may be older than the log is kept, "
            "erased, or imported, which are not found by their ids"
        )
    contributions = await visit.administration.events.explain(visit.loop_name, found[0].interaction)
    return visit.page(
        "event",
        event_id=event_id,
        stories=found,
        bars=None if contributions is None else _bars(contributions),
        pretty=_pretty,
    )


def _bars(contributions: list[Contribution]) -> list[Bar]:
    weighty = sorted(contributions, key=lambda each: -abs(each.score))
    most = max([abs(each.score) for each in weighty], default=0.0) or 1.0
    bars = [
        Bar(name=each.name, score=each.score, length=50 * abs(each.score) / most) for each in weighty[:_CONTRIBUTIONS]
    ]
    rest = sum(each.score for each in weighty[_CONTRIBUTIONS:])
    if len(weighty) > _CONTRIBUTIONS:
        count = len(weighty) - _CONTRIBUTIONS
        bars.append(Bar(name=f"{count} others", score=rest, length=min(50.0, 50 * abs(rest) / most)))
    return bars


def _pretty(features: bytes) -> str:
    """Write features with line breaks, as people read them."""
    return msgspec.json.format(features, indent=2).decode("utf-8", "replace")


VIEWS = (
    View(path="/loops/{loop}/decisions", handle=_show),
    View(path="/loops/{loop}/decisions/probabilities", handle=_probabilities),
    View(path="/loops/{loop}/decisions/newest", handle=_newest),
    View(path="/loops/{loop}/events", handle=_find),
    View(path="/loops/{loop}/events/{event:path}", handle=_event),
)
