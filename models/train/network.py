"""The shipped judge as a PyTorch module: OPT's post-layer-norm decoder, with the serving path's shared prefix.

A batch is Q prefixes and N suffixes, each suffix continuing one of the prefixes. Prefix keys and values are computed once
and attended to by all of its suffixes, exactly as the engines do, which is what makes a 128-token chunk affordable in
training. Tokens of all sequences are packed into one [T, D] matrix for everything but attention, so padding costs nothing
where the arithmetic is.

The module knows nothing about text, queries or tiers: only ids. `tests/models/train/test_network.py` compares it with
transformers' OPTForCausalLM on unshared sequences.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - the name every PyTorch reader knows
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the decoder. Defaults are all-MiniLM-L6-v2's."""

    vocabulary: int = 30522
    positions: int = 512
    width: int = 384
    layers: int = 6
    heads: int = 12
    feed_forward: int = 1536
    epsilon: float = 1e-5  # OPT's, fixed in every engine


@dataclass(frozen=True, slots=True)
class Batch:
    """Packed ids of Q prefixes, then N suffixes.

    Attributes:
        ids: int64 [T], all prefixes' tokens, then all suffixes'.
        positions: int64 [T]; a suffix goes on counting where its prefix ends.
        prefix_slots: int64 [Tp], where each prefix token stands in the padded [Q * P] layout.
        suffix_slots: int64 [Ts], where each suffix token stands in the padded [N * L] layout.
        prefix_mask: bool [Q, 1, P, P], True may attend.
        suffix_mask: bool [N, 1, L, P + L], True may attend.
        owner: int64 [N], the prefix of each suffix.
        suffix_starts: int64 [N], row of each suffix's first token in the packed [T] layout.
    """

    ids: Tensor
    positions: Tensor
    prefix_slots: Tensor
    suffix_slots: Tensor
    prefix_mask: Tensor
    suffix_mask: Tensor
    owner: Tensor
    suffix_starts: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        return Batch(**{name: getattr(self, name).to(device) for name in self.__dataclass_fields__})


def collate(prefixes: Sequence[Sequence[int]], suffixes: Sequence[Sequence[int]], owner: Sequence[int]) -> Batch:
    """Q prefixes and N suffixes with their owners -> one packed batch."""
    p_lengths = torch.tensor([len(p) for p in prefixes])
    s_lengths = torch.tensor([len(s) for s in suffixes])
    own = torch.tensor(owner)
    p_max, s_max = int(p_lengths.max()), int(s_lengths.max())
    p_real = torch.arange(p_max)[None, :] < p_lengths[:, None]  # [Q, P]
    s_real = torch.arange(s_max)[None, :] < s_lengths[:, None]  # [N, L]
    causal_p = torch.ones(p_max, p_max, dtype=torch.bool).tril()
    causal_s = torch.ones(s_max, s_max, dtype=torch.bool).tril()
    suffix_mask = torch.cat(
        [p_real[own][:, None, :].expand(-1, s_max, -1), causal_s[None].expand(len(own), -1, -1)], dim=2
    )
    p_positions = torch.arange(p_max)[None, :].expand_as(p_real)[p_real]
    s_positions = (torch.arange(s_max)[None, :] + p_lengths[own][:, None])[s_real]
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), s_lengths.cumsum(0)[:-1]]) + int(p_lengths.sum())
    return Batch(
        ids=torch.tensor([t for seq in (*prefixes, *suffixes) for t in seq]),
        positions=torch.cat([p_positions, s_positions]),
        prefix_slots=p_real.flatten().nonzero().flatten(),
        suffix_slots=s_real.flatten().nonzero().flatten(),
        prefix_mask=causal_p[None, None].expand(len(prefixes), 1, -1, -1),
        suffix_mask=suffix_mask[:, None],
        owner=own,
        suffix_starts=starts,
    )


class Layer(nn.Module):
    """Attention and feed-forward, each followed by its residual and its norm (BERT's order, OPT's post-norm)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.qkv = nn.Linear(shape.width, 3 * shape.width)
        self.out = nn.Linear(shape.width, shape.width)
        self.attention_norm = nn.LayerNorm(shape.width, eps=shape.epsilon)
        self.up = nn.Linear(shape.width, shape.feed_forward)
        self.down = nn.Linear(shape.feed_forward, shape.width)
        self.output_norm = nn.LayerNorm(shape.width, eps=shape.epsilon)

    def forward(self, x: Tensor, batch: Batch) -> Tensor:
        """Packed states [T, D] -> [T, D]."""
        n_prefix = batch.prefix_slots.shape[0]
        # PyTorch's attention on the CPU is several times slower in bfloat16 than in float32, backward above all.
        qkv = self.qkv(x).float()
        prefix = self._pad(qkv[:n_prefix], batch.prefix_slots, batch.prefix_mask)  # [3, Q, H, P, d]
        suffix = self._pad(qkv[n_prefix:], batch.suffix_slots, batch.suffix_mask)  # [3, N, H, L, d]
        from_prefix = F.scaled_dot_product_attention(*prefix.unbind(0), attn_mask=batch.prefix_mask)
        keys = torch.cat([prefix[1].index_select(0, batch.owner), suffix[1]], dim=2)
        values = torch.cat([prefix[2].index_select(0, batch.owner), suffix[2]], dim=2)
        from_suffix = F.scaled_dot_product_attention(suffix[0], keys, values, attn_mask=batch.suffix_mask)
        attended = torch.cat(
            [self._pack(from_prefix, batch.prefix_slots), self._pack(from_suffix, batch.suffix_slots)], dim=0
        )
        x = self.attention_norm(x + self.out(attended))
        normed: Tensor = self.output_norm(x + self.down(F.gelu(self.up(x))))
        return normed

    def _pad(self, packed: Tensor, slots: Tensor, mask: Tensor) -> Tensor:
        """[tokens, 3 * D] -> [3, sequences, heads, length, d], zeros where there is no token."""
        sequences, length = mask.shape[0], mask.shape[2]
        padded = packed.new_zeros(sequences * length, packed.shape[1]).index_copy(0, slots, packed)
        return padded.view(sequences, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)

    @staticmethod
    def _pack(padded: Tensor, slots: Tensor) -> Tensor:
        """[sequences, heads, length, d] -> [tokens, D]."""
        return padded.transpose(1, 2).flatten(0, 1).flatten(1).index_select(0, slots)


class Decoder(nn.Module):
    """Embedding, its norm, the layers; the head is the embedding again (tied)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.tokens = nn.Embedding(shape.vocabulary, shape.width)
        self.positions = nn.Embedding(shape.positions, shape.width)
        self.embedding_norm = nn.LayerNorm(shape.width, eps=shape.epsilon)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))

    def forward(self, batch: Batch) -> Tensor:
        """Packed hidden states [T, D] of every token."""
        x = self.tokens(batch.ids) + self.positions(batch.positions)
        # Two norms because the checkpoint's first layer, which carries BERT's embedding norm, has two.
        x = self.embedding_norm(F.layer_norm(x, x.shape[-1:], eps=self.shape.epsilon))
        for layer in self.layers:
            x = layer(x, batch)
        return x

    def logits(self, states: Tensor, rows: Tensor | None = None) -> Tensor:
        """States [M, D] -> logits [M, V], or [M, R] for R chosen vocabulary rows."""
        table = self.tokens.weight if rows is None else self.tokens.weight[rows]
        return states @ table.T
