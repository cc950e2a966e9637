"""What must hold for every object that the chart renders, whatever is switched on."""

from __future__ import annotations

import re
from typing import Any

import jsonschema
import kubernetes_validate
import pytest

from tests.deploy.chart import Object, containers, gateway, of_kind, pods, workloads

KUBERNETES = ("1.33", "1.37")


def matches(selector: dict[str, str], labels: dict[str, str]) -> bool:
    """Tell whether labels satisfy a selector."""
    return selector.items() <= labels.items()


def selected(objects: list[Object], selector: dict[str, str]) -> Object:
    """Return the one workload whose pods a selector finds."""
    (found,) = (w for w in workloads(objects) if matches(selector, w["spec"]["template"]["metadata"]["labels"]))
    return found


def names(workload: Object) -> set[str]:
    """Return the names of the ports of a workload's pods."""
    every = workload["spec"]["template"]["spec"]["containers"]
    return {port["name"] for container in every for port in container["ports"]}


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
        allowed = {"name", "configMap", "emptyDir", "persistentVolumeClaim", "image", "secret"}
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
    """Every port has a name, and what points at a port points at a name that the selected pods have."""
    for workload in workloads(objects):
        own = names(workload)
        for container in workload["spec"]["template"]["spec"]["containers"]:
            probes = [container[p] for p in ("startupProbe", "livenessProbe", "readinessProbe") if p in container]
            if container["name"] == "redis":
                assert [probe["exec"]["command"][0] for probe in probes] == ["redis-cli", "redis-cli"]
                continue
            assert len(probes) == (0 if "127.0.0.1" in str(container.get("args")) else 3)
            assert all(probe["httpGet"]["port"] in own for probe in probes)
    for service in of_kind(objects, "Service"):
        own = names(selected(objects, service["spec"]["selector"]))
        assert all(port["name"] in own and port["targetPort"] in own for port in service["spec"]["ports"])
    for policy in of_kind(objects, "NetworkPolicy"):
        own = names(selected(objects, policy["spec"]["podSelector"]["matchLabels"]))
        assert {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]} <= own
    exposed = {service["metadata"]["name"]: service for service in of_kind(objects, "Service")}
    for ingress in of_kind(objects, "Ingress"):
        backend = ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
        assert backend["port"]["name"] in {port["name"] for port in exposed[backend["name"]]["spec"]["ports"]}


def test_admin_port_stays_inside(objects: list[Object]) -> None:
    """Metrics, health and vLLM are on no load balancer, ingress or route, only on headless services of their own."""
    for service in of_kind(objects, "Service"):
        if {port["name"] for port in service["spec"]["ports"]} != {"http", "grpc"}:
            assert service["spec"].get("type", "ClusterIP") == "ClusterIP"
            assert service["spec"]["clusterIP"] == "None"
            assert len(service["spec"]["ports"]) == 1


def test_selectors_match(objects: list[Object]) -> None:
    """Everything that selects pods or services selects those of this release, and the gateway apart from the pool."""
    for workload in workloads(objects):
        own = workload["spec"]["selector"]["matchLabels"]
        assert selected(objects, own) is workload
        spread = workload["spec"]["template"]["spec"].get("topologySpreadConstraints", ())
        assert all(constraint["labelSelector"]["matchLabels"] == own for constraint in spread)
    for kind in ("PodDisruptionBudget", "NetworkPolicy"):
        for found in of_kind(objects, kind):
            selector = found["spec"].get("selector") or found["spec"]["podSelector"]
            selected(objects, selector["matchLabels"])
    for monitor in of_kind(objects, "ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"]
        watched = [s for s in of_kind(objects, "Service") if matches(wanted, s["metadata"]["labels"])]
        ports = [port["name"] for service in watched for port in service["spec"]["ports"]]
        assert ports == [monitor["spec"]["endpoints"][0]["port"]]
    for pod in of_kind(objects, "Pod"):
        for workload in workloads(objects):  # a test pod must get no traffic
            assert not matches(workload["spec"]["selector"]["matchLabels"], pod["metadata"]["labels"])


def test_scalers_point_at_the_deployment(objects: list[Object]) -> None:
    """What scales names the Deployment, and then the Deployment leaves the number of replicas to it."""
    deployment = gateway(objects)
    scalers = of_kind(objects, "HorizontalPodAutoscaler") + of_kind(objects, "ScaledObject")
    assert all(s["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"] for s in scalers)
    assert ("replicas" in deployment["spec"]) == (not scalers)


def test_routes_lead_to_a_port_of_the_service(objects: list[Object]) -> None:
    """HTTP goes to the HTTP port, gRPC to the gRPC port, and the shares of the traffic add up."""
    exposed = {service["metadata"]["name"]: service for service in of_kind(objects, "Service")}
    for kind, name in (("HTTPRoute", "http"), ("GRPCRoute", "grpc")):
        for route in of_kind(objects, kind):
            own, *canary = route["spec"]["rules"][0]["backendRefs"]
            (port,) = (p for p in exposed[own["name"]]["spec"]["ports"] if p["port"] == own["port"])
            assert port["name"] == name
            assert own["weight"] + sum(other["weight"] for other in canary) == 100


def test_what_watches_speaks_plain_http(objects: list[Object]) -> None:
    """Probes and Prometheus ask the admin port, which has no TLS, whether the doors for callers have it or not."""
    (main,) = (c for c in containers(objects) if c["name"] == "tierwise")
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert main[probe]["httpGet"]["port"] == "admin"
        assert "scheme" not in main[probe]["httpGet"]
    for monitor in of_kind(objects, "ServiceMonitor"):
        assert all("scheme" not in one and "tlsConfig" not in one for one in monitor["spec"]["endpoints"])


def test_only_the_gateway_reaches_what_serves_it(objects: list[Object]) -> None:
    """Redis and the pool take calls from this release's gateway alone, which may call them and ask for their names."""
    own = gateway(objects)["spec"]["selector"]["matchLabels"]
    policies = {str(p["spec"]["podSelector"]["matchLabels"]): p["spec"] for p in of_kind(objects, "NetworkPolicy")}
    for workload in workloads(objects) if policies else ():
        behind = workload["spec"]["selector"]["matchLabels"]
        if behind == own:
            continue
        (rule,) = policies[str(behind)]["ingress"]
        assert rule["from"] == [{"podSelector": {"matchLabels": own}}]
        onward = policies[str(own)]["egress"]
        assert {"ports": rule["ports"], "to": [{"podSelector": {"matchLabels": behind}}]} in onward
        assert any(port["port"] == 53 for allowed in onward for port in allowed["ports"])


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
    deployment = gateway(objects)
    pod = deployment["spec"]["template"]["spec"]
    pause = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > pause
