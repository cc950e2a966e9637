"""The cpu image: built for real, run as locked down as in production, asked to score, stopped."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.deploy.containers import BASE, ROOT, Containers

if TYPE_CHECKING:
    from collections.abc import Iterator

IMAGE = "localhost/tierwise:test"
MAX_MEGABYTES = 450  # above the base
START_SECONDS = 60
PAIR = {"query": "laptop", "items": [{"id": "a", "title": "Notebook 15.6 inch, 16 GB, 512 GB SSD"}]}

pytestmark = pytest.mark.timeout(1800)  # an image takes minutes where two cores do everything


@pytest.fixture(scope="module")
def containers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    """Make a store with the built image in it."""
    store = Containers(tmp_path_factory.mktemp("containers"))
    store.make_base()
    store.build(ROOT, IMAGE, "--target", "cpu", "--build-arg", f"BASE={BASE}")
    yield store
    store.clear()


@pytest.fixture(scope="module")
def ports() -> tuple[int, int]:
    """Find two free ports of this machine, whose network the container shares."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]


def wait_until_ready(url: str, process: subprocess.Popen[str]) -> None:
    """Wait until the service in the container takes requests."""
    end = time.monotonic() + START_SECONDS
    while True:
        assert process.poll() is None, process.communicate()[0]
        try:
            if httpx.get(f"{url}/readyz").is_success:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < end, f"not ready after {START_SECONDS} s"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def service(containers: Containers, ports: tuple[int, int]) -> Iterator[tuple[str, str, subprocess.Popen[str]]]:
    """Run the image without a shell, read-only; its URL, its container's name and its process."""
    http, admin = ports
    variables = [
        f"TIERWISE_HTTP_PORT={http}",
        f"TIERWISE_ADMIN_PORT={admin}",
        "TIERWISE_KNOWLEDGE=/opt/tierwise/knowledge",
    ]
    options = [part for variable in variables for part in ("--env", variable)]
    without_shell = ["--volume", "/dev/null:/usr/bin/dash:ro", "--volume", "/dev/null:/usr/bin/bash:ro"]
    name = f"tierwise-{http}"
    process = containers.run(IMAGE, options=("--name", name, *options, *without_shell))
    try:
        wait_until_ready(f"http://127.0.0.1:{http}", process)
        yield f"http://127.0.0.1:{http}", name, process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(60)
        if process.stdout is not None:
            process.stdout.close()


def test_image_is_small_and_labelled(containers: Containers) -> None:
    """Our layers stay below the limit; the image says what it is, runs as nobody in particular, and checks itself."""
    image, base = containers.inspect(IMAGE), containers.inspect(BASE)
    assert (image["Size"] - base["Size"]) / 1e6 < MAX_MEGABYTES
    assert image["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert image["Labels"]["org.opencontainers.image.version"] == "0.1.0"
    config = image["Config"]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["tierwise"]
    assert config["Cmd"] == ["serve"]
    assert config["StopSignal"] == "SIGTERM"
    assert image["Healthcheck"]["Test"][0] == "CMD", "no shell"


def test_image_scores_a_pair(service: tuple[str, str, subprocess.Popen[str]]) -> None:
    """A read-only container without capabilities and without a shell scores a real pair, with baked knowledge."""
    url, _, _ = service
    reply = httpx.post(f"{url}/v1/score", json=PAIR).raise_for_status().json()
    (result,) = reply["results"]
    assert result["status"] == "ok"
    assert 0 <= result["score"] <= 1
    assert reply["versions"]["index"]


def test_image_knows_that_it_is_healthy(
    containers: Containers, service: tuple[str, str, subprocess.Popen[str]]
) -> None:
    """The image's own health check passes while the service is ready."""
    _, name, _ = service
    check = containers.inspect(IMAGE)["Healthcheck"]["Test"][1:]
    subprocess.run(["podman", "exec", name, *check], env=containers.environment, check=True)


def test_image_stops_in_order(service: tuple[str, str, subprocess.Popen[str]]) -> None:
    """As the first process of its container it ends by itself, and well, when it is asked to."""
    _, _, process = service
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0, printed
    assert "draining" in printed
