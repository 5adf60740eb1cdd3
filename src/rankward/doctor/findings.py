"""What is a loop waiting for, and why is it not learning: conclusions from the facts, the worst first."""

from __future__ import annotations

import enum
from collections import Counter
from datetime import timedelta

import msgspec

from rankward.doctor.facts import ALIVE_US, Facts
from rankward.doctor.words import ago, counted, moment, share, span
from rankward.evaluation.report import Verdict
from rankward.optimization.rules import obstacle
from rankward.optimization.schedule import following
from rankward.records import LearningMode
from rankward.store.challengers import ChallengerState
from rankward.store.optimizations import OptimizationState
from rankward.store.ports import Epoch
from rankward.vw.arguments import problem_type_of
from rankward.watching.apprentice import Advice
from rankward.watching.comparison import Side
from rankward.watching.exploration import Amount

LEARNING_LATE_US = 30_000_000  # an event that could have been learned this long ago should have been
_REPLICA_BEHIND = 1_000  # messages that a node's replica lacks, before that is worth a word
_FIGURES_BEHIND = 5_000  # events
_ENOUGH = 20  # events, before anything is concluded from a share


class Severity(enum.StrEnum):
    """How bad a finding is."""

    PROBLEM = "problem"  # something does not work
    WARNING = "warning"  # it works, and learns less than it could
    WAITING = "waiting"  # nothing is wrong: it takes time
    NOTE = "note"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One conclusion."""

    severity: Severity
    name: str  # short and stable, for scripts
    what: str
    why: str
    do: str = ""  # empty: nothing is to be done


def findings(facts: Facts) -> list[Finding]:
    """Draw the conclusions, the worst first."""
    found = [*_machinery(facts), *_progress(facts), *_rewards(facts), *_choices(facts), *_optimization(facts)]
    found += _earnings(facts)
    order = list(Severity)
    if not any(finding.severity is not Severity.NOTE for finding in found):
        found.insert(
            0,
            Finding(
                severity=Severity.NOTE,
                name="learning",
                what="The loop learns.",
                why="Events are joined and learned as they become due, and models are published.",
            ),
        )
    return sorted(found, key=lambda finding: order.index(finding.severity))


def _machinery(facts: Facts) -> list[Finding]:
    """Whether the parts that learn are at work."""
    found = []
    if not facts.worker_lives:
        seen = (
            "has never run here"
            if facts.worker_seen_us is None
            else f"was last seen {ago(facts.worker_seen_us, facts.now_us)}"
        )
        found.append(
            Finding(
                severity=Severity.PROBLEM,
                name="no-worker",
                what="Nobody joins and learns.",
                why=f"The worker {seen}. Decisions go on being made and kept; nothing is learned from them.",
                do="Start `rankward serve` on this folder (of a cluster: `rankward api` or `rankward worker`); if it "
                "runs, read what it says on standard error.",
            )
        )
    found += _cluster(facts)
    if facts.mirroring is not None and facts.mirroring.failure is not None:
        behind = facts.mirroring.joined_end - facts.mirroring.offset
        found.append(
            Finding(
                severity=Severity.WARNING,
                name="mirror-fails",
                what=f"The log is not mirrored: {behind:,} joined events wait.",
                why=f"{facts.mirroring.failure}. It is tried again, and nothing is left out; learning is not touched.",
                do=f"Look after the place, or set another: `rankward settings set {facts.loop.name} "
                "log_mirror_sas_uri=…`.",
            )
        )
    if (archiving := facts.archiving) is not None and archiving.failing_since_us is not None:
        since = ago(archiving.failing_since_us, facts.now_us)
        found.append(
            Finding(
                severity=Severity.WARNING,
                name="archive-fails",
                what=f"The log is not archived: {facts.joined_end - archiving.offset:,} joined events wait.",
                why=f"{archiving.failure}. It first failed {since}, and is tried again. Until then nothing of them is "
                "dropped, however old: the disk fills.",
                do="Look after the place, or name another, or none: `rankward serve --archive URL`, or `off`.",
            )
        )
    watching = facts.watching
    if watching is not None and (watching.failure is not None or watching.behind > _FIGURES_BEHIND):
        found.append(
            Finding(
                severity=Severity.WARNING,
                name="figures-behind",
                what=f"What is shown of its earnings lacks {counted(watching.behind, 'joined event')}.",
                why=f"{watching.failure}. It is tried again."
                if watching.failure is not None
                else "They are counted behind everything else, and are being caught up on.",
                do="Nothing is lost by it: deciding and learning do not need them.",
            )
        )
    if facts.disk_is_full and facts.worker_lives:
        found.append(
            Finding(
                severity=Severity.PROBLEM,
                name="disk-full",
                what="The disk is full.",
                why="The room that was set aside for such a case has been given up.",
                do="Free some room, or shorten log_retention_days.",
            )
        )
    for epoch in facts.epochs:
        learned, following = facts.learned_of(epoch)
        status = facts.training_of(epoch)
        since_us = facts.unlearned_since_us.get(epoch.epoch_id)
        late = since_us is not None and facts.now_us - since_us > LEARNING_LATE_US
        if status is None and late and facts.worker_lives:
            found.append(
                Finding(
                    severity=Severity.PROBLEM,
                    name="no-trainer",
                    what=f"The trainer of epoch {epoch.epoch_id} gives no sign of life.",
                    why=f"{facts.joined_end - (following or 0):,} joined events are not learned, and no trainer has "
                    f"left word for {ALIVE_US // 1_000_000} s.",
                    do="Look for `trainer` in what the service says on standard error.",
                )
            )
        if epoch.state == "building":
            found.append(_building(facts, epoch, learned))
    found += _challengers(facts)
    if facts.set_asides:
        reasons = Counter(event.reason for event in facts.set_asides)
        [(reason, count)] = reasons.most_common(1)
        found.append(
            Finding(
                severity=Severity.WARNING,
                name="set-aside",
                what=f"{counted(len(facts.set_asides), 'event')} set aside.",
                why=f"The learner cannot use them; mostly ({count:,}): {reason}.",
                do="Nothing else is lost by it. Look at the features of these events: "
                + ", ".join(event.event_id or f"offset {event.interaction}" for event in facts.set_asides[:3])
                + ".",
            )
        )
    return found


def _cluster(facts: Facts) -> list[Finding]:
    """Whether the node is one with the others."""
    standing = facts.standing
    if standing is None or not facts.worker_lives:
        return []
    answers = facts.loop.settings.answer_without_quorum
    waiting = [
        Finding(
            severity=Severity.WAITING,
            name="waits-here",
            what="Decisions and rewards wait on this node for the JetStream servers.",
            why="They came while the servers were away. They are on this node's disk, and nowhere else yet.",
            do="Keep this node and its folder. They are sent by themselves when the servers are back.",
        )
        for _ in range(facts.waits_here)
    ]
    if standing.cut_off:
        return [
            *waiting,
            Finding(
                severity=Severity.PROBLEM,
                name="cut-off",
                what="This node does not reach the JetStream servers.",
                why=("Calls are answered with the last model" if answers else "Calls are answered with 503")
                + " here, and what other nodes do is not seen.",
                do="Look whether the servers run, and whether this machine reaches them. It goes on by itself then.",
            ),
        ]
    found = waiting
    if facts.leader is None:
        workers = ", ".join(standing.workers) or "none"
        found.append(
            Finding(
                severity=Severity.PROBLEM if not standing.workers else Severity.WAITING,
                name="no-leader",
                what="No worker leads the loop.",
                why=f"Nothing is learned until one does. Workers that are alive: {workers}.",
                do="Start `rankward worker` on a machine of the cluster."
                if not standing.workers
                else "Wait: one takes it within seconds.",
            )
        )
    if facts.replica_queue > _REPLICA_BEHIND:
        found.append(
            Finding(
                severity=Severity.WAITING,
                name="replica-behind",
                what=f"This node lacks {counted(facts.replica_queue, 'message')} of the loop.",
                why="What is said here is as old as that. The node is catching up on what happened.",
                do="Wait; or ask on another node.",
            )
        )
    return found


def _challengers(facts: Facts) -> list[Finding]:
    """Whether a challenger is to be promoted, or cannot go on."""
    found = []
    name = facts.loop.name
    for each in facts.challengers:
        challenger, ahead = each.challenger, each.standing.ahead
        if challenger.state is ChallengerState.FAILED:
            found.append(
                Finding(
                    severity=Severity.WARNING,
                    name="challenger-failed",
                    what=f"The challenger {challenger.name} does not go on.",
                    why=f"{challenger.description}.",
                    do=f"Remove it: `rankward challenger remove {name} {challenger.name}`.",
                )
            )
        elif ahead is not None and each.standing.verdict is Verdict.BETTER:
            found.append(
                Finding(
                    severity=Severity.NOTE,
                    name="challenger-better",
                    what=f"The challenger {challenger.name} is better beyond doubt.",
                    why=f"It would have earned between {ahead.always.low:.4f} and {ahead.always.high:.4f} more than "
                    f"what was served, by {each.standing.decisions:,} decisions; the interval holds at every look.",
                    do=f"`rankward challenger promote {name} {challenger.name}`.",
                )
            )
        elif each.waits:
            found.append(
                Finding(
                    severity=Severity.WAITING,
                    name="challenger-waits",
                    what=f"The challenger {challenger.name} waits.",
                    why="The loop's own training is behind, and comes first.",
                )
            )
    return found


def _building(facts: Facts, epoch: Epoch, learned: int) -> Finding:
    progress, left_s = building_progress(facts, epoch), building_left_s(facts, epoch)
    eta = "it has not begun" if progress is None else f"{progress:.0%} done"
    if left_s is not None:
        eta += f", about {span(left_s)} left"
    return Finding(
        severity=Severity.WAITING,
        name="building",
        what=f"A new model is being built ({epoch.reason}): {eta}.",
        why=f"{learned:,} events learned so far. Until it has caught up, "
        + (
            "the old model decides."
            if facts.loop.model_id and not facts.serves_other_kind
            else "decisions are uniform."
        ),
    )


def building_progress(facts: Facts, epoch: Epoch) -> float | None:
    """How much of the joined log an epoch has gone through, within [0, 1]. None: it has not begun."""
    _, following = facts.learned_of(epoch)
    if following is None:
        return None
    start = epoch.start or 0
    return min(1.0, max(0.0, (following - start) / max(1, facts.joined_end - start)))


def building_left_s(facts: Facts, epoch: Epoch) -> float | None:
    """How many seconds it still takes at the present rate. None: nobody can tell."""
    status = facts.training_of(epoch)
    if building_progress(facts, epoch) is None or status is None or status.rate_per_s <= 0:
        return None
    return max(0, status.joined_end - status.joined_offset) / status.rate_per_s


def _progress(facts: Facts) -> list[Finding]:
    """How far the way from Rank to the model has been gone."""
    loop = facts.loop
    unread = facts.log_end - facts.head
    if facts.ranked == 0 and facts.next_due_us is None:
        if unread and facts.worker_lives:
            return [_reading(unread)]
        if facts.counts.get("observed", 0):
            why = (
                "Rewards have come, but not one decision they could belong to: Rank is called with another loop's key."
            )
        else:
            why = "No Rank has been called with a key of this loop."
            if facts.imported:
                why += f" {counted(facts.imported, 'event')} of other logs are there to learn from and to evaluate by."
        return [
            Finding(
                severity=Severity.WAITING,
                name="no-decisions",
                what="Nothing has been decided yet.",
                why=why,
                do=f"Try `rankward rank --loop {loop.name} --context '{{\"hour\": 9}}' --action a --action b`, or "
                f"`rankward simulate grocery --loop {loop.name}`.",
            )
        ]
    found = []
    if unread > 1_000:
        found.append(_reading(unread))
    serving = facts.serving
    if serving is not None and facts.serves_other_kind:
        now, before = problem_type_of(loop.settings.policy), problem_type_of(serving.policy)
        found.append(
            Finding(
                severity=Severity.WAITING,
                name="other-kind",
                what="Decisions are uniform until there is a model of the new policy's kind.",
                why=f"The policy decides with --{now}, the model with --{before}: it cannot serve. The new one learns "
                "from events of its own kind.",
            )
        )
    starts_afresh = loop.forgotten_before > 0 and not any(facts.learned_of(epoch)[0] for epoch in facts.epochs)
    if facts.counts.get("joined", 0) == 0 and facts.next_due_us is not None:
        wait = span(loop.settings.reward_wait.total_seconds())
        left = (
            f"in {span((facts.next_due_us - facts.now_us) / 1e6)}"
            if facts.next_due_us > facts.now_us
            else "as soon as somebody joins it"
        )
        found.append(
            Finding(
                severity=Severity.WAITING,
                name="reward-wait",
                what=f"The first event becomes learnable at {moment(facts.next_due_us)}, {left}.",
                why=f"A reward may come for {wait} (reward_wait) after the decision. To learn earlier from those "
                "that were rewarded already would bias the model.",
                do=f"To see it learn sooner: `rankward settings set {loop.name} reward_wait=10s`. It holds for "
                "decisions from then on."
                if loop.settings.reward_wait > timedelta(seconds=10)
                else "",
            )
        )
    elif serving is None and facts.learnable and not starts_afresh:
        found += _first_model(facts)
    if starts_afresh and serving is None:
        found.append(
            Finding(
                severity=Severity.WAITING,
                name="forgotten",
                what="The model was deleted, and decisions are uniform.",
                why="What was decided before that is never learned again; what is decided from now on is.",
            )
        )
    return found


def _first_model(facts: Facts) -> list[Finding]:
    """When the first model is due, or why there is none. Only an epoch of the policy's kind can make it."""
    loop, sample = facts.loop, facts.sample
    kind = problem_type_of(loop.settings.policy)
    if sample.events and sample.other_kind == sample.events:
        return [
            Finding(
                severity=Severity.WAITING,
                name="other-kind",
                what="There is nothing yet that the policy can learn from, and decisions are uniform.",
                why=f"It decides with --{kind}, and the {counted(sample.events, 'event')} looked at "
                f"{'was' if sample.events == 1 else 'were'} decided under a policy of the other kind. The first model "
                "comes of what is decided now.",
            )
        ]
    epoch = next((epoch for epoch in facts.epochs if problem_type_of(epoch.policy) is kind), None)
    if epoch is None:
        return []
    due_us = epoch.created_us + round(facts.export_s * 1e6)
    if epoch.state == "serving" and due_us > facts.now_us:
        return [
            Finding(
                severity=Severity.WAITING,
                name="first-model",
                what=f"The first model is due at {moment(due_us)}.",
                why=f"Models are published every {span(facts.export_s)} (model_export_frequency); until then "
                "decisions are uniform.",
                do=f"To see it sooner: `rankward settings set {loop.name} model_export_frequency=10s`.",
            )
        ]
    learned = facts.learned_of(epoch)[0]
    if learned and facts.now_us - due_us > LEARNING_LATE_US and facts.worker_lives:
        return [
            Finding(
                severity=Severity.PROBLEM,
                name="no-model",
                what="There is no model yet, though there are events to learn from.",
                why=f"{counted(learned, 'event')} learned, and the first model was due {ago(due_us, facts.now_us)}.",
                do="Look for `trainer` in what the service says on standard error.",
            )
        ]
    return []


