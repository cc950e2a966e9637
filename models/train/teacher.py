"""Soft targets: what a sentence encoder and word overlap think of a pair, on the tiers' scale.

The encoder is all-MiniLM-L6-v2, whose weights also start the judge; as a two-tower model it sees query and item apart,
with attention in both directions. Its cosine and the share of the query's words that the item holds (weighted by idf)
are mapped to tier probabilities by an ordinal logistic regression fitted on rule-labelled pairs, so that one number is
as strict for "usb cable" as for a model name. Where rules judge a pair too, both opinions are mixed.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name every PyTorch reader knows
from tokenizers import Tokenizer
from transformers import BertModel
from transformers.utils import logging as transformers_logging

from models.train.network import mixed_precision
from models.train.queries import words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from models.catalogue import Product

_WHOLE_TOKENS = 96


class SentenceEncoder:
    """all-MiniLM-L6-v2: mean of the token states, normalised."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(_WHOLE_TOKENS)
        self._tokenizer.enable_padding()
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        transformers_logging.set_verbosity_error()  # its report of the unused pooler is noise in a progress display
        transformers_logging.disable_progress_bar()
        self._model = BertModel.from_pretrained(str(folder), add_pooling_layer=False).to(self._device).eval()

    @torch.inference_mode()
    def encode(
        self, texts: Sequence[str], *, block: int = 256
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield (row numbers, unit vectors float32 [rows, 384]) in order of length, so that padding stays small."""
        order = np.argsort([len(t) for t in texts], kind="stable")
        for start in range(0, len(order), block):
            rows = order[start : start + block]
            encodings = self._tokenizer.encode_batch([texts[int(r)] for r in rows])
            ids = torch.tensor([e.ids for e in encodings], device=self._device)
            mask = torch.tensor([e.attention_mask for e in encodings], device=self._device)
            with mixed_precision(self._device):  # bfloat16 moves a cosine by less than 0.01
                states = self._model(ids, mask).last_hidden_state.float()  # [rows, L, 384]
            pooled = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            yield rows, F.normalize(pooled, dim=1).cpu().numpy()


def whole_text(product: Product) -> str:
    """Title, brand and description: what the encoder's second view reads."""
    return " ".join(part for part in (product.brand, product.title, product.description) if part)


class WordIndex:
    """Words of every product, their idf, and which products hold a word."""

    def __init__(self, products: Sequence[Product]) -> None:
        self.titles = [frozenset(words(p.title)) for p in products]
        self.texts = [
            title | frozenset(words(f"{p.description} {' '.join(p.attributes.values())} {p.category}"))
            for title, p in zip(self.titles, products, strict=True)
        ]
        counts = Counter(w for t in self.titles for w in t)
        self._idf = {w: math.log(1 + len(products) / n) for w, n in counts.items()}
        self._rarest = max(self._idf.values(), default=1.0)
        self._holders: dict[str, list[int]] = {}
        for n, title in enumerate(self.titles):
            for word in title:
                self._holders.setdefault(word, []).append(n)

    def weights(self, query: str) -> dict[str, float]:
        """Share of the query's meaning that each of its words carries."""
        raw = {w: self._idf.get(w, self._idf.get(w.removesuffix("s"), self._rarest)) for w in words(query)}
        total = sum(raw.values()) or 1.0
        return {w: v / total for w, v in raw.items()}

    def coverage(self, weights: dict[str, float], held: frozenset[str]) -> float:
        """Weighted share of the query's words, singular or plural, that a text holds: 0 to 1."""
        return sum(v for w, v in weights.items() if w in held or w.removesuffix("s") in held or f"{w}s" in held)

    def holders(self, query: str) -> list[int]:
        """Products whose title holds the query's rarest known word."""
        known = [self._holders[w] for w in words(query) if w in self._holders]
        return min(known, key=len, default=[])


@dataclass(frozen=True, slots=True)
class OrdinalMap:
    """P(tier at least as good as k | x) = sigmoid(slope * x - thresholds[k]); K - 1 thresholds, best tier first."""

    slope: float
    thresholds: tuple[float, ...]

    def probabilities(self, evidence: NDArray[np.float32]) -> NDArray[np.float32]:
        """Evidence [...] -> tier probabilities [..., K], best tier first."""
        at_least = 1 / (1 + np.exp(np.array(self.thresholds) - self.slope * evidence[..., None]))
        ends = (*evidence.shape, 1)
        edges = np.concatenate([np.zeros(ends), at_least, np.ones(ends)], axis=-1)
        result: NDArray[np.float32] = np.diff(edges, axis=-1).astype(np.float32)
        return result


def fit_ordinal(evidence: NDArray[np.float32], tiers: NDArray[np.int64], count: int) -> OrdinalMap:
    """Ordinal logistic regression by maximum likelihood, every tier weighted alike; the slope is kept positive."""
    x = torch.tensor(evidence)
    y = torch.tensor(tiers)
    frequency = torch.bincount(y, minlength=count).clamp(min=1).float()
    weight = (1 / frequency)[y]
    raw = torch.tensor(4.0, requires_grad=True)
    first = torch.tensor(3.0, requires_grad=True)
    steps = torch.zeros(count - 2, requires_grad=True)
    optimiser = torch.optim.LBFGS([raw, first, steps], max_iter=200, line_search_fn="strong_wolfe")

    def thresholds() -> torch.Tensor:
        return torch.cat([first[None], first - F.softplus(steps).cumsum(0)])

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        at_least = torch.sigmoid((x * F.softplus(raw))[:, None] - thresholds())
        zeros, ones = torch.zeros(len(x), 1), torch.ones(len(x), 1)
        p = torch.cat([zeros, at_least, ones], dim=1).diff(dim=1).gather(1, y[:, None])[:, 0]
        loss = -(p.clamp(min=1e-6).log() * weight).sum() / weight.sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return OrdinalMap(float(F.softplus(raw)), tuple(thresholds().tolist()))
