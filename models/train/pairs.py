"""Training groups: a query, its candidate items, a soft tier target for each, rule verdicts, and sometimes a chunk.

Candidates are what a retriever would bring: neighbours by meaning (near and not so near), items that share the rarest
word, products that the rules find instructive (a match, an accessory, a wrong brand), and a stranger.
"""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from models.train import rules
from models.train.queries import words
from models.train.teacher import OrdinalMap, SentenceEncoder, WordIndex, fit_ordinal, whole_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from models.catalogue import Product
    from models.train.queries import Query
    from models.train.rules import Judgement

ITEMS: Final = 8  # candidates of a query
TIERS: Final = 4
# Weight of word overlap beside the cosine. Generated queries share words with their titles by construction, so a fit
# would overstate it; this much orders near ties (a model number) and no more.
LEXICAL: Final = 0.12
RULE_SHARE: Final = 0.65  # weight of the rules beside the encoder where they judge
_RULE_SMOOTHING: Final = 0.06  # the rules err too: mass spread over the neighbouring tiers
_NEAR, _FAR = 24, 300  # ranks by cosine
_BLOCK: Final = 256


@dataclass(frozen=True, slots=True)
class Card:
    """A knowledge card: its text, the products it speaks of, and the words that call for it."""

    text: str
    kind: str
    products: frozenset[int]
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fact:
    """An attribute that no item of a group shows.

    Attributes:
        name: of the attribute.
        chunk: what is read instead; empty for nothing.
        subjects: numbers of the products among the items whose value the chunk tells.
        claim: the tier that the one value it states would give, to whoever takes it for their own.
    """

    name: str
    chunk: str = ""
    subjects: tuple[int, ...] = ()
    claim: int | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """One query with its candidates.

    Attributes:
        query: the generated query.
        items: N product numbers.
        targets: float32 [N, TIERS], soft tier targets, best tier first.
        judgements: the rules' verdicts, None where they cannot tell.
        card: a card number or None.
        card_helps: whether the card is about what the query asks for.
        fact: what is withheld from the items, in groups that ask for what only a chunk can tell (facts.py).
    """

    query: Query
    items: tuple[int, ...]
    targets: NDArray[np.float32]
    judgements: tuple[Judgement | None, ...]
    card: int | None
    card_helps: bool
    fact: Fact | None = None


def rule_target(tier: int) -> NDArray[np.float32]:
    """One-hot tier, a little of it spread to the neighbours."""
    target = np.zeros(TIERS, dtype=np.float32)
    target[tier] = 1 - _RULE_SMOOTHING
    near = [t for t in (tier - 1, tier + 1) if 0 <= t < TIERS]
    for t in near:
        target[t] += _RULE_SMOOTHING / len(near)
    return target


