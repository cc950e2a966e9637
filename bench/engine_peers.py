"""The peers of bench/engines.py, each run in a process of its own: `python bench/engine_peers.py NAME ...`.

onnx-int8, onnx-float32   the embedded engine
vllm                      our engine over AsyncLLM
vllm-offline              vLLM's LLM.generate with the same sampling parameters
vllm-http                 vLLM's own route for this job, /generative_scoring, over one kept connection
vllm-server               our pool engine over that same server
transformers              one padded batch, label rows of the head only
cross-encoder             a BERT body of the judge's size under sentence-transformers, random weights
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import sys
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import httpx
import numpy as np

from models.deadline import Deadline
from models.manifest import load_manifest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.engine_turns import reply_channel, serve

if TYPE_CHECKING:
    from bench.engine_requests import Peer, Request
    from models.engines.port import Engine

warnings.simplefilter("ignore")  # the peers' own deprecations
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
CACHE_BYTES = 2**30
BLOCK = 32
# Health is for bench/engine_turns.py to judge, by its own patience: a peer is compared when it starts and not probed
# after that. Probes would take the cores from the others' turns, and be late while others take them.
NEVER = 86_400.0  # seconds
PATIENT = 600.0


class OurEngine:
    """Any engine behind the port."""

    def __init__(self, make: Any) -> None:
        self._make = make
        self._engine: Engine

    async def start(self) -> None:
        """Load and warm."""
        self._engine = self._make()
        await self._engine.warm_up()

    async def warm_prefix(self, request: Request, salt: str) -> None:
        """One short other item after the same prefix."""
        await self._engine.score(request.prefix, [request.suffixes[0][:1]], Deadline.never(), scope=salt)

    async def score(self, request: Request, salt: str) -> np.ndarray:
        """Through the port."""
        scores = await self._engine.score(request.prefix, request.suffixes, Deadline.never(), scope=salt)
        return np.exp(scores.logprobs)

    async def stop(self) -> None:
        """Close."""
        await self._engine.close()


class Offline:
    """vLLM's LLM: prompts as ids, one token, labels by id, prefix caching on."""

    def __init__(self, checkpoint: Path, labels: list[int], dtype: str, *, compiled: bool) -> None:
        self._arguments = {
            "model": str(checkpoint),
            "dtype": dtype,
            "enforce_eager": not compiled,
            "block_size": BLOCK,
            "enable_prefix_caching": True,
            "kv_cache_memory_bytes": CACHE_BYTES,
            "generation_config": "vllm",
            "disable_log_stats": True,
        }
        self._labels = labels

    async def start(self) -> None:
        """Load and compile."""
        from vllm import LLM, SamplingParams

        self._llm = LLM(**self._arguments)
        self._params = SamplingParams(max_tokens=1, temperature=0, logprob_token_ids=self._labels, detokenize=False)

    async def warm_prefix(self, request: Request, salt: str) -> None:
        """One short other item after the same prefix."""
        self._generate([[*request.prefix, request.suffixes[0][0]]], salt)

    async def score(self, request: Request, salt: str) -> np.ndarray:
        """One blocking call."""
        found = [
            [output.outputs[0].logprobs[0][label].logprob for label in self._labels]
            for output in self._generate(request.prompts, salt)
        ]
        return _softmax(np.array(found))

    def _generate(self, prompts: list[list[int]], salt: str) -> list[Any]:
        inputs = [{"prompt_token_ids": prompt, "cache_salt": salt} for prompt in prompts]
        outputs: list[Any] = self._llm.generate(inputs, self._params, use_tqdm=False)
        return outputs

    async def stop(self) -> None:
        """Processes end with this one."""