def _reading(unread: int) -> Finding:
    return Finding(
        severity=Severity.WAITING,
        name="behind",
        what=f"Joining is {counted(unread, 'entry', 'entries')} behind.",
        why="They have been logged and not been read by the worker.",
        do="If the number does not fall, the machine is too small for the traffic.",
    )


def _rewards(facts: Facts) -> list[Finding]:
    """Whether rewards come, and find their events."""
    counts, loop = facts.counts, facts.loop
    observed, unknown, late = (counts.get(name, 0) for name in ("observed", "unknown", "late"))
    found = []
    if facts.learnable >= _ENOUGH and counts.get("rewarded", 0) == 0:
        why = (
            "No reward has been reported."
            if not observed
            else f"{observed:,} rewards came, and none found its event in time."
        )
        found.append(
            Finding(
                severity=Severity.PROBLEM,
                name="no-rewards",
                what=f"Every event gets the default reward, {loop.settings.default_reward:g}.",
                why=f"{why} So no action looks better than another.",
                do="Call Reward with the event id that Rank answered, within "
                f"{span(loop.settings.reward_wait.total_seconds())}, with a key of this loop.",
            )
        )
    elif facts.sample.events >= _ENOUGH and facts.sample.rewards == 1:
        found.append(
            Finding(
                severity=Severity.PROBLEM,
                name="constant-reward",
                what=f"The last {facts.sample.events:,} events all have the reward {facts.sample.reward_mean:g}.",
                why="Where every choice earns the same, there is nothing to learn.",
                do="Report what differs between a good and a bad choice, and mind that no reward means "
                f"{loop.settings.default_reward:g} (default_reward).",
            )
        )
    if unknown and unknown >= 0.01 * max(observed, _ENOUGH):
        found.append(
            Finding(
                severity=Severity.WARNING,
                name="unknown-events",
                what=f"{counted(unknown, 'reward')} found no event ({unknown / max(1, observed):.1%}).",
                why="No decision of this loop has the event id that was reported, or it is longer ago than a day "
                "after its wait.",
                do="Check that Reward is called with the id that Rank answered, on the same loop.",
            )
        )
    unknown_slot = counts.get("unknown_slot", 0)
    if unknown_slot and unknown_slot >= 0.01 * max(observed, _ENOUGH):
        found.append(
            Finding(
                severity=Severity.WARNING,
                name="unknown-slots",
                what=f"{counted(unknown_slot, 'reward')} found no slot ({unknown_slot / max(1, observed):.1%}).",
                why="Their events have no slot of the id that was reported.",
                do="Check that Reward names slots as Rank was given them.",
            )
        )
    if late and late >= 0.01 * max(observed, _ENOUGH):
        found.append(
            Finding(
                severity=Severity.WARNING,
                name="late-rewards",
                what=f"{counted(late, 'reward')} came too late ({late / max(1, observed):.1%}).",
                why=f"They came after the reward wait of {span(loop.settings.reward_wait.total_seconds())}, when the "
                "event had been learned with the default reward.",
                do=f"Report rewards sooner, or wait longer: `rankward settings set {loop.name} reward_wait=…`.",
            )
        )
    never = counts.get("never_activated", 0)
    if never and never >= 0.05 * max(counts.get("joined", 0), _ENOUGH):
        found.append(
            Finding(
                severity=Severity.WARNING,
                name="never-activated",
                what=f"{counted(never, 'decision')} deferred and never activated.",
                why="With deferActivation, a decision counts once Activate is called: without, nothing is learned "
                "from it.",
                do="Call Activate when the action is really shown, or leave deferActivation out.",
            )
        )
    repeats = counts.get("repeats", 0)
    if repeats and repeats >= 0.01 * max(facts.ranked, _ENOUGH):
        found.append(
            Finding(
                severity=Severity.WARNING,
                name="repeated-ids",
                what=f"{counted(repeats, 'decision')} under an event id that was used before.",
                why="A reward goes to the first decision whose wait holds it, so the others look unrewarded.",
                do="Give every decision an id of its own, or leave eventId out.",
            )
        )
    return found