class PairMaker:
    """Makes groups for queries over one catalogue.

    Args:
        products: with categories where they are known.
        cards: knowledge cards over the same products.
        encoder: the sentence encoder.
        progress: called with (what, done, total).
        folder: keeps the items' vectors for the next start.
    """

    def __init__(
        self,
        products: Sequence[Product],
        cards: Sequence[Card],
        encoder: SentenceEncoder,
        progress: Callable[[str, int, int], None],
        folder: Path,
    ) -> None:
        self.products = products
        self.cards = cards
        self.words = WordIndex(products)
        self._encoder = encoder
        self._progress = progress
        self._titles = self._kept(folder, "titles", [p.title for p in products])
        self._texts = self._kept(folder, "items", [whole_text(p) for p in products])
        self.ordinal: OrdinalMap | None = None
        self._fits: dict[int, set[str]] = defaultdict(set)
        for card in cards:
            if card.kind == "fits":
                for n in card.products:
                    self._fits[n].update(card.keys)
        self._cards_of: dict[int, list[int]] = defaultdict(list)
        self._card_words: dict[str, list[int]] = defaultdict(list)
        for c, card in enumerate(cards):
            for n in card.products:
                self._cards_of[n].append(c)
            for word in sorted({w for key in card.keys for w in words(key)}):
                self._card_words[word].append(c)
        self._by_category: dict[str, list[int]] = defaultdict(list)
        for n, product in enumerate(products):
            self._by_category[product.category].append(n)

    def _kept(self, folder: Path, what: str, texts: Sequence[str]) -> NDArray[np.float32]:
        digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]
        path = folder / f"{what}-{digest}.npy"
        if path.exists():
            kept: NDArray[np.float32] = np.load(path)
            return kept
        vectors = self._encode(f"encode {what}", texts)
        np.save(path, vectors)
        return vectors

    def _encode(self, what: str, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.zeros((len(texts), 384), dtype=np.float32)
        done = 0
        for rows, found in self._encoder.encode(texts):
            vectors[rows] = found
            done += len(rows)
            self._progress(what, done, len(texts))
        return vectors

    def make(self, queries: Sequence[Query], seed: int) -> list[Group]:
        """Groups for queries, in order. The first call fits the map from evidence to tiers."""
        rng = random.Random(seed)
        vectors = self._encode("encode queries", [q.text for q in queries])
        drafts: list[tuple[tuple[int, ...], NDArray[np.float32], tuple[Judgement | None, ...]]] = []
        for start in range(0, len(queries), _BLOCK):
            block = vectors[start : start + _BLOCK]
            titles, texts = block @ self._titles.T, block @ self._texts.T
            far = min(_FAR, len(self.products) - 1)
            near = np.argpartition(-(titles + texts), far, axis=1)[:, :far]
            for row, query in enumerate(queries[start : start + _BLOCK]):
                both = titles[row] + texts[row]
                ranked = near[row][np.argsort(-both[near[row]])]
                items = self._candidates(query, ranked, rng)
                evidence = self._evidence(query, items, titles[row], texts[row])
                judged = tuple(rules.judge(query, self.products[n], self._fits[n]) for n in items)
                drafts.append((items, evidence, judged))
            self._progress("choose items", min(start + _BLOCK, len(queries)), len(queries))
        if self.ordinal is None:
            self.ordinal = self._fit(drafts)
        return [
            Group(query, items, self._targets(evidence, judged), judged, *self._card(query, items, judged, rng))
            for query, (items, evidence, judged) in zip(queries, drafts, strict=True)
        ]

    def _candidates(self, query: Query, ranked: NDArray[np.int64], rng: random.Random) -> tuple[int, ...]:
        chosen: dict[int, None] = {}

        def add(pool: Sequence[int] | NDArray[np.int64], count: int) -> None:
            fresh = [int(n) for n in pool if int(n) not in chosen]
            chosen.update(dict.fromkeys(rng.sample(fresh, min(count, len(fresh)))))

        add(ranked[:_NEAR], 2)
        if query.categories:
            matching = [n for c in sorted(query.categories) for n in self._by_category.get(c, ())]
            add(matching, 1)
            if query.brand or query.values or query.device:
                exact = [
                    n
                    for n in rng.sample(matching, min(60, len(matching)))
                    if (j := rules.judge(query, self.products[n], self._fits[n])) and j.tier == rules.EXCELLENT
                ]
                add(exact, 1)
        add(self.words.holders(query.text), 2)
        add(ranked[_NEAR:], 1)
        add([rng.randrange(len(self.products))], 1)
        add(ranked[: 3 * _NEAR], ITEMS - len(chosen))
        return tuple(chosen)[:ITEMS]

    def _evidence(
        self, query: Query, items: Sequence[int], titles: NDArray[np.float32], texts: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        weights = self.words.weights(query.text)
        covered = np.array([self.words.coverage(weights, self.words.texts[n]) for n in items])
        rows = list(items)
        cosine = (titles[rows] + texts[rows]) / 2
        evidence: NDArray[np.float32] = (cosine + LEXICAL * covered).astype(np.float32)
        return evidence

    def _fit(
        self, drafts: Sequence[tuple[tuple[int, ...], NDArray[np.float32], tuple[Judgement | None, ...]]]
    ) -> OrdinalMap:
        known = [(f[i], j.tier) for _, f, judged in drafts for i, j in enumerate(judged) if j is not None]
        return fit_ordinal(np.array([f for f, _ in known]), np.array([t for _, t in known]), TIERS)

    def _targets(self, evidence: NDArray[np.float32], judged: Sequence[Judgement | None]) -> NDArray[np.float32]:
        assert self.ordinal is not None  # noqa: S101 - make() has fitted it
        targets = self.ordinal.probabilities(evidence)
        for i, judgement in enumerate(judged):
            if judgement is not None:
                targets[i] = RULE_SHARE * rule_target(judgement.tier) + (1 - RULE_SHARE) * targets[i]
        return targets

    def _card(
        self, query: Query, items: Sequence[int], judged: Sequence[Judgement | None], rng: random.Random
    ) -> tuple[int | None, bool]:
        """A card for a third of the groups: helpful, nearly right (shares a word), or any."""
        draw = rng.random()
        if not self.cards or draw > (0.8 if query.device else 0.36):
            return None, False
        matches = [n for n, j in zip(items, judged, strict=True) if j is not None and j.tier == rules.EXCELLENT]
        helpful = [c for n in matches for c in self._cards_of[n] if self._about(self.cards[c], query)]
        if helpful and draw < (0.7 if query.device else 0.24):
            return rng.choice(helpful), True
        near = [c for w in words(query.text) for c in self._card_words.get(w, ())[:50] if c not in helpful]
        if near and rng.random() < 0.6:
            return rng.choice(near), False
        other = rng.randrange(len(self.cards))
        return (other, False) if other not in helpful else (other, True)

    @staticmethod
    def _about(card: Card, query: Query) -> bool:
        if query.device:
            return query.device in card.keys
        asked = set(words(query.text))
        return any(set(words(key)) <= asked for key in card.keys if key)
