"""Renders the Helm chart with Helm's own engine."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import helm_python as helm
import yaml

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
CHART = DEPLOY / "helm" / "tierwise"
EXAMPLES = DEPLOY / "helm" / "examples"

Values = dict[str, Any]
Object = dict[str, Any]

CLAIM = {"from": "claim", "claim": {"name": "bucket", "path": "live"}}
IMAGE = {"from": "image", "image": {"reference": "registry.example.com/judge:7", "path": "judge"}}
PULL = {"from": "pull", "pull": {"source": ":http,url='https://models.example.com':judge", "secret": "reader"}}
# Every switch of the chart, each on at least once.
SWITCHES: dict[str, Values] = {
    "defaults": {},
    "everything from claims": {"checkpoint": CLAIM, "knowledge": CLAIM},
    "everything from images": {"checkpoint": IMAGE, "knowledge": IMAGE},
    "everything pulled": {"checkpoint": PULL, "knowledge": PULL},
    "settings": {
        "settings": {
            "deadline_ms": 80,
            "threads": 3,
            "drain_seconds": 7.5,
            "drain_pause_seconds": 1.5,
            "limits": {"items": 16},
        }
    },
    "digest": {"image": {"digest": "sha256:" + "a" * 64, "pullSecrets": ["registry"]}},
    "vllm on a gpu": {
        "engine": {"mode": "vllm"},
        "resources": {"limits": {"memory": "8Gi", "nvidia.com/gpu": "1"}},
    },
    "vllm beside": {"engine": {"mode": "sidecar", "servers": {"args": ["--dtype=float32"]}}, "checkpoint": CLAIM},
    "vllm pool": {"engine": {"mode": "pool", "servers": {"replicas": 3}}, "checkpoint": PULL},
    "vllm elsewhere": {
        "engine": {"mode": "external", "apiKey": {"secret": "vllm", "key": "token"}},
        "settings": {"vllm": {"urls": ["http://router.llm-d:8000"], "hedge_ms": 20}},
    },
    "scaled by cpu": {"autoscaling": {"mode": "cpu"}},
    "scaled by queue": {"autoscaling": {"mode": "queue"}},
    "ingress": {"ingress": {"enabled": True, "host": "a.example.com", "className": "nginx", "tlsSecret": "tls"}},
    "route": {"httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}], "hostnames": ["a.example.com"]}},
    "grpc route": {"grpcRoute": {"enabled": True, "parentRefs": [{"name": "public", "sectionName": "grpc"}]}},
    "both routes": {
        "httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}], "hostnames": ["a.example.com"]},
        "grpcRoute": {
            "enabled": True,
            "parentRefs": [{"name": "public"}],
            "hostnames": ["grpc.a.example.com"],
            "canary": {"service": "next-tierwise", "weight": 5},
        },
    },
    "canary": {
        "httpRoute": {
            "enabled": True,
            "parentRefs": [{"name": "public"}],
            "canary": {"service": "next-tierwise", "weight": 5},
        }
    },
    "keys": {"keys": {"secret": "search-keys", "entry": "production.yaml"}},
    "redis": {
        "redis": {"secret": "search-redis", "entry": "address"},
        "settings": {"cache": {"redis_timeout_ms": 3.0}},
    },
    "redis for a trial": {"redis": {"trial": {"enabled": True}}},
    "redis for a trial beside a pool": {
        "redis": {"trial": {"enabled": True, "image": "valkey/valkey:8.1", "memoryMi": 64}},
        "engine": {"mode": "pool"},
        "checkpoint": CLAIM,
        "networkPolicy": {"egress": [{"ports": [{"port": 443, "protocol": "TCP"}]}]},
    },
    "tls": {"tls": {"secret": "search-tls"}, "metrics": {"serviceMonitor": {"enabled": True}}},
    "client certificates": {
        "tls": {"secret": "search-tls", "clientCa": {"secret": "search-clients", "entry": "clients.pem"}},
    },
    "own account": {"serviceAccount": {"name": "search"}},
    "open network": {"networkPolicy": {"enabled": False}},
    "closed network": {
        "networkPolicy": {
            "clients": [{"podSelector": {"matchLabels": {"app": "search"}}}],
            "monitoring": [],
            "egress": [{"ports": [{"port": 443, "protocol": "TCP"}]}],
        }
    },
    "watched": {
        "metrics": {
            "serviceMonitor": {"enabled": True, "labels": {"release": "kube-prometheus"}},
            "rules": {"enabled": True, "labels": {"release": "kube-prometheus"}},
            "dashboards": {"enabled": True},
        }
    },
    "placed": {
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "tolerations": [{"key": "search", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "serving",
        "podAnnotations": {"a.example.com/b": "c"},
        "topologySpread": [],
    },
}
SWITCHES |= {f"example {path.stem}": yaml.safe_load(path.read_text()) for path in sorted(EXAMPLES.glob("*.yaml"))}


def merged(base: Values, change: Values) -> Values:
    """Return `base` with `change` laid over it, as Helm does with value files."""
    result = copy.deepcopy(base)
    for key, value in change.items():
        nested = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if nested else copy.deepcopy(value)
    return result


def render_text(values: Values) -> dict[str, str]:
    """Check values against the chart's schema and render them: template path -> text."""
    return _render(json.dumps(values))


@cache
def _render(values: str) -> dict[str, str]:
    chart, defaults = _load()
    chart.validate_schema(merged(defaults, json.loads(values)))
    rendered: dict[str, str] = chart.render(json.loads(values), name="demo", namespace="search")
    return rendered


@cache
def _load() -> tuple[helm.Chart, Values]:
    return helm.Chart.load(CHART), yaml.safe_load((CHART / "values.yaml").read_text())


def render(values: Values) -> list[Object]:
    """Render the chart's objects."""
    texts = (text for path, text in render_text(values).items() if not path.endswith("NOTES.txt"))
    return [found for text in texts for found in yaml.safe_load_all(text) if found]


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    """Return the objects of one kind."""
    return [found for found in objects if found["kind"] == kind]


def workloads(objects: list[Object]) -> list[Object]:
    """Return what keeps pods running: the gateway, and the pool when there is one."""
    return of_kind(objects, "Deployment") + of_kind(objects, "StatefulSet")


def gateway(objects: list[Object]) -> Object:
    """Return the Deployment of the service itself."""
    component = "app.kubernetes.io/component"
    (found,) = (
        one for one in of_kind(objects, "Deployment") if one["spec"]["selector"]["matchLabels"][component] == "gateway"
    )
    return found


def pods(objects: list[Object]) -> list[Object]:
    """Return the specification of every pod, bare or in a template."""
    bare = [found["spec"] for found in of_kind(objects, "Pod")]
    return bare + [found["spec"]["template"]["spec"] for found in workloads(objects)]


def containers(objects: list[Object]) -> list[Object]:
    """Return every container of every pod, those that initialise included."""
    return [c for pod in pods(objects) for c in (*pod.get("initContainers", ()), *pod["containers"])]
