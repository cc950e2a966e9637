"""A real vLLM, started once for all tests of this folder: in process, and as a server. Float32 there, bfloat16 here.

The two differ in arithmetic on purpose: float32 lets answers be compared with transformers digit by digit, bfloat16 is
how the checkpoint is served.
"""

import asyncio
import contextlib
import json
import os
import socket
import sys
import warnings
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import pytest_asyncio
from numpy.typing import NDArray
from safetensors.numpy import save_file

from models.engines.vllm_server import VllmServerEngine
from models.engines.vllm_server.pool import PoolOptions
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
PATIENT = Watch(beat=0.5, hang=120.0, replace=600.0)  # a machine that is busy with other things is not hung
RANK, TARGETS = 8, ("q_proj", "v_proj")
START_SECONDS = 600  # compilers, a busy machine
PATIENT_POOL = PoolOptions(model="judge", probe_every=0.5, probe_timeout=60.0, compare_timeout=START_SECONDS)


def pytest_configure(config: pytest.Config) -> None:
    """A killed engine leaves vLLM's messaging context to the garbage collector, at times after the last test."""
    config.addinivalue_line("filterwarnings", "ignore:Unclosed context:ResourceWarning")


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

    model: Any  # OPTForCausalLM; transformers is untyped
    labels: tuple[int, ...]

    def logits(self, ids: Sequence[int]) -> NDArray[np.float64]:
        """Logits over the vocabulary after the prompt, [V]; computed in float32, sums over them need more."""
        with torch.inference_mode():
            values: NDArray[np.float64] = self.model(torch.tensor([list(ids)])).logits[0, -1].double().numpy()
        return values

    def label_logprobs_of(self, prompts: Sequence[Sequence[int]], together: int = 25) -> NDArray[np.float64]:
        """Log-softmax over the labels alone of many prompts, [N, K]; some at a time, padded on the right."""
        found = np.empty((len(prompts), len(self.labels)))
        order = sorted(range(len(prompts)), key=lambda n: len(prompts[n]))
        rows = self.model.get_output_embeddings().weight[list(self.labels)]
        for few in (order[at : at + together] for at in range(0, len(order), together)):
            ids = [torch.tensor(prompts[n]) for n in few]
            padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
            mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
            with torch.inference_mode():
                hidden = self.model.model(input_ids=padded, attention_mask=mask).last_hidden_state
                logits = hidden[torch.arange(len(few)), mask.sum(1) - 1] @ rows.T
            found[few] = torch.log_softmax(logits.double(), -1).numpy()
        return found

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


def _transformers() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return AutoModelForCausalLM.from_pretrained(CHECKPOINT, dtype=torch.float32).eval()


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
            weights[f"{name}.lora_A.weight"] = rng.normal(0, 0.15, (RANK, width)).astype(np.float32)
            weights[f"{name}.lora_B.weight"] = rng.normal(0, 0.15, (width, RANK)).astype(np.float32)
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
    """The in-process engine, float32, with an adapter and a small cache."""
    options = Options(dtype="float32", compiled=False, cache_bytes=CACHE_BYTES, adapters={"toys": adapter})
    made = VllmEngine.load(CHECKPOINT, manifest, options, watch=PATIENT)
    await made.warm_up()
    yield made
    await made.close()


class VllmServer:
    """VLLM's own server, as an operator starts it; bfloat16. Its port stays the same from start to start."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port: int = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._log = folder / "log"
        self._process: asyncio.subprocess.Process | None = None

    @property
    def family(self) -> list[psutil.Process]:
        """The server's processes, itself first."""
        assert self._process is not None
        own = psutil.Process(self._process.pid)
        return [own, *own.children(recursive=True)]

    async def start(self) -> None:
        """Return when it answers. Never blocks the event loop: another engine lives in it."""
        command = [
            *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),  # the CPU build's own `vllm serve` is broken
            *("--model", str(CHECKPOINT), "--served-model-name", "judge"),
            *("--host", "127.0.0.1", "--port", str(self._port), "--disable-uvicorn-access-log"),
            *("--block-size", "32", "--enforce-eager", "--scheduling-policy", "priority"),
            *("--generation-config", "vllm", "--enable-prompt-tokens-details"),
            *("--kv-cache-memory-bytes", str(CACHE_BYTES)),
        ]
        with self._log.open("wb") as output:
            self._process = await asyncio.create_subprocess_exec(*command, stdout=output, stderr=output)
        async with httpx.AsyncClient(base_url=self.url, timeout=30.0) as client:
            for _ in range(2 * START_SECONDS):
                if self._process.returncode is not None:
                    break
                with contextlib.suppress(httpx.TransportError):
                    if (await client.get("/health")).is_success:
                        return
                await asyncio.sleep(0.5)
        await self.kill()
        pytest.fail(f"the server did not start:\n{self._log.read_text()[-3000:]}")

    async def kill(self) -> None:
        """End all its processes at once, whatever state they are in."""
        if self._process is None or self._process.returncode is not None:
            return
        for process in self.family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        await self._process.wait()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[VllmServer]:
    """A real server on the checkpoint."""
    made = VllmServer(tmp_path_factory.mktemp("server"))
    await made.start()
    yield made
    await made.kill()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def pool(server: VllmServer, manifest: Manifest) -> AsyncIterator[VllmServerEngine]:
    """The pool of that one server."""
    made = VllmServerEngine([server.url], manifest, folder=CHECKPOINT, options=PATIENT_POOL)
    await made.warm_up()
    yield made
    await made.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that happens in another process."""
    async with asyncio.timeout(START_SECONDS):
        while not condition():  # noqa: ASYNC110 - it sets no event
            await asyncio.sleep(0.01)
