"""`rankward evaluate`: judge policies by a log, without a server."""

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from rankward import __version__
from rankward.archiving.place import is_url
from rankward.cli.logs import moment, say_left_out
from rankward.cli.terminal import JsonOption, SinceOption, UntilOption, err, out, table
from rankward.errors import InvalidRequest
from rankward.evaluation import service
from rankward.evaluation.archived import ArchivedLog, archived_log
from rankward.evaluation.contender import Candidate
from rankward.evaluation.files import LogFiles
from rankward.evaluation.measure import measure_features
from rankward.evaluation.page import VERDICTS, feature_name, figure, oddities, render
from rankward.evaluation.replay import Setup
from rankward.evaluation.report import Estimate, PolicyResult, Report, SearchRun, Verdict
from rankward.evaluation.search import apply_command
from rankward.history.columns import ROLES, ColumnMap, read_map
from rankward.history.files import STANDARD, log_files
from rankward.joining.reward import RewardDefinition
from rankward.records import TimeUs
from rankward.settings import Aggregation, Numbers, parse_duration
from rankward.vw.presets import BALANCED, PERSONALIZER, PRESETS

EXIT_NOTHING_TO_JUDGE_BY = 3
_TABLE_ENDINGS = {".csv", ".tsv"}
_COLOURS = {Verdict.BETTER: "green", Verdict.WORSE: "red", Verdict.UNKNOWN: "yellow"}


