"""What a cluster looks like now: who lives, who leads what, who is how far; and how that is shown in a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from rankward.cluster.local import PAUSE_S, LocalCluster, Part
from rankward.cluster.membership import read_members
from rankward.cluster.standing import Member
from rankward.simulate.scoreboard import Progress
from rankward.telemetry import read_statuses
from rankward.wiring import Home


class LoopSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A loop."""

    name: str
    leader: str  # the name of a node; empty: nobody's
    term: int
    joined: int  # events
    unlearned: int  # of them
    lag_s: float  # of joining


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen at one moment."""

    members: Mapping[str, Member]
    stream_leaders: Mapping[str, int]  # how many streams each server leads
    loops: Sequence[LoopSeen]


def look(home: Home) -> Seen:
    """Look at a cluster.

    Args:
        home: a node's, by which the loops are seen.

    Raises:
        StoreUnavailable: the servers do not answer.
    """
    assert home.node is not None, "it is a node's"
    broker = home.node.broker
    home.node.refresh()
    streams = broker.call(broker.js.streams_info)
    leads = home.catalog.leads()
    loops = []
    for loop in home.catalog.loops():
        joining, training = read_statuses(home.board.read(loop.loop_id))
        lead = leads.get(loop.loop_id)
        loops.append(
            LoopSeen(
                name=loop.name,
                leader="" if lead is None else lead.holder,
                term=0 if lead is None else lead.term,
                joined=0 if joining is None else joining.counts.get("joined", 0),
                unlearned=training[-1].joined_end - training[-1].joined_offset if training else 0,
                lag_s=0.0
                if joining is None or joining.end == joining.head
                else max(0.0, (home.clock() - joining.now_us) / 1e6),
            )
        )
    return Seen(
        members={member.name: member for member in read_members(broker)},
        stream_leaders=Counter(
            stream.cluster.leader for stream in streams if stream.cluster is not None and stream.cluster.leader
        ),
        loops=loops,
    )


def draw(cluster: LocalCluster, seen: Seen | None, progress: Progress | None, *, failed: int, trouble: str) -> Panel:
    """Draw everything.

    Args:
        cluster: its processes.
        seen: what was seen last. None: nothing yet.
        progress: of the traffic. None: there is none yet.
        failed: calls that one address did not answer, so that the other was asked.
        trouble: why nothing newer was seen; empty: it was.
    """
    rows: list[RenderableType] = [_parts(cluster, seen), "", _loops(seen), "", traffic(progress, failed=failed)]
    if trouble:
        rows += ["", Text(trouble, style="red")]
    advice = (
        f"Kill any of them: kill -9 PID. It starts again {PAUSE_S:g} s later. kill -STOP and -CONT pause one. "
        "Ctrl-C ends it all."
    )
    return Panel(Group(*rows, "", Text(advice, style="dim")), title="rankward cluster")


def traffic(progress: Progress | None, *, failed: int) -> Text:
    """Say in a line how the traffic does."""
    if progress is None or progress.window is None:
        return Text("no decision yet")
    now = progress.window
    return Text.assemble(
        (f"{progress.events:,} decisions", "bold"),
        f", {progress.rate_per_s:,.0f} a second; reward ",
        (f"{now.got:.3f}", "bold cyan"),
        f" (best {now.best:.3f}, chance {now.uniform:.3f}); refused by one node and asked of the other: {failed}; ",
        (f"lost: {progress.ranks_lost} decisions, {progress.rewards_lost} rewards", "red" if _lost(progress) else ""),
    )


def line(cluster: LocalCluster, seen: Seen | None, progress: Progress | None, *, failed: int, trouble: str) -> str:
    """Put it all on one line, where nobody watches."""
    parts = [traffic(progress, failed=failed).plain]
    if seen is not None:
        parts += [f"{loop.name} led by {loop.leader or 'nobody'} (term {loop.term})" for loop in seen.loops]
    parts += [f"{part.name} {part.state}" for part in cluster.parts if part.pid is None]
    return "; ".join([*parts, *([trouble] if trouble else [])])


def _lost(progress: Progress) -> bool:
    return bool(progress.ranks_lost or progress.rewards_lost)


def _table(*columns: str) -> Table:
    made = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for column in columns:
        made.add_column(column)
    return made


def _parts(cluster: LocalCluster, seen: Seen | None) -> Table:
    made = _table("part", "PID", "", "what it does")
    for part in cluster.parts:
        style = "" if part.pid is not None else "red"
        made.add_row(part.name, str(part.pid or ""), Text(part.state, style=style), _does(cluster, part, seen))
    return made


def _does(cluster: LocalCluster, part: Part, seen: Seen | None) -> str:
    if seen is None or part.pid is None:
        return ""
    if part in cluster.servers:
        return f"leads {seen.stream_leaders.get(part.name, 0)} of {sum(seen.stream_leaders.values())} streams"
    member = seen.members.get(part.name)
    if member is None:
        return "is not among the living"
    behind = f"{member.behind} messages behind" if member.behind else "up to date"
    if part.name in cluster.endpoints:
        return f"answers at {cluster.endpoints[part.name]}, {behind}"
    led = [loop.name for loop in seen.loops if loop.leader == part.name]
    return f"leads {', '.join(led) or 'nothing'}, {behind}"


def _loops(seen: Seen | None) -> Table:
    made = _table("loop", "leader", "term", "joined", "not yet learned", "joining behind by")
    for loop in seen.loops if seen is not None else ():
        made.add_row(
            loop.name,
            loop.leader or Text("nobody", style="red"),
            str(loop.term),
            f"{loop.joined:,}",
            f"{loop.unlearned:,}",
            f"{loop.lag_s:.1f} s",
        )
    return made
