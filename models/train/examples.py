"""Groups to batches: prompts exactly as serving writes them, soft label targets, rationales on a share of the pairs."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from models.catalogue import attribute_text
from models.prompt import Item
from models.rationale import ContextUse, Rationale, render
from models.train import rules
from models.train.network import Batch, collate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.catalogue import Product
    from models.manifest import Manifest
    from models.prompt import PromptWriter
    from models.tokenizer import FieldTokenizer
    from models.train.pairs import Card, Group
    from models.train.queries import Query
    from models.train.rules import Judgement

RATIONALE_SHARE: Final = 0.12  # of the rule-judged pairs; a rationale costs as much as the pair itself
REASON_TOKENS: Final = 20
IGNORED: Final = -100


@dataclass(frozen=True, slots=True)
class Examples:
    """One training batch.

    Attributes:
        batch: packed ids.
        answers: int64 [N], packed row of each answer marker, where the label is read.
        targets: float32 [N, K], soft tier targets.
        text_rows: int64 [M], packed rows whose next token is learned (label and rationale of some pairs).
        text_ids: int64 [M], those next tokens.
    """

    batch: Batch
    answers: torch.Tensor
    targets: torch.Tensor
    text_rows: torch.Tensor
    text_ids: torch.Tensor

    def to(self, device: torch.device) -> Examples:
        """The same batch on another device."""
        return Examples(
            self.batch.to(device),
            *(t.to(device) for t in (self.answers, self.targets, self.text_rows, self.text_ids)),
        )


def visible_item(product: Product, query: Query, rng: random.Random, *, bare: bool, without: str = "") -> Item:
    """A product as some caller would send it: the title always, other fields now and then.

    Args:
        product: the product.
        query: attributes that it names are kept more often.
        rng: decides what is visible.
        bare: withhold attributes and description, where a chunk is to tell instead.
        without: an attribute that is never shown.
    """
    asked = {name for name, _ in query.values}
    shown: dict[str, str] = {}
    if not bare and product.attributes and rng.random() < 0.55:
        count = rng.choice((2, 4, 6, 10, 16))
        names = [n for n in product.attributes if n != without]
        names = names[:count] if rng.random() < 0.5 else rng.sample(names, min(count, len(names)))
        shown = {n: product.attributes[n] for n in names}
        shown |= {n: v for n, v in product.attributes.items() if n in asked and n != without and rng.random() < 0.8}
    return Item(
        title=product.title,
        brand=product.brand if rng.random() < 0.8 else "",
        category=product.category if rng.random() < 0.2 else "",
        attributes=attribute_text(shown),
        description=product.description if not bare and rng.random() < 0.7 else "",
    )


def rationale_of(query: Query, product: Product, judgement: Judgement, use: ContextUse) -> Rationale:
    """The rationale that follows from the verdicts; the reason says both sides in few words."""
    reason = rules.both_sides(query, product, judgement.category)
    return Rationale(judgement.category, judgement.attributes, use, reason)


def chunk_of(group: Group, cards: Sequence[Card]) -> str | None:
    """The chunk of a group's prompts."""
    if group.fact is not None:
        return group.fact.chunk or None
    return cards[group.card].text if group.card is not None else None


def context_use(group: Group, product: int, cards: Sequence[Card]) -> ContextUse:
    """What a good judge does with a group's card, or its fact, for one of its products."""
    if group.fact is not None:
        return ContextUse.ADOPT if product in group.fact.subjects else ContextUse.IGNORE
    if group.card is None or not group.card_helps:
        return ContextUse.IGNORE
    return ContextUse.ADOPT if product in cards[group.card].products else ContextUse.PARTIAL


class ExampleWriter:
    """Writes batches from groups; equal seeds give equal batches."""

    def __init__(
        self,
        manifest: Manifest,
        tokenizer: FieldTokenizer,
        writer: PromptWriter,
        products: Sequence[Product],
        cards: Sequence[Card],
    ) -> None:
        self._manifest = manifest
        self._tokenizer = tokenizer
        self._writer = writer
        self._products = products
        self._cards = cards

    def write(self, groups: Sequence[Group], seed: int, *, rationales: bool = True, chunks: bool = True) -> Examples:
        """Groups -> one batch of N = sum of their items.

        Args:
            groups: what to write.
            seed: decides what each item shows, and which pairs have a rationale; neither depends on the other.
            rationales: on a share of the pairs, or on none.
            chunks: as the groups have them, or none.
        """
        rng, drawn = random.Random(seed), random.Random(f"rationales {seed}")
        prefixes: list[tuple[int, ...]] = []
        suffixes: list[tuple[int, ...]] = []
        owner: list[int] = []
        marks: list[int] = []  # length of each suffix without its answer
        learned: list[tuple[int, ...]] = []
        for group in groups:
            bare = (group.card_helps or group.fact is not None) and rng.random() < 0.7
            without = group.fact.name if group.fact else ""
            items = [visible_item(self._products[n], group.query, rng, bare=bare, without=without) for n in group.items]
            prompt = self._writer.write(group.query.text, chunk_of(group, self._cards) if chunks else None, items)
            prefixes.append(prompt.prefix.ids)
            for i, suffix in enumerate(prompt.suffixes):
                judgement = group.judgements[i]
                answer: tuple[int, ...] = ()
                if rationales and judgement is not None and drawn.random() < RATIONALE_SHARE:
                    answer = self._answer(group, i, judgement)
                learned.append(answer)
                marks.append(len(suffix.ids))
                suffixes.append(suffix.ids + answer[:-1])  # the last token is only a target
                owner.append(len(prefixes) - 1)
        batch = collate(prefixes, suffixes, owner)
        answers = batch.suffix_starts + torch.tensor(marks) - 1
        rows = [int(answers[n]) + k for n, answer in enumerate(learned) for k in range(len(answer))]
        ids = [token for answer in learned for token in answer]
        return Examples(
            batch=batch,
            answers=answers,
            targets=torch.from_numpy(np.concatenate([g.targets for g in groups])),
            text_rows=torch.tensor(rows, dtype=torch.int64),
            text_ids=torch.tensor(ids, dtype=torch.int64),
        )

    def _answer(self, group: Group, i: int, judgement: Judgement) -> tuple[int, ...]:
        """Label, rationale, end token."""
        use = context_use(group, group.items[i], self._cards)
        rationale = rationale_of(group.query, self._products[group.items[i]], judgement, use)
        markers = self._manifest.rationale
        text = self._tokenizer.literal(render(rationale, markers))[: markers.max_tokens - 1]
        return (self._manifest.label_token_ids[judgement.tier], *text, markers.end_token_id)


def rule_tiers(groups: Sequence[Group]) -> list[int]:
    """The rules' tier of every pair in order, or -1 where they cannot tell."""
    return [j.tier if j is not None else -1 for g in groups for j in g.judgements]


GOOD: Final = (rules.EXCELLENT, rules.RELATED)
