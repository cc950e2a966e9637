"""Answers sampled from a model, with their log-probability under it: what DPO's pairs are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from models.train.stages.reader import left_padded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True, slots=True)
class Sample:
    """One sampled answer: its ids, end token included, and its summed log-probability."""

    ids: tuple[int, ...]
    log_prob: float


@torch.inference_mode()
def sample(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    count: int,
    temperature: float,
    longest: int,
    ends: Sequence[int],
    pad: int,
    batch: int,
) -> Iterator[tuple[int, list[Sample]]]:
    """Yield (prompt number, `count` samples), prompts of similar length together.

    Args:
        model: a causal language model.
        prompts: token ids.
        count: samples of each prompt.
        temperature: of the sampling; log-probabilities are at this temperature too.
        longest: tokens of an answer.
        ends: token ids that end an answer.
        pad: padding token id.
        batch: sequences generated at once.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    order = sorted(range(len(prompts)), key=lambda n: len(prompts[n]))
    step = max(1, batch // count)
    for start in range(0, len(order), step):
        part = order[start : start + step]
        ids, mask = left_padded([prompts[n] for n in part], pad)
        out = model.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            do_sample=True,
            temperature=temperature,
            top_k=0,
            top_p=1.0,
            num_return_sequences=count,
            max_new_tokens=longest,
            eos_token_id=list(ends),
            pad_token_id=pad,
            output_logits=True,
            return_dict_in_generate=True,
        )
        answers = out.sequences[:, ids.shape[1] :].cpu()  # [part * count, T]
        logits = torch.stack(out.logits, dim=1).float().cpu() / temperature  # [part * count, T, V]
        own = torch.log_softmax(logits, -1).gather(-1, answers[..., None])[..., 0]
        for row, number in enumerate(part):
            rows = range(row * count, (row + 1) * count)
            yield number, [_cut(answers[r].tolist(), own[r].tolist(), ends) for r in rows]
    model.train(was_training)


def _cut(ids: list[int], log_probs: list[float], ends: Sequence[int]) -> Sample:
    """Up to the first end token, that one included."""
    stop = next((at for at, token in enumerate(ids) if token in ends), len(ids) - 1) + 1
    return Sample(tuple(ids[:stop]), sum(log_probs[:stop]))
