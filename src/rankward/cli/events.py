"""`rankward rank`, `reward` and `tail`: one decision, one reward, and the events as they come."""

import asyncio
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import httpx
import msgspec
import typer
from rich.text import Text

from rankward.cli.access import ENDPOINT, Access, CalledLoopOption, EndpointOption, KeyOption, access, refused
from rankward.cli.terminal import DATA, DataOption, JsonOption, LoopArgument, home_at, out, table
from rankward.errors import InvalidRequest, WorldError
from rankward.records import (
    Activation,
    History,
    ImportProgress,
    Interaction,
    LogEntry,
    MultiSlotInteraction,
    Observation,
    SettingsChange,
    Tick,
)
from rankward.settings import as_datetime
from rankward.store.ports import EventLog

_TIMEOUT_S = 10.0
_FOLLOW_S = 0.2
_READ = 500
_SLOTS_VERSION = "v1.1-preview.1"  # of the contract, the first that has slots
_BAR = 20  # characters of a probability of 1


class _Ranked(msgspec.Struct, frozen=True):
    id: str
    probability: float | None = None


class _Decision(msgspec.Struct, frozen=True, rename="camel"):
    event_id: str
    reward_action_id: str
    ranking: list[_Ranked]


class _FilledSlot(msgspec.Struct, frozen=True, rename="camel"):
    id: str
    reward_action_id: str
    ranking: list[_Ranked] = []


class _SlotsDecision(msgspec.Struct, frozen=True, rename="camel"):
    event_id: str
    slots: list[_FilledSlot]


def rank(
    body: Annotated[
        str | None,
        typer.Argument(
            metavar="[BODY]", help="A whole request as JSON in a file, or - for standard input.", show_default=False
        ),
    ] = None,
    context: Annotated[str, typer.Option(help="Features of the situation: a JSON object, or an array of them.")] = "[]",
    action: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID[=JSON]", help="An action, with its features. Give it once for each.", show_default=False
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="An action that must not be chosen.", show_default=False)
    ] = None,
    event_id: Annotated[str | None, typer.Option(help="Made by the service if left out.", show_default=False)] = None,
    defer: Annotated[bool, typer.Option("--defer", help="Count it only once it is activated.")] = False,
    loop: CalledLoopOption = None,
    key: KeyOption = None,
    endpoint: EndpointOption = ENDPOINT,
    data: DataOption = DATA,
    as_json: JsonOption = False,
) -> None:
    """Ask a running service for one decision. A request with slots is asked of a loop that decides for several.

    rankward rank --context '{"hour": 9}' --action tea='{"hot": true}' --action juice='{"hot": false}'
    """
    if body is not None:
        if action:
            raise InvalidRequest("give a whole request, or --context and --action: one of the two")
        request = sys.stdin.buffer.read() if body == "-" else _read(Path(body))
    else:
        request = msgspec.json.encode(
            rank_request(context, action or [], excluded=exclude or [], event_id=event_id, deferred=defer)
        )
    to = access(endpoint, key, loop, data)
    if _has_slots(request):
        answer = _post(to, "multislot/rank?probabilities=true", request, expected=201, version=_SLOTS_VERSION)
    else:
        answer = _post(to, "rank", request, expected=201)
    if as_json:
        typer.echo(answer)
        return
    if _has_slots(request):
        _print_slots(msgspec.json.decode(answer, type=_SlotsDecision))
        return
    try:
        decision = msgspec.json.decode(answer, type=_Decision)
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"{endpoint} does not answer Rank as Personalizer does: {error}") from error
    console = out()
    console.print(Text.assemble(("Show ", "dim"), (decision.reward_action_id, "bold green")))
    made = table("action", "probability", "", right=("probability",))
    for ranked in decision.ranking:
        probability = ranked.probability or 0.0
        style = "bold" if ranked.id == decision.reward_action_id else ""
        made.add_row(Text(ranked.id, style=style), f"{probability:.4f}", Text("━" * round(probability * _BAR), "cyan"))
    console.print(made)
    console.print(Text(f"Then: rankward reward {decision.event_id} 1", style="dim"), soft_wrap=True)


def _has_slots(request: bytes) -> bool:
    try:
        body = msgspec.json.decode(request)
    except msgspec.DecodeError:
        return False  # the service says what is wrong with it
    return isinstance(body, dict) and "slots" in body


