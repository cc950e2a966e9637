"""The embedded engine behind vLLM's dialect: a remote engine to be killed and stopped, whose answers are real.

`python -m tests.chaos.completions_server PORT CACHE_DIR`. vLLM itself runs in an environment of its own; the engine's
tests there hold the dialect to it.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from models.deadline import Deadline
from models.engines.onnx import OnnxEngine
from models.manifest import SHIPPED, load_manifest

if TYPE_CHECKING:
    from starlette.requests import Request


def create_server(cache_dir: Path) -> Starlette:
    """The app around the shipped checkpoint."""
    manifest = load_manifest(SHIPPED)
    engine = OnnxEngine.load(SHIPPED, manifest, threads=1, cache_dir=cache_dir)

    async def models(_: Request) -> JSONResponse:
        return JSONResponse({"data": [{"id": "judge", "max_model_len": 4 * manifest.max_tokens}]})

    async def completions(request: Request) -> JSONResponse:
        body = await request.json()
        prompts, labels = body["prompt"], body["logprob_token_ids"]
        assert tuple(labels) == tuple(manifest.label_token_ids)
        scoring = asyncio.create_task(engine.score((), prompts, Deadline.never()))
        while not scoring.done():
            await asyncio.wait({scoring}, timeout=0.05)
            if await request.is_disconnected():  # as vLLM does: nobody waits for this any more
                scoring.cancel()
                return JSONResponse({})
        scores = scoring.result()
        read = [{f"token_id:{k}": float(v) for k, v in zip(labels, row, strict=True)} for row in scores.logprobs]
        choices = [{"index": n, "logprobs": {"top_logprobs": [each]}} for n, each in enumerate(read)]
        return JSONResponse({"choices": choices, "usage": {"prompt_tokens": sum(map(len, prompts))}})

    return Starlette(routes=[Route("/v1/models", models), Route("/v1/completions", completions, methods=["POST"])])


if __name__ == "__main__":
    uvicorn.run(create_server(Path(sys.argv[2])), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