class Http:
    """vLLM's own server, asked through its route for this job, /generative_scoring."""

    def __init__(self, checkpoint: Path, labels: list[int], dtype: str, *, compiled: bool) -> None:
        self._checkpoint, self._labels, self._dtype = checkpoint, labels, dtype
        self._compiled = compiled
        self.url = ""

    async def start(self) -> None:
        """`vllm serve`, then a warm connection."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        # The CPU build's `vllm serve` fails for want of its own package metadata; this is what it starts.
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(self._checkpoint)]
        command += ["--served-model-name", "judge", "--host", "127.0.0.1", "--port", str(port)]
        command += ["--dtype", self._dtype, "--block-size", str(BLOCK), "--kv-cache-memory-bytes", str(CACHE_BYTES)]
        command += ["--generation-config", "vllm", "--scheduling-policy", "priority", "--disable-uvicorn-access-log"]
        command += [] if self._compiled else ["--enforce-eager"]
        self._process = await asyncio.create_subprocess_exec(*command)
        self.url = f"http://127.0.0.1:{port}"
        self._client = httpx.AsyncClient(timeout=PATIENT)
        while True:
            try:
                if (await self._client.get(f"{self.url}/health")).is_success:
                    break
            except httpx.TransportError:
                if self._process.returncode is not None:
                    raise
            await asyncio.sleep(0.5)

    async def warm_prefix(self, request: Request, salt: str) -> None:
        """One short other item after the same prefix."""
        await self._post(request.prefix, [request.suffixes[0][:1]], salt)

    async def score(self, request: Request, salt: str) -> np.ndarray:
        """All items in one call. The route returns the first label's probability alone."""
        found = await self._post(request.prefix, list(request.suffixes), salt)
        return np.array([[item["score"]] for item in found["data"]])

    async def _post(self, query: tuple[int, ...], items: list[tuple[int, ...]], salt: str) -> Any:
        body = {"model": "judge", "query": query, "items": items, "label_token_ids": self._labels, "cache_salt": salt}
        response = await self._client.post(f"{self.url}/generative_scoring", json=body)
        response.raise_for_status()
        return response.json()

    async def stop(self) -> None:
        """End the server."""
        await self._client.aclose()
        self._process.terminate()
        await self._process.wait()