def _print_slots(decision: _SlotsDecision) -> None:
    console = out()
    made = table("slot", "show", "probability", right=("probability",))
    for slot in decision.slots:
        shares = {ranked.id: ranked.probability or 0.0 for ranked in slot.ranking}
        made.add_row(
            Text(slot.id),
            Text(slot.reward_action_id, style="bold green"),
            f"{shares.get(slot.reward_action_id, 0.0):.4f}",
        )
    console.print(made)
    first = decision.slots[0].id
    console.print(Text(f"Then: rankward reward {decision.event_id} 1 --slot {first}", style="dim"), soft_wrap=True)


def rank_request(
    context: str, actions: Sequence[str], *, excluded: Sequence[str], event_id: str | None, deferred: bool
) -> dict[str, Any]:
    """Write a request from what the command line gives.

    Args:
        context: JSON of an object or of an array of objects.
        actions: `ID=JSON` each, or just `ID`, whose only feature is its id.
        excluded: ids.
        event_id: None: the service makes one.
        deferred: whether it counts only once activated.

    Raises:
        InvalidRequest: something is no JSON, or there is no action.
    """
    if not actions:
        raise InvalidRequest("there is nothing to choose from: give --action ID=JSON at least once")
    request: dict[str, Any] = {"contextFeatures": _features("--context", context), "actions": []}
    for text in actions:
        action_id, equals, features = text.partition("=")
        given = _features(f"--action {action_id}", features) if equals else [{"id": action_id}]
        request["actions"].append({"id": action_id, "features": given})
    if excluded:
        request["excludedActions"] = list(excluded)
    if event_id is not None:
        request["eventId"] = event_id
    if deferred:
        request["deferActivation"] = True
    return request


def _features(where: str, text: str) -> list[Any]:
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"{where} is no JSON: {error}. Quote it: '{{\"hour\": 9}}'") from error
    return value if isinstance(value, list) else [value]


def reward(
    event_id: Annotated[str, typer.Argument(metavar="EVENT_ID", help="As Rank answered it.")],
    value: Annotated[float, typer.Argument(metavar="VALUE", help="What the choice was worth, within -1 and 1.")],
    slot: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Of the slot that it is about, if there are several.", show_default=False),
    ] = None,
    loop: CalledLoopOption = None,
    key: KeyOption = None,
    endpoint: EndpointOption = ENDPOINT,
    data: DataOption = DATA,
) -> None:
    """Report to a running service what one decision was worth."""
    to = access(endpoint, key, loop, data)
    path = f"events/{quote(event_id, safe='')}/reward"
    if slot is None:
        _post(to, path, msgspec.json.encode({"value": value}), expected=204)
    else:
        body = msgspec.json.encode({"reward": [{"slotId": slot, "value": value}]})
        _post(to, f"multislot/{path}", body, expected=204, version=_SLOTS_VERSION)
    whose = event_id if slot is None else f"slot {slot} of {event_id}"
    out().print(f"Reward {value:g} is kept for {whose}.", markup=False)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}") from error


def _post(to: Access, path: str, body: bytes, *, expected: int, version: str = "v1.0") -> bytes:
    try:
        response = httpx.post(
            f"{to.endpoint}/personalizer/{version}/{path}",
            content=body,
            headers={"Ocp-Apim-Subscription-Key": to.key, "Content-Type": "application/json"},
            timeout=_TIMEOUT_S,
        )
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise WorldError(
            f"no answer from {to.endpoint}: {error or type(error).__name__}. Is `rankward serve` running there?"
        ) from error
    if response.status_code == expected:
        return response.content
    raise refused(to.endpoint, response)


def tail(
    loop: LoopArgument,
    count: Annotated[
        int, typer.Option("-n", "--lines", min=0, help="How many of the newest events to begin with.")
    ] = 20,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with what comes, until Ctrl-C.")] = False,
    data: DataOption = DATA,
    as_json: JsonOption = False,
) -> None:
    """Show the events of a loop as they come, straight from its log."""
    with home_at(data) as home:
        log = home.event_log(home.catalog.loop(loop).loop_id)

        async def run() -> None:
            try:
                begin, following = await newest(log, count)
                _print(begin, as_json=as_json)
                while follow:
                    entries = await log.read(following, limit=_READ)
                    if not entries:
                        await asyncio.sleep(_FOLLOW_S)
                        continue
                    _print([entry for entry in entries if not isinstance(entry.record, Tick)], as_json=as_json)
                    following = entries[-1].offset + 1
            finally:
                await log.close()

        try:
            asyncio.run(run())
        except KeyboardInterrupt:
            raise typer.Exit(0) from None


