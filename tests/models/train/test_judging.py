"""What a base says without the chunk is kept where the chunk tells nothing, and only there."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from models.manifest import SHIPPED, load_manifest
from models.prompt import PromptWriter
from models.rationale import ContextUse
from models.tokenizer import FieldTokenizer
from models.train import minilm
from models.train.examples import ExampleWriter, context_use
from models.train.facts import FactMaker
from models.train.judging import Judging, Keeping
from models.train.queries import QueryMaker

if TYPE_CHECKING:
    from models.catalogue import Product
    from models.train.pairs import Card, Group


@pytest.fixture(scope="module")
def sized(stock: list[Product]) -> list[Product]:
    """The stock, with sizes that no text tells."""
    return [replace(p, attributes={"size": "small" if n % 2 else "large"}) for n, p in enumerate(stock)]


@pytest.fixture(scope="module")
def writer(sized: list[Product], cards: list[Card]) -> ExampleWriter:
    manifest, tokenizer = load_manifest(SHIPPED), FieldTokenizer(SHIPPED)
    return ExampleWriter(manifest, tokenizer, PromptWriter(manifest, tokenizer), sized, cards)


@pytest.fixture(scope="module")
def groups(sized: list[Product]) -> list[Group]:
    return FactMaker(sized, QueryMaker(sized)).make(40, 1)


@pytest.fixture(scope="module")
def judging(writer: ExampleWriter) -> Judging:
    decoder = minilm.trained_decoder(SHIPPED).eval()
    return Judging(decoder, writer, torch.tensor(load_manifest(SHIPPED).label_token_ids))


def test_a_batch_without_chunks(judging: Judging, writer: ExampleWriter, groups: list[Group]) -> None:
    """Without chunks the items of a batch show the same, so only what a chunk does is compared."""
    silent = [g for g in groups if g.fact is not None and not g.fact.chunk]
    with_chunks, _ = judging.batch(silent, 3)
    without, _ = judging.batch(silent, 3, chunks=False)
    torch.testing.assert_close(with_chunks, without)
    rationales = writer.write(groups, 3)
    plain = writer.write(groups, 3, rationales=False)
    assert len(rationales.text_rows) > len(plain.text_rows) == 0
    prefix = [n for _, n in rationales.batch.prefixes][-1]
    assert torch.equal(rationales.batch.ids[:prefix], plain.batch.ids[:prefix])
    for mine, theirs in zip(rationales.answers.tolist(), plain.answers.tolist(), strict=True):
        assert torch.equal(rationales.batch.ids[mine - 8 : mine], plain.batch.ids[theirs - 8 : theirs])


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_targets_where_the_chunk_tells_nothing(
    judging: Judging, writer: ExampleWriter, groups: list[Group], cards: list[Card], share: float
) -> None:
    """Told pairs keep their own target; all others get that share of the base's answer without a chunk."""
    examples = writer.write(groups, 5)
    said = judging.batch(groups, 5, chunks=False)[0].numpy()
    own = examples.targets.numpy()
    told = np.array([context_use(g, n, cards) is ContextUse.ADOPT for g in groups for n in g.items])
    assert 0.1 < told.mean() < 0.7
    kept = Keeping(judging, cards, share)(examples, groups, 5)
    expected = np.where(told[:, None], own, share * said + (1 - share) * own)
    np.testing.assert_allclose(kept.targets.numpy(), expected, atol=1e-6)
    assert torch.equal(kept.answers, examples.answers)


def test_many_groups_are_judged_in_blocks(judging: Judging, groups: list[Group]) -> None:
    """Judging more groups than a block holds gives one row for each pair, and the mean loss of all."""
    said, loss = judging(groups, 0)
    assert said.shape == (sum(len(g.items) for g in groups), 4)
    torch.testing.assert_close(said.sum(-1), torch.ones(len(said)))
    parts = [judging.batch(groups[n : n + 16], n // 16) for n in range(0, 40, 16)]
    torch.testing.assert_close(said, torch.cat([p for p, _ in parts]))
    assert loss == pytest.approx(sum(lost * n for (_, lost), n in zip(parts, (16, 16, 8), strict=True)) / 40)
