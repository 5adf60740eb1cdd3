"""The pages say what the code does: tables made from declarations, examples that run, links that lead somewhere.

Tables stand between two comments that name their maker. `python -m tests.test_docs` writes them anew.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import pytest
import typer.main
from prometheus_client.metrics import MetricWrapperBase

from rankward import telemetry
from rankward.api.admin import ADMIN_OPERATIONS
from rankward.api.openapi import document
from rankward.api.operation import ALL, Operation
from rankward.api.operations import OPERATIONS
from rankward.cli import app
from rankward.history.parquet import COLUMNS, schema
from rankward.loops import new_loop_settings
from rankward.migration.differences import DIFFERENCES
from rankward.ranking.features import FeatureBounds
from rankward.settings import SETTINGS, STAMPS, Limits, LoopSettings, Setting, show
from rankward.wiring import Home
from tests.service import PATIENCE_S

if TYPE_CHECKING:
    from tests.service import RunningService

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
README_ENDPOINT = "http://127.0.0.1:8080"


def table(*rows: tuple[str, ...]) -> str:
    """Write a table; the first row is its head."""
    head, *body = rows
    lines = [head, tuple("---" for _ in head), *body]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def code(text: str) -> str:
    """Write something as code, unless there is nothing."""
    return f"`{text}`" if text else ""


# What is declared, as tables


def settings_table() -> str:
    """Every setting of a loop."""
    defaults, fresh = LoopSettings(), new_loop_settings()
    rows = [("setting", "in the contract", "default", "bounds", "what it is")]
    for name, setting in SETTINGS.items():
        default, ours = show(getattr(defaults, name)), show(getattr(fresh, name))
        shown = code(default) or "none"
        if ours != default:
            shown += f"; a loop you create: {code(ours)}"
        notes = [setting.help]
        if setting.retrains:
            notes.append("*A change starts a new training epoch.*")
        if name in STAMPS:
            notes.append("*Read only.*")
        rows.append((code(name), code(setting.wire or ""), shown, bounds(name, setting), " ".join(notes)))
    return table(*rows)


def bounds(name: str, setting: Setting) -> str:
    """What a setting may be."""
    kind = get_type_hints(LoopSettings)[name]
    choices = [code(str(member.value)) for member in kind] if hasattr(kind, "__members__") else []
    if choices:
        return ", ".join(choices)
    if bool in (kind, *get_args(kind)):
        return "`true`, `false`"
    said = []
    if setting.low is not None:
        said.append(f"at least {code(show(setting.low))}")
    if setting.above is not None:
        said.append("more than 0" if not setting.above else f"more than {code(show(setting.above))}")
    if setting.high is not None:
        said.append(f"at most {code(show(setting.high))}")
    return ", ".join(said) + (f" ({setting.unit})" if setting.unit and said else "")


def limits_table() -> str:
    """Every bound of one request."""
    rows = [("variable", "default")]
    for limits in (Limits(), FeatureBounds()):
        rows += [
            (code(f"RANKWARD_LIMIT_{name.upper()}"), f"{getattr(limits, name):,}") for name in limits.__struct_fields__
        ]
    return table(*rows)


def _since(operation: Operation) -> str:
    """Name the versions of an operation: from the first on, as far as they go on."""
    first, last = operation.versions[0], operation.versions[-1]
    return code(first) if last == ALL[-1] else f"{code(first)} to {code(last)}"


def routes_table() -> str:
    """Every operation of the contract."""
    rows = [("method", "path", "since", "what it does", "success", "refusals of its own")]
    for operation in OPERATIONS:
        codes = ", ".join(code(name[:1].lower() + name[1:]) for name in operation.errors)
        method = f"{operation.method}, HEAD" if operation.also_head else operation.method
        path = code("/" + "/".join(operation.path))
        rows.append((method, path, _since(operation), operation.summary, str(operation.success), codes))
    return table(*rows)


def pages_table() -> str:
    """What is served beside the contract."""
    rows = [("path", "what is there")]
    for path, methods in document()["paths"].items():
        if not path.startswith(("/personalizer/", "/admin/")):
            rows.append((code(path), methods["get"]["summary"]))
    return table(*rows)


def admin_table() -> str:
    """Every operation of the administration."""
    rows = [("method", "path", "what it does", "success")]
    rows += [(each.method, code(each.path), each.summary, str(each.success)) for each in ADMIN_OPERATIONS]
    return table(*rows)


def metrics_table(home: Home) -> str:
    """Every metric."""
    collector = telemetry.LoopCollector(home.catalog, home.board.read, home.clock, home.standing)
    wrapped = [kept for kept in vars(telemetry).values() if isinstance(kept, MetricWrapperBase)]
    wrapped_families = [(metric, kept._labelnames) for kept in wrapped for metric in kept.describe()]
    collected = [(metric, tuple(metric._labelnames)) for metric in collector.collect()]  # type: ignore[attr-defined]
    rows = [("metric", "kind", "labels", "what it is")]
    for metric, labels in [*wrapped_families, *collected]:
        name = metric.name + ("_total" if metric.type == "counter" else "")
        rows.append((code(name), metric.type, ", ".join(map(code, labels)), metric.documentation))
    return table(*rows)


def columns_table() -> str:
    """Every column of a log as a table."""
    types = {field.name: str(field.type) for field in schema()}
    return table(
        ("column", "type", "what it is"), *((code(name), code(types[name]), said) for name, said in COLUMNS.items())
    )


def differences_table() -> str:
    """What behaves differently than in the original."""
    return table(("", "the original", "rankward"), *((each.what, each.original, each.here) for each in DIFFERENCES))


def commands_text() -> str:
    """Every command with its arguments and options."""
    return "\n\n".join(_command(path, command) for path, command in commands(typer.main.get_command(app), "rankward"))


def commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Walk down to the commands that do something."""
    if hasattr(command, "commands"):
        for name, below in command.commands.items():
            yield from commands(below, f"{path} {name}")
    else:
        yield path, command


