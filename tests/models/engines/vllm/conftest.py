"""A real vLLM, started once for all tests of this folder: in process, and as a server. Float32 there, bfloat16 here.

The two differ in arithmetic on purpose: float32 lets answers be compared with transformers digit by digit, bfloat16 is
how the checkpoint is served.
"""

import json
import os
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
import pytest_asyncio
from numpy.typing import NDArray
from safetensors.numpy import save_file

from models.manifest import SHIPPED, Manifest, load_manifest
from models.prompt import Item, Prompt, PromptWriter
from models.tokenizer import FieldTokenizer

with warnings.catch_warnings():  # vLLM's and torch's own deprecations are not this project's
    warnings.simplefilter("ignore")
    import torch
    from transformers import AutoModelForCausalLM

    from models.engines.vllm import VllmEngine
    from models.engines.vllm.arguments import Options
    from models.engines.vllm.process import Watch

CHECKPOINT = Path(os.environ.get("TIERWISE_CHECKPOINT", SHIPPED))
PAIRS = Path(__file__).parents[3] / "fixtures" / "pairs.jsonl"
CACHE_BYTES = 64 * 2**20  # about 3,000 tokens in float32: large requests have to wait for room
RANK, TARGETS = 8, ("q_proj", "v_proj")
START_SECONDS = 600  # compilers, a busy machine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Starting vLLM counts towards the first test that needs it; its own deprecation warnings are not errors here."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(2 * START_SECONDS))
            for category in ("DeprecationWarning", "FutureWarning", "UserWarning"):
                item.add_marker(pytest.mark.filterwarnings(f"ignore::{category}"))


@dataclass(frozen=True)
class Reference:
    """The checkpoint in transformers, float32: the plain path that the fast one is compared with."""

    model: torch.nn.Module
    labels: tuple[int, ...]

    def logits(self, ids: Sequence[int]) -> NDArray[np.float64]:
        """Logits over the vocabulary after the prompt, [V]; computed in float32, sums over them need more."""
        with torch.inference_mode():
            values: NDArray[np.float64] = self.model(torch.tensor([list(ids)])).logits[0, -1].double().numpy()
        return values

    def label_logprobs(self, ids: Sequence[int]) -> NDArray[np.float64]:
        """Log-softmax over the labels alone, [K]."""
        logits = self.logits(ids)[list(self.labels)]
        result: NDArray[np.float64] = logits - np.logaddexp.reduce(logits)
        return result

    def label_mass(self, ids: Sequence[int]) -> float:
        """Probability of any label."""
        logits = self.logits(ids)
        return float(np.exp(np.logaddexp.reduce(logits[list(self.labels)]) - np.logaddexp.reduce(logits)))

    def greedy(self, ids: Sequence[int], *, end: int, most: int) -> list[int]:
        """Greedy decode, end token included."""
        found: list[int] = []
        while len(found) < most and (not found or found[-1] != end):
            found.append(int(self.logits([*ids, *found]).argmax()))
        return found


@pytest.fixture(scope="session")
def manifest() -> Manifest:
    """The checkpoint's manifest."""
    return load_manifest(CHECKPOINT)


@pytest.fixture(scope="session")
def writer(manifest: Manifest) -> PromptWriter:
    """Writes its prompts."""
    return PromptWriter(manifest, FieldTokenizer(CHECKPOINT))


@pytest.fixture(scope="session")
def requests(writer: PromptWriter) -> list[Prompt]:
    """A thousand real pairs as prompts, one request for each query."""
    rows: dict[tuple[str, str | None], list[Item]] = {}
    for line in PAIRS.read_text().splitlines():
        row = json.loads(line)
        item = {n: v for n, v in row["item"].items() if n != "id"}
        item["attributes"] = ", ".join(f"{n} {v}" for n, v in item.get("attributes", {}).items())
        rows.setdefault((row["query"], row["chunk"]), []).append(Item(**item))
    return [writer.write(query, chunk, items) for (query, chunk), items in rows.items()]


def _transformers() -> torch.nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model: torch.nn.Module = AutoModelForCausalLM.from_pretrained(CHECKPOINT, dtype=torch.float32).eval()
    return model


@pytest.fixture(scope="session")
def reference(manifest: Manifest) -> Reference:
    """The checkpoint in transformers."""
    return Reference(_transformers(), manifest.label_token_ids)


@pytest.fixture(scope="session")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter in PEFT's format with random weights, large enough to change scores."""
    folder = tmp_path_factory.mktemp("adapter")
    rng = np.random.default_rng(7)
    config = json.loads((CHECKPOINT / "config.json").read_text())
    width, layers = config["hidden_size"], config["num_hidden_layers"]
    weights = {}
    for layer in range(layers):
        for target in TARGETS:
            name = f"base_model.model.model.decoder.layers.{layer}.self_attn.{target}"
            weights[f"{name}.lora_A.weight"] = rng.normal(0, 0.1, (RANK, width)).astype(np.float32)
            weights[f"{name}.lora_B.weight"] = rng.normal(0, 0.1, (width, RANK)).astype(np.float32)
    save_file(weights, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "target_modules": list(TARGETS), "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(settings | {"task_type": "CAUSAL_LM"}))
    return folder


@pytest.fixture(scope="session")
def adapted(adapter: Path, manifest: Manifest) -> Reference:
    """The checkpoint in transformers with the adapter's product added to its weights."""
    from safetensors.numpy import load_file  # noqa: PLC0415 - beside its only use

    model = _transformers()
    deltas = load_file(adapter / "adapter_model.safetensors")
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, down in deltas.items():
            if "lora_A" in name:
                plain = name.removeprefix("base_model.model.").replace(".lora_A", "")
                up = deltas[name.replace("lora_A", "lora_B")]
                parameters[plain].add_(torch.from_numpy(up @ down))
    return Reference(model, manifest.label_token_ids)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def engine(manifest: Manifest, adapter: Path) -> AsyncIterator[VllmEngine]:
    """The in-process engine, float32, with an adapter, small cache, watched closely."""
    options = Options(dtype="float32", compiled=False, cache_bytes=CACHE_BYTES, adapters={"toys": adapter})
    made = VllmEngine.load(CHECKPOINT, manifest, options, watch=Watch(beat=0.5, hang=8.0, replace=20.0))
    await made.warm_up()
    yield made
    await made.close()


@dataclass(frozen=True)
class VllmServer:
    """VLLM's own server, as an operator starts it."""

    url: str
    process: subprocess.Popen[bytes]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[VllmServer]:
    """A real server on the checkpoint, bfloat16."""
    port = free_port()
    log = tmp_path_factory.mktemp("server") / "log"
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),  # the CPU build's own `vllm serve` is broken
        *("--model", str(CHECKPOINT)),
        *("--served-model-name", "judge", "--host", "127.0.0.1", "--port", str(port)),
        *("--block-size", "32", "--enforce-eager", "--scheduling-policy", "priority", "--enable-prompt-tokens-details"),
        *("--kv-cache-memory-bytes", str(CACHE_BYTES)),
    ]
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            _wait(f"http://127.0.0.1:{port}", process, log)
            yield VllmServer(f"http://127.0.0.1:{port}", process)
        finally:
            process.terminate()
            process.wait(timeout=60)


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Ports that nobody listens on."""
    import socket  # noqa: PLC0415 - beside its only use

    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        return port

    return find


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    import time  # noqa: PLC0415 - beside its only use

    for _ in range(START_SECONDS * 2):
        if process.poll() is not None:
            break
        try:
            if httpx.get(f"{url}/health").is_success:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    pytest.fail(f"the server did not start:\n{log.read_text()[-3000:]}")
