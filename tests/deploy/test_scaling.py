"""What the chart's scaler asks for, as Prometheus computes it from series of a service under load."""

from __future__ import annotations

import subprocess
from math import ceil
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.deploy.chart import SWITCHES, of_kind, render

if TYPE_CHECKING:
    from pathlib import Path

(SCALER,) = of_kind(render(SWITCHES["scaled by queue"]), "ScaledObject")
QUEUE, REFUSALS = SCALER["spec"]["triggers"]


def series(name: str, values: str, *, pod: str, service: str = "demo-tierwise-admin", **labels: str) -> dict[str, str]:
    """One series of a pod, a sample every 15 seconds."""
    every = {"namespace": "search", "service": service, "instance": pod} | labels
    return {"series": name + "{" + ",".join(f'{key}="{value}"' for key, value in every.items()) + "}", "values": values}


def admissions(a_second: dict[str, float], start: str = "", **of: str) -> list[dict[str, str]]:
    """What became of a pod's requests, by outcome."""
    return [
        series("tierwise_admissions_total", f"{start}0+{15 * rate:g}x40", outcome=outcome, **of)
        for outcome, rate in a_second.items()
    ]


def check(folder: Path, trigger: dict[str, Any], given: list[dict[str, str]], expected: float | None) -> None:
    """Let Prometheus evaluate a trigger's query after five minutes; None stands for no answer, which scales nothing."""
    samples = [] if expected is None else [{"labels": "{}", "value": expected}]
    expression = {"expr": trigger["metadata"]["query"], "eval_time": "5m", "exp_samples": samples}
    cases = {"tests": [{"interval": "15s", "input_series": given, "promql_expr_test": [expression]}]}
    (folder / "cases.yaml").write_text(yaml.safe_dump(cases))
    done = subprocess.run(
        ["promtool", "test", "rules", "cases.yaml"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def replicas(trigger: dict[str, Any], value: float) -> int:
    """Replicas that an answer asks for: each is to have the threshold at most."""
    return ceil(value / float(trigger["metadata"]["threshold"]))


def test_waiting_work_scales_out(tmp_path: Path) -> None:
    """Replicas are asked for by the tokens that wait in this release's engines."""
    given = [series("tierwise_engine_queued_tokens", "5000x40", pod=pod) for pod in "ab"]
    given.append(series("tierwise_engine_queued_tokens", "5000x40", pod="c", service="next-tierwise-admin"))
    check(tmp_path, QUEUE, given, 10_000)
    assert replicas(QUEUE, 10_000) == 3


@pytest.mark.parametrize("outcome", ["refused", "throttled"])
def test_shedding_scales_out(tmp_path: Path, outcome: str) -> None:
    """Where requests find no room, as many replicas are asked for as take all of them, however little waits."""
    load = {"admitted": 10.0, outcome: 10.0, "over_quota": 50.0}
    given = [found for pod in "abcd" for found in admissions(load, pod=pod)]
    check(tmp_path, REFUSALS, given, 8)
    assert replicas(REFUSALS, 8) == 13
    waiting = [series("tierwise_engine_queued_tokens", "2000x40", pod=pod) for pod in "abcd"]
    check(tmp_path, QUEUE, waiting, 8_000)
    assert replicas(QUEUE, 8_000) < 4


def test_new_replicas_are_waited_for(tmp_path: Path) -> None:
    """Replicas that have started and take nothing yet do not make the scaler ask for still more."""
    given = [found for pod in "ab" for found in admissions({"admitted": 10.0, "refused": 10.0}, pod=pod)]
    given += [found for pod in "cd" for found in admissions({"admitted": 0.0, "refused": 0.0}, "_x16 ", pod=pod)]
    check(tmp_path, REFUSALS, given, 4)


def test_few_refusals_scale_nothing(tmp_path: Path) -> None:
    """Up to one request in twenty without room, the queue decides alone, so that replicas can go again."""
    load = {"admitted": 97.0, "refused": 2.0, "throttled": 1.0}
    given = admissions(load, pod="a") + admissions({"admitted": 1.0, "refused": 9.0}, pod="b", service="next-admin")
    check(tmp_path, REFUSALS, given, None)


def test_the_least_shedding_that_counts_adds_a_replica() -> None:
    """One request in twenty asks for more than the tenth that Kubernetes takes for no difference."""
    for running in (1, 4, 40):
        assert replicas(REFUSALS, running / 0.95) > 1.1 * running


def test_few_replicas_go_at_a_time() -> None:
    """An empty queue asks for the fewest replicas there may be, which would refuse what the others took."""
    (policy,) = SCALER["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]["policies"]
    assert (policy["type"], policy["periodSeconds"]) == ("Percent", 60)
    assert policy["value"] <= 10