def _command(path: str, command: Any) -> str:
    usage = " ".join([path, *(_metavar(each) for each in command.params if each.param_type_name == "argument")])
    about = " ".join((command.help or "").split())
    parts = [f"## {path}", f"`{usage}`", about]
    rows = [("option or argument", "default", "variable", "what it is")]
    for parameter in command.params:
        if parameter.name == "help":
            continue
        if parameter.param_type_name == "argument":
            name = code(_metavar(parameter))
        else:
            name = ", ".join(code(spelling) for spelling in [*parameter.opts, *parameter.secondary_opts])
        default = parameter.default
        plain = default is None or callable(default) or isinstance(default, bool) or parameter.required
        variables = [parameter.envvar] if isinstance(parameter.envvar, str) else list(parameter.envvar or ())
        shown = "" if plain else code(str(default))
        rows.append((name, shown, ", ".join(map(code, variables)), " ".join((parameter.help or "").split())))
    if len(rows) > 1:
        parts.append(table(*rows))
    return "\n\n".join(part for part in parts if part)


def _metavar(argument: Any) -> str:
    """Write an argument as in a usage line: in brackets if it may be left out."""
    name = (argument.metavar or argument.name.upper()).strip("[]")
    return name if argument.required else f"[{name}]"


MADE: dict[str, tuple[str, Callable[[Home], str]]] = {
    "settings": ("docs/settings.md", lambda _: settings_table()),
    "limits": ("docs/settings.md", lambda _: limits_table()),
    "routes": ("docs/api.md", lambda _: routes_table()),
    "administration": ("docs/api.md", lambda _: admin_table()),
    "pages": ("docs/api.md", lambda _: pages_table()),
    "metrics": ("docs/operating.md", metrics_table),
    "differences": ("docs/api.md", lambda _: differences_table()),
    "columns": ("docs/logs.md", lambda _: columns_table()),
    "commands": ("docs/commands.md", lambda _: commands_text()),
}
"""What is made from declarations: the page where it stands, and its maker."""


def _place(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- made from the code: {name} -->\n).*?(\n<!-- end of {name} -->)", re.DOTALL)


