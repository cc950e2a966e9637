"""The in-process engine on a GPU, under load: `bench/engines.py --gpu MODEL`.

MODEL is a Hugging Face name or folder, or `0.6b` for Qwen3-0.6B's shape with dummy weights (speed alone). Items of
300 tokens, 120 of them the prefix that ten items share, arrive as requests at a fixed rate; the highest rate whose p99
stays below 500 ms is the answer. Public references, both with a 0.6B model: 1,200 items/s per H100 for SGLang's
multi-item scoring (pull request 10979, the same 120 + 180 tokens), 2,200 for LinkedIn's tuned stack.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.deadline import Deadline
from models.engines.port import ItemStatus
from models.manifest import Manifest, PromptTemplate, RationaleMarkers, Segment, Tier

if TYPE_CHECKING:
    from models.engines.vllm import VllmEngine

ITEMS, PREFIX, SUFFIX = 10, 120, 180
BOUND_MS = 500.0
SECONDS = 10.0
RATES = (10, 20, 40, 60, 80, 100, 120, 140, 160, 180, 200, 220, 240, 260, 280, 300, 350, 400)  # requests/s
SHAPES: dict[str, dict[str, Any]] = {
    "0.6b": {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "attention_bias": False,
        "dtype": "bfloat16",
        "bos_token_id": 151643,
        "eos_token_id": 151645,
    }
}
SHAPES["tiny"] = SHAPES["0.6b"] | {
    "num_hidden_layers": 2,
    "hidden_size": 128,
    "intermediate_size": 256,
    "vocab_size": 999,
}


def manifest() -> Manifest:
    """Four labels of any vocabulary; no text is written here."""
    prompt = PromptTemplate(
        prefix=(Segment(field="query"),),
        suffix=(Segment(field="title"), Segment(text="?")),
        budgets={"query": 1, "title": 1},
    )
    tiers = [{"name": f"tier {n}", "label": str(n), "token_id": 15 + n, "band": "Mid"} for n in range(4)]
    return Manifest(
        name="gpu",
        tiers=tuple(Tier.model_validate(tier) for tier in tiers),
        prompt=prompt,
        prompt_hash=prompt.hash,
        max_tokens=PREFIX + SUFFIX,
        beta=0.5,
        rationale=RationaleMarkers(category="", attributes="", context="", reason="", end_token_id=1),
        files={},
    )


def engine(model: str, folder: Path) -> VllmEngine:
    """The engine on a named model, a folder, or a shape with dummy weights."""
    from models.engines.vllm import VllmEngine
    from models.engines.vllm.arguments import Options

    more: dict[str, Any] = {"max_num_batched_tokens": 16_384, "max_model_len": 1024}
    if model in SHAPES:
        (folder / "config.json").write_text(json.dumps(SHAPES[model]))
        more |= {"load_format": "dummy", "skip_tokenizer_init": True}
        path = folder
    elif Path(model).is_dir():
        path = Path(model)
    else:
        from huggingface_hub import snapshot_download

        path = Path(snapshot_download(model))
    return VllmEngine.load(path, manifest(), Options(more=more))


async def at_rate(judge: VllmEngine, rate: float, vocabulary: int) -> dict[str, float]:
    """Requests at a fixed rate, whatever the answers take (an open model: no rate is saved by waiting)."""
    rng = np.random.default_rng(int(rate))
    taken: list[float] = []

    async def one(prefix: list[int], suffixes: list[list[int]]) -> None:
        started = time.perf_counter()
        scores = await judge.score(prefix, suffixes, Deadline.after(10 * BOUND_MS))
        good = all(status is ItemStatus.OK for status in scores.status)
        taken.append(1000 * (time.perf_counter() - started) if good else float("inf"))

    began = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for n in range(int(rate * SECONDS)):
            await asyncio.sleep(max(0.0, began + n / rate - time.perf_counter()))
            ids = rng.integers(100, vocabulary, (ITEMS, SUFFIX)).tolist()
            tasks.create_task(one(rng.integers(100, vocabulary, PREFIX).tolist(), ids))
    elapsed = time.perf_counter() - began
    p50, p99 = np.quantile(taken, [0.5, 0.99], method="higher")
    return {
        "requests_per_s": rate,
        "items_per_s": ITEMS * len(taken) / elapsed,
        "p50_ms": float(p50),
        "p99_ms": float(p99),
    }


async def sweep(model: str) -> dict[str, Any]:
    """Raise the rate until p99 passes the bound."""
    with tempfile.TemporaryDirectory() as folder:
        judge = engine(model, Path(folder))
        await judge.warm_up()
        vocabulary = SHAPES[model]["vocab_size"] if model in SHAPES else 30_000
        await at_rate(judge, RATES[0], vocabulary)  # compiles what is left to compile
        steps = []
        for rate in RATES:
            steps.append(await at_rate(judge, rate, vocabulary))
            print(json.dumps(steps[-1]), flush=True)
            if steps[-1]["p99_ms"] > BOUND_MS:
                break
        await judge.close()
    within = [step for step in steps if step["p99_ms"] <= BOUND_MS]
    return {
        "model": model,
        "items_per_request": ITEMS,
        "tokens_per_item": PREFIX + SUFFIX,
        "steps": steps,
        "items_per_s_within_bound": max((step["items_per_s"] for step in within), default=0.0),
    }


def main(model: str, out: Path | None) -> None:
    """Measure and report."""
    report = asyncio.run(sweep(model))
    print(f"{report['items_per_s_within_bound']:.0f} items/s at p99 < {BOUND_MS:.0f} ms")
    if out:
        out.write_text(json.dumps(report, indent=1) + "\n")