def evaluate(
    logs: Annotated[
        list[str],
        typer.Argument(
            metavar="LOG…",
            help="Log lines (also .gz or .zst), folders of them, or - for standard input; with --map, tables. Or the "
            "address of an archive: s3://, gs://, az:// or file://.",
        ),
    ],
    mapped: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="ROLE=COLUMN",
            show_default=False,
            help="The files are tables, CSV or Parquet: what a column means, as in reward=clicked. Can be given again; "
            f"or once, with a TOML file. Roles: {', '.join(ROLES)}.",
        ),
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy",
            "-p",
            metavar="NAME=ARGS",
            show_default=False,
            help=f"To judge: learner arguments, or a preset ({', '.join(PRESETS)}). Can be given again.",
        ),
    ] = None,
    reward_wait: Annotated[
        str, typer.Option(metavar="DURATION", help="A policy learns an event so long after its decision.")
    ] = "10m",
    export_frequency: Annotated[
        str, typer.Option(metavar="DURATION", help="What was learned serves from the next multiple of this on.")
    ] = "5m",
    exploration: Annotated[
        float, typer.Option(min=0, max=1, help="The floor of policies that name no --epsilon.")
    ] = 0.2,
    numbers: Annotated[
        Numbers, typer.Option(help="What policies see of numbers among the features; a search tries both.")
    ] = Numbers.RAW,
    reward_min: Annotated[float, typer.Option(help="No reward is less; those that are, are cut.")] = 0.0,
    reward_max: Annotated[float, typer.Option(help="No reward is more.")] = 1.0,
    default_reward: Annotated[float, typer.Option(help="Of events without a reward.")] = 0.0,
    reward_aggregation: Annotated[
        Aggregation, typer.Option(help="What several rewards of an event add up to.")
    ] = Aggregation.EARLIEST,
    since: SinceOption = None,
    until: UntilOption = None,
    search: Annotated[
        bool, typer.Option("--search", help="Look for better learning settings as well, and judge the best of them.")
    ] = False,
    search_minutes: Annotated[
        float | None,
        typer.Option(
            min=0, help="How long that may take. As long as it does, if left out.", show_default=False, metavar="N"
        ),
    ] = None,
    importance: Annotated[
        bool,
        typer.Option(
            "--importance", help="Say which features carry the first --policy, or without one the preset balanced."
        ),
    ] = False,
    importance_features: Annotated[
        int, typer.Option(min=1, metavar="N", help="How many features that is asked of: the most frequent ones.")
    ] = 20,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the draw of settings that a search tries, and of permutations.")
    ] = 0,
    processes: Annotated[
        int | None,
        typer.Option(min=1, help=f"To use at most. {service.PROCESSES}; every core, for a search.", show_default=False),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Keep there how far it has come, and go on from what is there. A folder of yours alone: what lies in "
            "it is trusted.",
            show_default=False,
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the report as a page, plots included.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Judge policies by a log of decisions: what would each of them have earned?

    The policies learn along the log as they would have run. `online`, which acted, `baseline1`, which always takes the
    first action, and `baselineRand`, which takes any, are always judged as well. Ends with status 3 if
    the log cannot tell of any policy: no usable events, or probabilities that cannot be true.

    A search starts from the first --policy, or from Personalizer's own default. It changes nothing: it prints the
    command that applies what it promotes.
    """
    if not reward_min < reward_max:
        raise InvalidRequest(f"--reward-min {reward_min} is not below --reward-max {reward_max}")
    if search_minutes is not None and not search:
        raise InvalidRequest("--search-minutes limits a search: add --search")
    mapping = read_map(mapped) if mapped else None
    candidates = [_candidate(text, exploration, numbers) for text in policy or []]
    setup = Setup(
        rewards=RewardDefinition(default_reward, reward_aggregation),
        reward_min=reward_min,
        reward_max=reward_max,
        export_us=_microseconds(export_frequency, "--export-frequency"),
    )
    now = datetime.now(UTC)  # that a span "7d ago" counts from
    span = moment(since, now), moment(until, now)
    with ExitStack() as stack:
        source, kept_under = _source(logs, mapping, reward_wait, span, stack)
        checkpoints = None if resume is None else resume / kept_under
        with _bar("evaluating") as show:
            if search:
                own = candidates[0] if candidates else _candidate(f"own={PERSONALIZER.name}", exploration, numbers)
                report = service.search(
                    source,
                    candidates,
                    setup,
                    own=own,
                    seed=seed,
                    budget_s=None if search_minutes is None else 60 * search_minutes,
                    processes=processes or os.cpu_count() or service.PROCESSES,
                    progress=show,
                    checkpoints=checkpoints,
                )
            else:
                report = service.evaluate(
                    source,
                    candidates,
                    setup,
                    processes=processes or service.PROCESSES,
                    progress=show,
                    checkpoints=checkpoints,
                )
        if importance:
            with _bar("measuring features") as show:
                found = measure_features(
                    source,
                    candidates[0] if candidates else _candidate(f"own={BALANCED.name}", exploration, numbers),
                    setup,
                    features_max=importance_features,
                    seed=seed,
                    processes=processes or service.PROCESSES,
                    progress=show,
                    checkpoints=checkpoints,
                )
            report = msgspec.structs.replace(report, features=found.scores, facts=found.facts)
    if html is not None:
        html.write_text(
            render(
                report, title=", ".join(log if is_url(log) else Path(log).name for log in logs), version=__version__
            ),
            "utf-8",
        )
    if as_json:
        typer.echo(msgspec.json.encode(report))
    else:
        _show(report, out())
    if not report.trusted or not (report.counts.judged or report.counts.baseline_only):
        raise typer.Exit(EXIT_NOTHING_TO_JUDGE_BY)


def _source(
    logs: Sequence[str],
    mapping: ColumnMap | None,
    reward_wait: str,
    span: tuple[TimeUs | None, TimeUs | None],
    stack: ExitStack,
) -> tuple[LogFiles | ArchivedLog, str]:
    """Find what is judged by: files, or one archive.

    Returns:
        It, and the name under which it is kept how far judging by it has come; empty: it needs none.
    """
    if any(is_url(log) for log in logs):
        if len(logs) > 1 or mapping is not None:
            raise InvalidRequest("an archive is judged by alone: give its address and no other log, without --map")
        return archived_log(logs[0], since_us=span[0], until_us=span[1]), ""
    say_left_out([Path(log) for log in logs])
    paths = log_files([_kept(Path(log), stack) for log in logs], tables=mapping is not None)
    _check_tables(paths, mapping)
    source = LogFiles(
        paths=tuple(paths),
        mapping=mapping,
        reward_wait_us=_microseconds(reward_wait, "--reward-wait"),
        since_us=span[0],
        until_us=span[1],
    )
    return source, _digest(paths)


def _check_tables(paths: Sequence[Path], mapping: ColumnMap | None) -> None:
    """Refuse a table without a mapping: as a log, every line of it would be broken."""
    for path in paths if mapping is None else ():
        if _TABLE_ENDINGS & {suffix.lower() for suffix in path.suffixes}:
            raise InvalidRequest(
                f"{path} is a table: say what its columns mean, as in --map chosen=COLUMN --map probability=COLUMN "
                "--map reward=COLUMN"
            )


def _candidate(text: str, exploration: float, numbers: Numbers) -> Candidate:
    name, equals, arguments = text.partition("=")
    if not equals or not name.strip() or name.startswith("-"):
        raise InvalidRequest(f"--policy {text!r} has no name: write NAME=ARGUMENTS, as in 'mine=--cb_explore_adf'")
    return service.custom(name.strip(), arguments.strip(), exploration=exploration, numbers=numbers)


def _microseconds(text: str, option: str) -> int:
    try:
        duration = parse_duration(text)
    except (ValueError, OverflowError):
        raise InvalidRequest(f"{option} {text!r} is no duration: write one like 10m, 1h30m or PT10M") from None
    if duration <= timedelta(0):
        raise InvalidRequest(f"{option} {text} is not above 0")
    return duration // timedelta(microseconds=1)


def _kept(path: Path, stack: ExitStack) -> Path:
    """Keep standard input in a file, as each process reads the log for itself."""
    if path != STANDARD:
        return path
    kept = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rankward-"))) / "stdin"
    with kept.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    return kept


def _digest(paths: Sequence[Path]) -> str:
    """Tell files from others, and from what they were before they were written to again."""
    known = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return hashlib.sha256(repr(known).encode()).hexdigest()[:16]


@contextmanager
def _bar(doing: str) -> Iterator[Callable[[service.Progress], None]]:
    """Show how far it is, with its rate and the time that is left, where somebody watches."""
    console = err()
    bar = Progress(
        TextColumn(doing),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%  {task.fields[said]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task(doing, total=1.0, said="")

        def show(state: service.Progress) -> None:
            bar.update(task, completed=state.read, said=f"{state.events:,} events, {state.rate_per_s:,.0f}/s")

        yield show


def _show(report: Report, console: Console) -> None:
    numbers = ("estimate", "95 % at every look", "against online", "effective", "agrees")
    made = table("policy", *numbers, "verdict", right=numbers)
    for result in report.policies:
        made.add_row(*_row(result))
    console.print(made)
    console.print(Text(report.verdict, style="bold" if report.trusted else "yellow"), soft_wrap=True)
    if report.search is not None:
        _show_search(report, report.search, console)
    if report.facts:
        _show_features(report, console)
    counts = report.counts
    remarks = [
        (counts.judged, "events judged by every policy"),
        (counts.baseline_only, "events in which the baseline was shown: they judge the baseline alone"),
        (counts.never_activated, "deferred events that were never activated, passed over"),
        (counts.clipped, f"rewards outside {figure(report.reward_min)} to {figure(report.reward_max)}, cut to it"),
        (counts.unusable, "events with probabilities that cannot be true, passed over"),
        *((count, f"of the lines skipped: {kind}") for kind, count in counts.skipped.items()),
    ]
    for count, remark in remarks:
        if count:
            console.print(Text(f"{count:,} {remark}", style="dim"))
    for flaw in report.flaws:
        console.print(Text(f"{flaw.place}: {flaw.why}", style="dim"), soft_wrap=True)
    for result in report.policies:
        for note in result.notes:
            console.print(Text(f"{result.name}: {note}", style="yellow"), soft_wrap=True)


def _show_search(report: Report, run: SearchRun, console: Console) -> None:
    console.print(Text(f"Search: {run.decision}", style="bold"), soft_wrap=True)
    if run.stopped:
        console.print(Text(f"The search ended early: {run.stopped}.", style="yellow"), soft_wrap=True)
    for result in report.overall():
        if result.name in run.finalists:
            numbers = "" if result.numbers is Numbers.RAW else f", numbers: {result.numbers}"
            console.print(Text.assemble(f"{result.name}: ", (f"{result.arguments}{numbers}", "dim")), soft_wrap=True)
    command = apply_command(report)
    if command is not None:
        console.print(Text(f"To apply it: {command}"), soft_wrap=True)
    rungs = ", ".join(f"{len(rung.ranking)} along {100 * rung.share:g} % of the log" for rung in run.rungs)
    if rungs:
        console.print(Text(f"settings tried, {run.own} among them, seed {run.seed}: {rungs}", style="dim"))


def _show_features(report: Report, console: Console) -> None:
    odd = oddities(report.facts)
    made = table("feature", "score", "left out: loses", "permuted: loses", "remarks", right=("score",))
    for each in report.features:
        shared = f"goes with {', '.join(each.shared_with)}" if each.shared_with else ""
        remarks = ", ".join(filter(None, (odd.pop(feature_name(each), ""), shared)))
        made.add_row(feature_name(each), f"{each.score:.3f}", _loss(each.left_out), _loss(each.permuted), remarks)
    if report.features:
        console.print(made)
        console.print(Text("95 % intervals of a log of this length; those for every look are in --json", style="dim"))
    else:
        console.print(Text("The log cannot say what its features are worth.", style="yellow"))
    for name, why in odd.items():
        console.print(Text(f"{name}: {why}", style="yellow"), soft_wrap=True)


def _loss(estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    return f"{estimate.value:+z.4f} ({estimate.fixed.low:+z.4f} … {estimate.fixed.high:+z.4f})"


def _row(result: PolicyResult) -> tuple[str | Text, ...]:
    name = Text.assemble(result.name, (f" · {result.slot_id}", "dim")) if result.slot_id else Text(result.name)
    verdict = Text(VERDICTS[result.verdict], style=_COLOURS.get(result.verdict, ""))
    if result.estimate is None or result.diagnostics is None:
        return (name, "-", "-", "-", "-", "-", verdict)
    always, against = result.estimate.always, result.against_online
    return (
        name,
        f"{result.estimate.value:.4f}",
        f"{always.low:.4f} … {always.high:.4f}",
        "-" if against is None else f"{against.value:+z.4f} ({against.always.low:+z.4f} … {against.always.high:+z.4f})",
        figure(result.diagnostics.effective_sample_size),
        f"{100 * result.diagnostics.agreement:.1f} %",
        verdict,
    )
