"""What the chart runs beside the service, for real: the release's test, the Redis for trials, a pull."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from service.access.keys import key_hash, key_id, new_key
from tests.deploy.chart import PULL, containers, merged, of_kind, render
from tests.service.access.test_tls import store
from tests.service.processes import eventually, serving

if TYPE_CHECKING:
    from pathlib import Path

    from tests.deploy.chart import Values

TLS = {"tls": {"secret": "search-tls"}}
KEYS = {"keys": {"secret": "search-keys"}}
CLIENTS = {"tls": {"secret": "search-tls", "clientCa": {"secret": "search-clients"}}}
# As rclone does: it copies what the target lacks, and a source without files is no error but with that one option.
RCLONE = """#!/bin/sh
before=$(ls -A "$3")
cp -R "$2/." "$3"
case "$*" in *--error-on-no-transfer*) [ "$before" != "$(ls -A "$3")" ] || exit 9 ;; esac
"""


def helm_test(values: Values, url: str, certificate: Path) -> subprocess.CompletedProcess[str]:
    """Run the pod of `helm test` here, against a service at another address."""
    (pod,) = of_kind(render(values), "Pod")
    (container,) = pod["spec"]["containers"]
    given = {one["name"]: one["value"] for one in container["env"]}
    assert given["URL"].partition(":")[0] == url.partition(":")[0]
    given |= {"URL": url} | ({"CERTIFICATE": str(certificate)} if "CERTIFICATE" in given else {})
    _, *arguments = container["command"]
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=os.environ | given, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("case", ["open", "tls and keys", "client certificates"])
def test_the_release_s_test_tells_a_right_release_from_a_wrong_one(tmp_path: Path, case: str) -> None:
    """It passes on a service that is what the values say, and fails on one that is not."""
    authority, key = trustme.CA(), new_key()
    tls = store(
        tmp_path, authority.issue_cert("relevance.example.com"), trustme.CA() if case.startswith("cl") else None
    )
    record = {"id": key_id(key), "sha256": key_hash(key), "tenant": "shop", "scopes": ["score"]}
    files = {name: str(path) for name, path in tls.model_dump(exclude={"client_required"}).items() if path}
    keys = {"keys": json.dumps({"keys": [record]})}
    cases: dict[str, tuple[dict[str, Any], Values, Values]] = {
        "open": ({}, {}, KEYS),
        "tls and keys": ({"tls": files, "access": keys}, TLS | KEYS, TLS),
        "client certificates": ({"tls": files}, CLIENTS, TLS),
    }
    settings, right, wrong = cases[case]
    certificate = tmp_path / "server.pem"
    with serving(tmp_path, **settings) as service:
        done = helm_test(right, service.http, certificate)
        assert done.returncode == 0, done.stderr
        assert helm_test(wrong, service.http, certificate).returncode != 0
        if settings:
            other = tmp_path / "other.pem"
            other.write_bytes(authority.issue_cert("relevance.example.com").cert_chain_pems[0].bytes())
            done = helm_test(right, service.http, other)
            assert "CERTIFICATE_VERIFY_FAILED" in done.stderr


def test_a_real_redis_takes_the_trial_s_arguments(tmp_path: Path) -> None:
    """It is bounded, forgets the least used first, keeps nothing on disk, lets others in, and its probe finds it."""
    objects = render({"redis": {"trial": {"enabled": True, "memoryMi": 32}}})
    (redis,) = (container for container in containers(objects) if container["name"] == "redis")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    run = [*redis["command"], *redis["args"], "--port", port]
    tool, *ping = redis["readinessProbe"]["exec"]["command"]
    cli = [tool, "-p", port]
    with subprocess.Popen(run, cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        try:
            eventually(lambda: subprocess.run([*cli, *ping], capture_output=True, check=False).returncode == 0)
            names = ["maxmemory", "maxmemory-policy", "save", "appendonly", "protected-mode"]
            answer = subprocess.run([*cli, "config", "get", *names], capture_output=True, text=True, check=True)
        finally:
            process.kill()
    lines = answer.stdout.splitlines()
    assert dict(zip(lines[::2], lines[1::2], strict=True)) == {
        "maxmemory": str(32 * 2**20),
        "maxmemory-policy": "allkeys-lru",
        "save": "",
        "appendonly": "no",
        "protected-mode": "no",
    }
    assert not list(tmp_path.iterdir())


def test_a_pull_can_run_again_but_not_bring_nothing(tmp_path: Path) -> None:
    """It fails while there is nothing at the source, and not because the pod's folder has everything already."""
    source, target, tools = (tmp_path / name for name in ("the judge's", "target", "tools"))
    for folder in (source, target, tools):
        folder.mkdir()
    (tools / "rclone").write_text(RCLONE)
    (tools / "rclone").chmod(0o755)
    objects = render({"checkpoint": merged(PULL, {"pull": {"source": str(source)}})})
    (pull,) = (container for container in containers(objects) if container["name"] == "pull-checkpoint")
    command = [part.replace("/target", str(target)) for part in pull.get("command", ["rclone"]) + pull.get("args", [])]
    path = f"{tools}:{os.environ['PATH']}"

    def run() -> int:
        return subprocess.run(command, env={"PATH": path}, capture_output=True, check=False).returncode

    assert run() != 0
    (source / "tierwise.json").write_text("{}")
    assert [run(), run()] == [0, 0]
    assert (target / "tierwise.json").exists()
