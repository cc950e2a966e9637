"""`tierwise demo`: the whole path on real input, in one command."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import httpx
import platformdirs
import typer
from rich.console import Console

import retrieval
from models.errors import ModelError
from models.manifest import load_manifest
from retrieval.embedding import SHIPPED as SHIPPED_EMBEDDER
from retrieval.errors import KnowledgeError
from service.demo.candidates import QUERIES, candidates, read_catalogue
from service.demo.table import scores_table
from service.settings import SettingsError, load_settings
from service.sockets import open_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.settings import Settings

KNOWLEDGE = Path(retrieval.__file__).parent / "demo"
START_SECONDS = 120  # a first start builds the engine's graphs
# A first look must not depend on how busy the machine is; what the operator has set stays.
PATIENCE = {"TIERWISE_DEADLINE_MS": "30000", "TIERWISE_RETRIEVAL_BUDGET_MS": "5000"}
SVG_COLUMNS = 118
console = Console()


def demo(
    *,
    once: Annotated[bool, typer.Option("--once", help="Stop after the table.")] = False,
    http_port: Annotated[int | None, typer.Option(help="Port of the service.")] = None,
    grpc_port: Annotated[int | None, typer.Option(help="Port of the service's gRPC door.")] = None,
    admin_port: Annotated[int | None, typer.Option(help="Port of /metrics.")] = None,
    svg: Annotated[Path | None, typer.Option(help="Draw the table into this file too.")] = None,
) -> None:
    """Serve the shipped model with real knowledge, and score real products over HTTP.

    Builds the knowledge snapshot when it is not there yet, starts `tierwise serve`, asks it about a sample of a real
    catalogue (Icecat), prints what it answered, and leaves it running until Ctrl-C.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        settings = load_settings(http_port=http_port, grpc_port=grpc_port, admin_port=admin_port)
        # Taken ports are found before anything is built.
        with open_ports(settings):
            knowledge = settings.knowledge or build_knowledge(settings)
        with _service(settings, knowledge) as process:
            _show(f"http://{settings.host}:{settings.http_port}", svg)
            if not once:
                _say_where(settings)
                process.wait()
    except (SettingsError, ModelError, KnowledgeError, OSError, httpx.HTTPError) as error:
        console.print(f"The demo cannot run: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error
    except KeyboardInterrupt:
        console.print("Stopped.")


def build_knowledge(settings: Settings) -> Path:
    """The demo's knowledge folder, built if it is absent or made from other inputs.

    Raises:
        KnowledgeError, ModelError: it cannot be built.
    """
    from retrieval.search import KnowledgeBase  # noqa: PLC0415 # FAISS loads while it is needed
    from service.commands.index import run_build  # noqa: PLC0415

    folder = _cache(settings) / "knowledge"
    stamp = folder / "demo.json"
    inputs = {"inputs": _digest(settings)}
    try:
        if json.loads(stamp.read_bytes()) == inputs:
            KnowledgeBase.open(folder)
            return folder
    except (FileNotFoundError, ValueError, KnowledgeError):
        pass  # absent, or damaged: build it
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        documents = Path(temporary) / "documents.jsonl"
        documents.write_bytes(b"".join(path.read_bytes() for path in _documents()))
        built = run_build(documents, folder, checkpoint=settings.checkpoint, keep=1)
    stamp.write_text(json.dumps(inputs))
    console.print(f"Built a knowledge snapshot of {built.manifest.chunks:,} chunks in {folder}", highlight=False)
    return folder


def _documents() -> list[Path]:
    return sorted(KNOWLEDGE.glob("*.jsonl"))


def _digest(settings: Settings) -> str:
    """Changes when the documents, the embedder or the checkpoint's chunk budget do."""
    digest = hashlib.sha256()
    for path in [*_documents(), *sorted(p for p in SHIPPED_EMBEDDER.iterdir() if p.is_file())]:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    digest.update(load_manifest(settings.checkpoint, verify=False).prompt_hash.encode())
    return digest.hexdigest()


def _cache(settings: Settings) -> Path:
    return (settings.cache_dir or Path(platformdirs.user_cache_path("tierwise"))) / "demo"


@contextmanager
def _service(settings: Settings, knowledge: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A ready service in a process of its own; ended with the block."""
    # -P: a folder called `service` where the user stands must not be taken for this package.
    command = [sys.executable, "-P", "-m", "service", "serve", "--knowledge", str(knowledge)]
    for door in ("http", "grpc", "admin"):
        command += [f"--{door}-port", str(getattr(settings, f"{door}_port"))]
    log = _cache(settings) / "serve.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("wb") as sink,
        subprocess.Popen(command, stdout=sink, stderr=sink, env=PATIENCE | os.environ) as process,  # noqa: S603 # ours
    ):
        try:
            with console.status("Starting the service"):
                _wait_until_ready(process, f"http://{settings.host}:{settings.http_port}", log)
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if process.returncode not in (0, -signal.SIGTERM):
        raise SettingsError(f"the service ended with {process.returncode}; its log is {log}")


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    state = "it did not listen"
    while time.monotonic() < end and process.poll() is None:
        try:
            response = httpx.get(f"{url}/readyz", timeout=2.0)
            if response.is_success:
                return
            state = "; ".join(f"{c['name']}: {c['detail']}" for c in response.json()["checks"] if not c["ok"])
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
    raise SettingsError(f"the service did not become ready: {state}; the end of its log {log}:\n{tail}")


def _show(url: str, svg: Path | None) -> None:
    products = read_catalogue()
    answers: list[tuple[str, dict[str, Any], float]] = []
    titles = {product["id"]: product["title"] for product in products}
    with httpx.Client(base_url=url, timeout=60.0) as client:
        client.get("/readyz")  # opens the connection, so that the first query's time is a query's time
        for query in QUERIES:
            started = time.perf_counter()
            response = client.post("/v1/score", json={"query": query, "items": candidates(query, products)})
            milliseconds = (time.perf_counter() - started) * 1000.0
            if not response.is_success:
                raise SettingsError(f"{url}/v1/score answered {response.status_code}: {response.json()['detail']}")
            answers.append((query, response.json(), milliseconds))
    console.print(scores_table(answers, titles, console.width))
    if svg is not None:
        drawing = Console(record=True, width=SVG_COLUMNS, file=io.StringIO())
        drawing.print(scores_table(answers, titles, SVG_COLUMNS))
        drawing.save_svg(str(svg), title="make demo ARGS=--once")


def _say_where(settings: Settings) -> None:
    url = f"http://{settings.host}:{settings.http_port}"
    console.print(f"\nServing at {url} (documentation: {url}/docs), until Ctrl-C. Try:\n", highlight=False)
    body = (
        '{"query": "usb c cable", "items": [{"id": "1", "title": "USB-C cable, 2 m"}, {"id": "2", "title": "Tea mug"}]}'
    )
    console.print(
        f"  curl {url}/v1/score -H 'content-type: application/json' -d '{body}'",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _interrupt(number: int, frame: object) -> None:
    del number, frame
    raise KeyboardInterrupt