class Transformers:
    """One padded batch per request; hidden states at each last token times the label rows of the head."""

    def __init__(self, checkpoint: Path, labels: list[int], dtype: str) -> None:
        self._checkpoint, self._labels, self._dtype = checkpoint, labels, dtype

    async def start(self) -> None:
        """Load."""
        import torch
        from transformers import AutoModelForCausalLM

        self._torch = torch
        model = AutoModelForCausalLM.from_pretrained(self._checkpoint, dtype=getattr(torch, self._dtype)).eval()
        self._body, self._rows = model.model, model.get_output_embeddings().weight[self._labels]

    async def warm_prefix(self, request: Request, salt: str) -> None:
        """Nothing is kept."""

    async def score(self, request: Request, salt: str) -> np.ndarray:
        """Padded on the right: a causal model's answer does not see it."""
        del salt
        torch = self._torch
        prompts = request.prompts
        longest = max(map(len, prompts))
        ids = torch.zeros(len(prompts), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for n, prompt in enumerate(prompts):
            ids[n, : len(prompt)] = torch.tensor(prompt)
            mask[n, : len(prompt)] = 1
        with torch.inference_mode():
            hidden = self._body(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            last = hidden[torch.arange(len(prompts)), mask.sum(1) - 1]
            logits = (last @ self._rows.T).float()
        found: np.ndarray = torch.softmax(logits, -1).numpy()
        return found

    async def stop(self) -> None:
        """Nothing to end."""


class CrossEncoder:
    """Six BERT layers of the judge's width, as all-MiniLM-based rerankers have, reading query and item as text."""

    def __init__(self, checkpoint: Path, dtype: str) -> None:
        self._checkpoint, self._dtype = checkpoint, dtype

    async def start(self) -> None:
        """Write the shape with random weights, load it as any user's model."""
        import torch
        from sentence_transformers import CrossEncoder as Encoder
        from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

        config = json.loads((self._checkpoint / "config.json").read_text())
        shape = BertConfig(
            vocab_size=config["vocab_size"],
            hidden_size=config["hidden_size"],
            num_hidden_layers=config["num_hidden_layers"] - 1,
            num_attention_heads=config["num_attention_heads"],
            intermediate_size=config["ffn_dim"],
            num_labels=1,
        )
        self._folder = tempfile.TemporaryDirectory()
        BertForSequenceClassification(shape).save_pretrained(self._folder.name)
        marks = {"pad_token": "[PAD]", "sep_token": "[SEP]", "cls_token": "[CLS]", "unk_token": "[UNK]"}
        PreTrainedTokenizerFast(tokenizer_file=str(self._checkpoint / "tokenizer.json"), **marks).save_pretrained(
            self._folder.name
        )
        self._model = Encoder(
            self._folder.name, max_length=320, model_kwargs={"dtype": getattr(torch, self._dtype)}, device="cpu"
        )

    async def warm_prefix(self, request: Request, salt: str) -> None:
        """Nothing is kept."""

    async def score(self, request: Request, salt: str) -> np.ndarray:
        """Tokenizing included, as it is part of `predict`."""
        del salt
        pairs = [(request.query, text) for text in request.texts]
        found = self._model.predict(pairs, batch_size=32, show_progress_bar=False)
        return np.asarray(found, dtype=np.float32)[:, None]

    async def stop(self) -> None:
        """Remove the folder."""
        self._folder.cleanup()


def _softmax(values: np.ndarray) -> np.ndarray:
    shifted = np.exp(values - values.max(axis=1, keepdims=True))
    result: np.ndarray = shifted / shifted.sum(axis=1, keepdims=True)
    return result


def make(name: str, checkpoint: Path, dtype: str, *, compiled: bool, url: str) -> Peer:
    """A peer by its name."""
    manifest = load_manifest(checkpoint)
    labels = list(manifest.label_token_ids)
    made: Peer
    match name:
        case "onnx-int8" | "onnx-float32":
            from models.engines.onnx import OnnxEngine

            precision: Literal["int8", "float32"] = "int8" if name == "onnx-int8" else "float32"
            made = OurEngine(lambda: OnnxEngine.load(checkpoint, manifest, precision=precision))
        case "vllm":
            from models.engines.vllm import VllmEngine
            from models.engines.vllm.arguments import Options
            from models.engines.vllm.process import Watch

            options = Options(dtype=dtype, compiled=compiled, cache_bytes=CACHE_BYTES)
            watch = Watch(beat=NEVER, hang=NEVER, replace=NEVER)
            made = OurEngine(lambda: VllmEngine.load(checkpoint, manifest, options, watch=watch))
        case "vllm-offline":
            made = Offline(checkpoint, labels, dtype, compiled=compiled)
        case "vllm-http":
            made = Http(checkpoint, labels, dtype, compiled=compiled)
        case "vllm-server":
            from models.engines.vllm_server import VllmServerEngine
            from models.engines.vllm_server.pool import PoolOptions

            pool = PoolOptions(probe_every=NEVER, probe_timeout=PATIENT, compare_timeout=PATIENT)
            made = OurEngine(lambda: VllmServerEngine([url], manifest, folder=checkpoint, options=pool))
        case "transformers":
            made = Transformers(checkpoint, labels, dtype)
        case "cross-encoder":
            made = CrossEncoder(checkpoint, dtype)
        case _:
            raise SystemExit(f"no peer {name}")
    return made


def main() -> None:
    """Start one peer and measure what the parent asks for: bench/engine_turns.py."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--eager", action="store_true")
    parser.add_argument("--url", default="", help="of the server that vllm-server asks")
    chosen = parser.parse_args()
    peer = make(chosen.peer, chosen.checkpoint, chosen.dtype, compiled=not chosen.eager, url=chosen.url)
    asyncio.run(serve(peer, chosen.checkpoint, reply_channel()))


if __name__ == "__main__":
    main()
