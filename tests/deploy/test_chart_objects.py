"""What must hold for every object that the chart renders, whatever is switched on."""

from __future__ import annotations

import re
from typing import Any

import jsonschema
import kubernetes_validate
import pytest

from tests.deploy.chart import Object, containers, of_kind, pods

KUBERNETES = ("1.33", "1.37")
SELECTOR = {"app.kubernetes.io/name": "tierwise", "app.kubernetes.io/instance": "demo"}


def matches(selector: dict[str, str], labels: dict[str, str]) -> bool:
    """Tell whether labels satisfy a selector."""
    return selector.items() <= labels.items()


@pytest.mark.parametrize("version", KUBERNETES)
def test_objects_are_valid(objects: list[Object], schemas: dict[str, Object], version: str) -> None:
    """Every object passes the strict schema of its kind."""
    for found in objects:
        if found["kind"] in schemas:
            assert set(found) == {"apiVersion", "kind", "metadata", "spec"}
            jsonschema.validate(found["spec"], schemas[found["kind"]])
        else:
            kubernetes_validate.validate(found, version, strict=True)


def test_pods_pass_the_restricted_standard(objects: list[Object]) -> None:
    """Every container runs without root, privileges, capabilities, a writable root or a cluster token."""
    for pod in pods(objects):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        allowed = {"name", "configMap", "emptyDir", "persistentVolumeClaim", "image"}
        assert all(set(volume) <= allowed for volume in pod.get("volumes", ()))
    for container in containers(objects):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_containers_are_pinned_and_bounded(objects: list[Object]) -> None:
    """Every image names a version, every container asks for what it needs and has a memory limit."""
    for container in containers(objects):
        assert re.fullmatch(r"[^:@]+(:(?!latest$)[\w.-]+|@sha256:[0-9a-f]{64})", container["image"])
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]


def test_ports_are_named_and_found(objects: list[Object]) -> None:
    """Every port has a name, and what points at a port points at a name that exists."""
    (deployment,) = of_kind(objects, "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    names = {port["name"] for port in container["ports"]}
    assert names == {"http", "admin"}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] in names
    services = of_kind(objects, "Service")
    for service in services:
        assert all(port["name"] in names and port["targetPort"] in names for port in service["spec"]["ports"])
    for policy in of_kind(objects, "NetworkPolicy"):
        assert {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]} <= names
    exposed = {service["metadata"]["name"]: service for service in services}
    for ingress in of_kind(objects, "Ingress"):
        backend = ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
        assert backend["port"]["name"] in {port["name"] for port in exposed[backend["name"]]["spec"]["ports"]}


def test_admin_port_stays_inside(objects: list[Object]) -> None:
    """Metrics and health are on no load balancer, ingress or route, only on a headless service of their own."""
    for service in of_kind(objects, "Service"):
        if any(port["name"] == "admin" for port in service["spec"]["ports"]):
            assert service["spec"].get("type", "ClusterIP") == "ClusterIP"
            assert service["spec"]["clusterIP"] == "None"
            assert len(service["spec"]["ports"]) == 1


def test_selectors_match(objects: list[Object]) -> None:
    """Everything that selects pods or services selects those of this release."""
    (deployment,) = of_kind(objects, "Deployment")
    template = deployment["spec"]["template"]
    labels = template["metadata"]["labels"]
    selectors: list[dict[str, str]] = [deployment["spec"]["selector"]["matchLabels"]]
    selectors += [found["spec"]["selector"] for found in of_kind(objects, "Service")]
    selectors += [found["spec"]["selector"]["matchLabels"] for found in of_kind(objects, "PodDisruptionBudget")]
    selectors += [found["spec"]["podSelector"]["matchLabels"] for found in of_kind(objects, "NetworkPolicy")]
    spread = template["spec"].get("topologySpreadConstraints", ())
    selectors += [constraint["labelSelector"]["matchLabels"] for constraint in spread]
    assert all(selector == SELECTOR and matches(selector, labels) for selector in selectors)
    for monitor in of_kind(objects, "ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"]
        found = [s for s in of_kind(objects, "Service") if matches(wanted, s["metadata"]["labels"])]
        assert [port["name"] for s in found for port in s["spec"]["ports"]] == [monitor["spec"]["endpoints"][0]["port"]]
    for pod in of_kind(objects, "Pod"):
        assert not matches(SELECTOR, pod["metadata"]["labels"]), "a test pod must get no traffic"


def test_scalers_point_at_the_deployment(objects: list[Object]) -> None:
    """What scales names the Deployment, and then the Deployment leaves the number of replicas to it."""
    (deployment,) = of_kind(objects, "Deployment")
    scalers = of_kind(objects, "HorizontalPodAutoscaler") + of_kind(objects, "ScaledObject")
    assert all(s["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"] for s in scalers)
    assert ("replicas" in deployment["spec"]) == (not scalers)


def test_mounts_have_volumes(objects: list[Object]) -> None:
    """Every mount names a volume, every volume is mounted, and only scratch space and pulls are writable."""
    for pod in pods(objects):
        volumes = {volume["name"]: volume for volume in pod.get("volumes", ())}
        every = (*pod.get("initContainers", ()), *pod["containers"])
        mounts: list[dict[str, Any]] = [mount for c in every for mount in c.get("volumeMounts", ())]
        assert {mount["name"] for mount in mounts} == set(volumes)
        assert all("emptyDir" in volumes[mount["name"]] for mount in mounts if not mount.get("readOnly"))


def test_shutdown_fits_the_grace_period(objects: list[Object]) -> None:
    """The pause for endpoints and the drain end before the kubelet kills."""
    (deployment,) = of_kind(objects, "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    pause = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > pause
