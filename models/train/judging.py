"""What a decoder says of groups: the losses of a batch, and label probabilities with the chunk or without it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import torch
import torch.nn.functional as F  # noqa: N812 - the name every PyTorch reader knows

from models.rationale import ContextUse
from models.train.examples import context_use
from models.train.network import mixed_precision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.train.examples import Examples, ExampleWriter
    from models.train.network import Decoder
    from models.train.pairs import Card, Group

_BLOCK: Final = 16  # groups judged together


def losses(
    decoder: Decoder, examples: Examples, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(soft label loss, text loss, label logits [N, K]) of one batch."""
    states = decoder(examples.batch)
    with torch.autocast(states.device.type, enabled=False):
        logits = decoder.logits(states[examples.answers].float(), labels)
    label_loss = -(examples.targets * F.log_softmax(logits, dim=-1)).sum(-1).mean()
    if len(examples.text_rows) == 0:
        return label_loss, label_loss.new_zeros(()), logits
    text_logits = decoder.logits(states[examples.text_rows])
    return label_loss, F.cross_entropy(text_logits.float(), examples.text_ids), logits


class Judging:
    """A decoder that judges groups as a writer writes them.

    Args:
        decoder: is left in its mode, and takes no gradient.
        writer: of the groups' products.
        labels: int64 [K], the label tokens, best tier first; on the decoder's device.
    """

    def __init__(self, decoder: Decoder, writer: ExampleWriter, labels: torch.Tensor) -> None:
        self._decoder = decoder
        self._writer = writer
        self._labels = labels

    def __call__(self, groups: Sequence[Group], seed: int) -> tuple[torch.Tensor, float]:
        """(label probabilities [N, K] of all pairs in order, the mean loss over the groups)."""
        parts = [groups[start : start + _BLOCK] for start in range(0, len(groups), _BLOCK)]
        said, lost = zip(*(self.batch(part, seed + n) for n, part in enumerate(parts)), strict=True)
        return torch.cat(said), sum(loss * len(part) for loss, part in zip(lost, parts, strict=True)) / len(groups)

    @torch.inference_mode()
    def batch(self, groups: Sequence[Group], seed: int, *, chunks: bool = True) -> tuple[torch.Tensor, float]:
        """(label probabilities [N, K], loss) of what the writer writes with that seed as one batch."""
        examples = self._writer.write(groups, seed, rationales=False, chunks=chunks).to(self._labels.device)
        with mixed_precision(self._labels.device):
            loss, _, logits = losses(self._decoder, examples, self._labels)
        return logits.float().softmax(-1), loss.item()


class Keeping:
    """A base's answers without the chunk, as targets of every pair that the chunk tells nothing about.

    A chunk about somebody else must leave a judgement as it would be without a chunk. So that is what such a pair's
    target says, and the base, which a run goes on from, is the one who says it: what people ask for in words that no
    generated query has is not unlearned on the way ("Learning without Forgetting", 1606.09282, section 3).

    Args:
        base: says what is kept.
        cards: the side's; groups name them by number.
        share: of the base's answer in the target; the rest is the group's own target.
    """

    def __init__(self, base: Judging, cards: Sequence[Card], share: float) -> None:
        self._base = base
        self._cards = cards
        self._share = share

    def __call__(self, examples: Examples, groups: Sequence[Group], seed: int) -> Examples:
        """The same batch, written from these groups with that seed, with targets that keep the base's answers."""
        said, _ = self._base.batch(groups, seed, chunks=False)
        uses = [context_use(group, n, self._cards) for group in groups for n in group.items]
        share = self._share * torch.tensor([[use is ContextUse.IGNORE] for use in uses], device=said.device)
        return replace(examples, targets=(1 - share) * examples.targets + share * said)
