"""The house keeps its order: imports point one way, and each dangerous thing has one room."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import FIRST

SOURCE = Path(__file__).parent.parent / "src"

# From the ground up. A module belongs to the longest name that it begins with, and imports nothing of a later layer.
LAYERS: tuple[tuple[str, frozenset[str]], ...] = (
    (
        "records",
        frozenset(
            {
                *("errors", "invocation", "records", "settings", "store.challengers"),
                *("store.audit", "store.optimizations", "store.ports", "store.rollups", "store.sessions"),
                *("store.stretches", "store.studies"),
            }
        ),
    ),
    (
        "cores",
        frozenset(
            {
                *(
                    "archiving.layout",
                    "archiving.lines",
                    "decision",
                    "evaluation",
                    "joining",
                    "ranking",
                    "training",
                    "uploads",
                    "vw",
                    "simulate",
                    "dsjson",
                ),
                *("challenge", "optimization", "watching", "cluster.spread"),
                *("registry.archive", "registry.sign"),
                *("migration.differences", "migration.parity", "migration.recognise"),
                *("demo.belief", "demo.board", "demo.stories", "demo.world"),
            }
        ),
    ),
    (
        "shells",
        frozenset(
            {
                "adoption",
                "archiving",
                "auditing",
                "challenge.following",
                "challenge.service",
                "evaluation.archived",
                "evaluation.checkpoint",
                "evaluation.files",
                "evaluation.measure",
                "evaluation.service",
                "history",
                "joining.reader",
                "joining.service",
                "loops",
                "mirroring",
                "ranking.service",
                "training.service",
                "registry",
                "store.changes",
                "store.imports",
                *("cluster.leading", "cluster.membership", "cluster.standing"),
                *("cluster.local", "cluster.servers", "cluster.waiting"),
                "store.nats",
                "store.sqlite",
                "vw.trial",
                "watching.figures",
                "watching.service",
            }
        ),
    ),
    (
        "services",
        frozenset(
            {
                *("configuration", "erasure", "rounds", "telemetry", "wiring", "worker", "api.options"),
                *("sharing", "studies", "study_log", "study_run"),
                *("archiving.rounds", "cluster.node", "cluster.rounds", "import_run"),
                *("challenge.desk", "challengers"),
                *("story", "watching.rounds"),
                *("optimization.desk", "optimization.service", "optimization.watcher"),
            }
        ),
    ),
    (
        "doors",
        frozenset(
            {
                "administration",
                "api",
                "backup",
                "client",
                *("cluster.show", "cluster.view"),
                "demo",
                "doctor",
                "history.table",
                "local",
                "migration",
                "moving",
                "portal",
                "simulate.display",
                "simulate.traffic",
            }
        ),
    ),
    ("processes", frozenset({"roles", "supervisor"})),  # `python -m rankward.roles`: they start the doors
    ("commands", frozenset({"cli", "__main__"})),
)

PURE = frozenset(
    {
        "archiving.layout",
        "archiving.lines",
        "challenge.contest",
        "challenge.measure",
        "challenge.younger",
        "cluster.spread",
        "decision",
        "demo.belief",
        "demo.board",
        "demo.stories",
        "demo.world",
        "errors",
        "records",
        "settings",
        "dsjson.read",
        "dsjson.write",
        "evaluation.contender",
        "evaluation.asking",
        "evaluation.contrast",
        "evaluation.diagnostics",
        "evaluation.estimators",
        "evaluation.facts",
        "evaluation.features",
        "evaluation.findings",
        "evaluation.importance",
        "evaluation.intervals",
        "evaluation.judge",
        "evaluation.kinship",
        "evaluation.margin",
        "evaluation.panel",
        "evaluation.roots",
        "evaluation.question",
        "evaluation.replay",
        "evaluation.report",
        "evaluation.search",
        "evaluation.shuffle",
        "evaluation.waiting",
        "joining.joiner",
        "joining.reward",
        "migration.differences",
        "migration.parity",
        "migration.recognise",
        "mirroring.layout",
        "registry.compare",
        "optimization.rules",
        "optimization.schedule",
        "optimization.watch",
        "ranking.decide",
        "ranking.explore",
        "ranking.features",
        "ranking.slots",
        "registry.sign",
        "simulate.clicks",
        "simulate.delayed",
        "simulate.drift",
        "simulate.grocery",
        "simulate.scoreboard",
        "simulate.world",
        "store.stretches",
        "training.fold",
        "training.lesson",
        "uploads.fields",
        "uploads.flat",
        "uploads.read",
        "uploads.write",
        "vw.arguments",
        "vw.model_file",
        "vw.presets",
        "vw.slots",
        "watching.apprentice",
        "watching.comparison",
        "watching.estimate",
        "watching.exploration",
        "watching.exploring",
        "watching.fold",
        "watching.seen",
        "watching.tally",
    }
)
"""Cores: nothing waits, nothing is read or written, and time, chance and ids come in as arguments."""

IMPURE_MODULES = frozenset(
    {
        *(
            "asyncio",
            "concurrent",
            "ctypes",
            "fcntl",
            "glob",
            "http",
            "httpx",
            "io",
            "logging",
            "mmap",
            "multiprocessing",
        ),
        *("os", "pathlib", "queue", "random", "secrets", "select", "shutil", "signal", "socket", "sqlite3", "ssl"),
        *("subprocess", "sys", "tempfile", "threading", "time", "urllib", "uvloop"),
    }
)
IMPURE_CALLS = frozenset({"open", "input", "print", "now", "utcnow", "today", "uuid1", "uuid4", "urandom"})

# Whoever names a backend beside `wiring`, and what of it: locks of the data folder are taken before there is an
# installation to wire, keys lie in a file of it in every installation, and a backup copies the very files.
BACKEND = "store.sqlite"
REPLICATED = "store.nats"  # which keeps a replica in the embedded one
BACKEND_KNOWN_TO: dict[str, frozenset[str]] = {
    "wiring": frozenset({BACKEND}),
    "backup": frozenset({BACKEND}),
    "loops": frozenset({f"{BACKEND}.folder", f"{BACKEND}.key_file"}),
    "moving": frozenset({BACKEND}),
    "roles": frozenset({f"{BACKEND}.folder"}),
    "supervisor": frozenset({f"{BACKEND}.folder"}),
    "api.service": frozenset({f"{BACKEND}.folder"}),
}


@cache
def modules() -> dict[str, Path]:
    """The file of every module of the package, by its name below `rankward`; the package itself is the empty name."""
    found = {}
    for path in sorted((SOURCE / "rankward").rglob("*.py")):
        parts = path.relative_to(SOURCE / "rankward").with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = path
    return found


@cache
def tree(name: str) -> ast.Module:
    """A module, parsed."""
    path = modules()[name]
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@cache
def imports(name: str) -> frozenset[str]:
    """Everything that a module imports, in full: `rankward.records.Action`, `asyncio`. Inside functions too."""
    found: set[str] = set()
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively: name the package"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(found)


@cache
def house_imports(name: str) -> frozenset[str]:
    """The modules of the house that a module imports, by their names below `rankward`."""
    found = set()
    for imported in imports(name):
        if imported == "rankward" or imported.startswith("rankward."):
            below = imported.removeprefix("rankward").removeprefix(".")
            found.add(below if below in modules() else below.rpartition(".")[0])
    return frozenset(found - {""})  # of the package itself only its version is asked


def within(name: str, room: str) -> bool:
    """Whether a module is a room or lies in it."""
    return name == room or name.startswith(room + ".")


def layer(name: str) -> int:
    """The layer of a module, counted from the ground."""
    fits = [(len(room), number) for number, (_, rooms) in enumerate(LAYERS) for room in rooms if within(name, room)]
    assert fits, f"{name} has no place in the house: give it one in LAYERS"
    return max(fits)[1]


@pytest.mark.parametrize("name", sorted(set(modules()) - {"", "store"}))
def test_imports_point_one_way(name: str) -> None:
    """A core that knew its shell, or a service that knew its door, could not be read or replaced by itself."""
    above = {other for other in house_imports(name) if layer(other) > layer(name)}
    assert not above, f"{name} ({LAYERS[layer(name)][0]}) imports what stands above it: {', '.join(sorted(above))}"


def test_no_two_modules_need_each_other() -> None:
    """Modules in a ring are one module that is hard to read."""
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " → ".join((*trail[trail.index(name) :], name))
        if name not in done:
            for other in sorted(house_imports(name)):
                visit(other, (*trail, name))
            done.add(name)

    for name in sorted(modules()):
        visit(name, ())


def test_only_wiring_names_a_backend() -> None:
    """So another home for the data is one more backend, and nothing else changes."""
    wrong = {
        f"{name} imports {other}"
        for name in modules()
        if not within(name, BACKEND) and not within(name, REPLICATED)
        for other in house_imports(name)
        if within(other, BACKEND) and not any(within(other, known) for known in BACKEND_KNOWN_TO.get(name, ()))
    }
    assert not wrong, ", ".join(sorted(wrong))


def test_only_the_learners_room_imports_the_learner() -> None:
    """It holds the interpreter and can crash on what it is fed, so everything that reaches it passes one room."""
    users = {name for name in modules() if any(within(imported, "vowpalwabbit") for imported in imports(name))}
    assert users
    assert all(within(name, "vw") for name in users), users


@pytest.mark.parametrize("name", sorted(PURE))
def test_a_core_does_not_wait_read_or_roll_dice(name: str) -> None:
    """So any decision can be made again, and a week of traffic is tested in a second."""
    roots = {imported.partition(".")[0] for imported in imports(name)}
    assert not roots & IMPURE_MODULES, f"{name} imports {', '.join(sorted(roots & IMPURE_MODULES))}"
    for node in ast.walk(tree(name)):
        assert not isinstance(node, ast.AsyncFunctionDef | ast.Await), f"{name}:{node.lineno} waits"
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            assert called not in IMPURE_CALLS, f"{name}:{node.lineno} calls {called}()"


def test_every_core_is_there() -> None:
    """A core that was renamed would go unwatched."""
    assert modules().keys() >= PURE
    assert modules().keys() >= BACKEND_KNOWN_TO.keys()


def test_the_tests_that_run_first_are_there() -> None:
    """A file that was renamed would run last again, alone."""
    assert all((SOURCE.parent / name).exists() for name in FIRST)


def test_there_is_no_room_for_odds_and_ends() -> None:
    """A module is named after its one idea."""
    assert not {name for name in modules() if {"utils", "util", "common", "helpers", "manager"} & {*name.split(".")}}
