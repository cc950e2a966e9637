"""Label probabilities straight from a transformers model: figures, pools, teachers, recorded canaries."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from models.engines.port import EngineHealth, ItemStatus, Scores

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from numpy.typing import NDArray

    from models.deadline import Deadline

_BATCH: Final = 32


@torch.inference_mode()
def label_logprobs(
    model: Any, prompts: Sequence[Sequence[int]], labels: Sequence[int], pad: int
) -> NDArray[np.float32]:
    """Log-softmax over the label tokens at the answer position: float32 [N, K], in the order of the prompts.

    Prompts are batched by length and padded on the left, so that the last position is always the answer's.
    """
    found = np.zeros((len(prompts), len(labels)), dtype=np.float32)
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    rows = torch.tensor(list(labels), device=device)
    order = sorted(range(len(prompts)), key=lambda n: len(prompts[n]))
    for start in range(0, len(order), _BATCH):
        part = order[start : start + _BATCH]
        ids, mask = left_padded([prompts[n] for n in part], pad)
        logits = model(
            input_ids=ids.to(device), attention_mask=mask.to(device), logits_to_keep=1, use_cache=False
        ).logits[:, -1]
        found[part] = torch.log_softmax(logits[:, rows].float(), dim=-1).cpu().numpy()
    model.train(was_training)
    return found


def left_padded(sequences: Sequence[Sequence[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and attention mask, int64 [B, L], real tokens at the right."""
    longest = max(map(len, sequences))
    ids = torch.full((len(sequences), longest), pad)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, longest - len(sequence) :] = torch.tensor(sequence)
        mask[row, longest - len(sequence) :] = 1
    return ids, mask


class ReferenceEngine:
    """A checkpoint in float32 behind the engine port, as slow and as plain as it gets: what canaries are recorded with.

    For architectures that the embedded engine does not know.
    """

    name = "transformers-float32"

    def __init__(self, model: Any, labels: Sequence[int], pad: int, ends: Sequence[int]) -> None:
        self._model, self._labels, self._pad, self._ends = model, tuple(labels), pad, tuple(ends)
        self._steps = 0

    async def score(
        self, prefix: Sequence[int], suffixes: Sequence[Sequence[int]], deadline: Deadline, *, scope: str = ""
    ) -> Scores:
        """See the port."""
        del deadline, scope
        prompts = [[*prefix, *suffix] for suffix in suffixes]
        found = await asyncio.to_thread(label_logprobs, self._model, prompts, self._labels, self._pad)
        self._steps += 1
        return Scores(found, (ItemStatus.OK,) * len(suffixes))

    async def explain(
        self,
        prefix: Sequence[int],
        suffix: Sequence[int],
        deadline: Deadline,
        *,
        label: int,
        max_tokens: int,
        scope: str = "",
    ) -> AsyncIterator[int]:
        """See the port."""
        del deadline, scope
        ids = torch.tensor([[*prefix, *suffix, label]])
        out = await asyncio.to_thread(
            self._model.generate,
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=max_tokens,
            do_sample=False,
            pad_token_id=self._pad,
            eos_token_id=list(self._ends),
        )
        for token in out[0, ids.shape[1] :].tolist():
            if token in self._ends:
                return
            yield token

    async def warm_up(self) -> None:
        """Nothing to build."""

    def health(self) -> EngineHealth:
        """Alive while the process is."""
        return EngineHealth(alive=True, detail="idle", queued_tokens=0, steps=self._steps)

    async def close(self) -> None:
        """Nothing to release."""