@pytest.mark.parametrize("name", MADE)
def test_a_page_says_what_is_declared(name: str, tmp_path: Path) -> None:
    """A setting, route, metric or command that changes takes its page along."""
    page, make = MADE[name]
    home = Home(tmp_path / "data")
    try:
        made = make(home)
    finally:
        home.close()
    found = _place(name).search((ROOT / page).read_text(encoding="utf-8"))
    assert found is not None, f"{page} has no place for {name}"
    expected = f"{found[1]}\n{made}\n{found[2]}"
    assert found[0] == expected, f"`python -m tests.test_docs` writes {page} anew; {name} should be:\n\n{made}"


# What is written by hand

_FENCE = re.compile(r"^```(?P<kind>[^\n]*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[[^\]\n]*\]\((?P<target>[^)\s]+)\)")
_SHELL = re.compile(r"(?:^|\(|&& )rankward (?P<words>[a-z][a-z ]*)", re.MULTILINE)
_INLINE = re.compile(r"`rankward (?P<words>[a-z][a-z ]*)")
_HEADING = re.compile(r"^#+ +(?P<title>.+)$", re.MULTILINE)


def examples() -> list[Any]:
    """Every block of Python that is marked as runnable."""
    return [
        pytest.param(block["text"], id=f"{page.relative_to(ROOT)}-{number}")
        for page in PAGES
        for number, block in enumerate(_FENCE.finditer(page.read_text(encoding="utf-8")))
        if block["kind"].split() == ["python", "runnable"]
    ]


@pytest.mark.slow
@pytest.mark.parametrize("example", examples())
def test_an_example_runs(example: str, service: RunningService, tmp_path: Path) -> None:
    """An example that fails is worse than none."""
    environment = {**os.environ, "KEY": service.key("playground")}
    ran = subprocess.run(
        [sys.executable, "-c", example.replace(README_ENDPOINT, service.url)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr


def anchors(page: Path) -> set[str]:
    """The places in a page that a link can name."""
    titles = [match["title"] for match in _HEADING.finditer(_FENCE.sub("", page.read_text(encoding="utf-8")))]
    return {re.sub(r"[^\w\- ]", "", title.replace("`", "").lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """A page that sends its reader nowhere loses him."""
    lost = []
    for match in _LINK.finditer(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        target, _, anchor = match["target"].partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        file = (page.parent / target).resolve() if target else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            lost.append(match["target"])
    assert not lost


def test_commands_in_the_pages_are_there() -> None:
    """A command that was renamed must not live on in the pages."""
    known = {path for path, _ in commands(typer.main.get_command(app), "rankward")}
    groups = {path.rpartition(" ")[0] for path in known} - {"rankward"}
    wrong = set()
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        shell = "\n".join(block["text"] for block in _FENCE.finditer(text) if block["kind"] == "sh")
        for match in [*_SHELL.finditer(shell), *_INLINE.finditer(_FENCE.sub("", text))]:
            words = ["rankward", *match["words"].split()]
            if not any(" ".join(words[:count]) in known | groups for count in (2, 3)):
                wrong.add(f"{page.name}: {match[0]}")
    assert not wrong


def test_every_page_is_reachable_from_the_readme() -> None:
    """A page that nothing links to is not read."""
    seen: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or page.suffix != ".md" or not page.exists():
            continue
        seen.add(page)
        targets = [match["target"] for match in _LINK.finditer(page.read_text(encoding="utf-8"))]
        waiting += [(page.parent / each.partition("#")[0]).resolve() for each in targets if "://" not in each]
    assert {path for path in PAGES if path not in seen} == set()


def _write(home: Home) -> None:
    for name, (page, make) in MADE.items():
        path = ROOT / page
        made = make(home)
        text = path.read_text(encoding="utf-8")
        changed = _place(name).sub(lambda found, made=made: f"{found[1]}\n{made}\n{found[2]}", text)  # type: ignore[misc]
        path.write_text(changed, encoding="utf-8")


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        _write(Home(Path(folder) / "data"))
