"""Pairs whose answer is known: what an engine must say about them before it may serve. Pure, but for asking the engine.

A tier shows a wrong model, template or label. The float32 reference's probabilities, recorded when the checkpoint was
made, also show weights that were quantised too coarsely or belong to another training run with the same tiers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from models.deadline import Deadline
from models.engines.port import ItemStatus
from models.errors import EngineError
from models.prompt import Item
from models.tiers import judge, softmax

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from models.engines.port import Engine
    from models.manifest import Canary, Manifest
    from models.prompt import PromptWriter

# Twice the p99 that int8 and bf16 engines are held to over a thousand pairs: canaries are few and chosen to be clear.
TOLERANCE: Final = 0.1


def canary_prompts(manifest: Manifest, writer: PromptWriter) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Prefix and suffix ids of each canary, in the manifest's order."""
    prompts = []
    for canary in manifest.canaries:
        prompt = writer.write(canary.query, canary.chunk, [Item(**canary.item.model_dump())])
        prompts.append((prompt.prefix.ids, prompt.suffixes[0].ids))
    return prompts


def canary_problems(manifest: Manifest, logprobs: NDArray[np.float32], *, tolerance: float = TOLERANCE) -> list[str]:
    """One sentence for each canary that does not come out as the manifest says.

    Args:
        manifest: with N canaries and K tiers.
        logprobs: float32 [N, K], label log-probabilities of the canaries in the manifest's order.
        tolerance: how far a probability may lie from its recorded value.
    """
    if not manifest.canaries:
        return []
    judged = judge(logprobs, beta=manifest.beta, temperature=manifest.temperature)
    raw = softmax(logprobs)
    problems = []
    for canary, tier, found in zip(manifest.canaries, judged.tiers, raw, strict=True):
        pair = f"canary {canary.query!r} x {canary.item.title!r}"
        if not np.isfinite(found).all():
            problems.append(f"{pair}: no answer")
            continue
        name = manifest.tiers[tier].name
        if name != canary.tier:
            problems.append(f"{pair}: expected {canary.tier}, scored {name}")
        elif canary.probabilities and (far := _farthest(canary, found)) > tolerance:
            problems.append(
                f"{pair}: probabilities {_listed(found)}, recorded {_listed(canary.probabilities)}: "
                f"{far:.3f} apart, {tolerance} allowed; other weights or a coarser quantisation?"
            )
    return problems


async def recorded(manifest: Manifest, writer: PromptWriter, reference: Engine) -> Manifest:
    """The manifest with each canary's probabilities as the reference engine (float32) gives them.

    Raises:
        EngineError: the reference gave no answer.
    """
    canaries = []
    for canary, (prefix, suffix) in zip(manifest.canaries, canary_prompts(manifest, writer), strict=True):
        scores = await reference.score(prefix, [suffix], Deadline.never())
        if scores.status[0] is not ItemStatus.OK:
            raise EngineError(f"no answer to canary {canary.query!r} x {canary.item.title!r}")
        values = tuple(round(float(p), 6) for p in softmax(scores.logprobs)[0])
        canaries.append(canary.model_copy(update={"probabilities": values}))
    return manifest.model_copy(update={"canaries": tuple(canaries)})


def _farthest(canary: Canary, found: NDArray[np.float32]) -> float:
    return float(np.abs(np.asarray(canary.probabilities, dtype=np.float32) - found).max())


def _listed(values: Sequence[float] | NDArray[np.float32]) -> str:
    return "[" + ", ".join(f"{value:.3f}" for value in values) + "]"
