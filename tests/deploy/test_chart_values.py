"""The chart's values: wrong ones are refused by name, right ones reach the service, none does nothing."""

from __future__ import annotations

import copy
import json
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import helm_python as helm
import pytest
import yaml

from scripts.chart_schema import settings_schema
from service.settings import Settings, load_settings
from tests.deploy.chart import (
    CHART,
    CLAIM,
    IMAGE,
    PULL,
    SWITCHES,
    Values,
    gateway,
    merged,
    of_kind,
    render,
    render_text,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = CHART.parents[2]
DEFAULTS: Values = yaml.safe_load((CHART / "values.yaml").read_text())
# All of the chart's objects at once. What excludes one another comes in the variants.
FULL = merged(
    SWITCHES["canary"],
    {
        **{name: SWITCHES[case][name] for case, name in (("ingress", "ingress"), ("watched", "metrics"))},
        "networkPolicy": SWITCHES["closed network"]["networkPolicy"],
        "grpcRoute": {"enabled": True, "parentRefs": [{"name": "grpc"}], "canary": {"service": "next-tierwise"}},
    },
)
SOURCES = (CLAIM, IMAGE, PULL)
FILLED = CLAIM | IMAGE | PULL
# What the images set for the service, all of them at once.
BAKED = dict(re.findall(r"\b(TIERWISE_\w+)=(\S+)", (ROOT / "Dockerfile").read_text()))
VARIANTS: tuple[Values, ...] = (
    FULL,
    *(merged(FULL, {"checkpoint": FILLED | source, "knowledge": FILLED | source}) for source in SOURCES),
    merged(FULL, SWITCHES["keys"]),
    merged(FULL, SWITCHES["redis"]),
    merged(FULL, SWITCHES["redis for a trial"]),
    merged(FULL, SWITCHES["client certificates"]),
    *(merged(FULL, {"checkpoint": CLAIM} | SWITCHES[case]) for case in SWITCHES if case.startswith("vllm")),
    merged(FULL, {"autoscaling": {"mode": "cpu"}}),
    merged(FULL, {"autoscaling": {"mode": "queue"}}),
)
WRONG: dict[str, tuple[Values, str]] = {
    "a misspelt value": ({"replica": 3}, "replica"),
    "a misspelt setting": ({"settings": {"deadline": 80}}, "deadline"),
    "a setting out of range": ({"settings": {"deadline_ms": 0}}, "deadline_ms"),
    "a nested setting": ({"settings": {"limits": {"items": "many"}}}, "items"),
    "a setting of the chart": ({"settings": {"http_port": 80}}, "http_port"),
    "no replicas": ({"replicas": 0}, "replicas"),
    "a text for a number": ({"service": {"port": "http"}}, "port"),
    "a key in the open": ({"keys": {"tw_abcdefgh": "search"}}, "tw_abcdefgh"),
    "keys in the settings": ({"settings": {"access": {"open": True}}}, "access"),
    "two kinds of redis": ({"redis": {"secret": "search-redis", "trial": {"enabled": True}}}, "/redis/secret"),
    "a trial beside sentinels": (
        {"redis": {"trial": {"enabled": True}}, "settings": {"cache": {"redis_sentinels": ["cache:26379"]}}},
        "redis_sentinels",
    ),
    "a trial of a moving tag": ({"redis": {"trial": {"image": "redis:latest"}}}, "/redis/trial/image"),
    "a redis address in the open": ({"settings": {"cache": {"redis_url": "redis://cache"}}}, "redis_url"),
    "clients without a certificate": ({"tls": {"clientCa": {"secret": "clients"}}}, "/tls/secret"),
    "tls in the settings": ({"settings": {"tls": {"certificate": "/a"}}}, "tls"),
    "an unknown mode": ({"autoscaling": {"mode": "magic"}}, "mode"),
    "a moving tag": ({"image": {"tag": "latest"}}, "tag"),
    "a short digest": ({"image": {"digest": "sha256:12"}}, "digest"),
    "a claim without a name": ({"knowledge": {"from": "claim"}}, "name"),
    "an image without a reference": ({"checkpoint": {"from": "image"}}, "reference"),
    "a pull without a source": ({"checkpoint": {"from": "pull"}}, "source"),
    "a path out of the volume": ({"knowledge": {"claim": {"path": "../other"}}}, "path"),
    "an ingress without a host": ({"ingress": {"enabled": True}}, "host"),
    "a route without a gateway": ({"httpRoute": {"enabled": True}}, "parentRefs"),
    "a grpc route without a gateway": ({"grpcRoute": {"enabled": True}}, "parentRefs"),
    "more than all traffic": ({"httpRoute": {"canary": {"weight": 101}}}, "weight"),
    "vllm without a gpu": ({"engine": {"mode": "vllm"}}, "nvidia.com/gpu"),
    "vllm that cannot see the judge": ({"engine": {"mode": "pool"}}, "checkpoint/from"),
    "no server elsewhere": ({"engine": {"mode": "external"}}, "vllm"),
    "half a secret": ({"engine": {"apiKey": {"secret": "vllm"}}}, "key"),
    "a secret in the open": ({"settings": {"vllm": {"api_key": "hunter2"}}}, "api_key"),
    "no memory limit": ({"resources": {"limits": {"memory": None}}}, "memory"),
}


def leaves(values: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of every value that is not itself a group of values."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key)


def other(value: Any, allowed: dict[str, Any]) -> Any:
    """Return a value of the same kind, allowed by its schema, that differs."""
    if "enum" in allowed:
        return next(choice for choice in reversed(allowed["enum"]) if choice != value)
    changed: Any
    match value:
        case bool():
            changed = not value
        case int():
            changed = value + 1
        case []:
            changed = ["other"] if allowed["items"]["type"] == "string" else [{"podSelector": {}}]
        case list():
            changed = [*value, value[-1]]
        case {}:
            changed = {"deadline_ms": 77} if "deadline_ms" in allowed.get("properties", ()) else {"other": "value"}
        case str() if value[:1].isdigit():
            changed = "7" + value
        case _:
            changed = "sha256:" + "b" * 64 if "sha256" in allowed.get("pattern", "") else f"{value}other"
    return changed


def allowed_at(path: tuple[str, ...]) -> dict[str, Any]:
    """Return the schema of one value."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    node: dict[str, Any] = schema
    for key in path:
        node = node["properties"].get(key) or node["additionalProperties"]
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    return node


def test_chart_passes_strict_lint() -> None:
    """Helm's own lint has nothing to say but that there is no icon."""
    result = helm.lint(CHART, strict=True)
    assert result["errors"] == []
    assert [m["error"] for m in result["messages"] if "icon" not in m["error"]] == []


def test_version_is_the_project_s() -> None:
    """The chart deploys the version that the project has."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


@pytest.mark.parametrize("case", WRONG)
def test_wrong_values_are_refused_by_name(case: str) -> None:
    """A value that cannot be right stops the installation, and the message names its field."""
    values, field = WRONG[case]
    with pytest.raises(helm.HelmValuesError) as refused:
        render_text(values)
    assert field in str(refused.value)


def test_a_host_takes_one_kind_of_route() -> None:
    """A gateway would accept the older route and leave the other kind of traffic without an answer."""
    route = {"enabled": True, "parentRefs": [{"name": "public"}], "hostnames": ["a.example.com"]}
    with pytest.raises(helm.HelmRenderError, match="one kind of route"):
        render_text({"httpRoute": route, "grpcRoute": route})
    with pytest.raises(helm.HelmRenderError, match="one kind of route"):
        render_text({"httpRoute": {**route, "hostnames": []}, "grpcRoute": route})


def test_the_age_of_knowledge_is_the_operator_s_choice() -> None:
    """The rules are installed as they are, but for the days after which knowledge is old."""
    (rules,) = of_kind(render({"metrics": {"rules": {"enabled": True, "knowledgeDays": 3}}}), "PrometheusRule")
    changed = (CHART / "files" / "rules.yaml").read_text().replace("> 30 * 86400", "> 3 * 86400")
    assert "> 3 * 86400" in changed
    assert rules["spec"] == yaml.safe_load(changed)


@pytest.mark.parametrize("path", list(leaves(DEFAULTS)), ids=".".join)
def test_every_value_does_something(path: tuple[str, ...]) -> None:
    """Another value changes what is rendered, in at least one way to deploy."""

    def changes(base: Values) -> bool:
        values = merged(DEFAULTS, base)
        changed = node = copy.deepcopy(values)
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = other(node[path[-1]], allowed_at(path))
        try:
            return render_text(changed) != render_text(values)
        except helm.HelmValuesError:
            return False  # the value needs another one beside it, which some other way to deploy has

    assert any(changes(base) for base in (*VARIANTS, {}))


def test_schema_knows_the_service_s_settings() -> None:
    """The settings that the chart takes are the service's own, with their types and limits."""
    committed = json.loads((CHART / "values.schema.json").read_text())["properties"]["settings"]
    assert committed == settings_schema(), "make format writes it"


@pytest.mark.parametrize("case", SWITCHES)
def test_service_accepts_what_the_chart_gives_it(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In any image the rendered file and variables load as the service's settings and hold what was asked for."""
    for name, value in BAKED.items():
        monkeypatch.setenv(name, value)
    objects = render(SWITCHES[case])
    (config,) = [found for found in of_kind(objects, "ConfigMap") if "tierwise.yaml" in found["data"]]
    file = tmp_path / "tierwise.yaml"
    file.write_text(config["data"]["tierwise.yaml"])
    deployment = gateway(objects)
    pod = deployment["spec"]["template"]["spec"]
    for variable in pod["containers"][0]["env"]:
        given_by_kubernetes = {"TIERWISE_CACHE__REDIS_URL": "rediss://:secret@cache:6379"}.get(variable["name"], "2")
        value = variable.get("value", given_by_kubernetes)
        monkeypatch.setenv(variable["name"], str(file) if variable["name"] == "TIERWISE_CONFIG" else value)
    settings = load_settings()
    given = settings.model_dump(mode="json")
    assert merged(given, SWITCHES[case].get("settings", {})) == given
    before = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"] + settings.drain_pause_seconds
    assert pod["terminationGracePeriodSeconds"] >= before + settings.drain_seconds + 5
    assert settings.cache.remote is ("redis" in SWITCHES[case])
    keys = settings.access.keys_file
    assert settings.access.open is (keys is None)
    mode = merged(DEFAULTS, SWITCHES[case])["engine"]["mode"]
    assert settings.engine == ("vllm-server" if mode in {"sidecar", "pool", "external"} else mode)
    mounted = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert settings.cache_dir == Path("/tmp"), "the one place that the service can write to"  # noqa: S108
    tls = settings.tls
    assert (tls.certificate is not None) is ("tls" in SWITCHES[case])
    for path in (settings.knowledge, settings.checkpoint, keys, tls.certificate, tls.key, tls.client_ca):
        if path not in {None, Settings.model_fields["checkpoint"].default}:
            assert any(path.is_relative_to(mount) for mount in mounted), path