async def newest(log: EventLog, count: int) -> tuple[list[LogEntry], int]:
    """Return the newest `count` entries that say something, in log order, and the offset after the last."""
    extent = await log.extent()
    found: list[LogEntry] = []
    end = extent.end
    while len(found) < count and end > extent.first:
        start = max(extent.first, end - max(_READ, count))
        stretch = await log.read(start, limit=end - start)
        found = [e for e in stretch if e.offset < end and not isinstance(e.record, Tick)] + found
        end = start
    return found[len(found) - min(count, len(found)) :], extent.end


def _print(entries: Sequence[LogEntry], *, as_json: bool) -> None:
    console = out()
    for entry in entries:
        if as_json:
            typer.echo(msgspec.json.encode(plain(entry)))
        else:
            console.print(line(entry), soft_wrap=True)


def plain(entry: LogEntry) -> dict[str, Any]:
    """Put an entry into plain terms, for scripts."""
    said: dict[str, Any] = {"offset": entry.offset, "time": as_datetime(entry.time_us).isoformat()}
    match entry.record:
        case Interaction() as decided:
            said |= {
                "kind": "decision",
                "event_id": decided.event_id,
                "action": decided.actions[decided.chosen].id,
                "shown": decided.actions[decided.shown].id,
                "probability": decided.pmf[decided.chosen],
                "model": decided.model_id,
                "deferred": decided.deferred,
                "repeats": decided.repeats,
            }
        case MultiSlotInteraction() as decided:
            said |= {
                "kind": "decision",
                "event_id": decided.event_id,
                "slots": [
                    {
                        "slot": slot.id,
                        "action": decided.actions[choice.chosen].id,
                        "shown": decided.actions[shown].id,
                        "probability": choice.probability,
                    }
                    for slot, choice, shown in zip(decided.slots, decided.choices, decided.shown, strict=True)
                ],
                "model": decided.model_id,
                "deferred": decided.deferred,
                "repeats": decided.repeats,
            }
        case Observation() as observed:
            said |= {"kind": "reward", "event_id": observed.event_id, "reward": observed.value}
            if observed.slot is not None:
                said["slot"] = observed.slot
        case Activation() as activated:
            said |= {"kind": "activation", "event_id": activated.event_id}
        case SettingsChange() as changed:
            said |= {"kind": "settings", "cause": changed.cause}
        case History() as past:
            said |= {"kind": "history", "event_id": past.interaction.event_id}
            said |= {"decided": as_datetime(past.time_us).isoformat(), "rewards": len(past.observations)}
        case ImportProgress() as progress:
            said |= {"kind": "import", "file": progress.name, "lines": progress.lines, "finished": progress.finished}
        case Tick():
            said |= {"kind": "tick"}
    return said


_STYLES = {"decision": "cyan", "reward": "green", "activation": "magenta", "settings": "yellow"}


def line(entry: LogEntry) -> Text:
    """Put an entry on one line."""
    said = plain(entry)
    moment = as_datetime(entry.time_us).astimezone()
    text = Text(f"{entry.offset:>9}  ", style="dim")
    text.append(f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03}  ", style="not dim")
    text.append(f"{said['kind']:<10}  ", style=f"not dim {_STYLES.get(said['kind'], '')}")
    text.append(" ".join(_details(said)), style="not dim")
    return text


def _details(said: dict[str, Any]) -> Iterator[str]:
    if "event_id" in said:
        yield said["event_id"]
    if said["kind"] == "decision":
        for choice in said.get("slots", [said]):
            place = f"{choice['slot']}: " if "slot" in choice else ""
            yield f" → {place}{choice['action']}  p={choice['probability']:.4f}"
            if choice["shown"] != choice["action"]:
                yield f" shown {choice['shown']}"
        yield f" model {said['model'] or 'none'}"
        for flag in ("deferred", "repeats"):
            if said[flag]:
                yield f" {flag}"
    if said["kind"] == "history":
        yield f" decided {said['decided']}  {said['rewards']} rewards"
    if said["kind"] == "settings" and said["cause"]:
        yield said["cause"]
    if said["kind"] == "import":
        yield f"{said['file']}  {said['lines']} lines{', the end' if said['finished'] else ''}"
    if said["kind"] == "reward":
        place = f"{said['slot']}: " if "slot" in said else ""
        yield f" → {place}{said['reward']:g}"