def _earnings(facts: Facts) -> list[Finding]:
    """Whether it earns more than what was done before, and what that costs."""
    found = []
    mode, comparison = facts.loop.settings.learning_mode, facts.comparison
    if mode is LearningMode.ONLINE and comparison is not None and comparison.over_baseline is not None:
        over = comparison.over_baseline
        by = f"{over.value:+.4f} per event, between {over.low:+.4f} and {over.high:+.4f} at every look"
        if comparison.against_baseline is Side.OTHER:
            found.append(
                Finding(
                    severity=Severity.WARNING,
                    name="below-baseline",
                    what="It earns less than its first action would, beyond doubt.",
                    why=f"{by}, over {counted(comparison.events, 'decision')}.",
                    do=f"Let the application's own choice be shown meanwhile, with `rankward settings set "
                    f"{facts.loop.name} learning_mode=Apprentice`, and look for a better policy with an evaluation.",
                )
            )
        elif comparison.against_baseline is Side.ONLINE:
            found.append(
                Finding(
                    severity=Severity.NOTE,
                    name="above-baseline",
                    what="It earns more than its first action would, beyond doubt.",
                    why=f"{by}, over {counted(comparison.events, 'decision')}.",
                )
            )
    if mode is LearningMode.ONLINE and facts.exploring is not None:
        exploring = facts.exploring
        if exploring.advice in {Amount.LESS, Amount.MORE}:
            less = exploring.advice is Amount.LESS
            found.append(
                Finding(
                    severity=Severity.NOTE,
                    name="explores-much" if less else "explores-little",
                    what=f"It would do better to explore {'less' if less else 'more'}.",
                    why=f"In the last week, {exploring.words}.",
                )
            )
    if mode is LearningMode.APPRENTICE and facts.apprenticeship is not None:
        advice, words = facts.apprenticeship.advice, facts.apprenticeship.words
        if advice in {Advice.SWITCH, Advice.STALLED}:
            ready = advice is Advice.SWITCH
            found.append(
                Finding(
                    severity=Severity.NOTE if ready else Severity.WARNING,
                    name="apprentice-ready" if ready else "apprentice-stalled",
                    what="The apprentice has learned enough to decide."
                    if ready
                    else "The apprentice does not get better.",
                    why=f"{words[0].upper()}{words[1:]}.",
                )
            )
    return found


