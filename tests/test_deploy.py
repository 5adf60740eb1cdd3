"""What lies in deploy/ can be used: it fits its schemas, and names only what the service really has."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kubernetes_validate
import msgspec
import promql_parser
import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from rankward import telemetry
from rankward.cluster.servers import Server, free_ports, wait_until_healthy
from rankward.store.nats.broker import Broker, BrokerOptions
from rankward.wiring import Home

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
ALERTS = DEPLOY / "monitoring" / "alerts.yaml"
DASHBOARD = DEPLOY / "monitoring" / "grafana-dashboard.json"
MANIFESTS = sorted(DEPLOY.glob("kubernetes/*/*.yaml"))
UNITS = sorted(DEPLOY.glob("systemd/*.service"))
OF_PROMETHEUS = {"up": {"job", "instance"}}
GRAFANA_VARIABLES = {"$__rate_interval": "1m", "$loop": ".*"}


def tool(name: str) -> str:
    """A tool of the environment that the tests run in."""
    return str(Path(sys.executable).parent / name)


def resources() -> Iterator[dict[str, Any]]:
    """Every object of Kubernetes that is given."""
    for path in MANIFESTS:
        if path.name != "kustomization.yaml":
            yield from yaml.safe_load_all(path.read_text())


def test_yaml_is_well_formed() -> None:
    """A key that stands twice is no error to most readers: the latter one wins."""
    told = subprocess.run(
        [tool("yamllint"), "--strict", str(DEPLOY)], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert told.returncode == 0, told.stdout


def test_the_compose_file_fits_its_schema() -> None:
    """A misspelled key would be refused by Docker, on the machine of whoever tries it."""
    compose = str(DEPLOY / "compose" / "compose.yaml")
    told = subprocess.run(
        [tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", compose],
        check=False,
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0, told.stdout


def test_every_variable_of_the_compose_file_is_in_its_example() -> None:
    """Whoever copies the example sees all that can be set."""
    asked = set(re.findall(r"\$\{([A-Z_]+)", (DEPLOY / "compose" / "compose.yaml").read_text()))
    given = set(re.findall(r"^([A-Z_]+)=", (DEPLOY / "compose" / "env.example").read_text(), re.MULTILINE))
    assert asked - {"RANKWARD_TAG"} == given


@pytest.mark.parametrize(
    "resource", list(resources()), ids=lambda each: f"{each['kind']}-{each['metadata']['name']}".lower()
)
def test_the_manifests_fit_the_schemas_of_kubernetes(resource: dict[str, Any]) -> None:
    """An unknown field is refused, as the server refuses it."""
    kubernetes_validate.validate(resource, kubernetes_validate.latest_version(), strict=True)


def test_every_manifest_is_in_a_kustomization() -> None:
    """What is not named there is never applied."""
    for path in DEPLOY.glob("kubernetes/*/kustomization.yaml"):
        named = set(yaml.safe_load(path.read_text())["resources"])
        assert named == {each.name for each in path.parent.glob("*.yaml")} - {path.name}


def test_pods_have_no_more_rights_than_they_need() -> None:
    """The namespace enforces the restricted standard: a pod that asks for more would not start."""
    for resource in resources():
        if resource["kind"] != "StatefulSet":
            continue
        pod = resource["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_the_units_are_understood_by_systemd(tmp_path: Path) -> None:
    """A misspelled protection is passed over by systemd with no more than a line in its log."""
    for unit in UNITS:
        text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", unit.read_text(), flags=re.MULTILINE)
        (tmp_path / unit.name).write_text(text)
    told = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / unit.name) for unit in UNITS)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")


# Prometheus and Grafana


class Rule(msgspec.Struct, forbid_unknown_fields=True, rename={"for_": "for"}):
    """An alert, as Prometheus reads it."""

    alert: str
    expr: str
    annotations: dict[str, str]
    labels: dict[str, str]
    for_: str = "0s"


class Group(msgspec.Struct, forbid_unknown_fields=True):
    """Alerts that are looked at together."""

    name: str
    rules: list[Rule]


class Rules(msgspec.Struct, forbid_unknown_fields=True):
    """A file of rules."""

    groups: list[Group]


def rules() -> list[Rule]:
    """All alerts."""
    return [rule for group in msgspec.yaml.decode(ALERTS.read_bytes(), type=Rules).groups for rule in group.rules]


def questions() -> Iterator[tuple[str, str]]:
    """Every question to Prometheus, with the name of who asks it."""
    for rule in rules():
        yield rule.alert, rule.expr
    for panel in json.loads(DASHBOARD.read_bytes())["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"]
            for variable, value in GRAFANA_VARIABLES.items():
                expression = expression.replace(variable, value)
            yield panel["title"], expression


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The labels of every series that the service has, by its name."""
    home = Home(tmp_path_factory.mktemp("data"))
    try:
        collector = telemetry.LoopCollector(home.catalog, home.board.read, home.clock, home.standing)
        found = {metric.name: set(metric._labelnames) for metric in collector.collect()}  # type: ignore[attr-defined]
    finally:
        home.close()
    for kept in vars(telemetry).values():
        if isinstance(kept, MetricWrapperBase):
            for metric in kept.describe():
                labels = set(kept._labelnames)
                if metric.type == "histogram":
                    found |= {f"{metric.name}_bucket": labels | {"le"}, f"{metric.name}_count": labels}
                else:
                    found[f"{metric.name}_total"] = labels
    return found | OF_PROMETHEUS


