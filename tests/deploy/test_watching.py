"""The whole chain for real: `tierwise serve` under load, scraped by Prometheus with our rules, asked by every panel."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml

from scripts.dashboards import FOLDER
from service.commands.index import run_build
from service.demo.candidates import QUERIES, candidates, read_catalogue
from tests.deploy.chart import CHART, DEPLOY
from tests.redis_server import redis_server
from tests.service.processes import eventually, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.service.processes import Service

PATIENCE_SECONDS = 60.0
WINDOW = "15s"
VARIABLES = {"$__rate_interval": WINDOW, "$namespace": ".*", "$service": ".*"}
# The embedded engine computes the labels' rows only, so nobody knows how much probability lies outside of them.
SILENT = {"Probability of the labels"}
CARDS = [
    {"id": "mouse", "text": "A wireless mouse talks to a computer by radio or Bluetooth.", "source": "cards"},
    {"id": "toner", "text": "A toner cartridge is what a laser printer prints with.", "source": "cards"},
]


@dataclass
class Prometheus:
    """A running server."""

    url: str

    def ask(self, expression: str) -> list[dict[str, Any]]:
        """What an instant query finds; a query that does not parse is an error."""
        response = httpx.post(f"{self.url}/api/v1/query", data={"query": expression}, timeout=PATIENCE_SECONDS)
        assert response.status_code == 200, response.text
        found: list[dict[str, Any]] = response.json()["data"]["result"]
        return found

    def ready(self) -> bool:
        """Whether it answers queries by now."""
        try:
            return httpx.get(f"{self.url}/-/ready", timeout=PATIENCE_SECONDS).is_success
        except httpx.TransportError:
            return False


@contextmanager
def prometheus(folder: Path, admin: str) -> Iterator[Prometheus]:
    """Prometheus as deploy/prometheus.yaml sets it up, in more of a hurry."""
    config = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = ["rules.yaml"]
    rules = yaml.safe_load((CHART / "files" / "rules.yaml").read_text())
    for group in rules["groups"]:
        group.pop("interval", None)
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules))
    (scrape,) = config["scrape_configs"]
    scrape["static_configs"][0]["targets"] = [admin.removeprefix("http://")]
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    options = [f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "prometheus.log").open("wb") as log:
        command = ["prometheus", *options, f"--web.listen-address={address}"]
        with subprocess.Popen(command, stdout=log, stderr=log) as process:
            server = Prometheus(f"http://{address}")
            try:
                eventually(server.ready)
                yield server
            finally:
                process.kill()


def load(service: Service, stop: threading.Event) -> None:
    """Send what a day brings: hits and misses, own chunks, cut fields, wrong bodies, too little time, reasons."""
    products = read_catalogue()
    with httpx.Client(base_url=service.http, timeout=PATIENCE_SECONDS) as client:
        for round_ in range(10_000):
            for query in QUERIES:
                items = [
                    {"id": str(n), "title": f"{p['title']} {round_ % 5}", "description": p["description"] * 20}
                    for n, p in enumerate(candidates(query, products))
                ]
                if stop.is_set():
                    return
                client.post("/v1/score", json={"query": query, "items": items})
            client.post("/v1/score", json={"query": query, "items": items, "context": "none"})
            client.post("/v1/score", json={"query": "", "items": items})
            many = [{"id": str(n), "title": f"{p['title']} {round_}"} for n, p in enumerate(products[:200])]
            client.post("/v1/score", json={"query": query, "items": many, "deadline_ms": 60})
            client.post("/v1/explain", json={"query": query, "item": items[0]})


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus that has seen some seconds of load on the shipped checkpoint with knowledge and Redis."""
    folder = tmp_path_factory.mktemp("watched")
    documents = folder / "documents.jsonl"
    documents.write_text("".join(json.dumps(card) + "\n" for card in CARDS))
    knowledge = folder / "knowledge"
    run_build(documents, knowledge)
    with redis_server(folder / "redis") as redis:
        shadow = {"knowledge": knowledge, "share": 1.0}
        cache = {"redis_url": f"redis://127.0.0.1:{redis.port}"}
        with (
            serving(folder, knowledge=knowledge, tau=-1.0, cache=cache, shadow=shadow) as service,
            prometheus(folder, service.admin) as server,
        ):
            stop = threading.Event()
            sender = threading.Thread(target=load, args=(service, stop))
            sender.start()
            try:
                eventually(lambda: bool(server.ask("tierwise:tier_shift:distance1h_1d")))
                time.sleep(3)  # several scrapes of everything
                yield server
            finally:
                stop.set()
                sender.join()


def panels() -> list[tuple[str, str, str]]:
    """Return dashboard, panel and expression of every query that Grafana would send."""
    found = []
    for path in sorted(FOLDER.iterdir()):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", ()):
                expression = target["expr"]
                for variable, value in VARIABLES.items():
                    expression = expression.replace(variable, value)
                found.append((path.stem, panel["title"], expression))
    return found


def test_every_panel_shows_something(watched: Prometheus) -> None:
    """Prometheus takes every query of every dashboard and answers with data."""
    empty = [(page, title, query) for page, title, query in panels() if not watched.ask(query)]
    assert {title for _, title, _ in empty} == SILENT, empty


def test_no_alert_but_of_what_the_load_provokes(watched: Prometheus) -> None:
    """A service that works is scraped, ready and not taken for hung, gone, stale or cut off from Redis."""
    alerts = {found["metric"]["alertname"] for found in watched.ask('ALERTS{alertstate="firing"}')}
    assert alerts <= {
        "TierwiseErrorsFast",
        "TierwiseErrorsSlow",
        "TierwiseLateFast",
        "TierwiseLateSlow",
        "TierwiseShedding",
    }
    assert watched.ask("up == 1")
