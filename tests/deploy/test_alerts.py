"""The alert rules: valid, fired by what they are about, and about metrics that exist."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from service.metrics import catalogue
from tests.deploy.chart import CHART, DEPLOY

RULES = CHART / "files" / "rules.yaml"
ROUTES = DEPLOY / "alertmanager.yaml"
CASES = Path(__file__).with_name("alert_cases.yaml")


def test_rules_are_valid() -> None:
    """Prometheus takes the rules."""
    subprocess.run(["promtool", "check", "rules", RULES], check=True)


def test_alerts_fire_when_they_should(tmp_path: Path) -> None:
    """Each alert fires on a series that shows its trouble, and stays silent on a healthy one."""
    shutil.copy(RULES, tmp_path / "rules.yaml")
    shutil.copy(CASES, tmp_path / "cases.yaml")
    done = subprocess.run(
        ["promtool", "test", "rules", "cases.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    tested = {
        case["alertname"] for test in yaml.safe_load(CASES.read_text())["tests"] for case in test["alert_rule_test"]
    }
    assert tested == {rule["alert"] for group in groups() for rule in group["rules"] if "alert" in rule}


def groups() -> list[dict[str, list[dict[str, Any]]]]:
    """Return the rule groups."""
    found: list[dict[str, list[dict[str, Any]]]] = yaml.safe_load(RULES.read_text())["groups"]
    return found


def test_rules_use_metrics_that_exist() -> None:
    """Every metric that a rule or the chart's scaler asks for is one that the service exports."""
    asked = set(re.findall(r"\btierwise_[a-z_]+", RULES.read_text()))
    asked |= set(re.findall(r"\btierwise_[a-z_]+", (CHART / "templates" / "autoscaling.yaml").read_text()))
    assert asked
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in asked} <= {metric.name for metric in catalogue.ALL}


def test_every_alert_has_a_runbook() -> None:
    """Each alert links to a section that exists and says what to do."""
    text = (DEPLOY.parent / "docs" / "alerts.md").read_text()
    for group in groups():
        for rule in group["rules"]:
            if "alert" in rule:
                assert f"## {rule['alert']}\n" in text


def routed(alert: str, severity: str) -> str:
    """Ask Alertmanager where an alert goes."""
    command = ["amtool", "config", "routes", "test", f"--config.file={ROUTES}"]
    done = subprocess.run(
        [*command, f"alertname={alert}", f"severity={severity}"], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_example_of_routes_takes_every_alert() -> None:
    """Alertmanager takes the example; what pages goes to a person, the rest to a list."""
    subprocess.run(["amtool", "check-config", ROUTES], check=True)
    for group in groups():
        for rule in group["rules"]:
            if "alert" in rule:
                severity = rule["labels"]["severity"]
                assert routed(rule["alert"], severity) == {"page": "pager", "ticket": "tickets"}[severity]


def test_an_inhibition_names_alerts_that_exist() -> None:
    """An alert that is renamed does not silently lose its inhibition."""
    known = {rule["alert"] for group in groups() for rule in group["rules"] if "alert" in rule}
    named = re.findall(r'alertname="(\w+)"', ROUTES.read_text())
    assert named
    assert set(named) <= known
