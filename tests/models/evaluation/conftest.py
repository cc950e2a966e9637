"""A judge around an engine at the port that is a pure function of the ids: the share of the query in the item."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from models.engines.port import EngineHealth, ItemStatus, Scores
from models.errors import EngineUnavailableError
from models.evaluation.pairs import LabelledPair
from models.evaluation.scoring import Judge
from models.prompt import Item, PromptWriter
from models.tokenizer import FieldTokenizer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from models.deadline import Deadline
    from models.manifest import Manifest


@dataclass
class OverlapEngine:
    """Scores by shared ordinary ids; `sharpness` scales the logits. Faults are chosen per instance."""

    reserved: frozenset[int]
    sharpness: float = 6.0
    rationale: tuple[int, ...] = ()
    decodes: bool = True
    fails_on: frozenset[int] = frozenset()
    name: str = "overlap"
    calls: list[tuple[tuple[int, ...], int]] = field(default_factory=list)

    async def score(
        self, prefix: Sequence[int], suffixes: Sequence[Sequence[int]], deadline: Deadline, *, scope: str = ""
    ) -> Scores:
        """One row per suffix; FAILED where an id of `fails_on` stands in it."""
        del deadline, scope
        self.calls.append((tuple(prefix), len(suffixes)))
        logprobs = np.stack([self._row(prefix, s) for s in suffixes])
        status = tuple(ItemStatus.FAILED if self.fails_on & set(s) else ItemStatus.OK for s in suffixes)
        return Scores(logprobs, status)

    def _row(self, prefix: Sequence[int], suffix: Sequence[int]) -> NDArray[np.float32]:
        query = set(prefix) - self.reserved
        item = suffix[: len(suffix) - 1 - len(query)]  # the template repeats the query after the item
        share = len(query & set(item)) / max(1, len(query))
        logits = -self.sharpness * np.abs(np.linspace(1.0, 0.0, 4) - share)
        row: NDArray[np.float32] = (logits - np.log(np.exp(logits).sum())).astype(np.float32)
        return row

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
        """The configured ids, or no answer."""
        del prefix, suffix, deadline, label, scope
        if not self.decodes:
            raise EngineUnavailableError("no decoding here")
        for token in self.rationale[:max_tokens]:
            yield token

    async def warm_up(self) -> None:
        """Nothing to load."""

    def health(self) -> EngineHealth:
        """Always well."""
        return EngineHealth(alive=True, detail="makes progress", queued_tokens=0, steps=len(self.calls))

    async def close(self) -> None:
        """Nothing to release."""


@pytest.fixture(scope="module")
def overlap_judge(manifest: Manifest, wordpiece: Path) -> Judge:
    """The tiny checkpoint behind the overlap engine, for tests that share what it made."""
    tokenizer = FieldTokenizer(wordpiece)
    return Judge(manifest, tokenizer, PromptWriter(manifest, tokenizer), OverlapEngine(tokenizer.reserved))


@pytest.fixture
def judge(overlap_judge: Judge) -> Judge:
    """The same around an engine of its own."""
    return replace(overlap_judge, engine=OverlapEngine(overlap_judge.tokenizer.reserved))


@pytest.fixture
def engine(judge: Judge) -> OverlapEngine:
    """The judge's engine, to look at and to break."""
    assert isinstance(judge.engine, OverlapEngine)
    return judge.engine


QUERIES = ("phone x", "laptop y", "case z", "phone a", "laptop b", "case c", "phone d", "laptop e")


@pytest.fixture(scope="module")
def labelled_pairs() -> list[LabelledPair]:
    """Eight queries with four items each: both words, both words twice over, one word, and none."""
    result = []
    for query in QUERIES:
        first, second = query.split()
        for tier, title in enumerate((f"{first} {second}", f"{second} {first} q", f"{first} w", "v u")):
            result.append(LabelledPair(query, f"{query} {tier}", Item(title), tier, query))
    return result


@pytest.fixture
def pairs(labelled_pairs: list[LabelledPair]) -> list[LabelledPair]:
    """A list of its own for each test."""
    return list(labelled_pairs)