def selectors(expression: promql_parser.Expr) -> Iterator[promql_parser.VectorSelector]:
    """Every series that an expression reads."""
    found: list[promql_parser.VectorSelector] = []

    def visit(node: Any) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)
        return True

    promql_parser.walk(expression, visit)
    return iter(found)


@pytest.mark.parametrize(("who", "question"), list(questions()))
def test_alerts_and_dashboard_ask_for_what_is_exposed(who: str, question: str, exposed: dict[str, set[str]]) -> None:
    """An alert on a metric that nobody has never rings."""
    asked = list(selectors(promql_parser.parse(question)))
    assert asked, "it reads something"
    for selector in asked:
        assert selector.name in exposed
        labels = {matcher.name for matcher in selector.matchers.matchers}
        assert labels <= exposed[selector.name] | {"job", "instance"}


def test_every_alert_has_its_section_in_the_runbook() -> None:
    """Whoever is woken finds what it means and what to do."""
    runbook = (ROOT / "docs" / "runbook.md").read_text()
    sections = set(re.findall(r"^### (\w+)$", runbook, re.MULTILINE))
    alerts = {rule.alert for rule in rules()}
    assert alerts == {name for name in sections if name.startswith(("Rankward", "JetStream"))}
    for rule in rules():
        assert rule.annotations["runbook"] == f"docs/runbook.md#{rule.alert.lower()}"
        assert rule.labels["severity"] in {"info", "warning", "critical"}
        assert rule.annotations["summary"]


def test_no_panel_of_the_dashboard_covers_another() -> None:
    """Grafana would push them about."""
    panels = json.loads(DASHBOARD.read_bytes())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for one, other in combinations([panel["gridPos"] for panel in panels], 2):
        apart = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart or above


# JetStream


@pytest.mark.slow
def test_servers_with_the_given_configuration_are_a_cluster_that_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They find each other, flush, have the accounts, and keep three replicas. A password may look like a number."""
    password = "12e4"
    ports = free_ports(9)
    clients, monitors, routes = ports[:3], ports[3:6], ports[6:]
    given = (DEPLOY / "nats" / "nats-server.conf").read_text()
    values = {
        "MAX_FILE_STORE": "1GB",
        "NATS_PASSWORD": f'"{password}"',
        "NATS_ROUTES_PASSWORD": f'"{password}"',
        "NATS_SYSTEM_PASSWORD": f'"{password}"',
        "ROUTES": "[" + ", ".join(f'"nats://routes:{password}@127.0.0.1:{port}"' for port in routes) + "]",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    servers = []
    try:
        for number in range(3):
            config = given
            for usual, port in ((4222, clients), (8222, monitors), (6222, routes)):
                config = config.replace(f"0.0.0.0:{usual}", f"127.0.0.1:{port[number]}")
            name = f"nats-{number + 1}"
            server = Server(tmp_path, name, clients[number], monitors[number], config)
            monkeypatch.setenv("SERVER_NAME", name)
            monkeypatch.setenv("STORE_DIR", str(tmp_path / name))
            server.start()
            servers.append(server)
        wait_until_healthy(servers)
        urls = tuple(f"nats://rankward:{password}@127.0.0.1:{port}" for port in clients)
        broker = Broker(BrokerOptions(servers=urls, replicas=3))
        try:
            broker.call(lambda: broker.ensure_stream("kept", ["kept.>"]))
            made = broker.call(lambda: broker.js.stream_info("kept"))
        finally:
            broker.close()
    finally:
        for server in servers:
            server.kill()
    assert made.config.num_replicas == 3
    assert made.cluster is not None
    assert len(made.cluster.replicas or []) == 2