def _choices(facts: Facts) -> list[Finding]:
    """Whether there is something to choose, and something left to chance."""
    settings, sample = facts.loop.settings, facts.sample
    found = []
    if sample.events >= _ENOUGH and sample.choices_max == 1:
        found.append(
            Finding(
                severity=Severity.PROBLEM,
                name="one-action",
                what=f"The last {sample.events:,} decisions had one action each.",
                why="Where there is no choice, there is nothing to learn.",
                do="Send every action that could be shown, and let Rank choose.",
            )
        )
    if settings.learning_mode is LearningMode.APPRENTICE:
        found.append(
            Finding(
                severity=Severity.NOTE,
                name="apprentice",
                what="Apprentice: the first action is shown, and the model learns to match it.",
                why=f"It would have chosen the same in {share(sample.baseline_chosen, sample.events)} of the newest "
                "events.",
                do=f"Once that is high enough: `rankward settings set {facts.loop.name} learning_mode=Online`.",
            )
        )
    elif settings.learning_mode is LearningMode.LOGGING_ONLY:
        found.append(
            Finding(
                severity=Severity.WARNING,
                name="logging-only",
                what="LoggingOnly: the first action is always shown.",
                why="The model has no say, and learns nothing about actions that are never shown.",
                do=f"To let it decide: `rankward settings set {facts.loop.name} learning_mode=Online`.",
            )
        )
    elif settings.exploration == 0.0:
        found.append(
            Finding(
                severity=Severity.WARNING,
                name="no-exploration",
                what="exploration is 0.",
                why="Nothing new is tried, so a wrong first impression is never put right, and no other policy can be "
                "evaluated from the log.",
                do=f"`rankward settings set {facts.loop.name} exploration=0.02`.",
            )
        )
    return found


