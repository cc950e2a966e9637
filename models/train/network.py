"""The shipped judge as a PyTorch module: OPT's post-layer-norm decoder, with the serving path's shared prefix.

A batch is Q prefixes and N suffixes, each suffix continuing one of the prefixes. Prefix keys and values are computed
once and attended to by all of its suffixes, exactly as the engines do, which is what makes a 128-token chunk affordable
in training. Tokens of all sequences are packed into one [T, D] matrix for everything but attention, so padding costs
nothing where the arithmetic is.

The module knows nothing about text, queries or tiers: only ids. `tests/models/train/test_network.py` compares it with
transformers' OPTForCausalLM on unshared sequences.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
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
class Block:
    """Suffixes of one prefix whose lengths are close, attended together.

    Attributes:
        prefix: packed rows [start, end) of their prefix.
        rows: int64 [n * L], packed row of each padded slot; padding repeats row 0, which nothing real ever reads.
        mask: bool [L, P + L], True may attend; causal over the suffix, everything of the prefix.
    """

    prefix: tuple[int, int]
    rows: Tensor
    mask: Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """Packed ids of Q prefixes, then N suffixes in the order of their blocks.

    Attributes:
        ids: int64 [T].
        positions: int64 [T]; a suffix goes on counting where its prefix ends.
        prefixes: packed rows [start, end) of each prefix.
        blocks: the suffixes.
        kept: int64 [Ts], which of all blocks' slots hold a token, in packed order.
        suffix_starts: int64 [N], packed row of each suffix's first token, in the caller's order.
    """

    ids: Tensor
    positions: Tensor
    prefixes: tuple[tuple[int, int], ...]
    blocks: tuple[Block, ...]
    kept: Tensor
    suffix_starts: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        blocks = tuple(Block(b.prefix, b.rows.to(device), b.mask.to(device)) for b in self.blocks)
        ids, positions, kept, starts = (t.to(device) for t in (self.ids, self.positions, self.kept, self.suffix_starts))
        return Batch(ids, positions, self.prefixes, blocks, kept, starts)


def collate(
    prefixes: Sequence[Sequence[int]], suffixes: Sequence[Sequence[int]], owner: Sequence[int], *, block: int = 4
) -> Batch:
    """Q prefixes and N suffixes with their owners -> one packed batch, at most `block` suffixes attended together."""
    ids = [token for prefix in prefixes for token in prefix]
    positions = [p for prefix in prefixes for p in range(len(prefix))]
    ends = torch.tensor([0, *(len(p) for p in prefixes)]).cumsum(0).tolist()
    spans = tuple(pairwise(ends))
    order = sorted(range(len(suffixes)), key=lambda n: (owner[n], len(suffixes[n])))
    starts = [0] * len(suffixes)
    blocks = []
    at = 0
    while at < len(order):
        who = owner[order[at]]
        members = [n for n in order[at : at + block] if owner[n] == who]
        at += len(members)
        before = spans[who][1] - spans[who][0]
        longest = max(len(suffixes[n]) for n in members)
        rows = torch.zeros(len(members), longest, dtype=torch.int64)
        for row, n in enumerate(members):
            starts[n] = len(ids)
            rows[row, : len(suffixes[n])] = torch.arange(len(ids), len(ids) + len(suffixes[n]))
            ids += suffixes[n]
            positions += range(before, before + len(suffixes[n]))
        mask = torch.ones(longest, before + longest, dtype=torch.bool).tril(before)
        blocks.append(Block(spans[who], rows.flatten(), mask))
    kept = torch.cat([b.rows for b in blocks]).nonzero().flatten()
    return Batch(torch.tensor(ids), torch.tensor(positions), spans, tuple(blocks), kept, torch.tensor(starts))


def mixed_precision(device: torch.device) -> torch.autocast:
    """A context whose matrix products are in bfloat16, or in float32 on a CPU that would emulate it."""
    known = torch.cpu.get_capabilities() if device.type == "cpu" else {"avx512_bf16": True}
    native = any(known.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=native)


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
        qkv = self.qkv(x).float()
        # PyTorch's attention on the CPU is several times slower in bfloat16 than in float32, backward above all.
        with torch.autocast(x.device.type, enabled=False):
            attended = self._attend(qkv, batch)
        x = self.attention_norm(x + self.out(attended))
        normed: Tensor = self.output_norm(x + self.down(F.gelu(self.up(x))))
        return normed

    def _attend(self, qkv: Tensor, batch: Batch) -> Tensor:
        """Packed [T, 3 * D] -> packed [T, D]. One gather and one split each way: many would each sum full gradients."""
        lengths = [end - start for start, end in batch.prefixes]
        known: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        parts = []
        for span, rows in zip(batch.prefixes, torch.split(qkv[: sum(lengths)], lengths), strict=True):
            q, k, v = self._heads(rows, 1)  # each [1, H, P, d]
            known[span] = k, v
            parts.append(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)[0])
        padded = qkv.index_select(0, torch.cat([block.rows for block in batch.blocks]))
        slots = []
        for block, rows in zip(batch.blocks, torch.split(padded, [len(b.rows) for b in batch.blocks]), strict=True):
            n = len(block.rows) // len(block.mask)
            q, k, v = self._heads(rows, n)  # each [n, H, L, d]
            prefix_k, prefix_v = known[block.prefix]
            k = torch.cat([prefix_k.expand(n, -1, -1, -1), k], dim=2)
            v = torch.cat([prefix_v.expand(n, -1, -1, -1), v], dim=2)
            found = F.scaled_dot_product_attention(q, k, v, attn_mask=block.mask)
            slots.append(found.transpose(1, 2).reshape(len(block.rows), -1))
        return torch.cat([*parts, torch.cat(slots).index_select(0, batch.kept)])

    def _heads(self, qkv: Tensor, n: int) -> tuple[Tensor, ...]:
        """[n * L, 3 * D] -> three of [n, H, L, d]."""
        return qkv.view(n, -1, 3, self.heads, qkv.shape[1] // (3 * self.heads)).permute(2, 0, 3, 1, 4).unbind(0)


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
        x: Tensor = self.tokens(batch.ids) + self.positions(batch.positions)
        # Two norms because the checkpoint's first layer, which carries BERT's embedding norm, has two.
        x = self.embedding_norm(F.layer_norm(x, x.shape[-1:], eps=self.shape.epsilon))
        for layer in self.layers:
            x = layer(x, batch)
        return x

    def logits(self, states: Tensor, rows: Tensor | None = None) -> Tensor:
        """States [M, D] -> logits [M, V], or [M, R] for R chosen vocabulary rows."""
        table = self.tokens.weight if rows is None else self.tokens.weight[rows]
        found: Tensor = states @ table.T
        return found
