"""The shipped checkpoint on the paths that users take: nothing here is a fake."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from service.demo.candidates import QUERIES, candidates, read_catalogue

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder that is also where graphs and knowledge are kept."""
    return tmp_path_factory.mktemp("shipped")


def environment(folder: Path) -> dict[str, str]:
    """No setting but the cache's place, and a terminal of known width."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TIERWISE_")}
    return {**clean, "TIERWISE_CACHE_DIR": str(folder), "TIERWISE_GRPC_PORT": "0", "COLUMNS": "120"}


def free_port() -> str:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def tierwise(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in the folder."""
    command = [sys.executable, "-m", "service", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False, timeout=240
    )


def test_the_demo_shows_real_verdicts_from_an_empty_folder(folder: Path) -> None:
    """One command builds the knowledge, serves, asks about real products, and ends with 0 after the table it draws."""
    ports = ["--http-port", free_port(), "--admin-port", free_port()]
    done = tierwise(folder, "demo", "--once", "--svg", "table.svg", *ports)
    assert done.returncode == 0, done.stdout + done.stderr
    for query in QUERIES:
        assert query.split()[0] in done.stdout
    assert len(re.findall(r"[1-4]-(?:Excellent|Related|Mismatch|Irrelevant) ", done.stdout)) >= 5 * len(QUERIES)
    assert "4-Excellent" in (folder / "table.svg").read_text()


def test_a_taken_port_is_named_before_anything_is_built(folder: Path) -> None:
    """The demo does not fight for a port."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        done = tierwise(folder, "demo", "--once", "--http-port", str(other.getsockname()[1]))
    assert done.returncode == 2
    assert "TIERWISE_HTTP_PORT" in done.stdout


def test_serve_passes_its_self_test_and_scores_what_was_meant_above_what_was_not(folder: Path) -> None:
    """The canaries hold on the shipped engine, a chunk can be brought along, and SIGTERM ends it with 0."""
    command = [sys.executable, "-m", "service", "serve", "--http-port", "0", "--admin-port", "0"]
    with subprocess.Popen(command, cwd=folder, env=environment(folder), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = (json.loads(line) for line in process.stdout)
        address = next(line["http"] for line in lines if line["message"] == "listening")
        ready = next(line["message"] for line in lines if line["message"].startswith("ready"))
        assert re.fullmatch(r"ready: ([1-9]\d*) of \1 canaries score right", ready)
        try:
            products = read_catalogue()
            with httpx.Client(base_url=address, timeout=30) as client:
                score(client, products)
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0


def score(client: httpx.Client, products: list[dict[str, Any]]) -> None:
    """Score and explain over HTTP."""
    mouse, printer = (next(p for p in products if p["category"] == kind) for kind in ("mouse", "inkjet printer"))
    body = {"query": "mouse", "items": [printer, mouse], "context": {"text": "mouse: a pointing device"}}
    reply = client.post("/v1/score", json={**body, "deadline_ms": 20_000}).json()
    assert [result["id"] for result in reply["results"]] == [mouse["id"], printer["id"]]
    assert reply["results"][0]["band"] == "Good"
    assert reply["results"][1]["band"] != "Good"
    explained = client.post("/v1/explain", json={"query": "mouse", "item": mouse, "deadline_ms": 20_000}).json()
    assert explained["parsed"], explained["text"]
    assert explained["rationale"]["category"] == "match"


def test_score_gives_the_verdicts_of_the_service_offline(folder: Path) -> None:
    """Every pair of the demo's queries comes back in order with a verdict."""
    products = read_catalogue()
    pairs = [{"query": query, "item": item} for query in QUERIES for item in candidates(query, products)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    done = tierwise(folder, "score", "--input", "pairs.jsonl", "--output", "scores.jsonl")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (folder / "scores.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [pair["item"]["id"] for pair in pairs]  # type: ignore[index] # dicts of dicts
    assert {row["status"] for row in rows} == {"ok"}