def _optimization(facts: Facts) -> list[Finding]:
    """How automatic optimization stands, where it is on or has ever run."""
    loop, run = facts.loop, facts.optimization
    next_us = following(loop.settings, created_us=loop.created_us, now_us=facts.now_us)
    why = obstacle(loop.settings, loop.model_id)
    if next_us is not None and why is not None and loop.model_id is not None:
        return [
            Finding(
                severity=Severity.WARNING,
                name="optimization-blind",
                what="Automatic optimization is on, and finds nothing.",
                why=f"Its runs are skipped: {why}.",
            )
        ]
    last = None if run is None else f"Run {run.optimization_id}, {run.state}: {run.why or 'the log is searched.'}"
    if run is not None and last is not None and not run.state.finished:
        watches = run.state is OptimizationState.WATCHING
        return [
            Finding(
                severity=Severity.NOTE,
                name="optimization",
                what="What an optimization applied is watched." if watches else "An optimization is under way.",
                why=last,
                do=f"`rankward optimize {loop.name} --run {run.optimization_id}` shows it.",
            )
        ]
    if next_us is None:
        return []
    return [
        Finding(
            severity=Severity.NOTE,
            name="optimization",
            what=f"The next optimization is due in {span((next_us - facts.now_us) / 1e6)}.",
            why=last or "There was none so far.",
        )
    ]


# Words
