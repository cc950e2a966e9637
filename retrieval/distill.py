"""Training of the static embedder (retrieval/embedding.py). PyTorch stays inside this module.

One vector per token is learned from two sources:

    pairs    generated query -> card pairs (retrieval/queries.py, split "train"): softmax over the cards of the batch
             and a draw of others; every card that the rule allows is right
    teacher  a sentence encoder's similarities among titles, descriptions and names: the student's similarities of a
             text to the others in the batch follow the teacher's (relational distillation, arXiv 1904.05068), so that
             words which no pair names keep their meaning

It begins at the teacher's vectors of single tokens, projected on their principal axes and weighed by rarity (as
Model2Vec does). A few minutes on one core; a run that was stopped goes on from its last saved step.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional

from retrieval.embedding import StaticConfig, StaticEmbedder, save_static
from retrieval.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from retrieval.embedding import Vectors
    from retrieval.queries import Pair

STATE: Final = "state.pt"
LOG: Final = "log.jsonl"
SCALE: Final = 20.0  # inverse temperature of both softmaxes
SAVE_EVERY: Final = 100
_WORTHLESS: Final = re.compile(r"\[(unused\d+|PAD|CLS|SEP|MASK|UNK)\]|\W")


class Teacher(Protocol):
    """A sentence encoder."""

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32 [N, T]."""


@dataclass(frozen=True, slots=True)
class DistillConfig:
    """Settings of a run. Equal settings and data give equal vectors on one machine."""

    name: str = "tierwise-static"
    dimension: int = 128
    steps: int = 900
    pairs: int = 384
    others: int = 1024
    texts: int = 384
    teacher_weight: float = 0.5
    learning_rate: float = 2e-3
    seed: int = 0


@dataclass(frozen=True, slots=True)
class DistillData:
    """What a run learns from: training pairs, card id -> text, plain texts for the teacher, and the tokenizer.json."""

    pairs: Sequence[Pair]
    cards: Mapping[str, str]
    texts: Sequence[str]
    tokenizer: str


def train_embedder(
    data: DistillData,
    teacher: Teacher,
    output: Path,
    work: Path,
    *,
    config: DistillConfig | None = None,
    tau: float,
    progress: Callable[[int, int, str], None] = lambda *_: None,
) -> StaticEmbedder:
    """Train and write a static embedder.

    Args:
        data: see DistillData. Only pairs of the split "train" are used, and only cards that they or no pair name.
        teacher: encodes `data.texts` and every token once; results are kept in `work`.
        output: folder of the embedder.
        work: folder of the run; the same folder and settings continue a run that was stopped.
        config: settings.
        tau: gate to write into the embedder.
        progress: called with (done, total, what).

    Raises:
        InputError: no training pairs, or `work` holds a run with other settings or data.
    """
    config = config or DistillConfig()
    run = _Run(data, config, work)
    start = run.teach(teacher, progress)
    for step in range(start, config.steps):
        loss = run.step(step)
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == config.steps:
            run.save(step + 1)
            with (work / LOG).open("a", encoding="utf-8") as log:
                log.write(json.dumps({"step": step + 1, **loss}) + "\n")
        progress(step + 1, config.steps, "training")
    figures = {
        "training_pairs": len(run.pairs),
        "training_cards": len(run.cards),
        "training_texts": len(data.texts),
    }
    save_static(
        output,
        config=StaticConfig(config.name, config.dimension, tau, {**asdict(config), **figures}),
        tokenizer=data.tokenizer,
        vectors=run.bag.weight.detach().numpy(),
    )
    return StaticEmbedder(output)


@dataclass(frozen=True, slots=True)
class _Bags:
    """Token ids of N texts, one after the other."""

    ids: torch.Tensor
    starts: torch.Tensor

    def take(self, rows: Sequence[int]) -> _Bags:
        ends = torch.cat([self.starts[1:], torch.tensor([len(self.ids)])])
        parts = [self.ids[self.starts[r] : ends[r]] for r in rows]
        return _Bags(torch.cat(parts), torch.tensor([0, *(len(p) for p in parts[:-1])]).cumsum(0))


class _Run:
    def __init__(self, data: DistillData, config: DistillConfig, work: Path) -> None:
        held_out = {card for p in data.pairs if p.split != "train" for card in p.gold}
        self.pairs = [p for p in data.pairs if p.split == "train"]
        if not self.pairs:
            raise InputError(
                "no training pairs: the catalogue gives no cards; it needs brands, categories or compatibility"
            )
        self.cards = [c for c in data.cards if c not in held_out]
        self._row = {c: n for n, c in enumerate(self.cards)}
        self._config, self._data, self._work = config, data, work
        self._tokenizer = Tokenizer.from_str(data.tokenizer)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True
        self._kinds: defaultdict[str, list[int]] = defaultdict(list)
        for n, pair in enumerate(self.pairs):
            self._kinds[pair.kind].append(n)
        # The root keeps the many device queries from drowning the few about brands.
        self._shares = [len(own) ** 0.5 for own in self._kinds.values()]
        self._queries = self._bags([p.query for p in self.pairs])
        self._card_bags = self._bags([data.cards[c] for c in self.cards])
        self._text_bags = self._bags(data.texts)
        self._targets = torch.zeros(0)
        self.bag = nn.EmbeddingBag(1, 1)
        self._optimizer = torch.optim.Adam(self.bag.parameters())
        content = [asdict(config), data.tokenizer, [(p.query, sorted(p.gold)) for p in self.pairs], list(data.texts)]
        self._key = hashlib.sha256(json.dumps(content).encode()).hexdigest()
        work.mkdir(parents=True, exist_ok=True)

    def teach(self, teacher: Teacher, progress: Callable[[int, int, str], None]) -> int:
        """Ask the teacher what is not known yet; make the network or load the saved one. Returns the next step."""
        self._targets = torch.from_numpy(self._encoded("texts", self._data.texts, teacher, progress))
        size = self._tokenizer.get_vocab_size()
        tokens = [(self._tokenizer.id_to_token(n) or "").removeprefix("##") for n in range(size)]
        vectors = self._initial(self._encoded("tokens", tokens, teacher, progress))
        self.bag = nn.EmbeddingBag.from_pretrained(torch.from_numpy(vectors), freeze=False, mode="sum")
        self._optimizer = torch.optim.Adam(self.bag.parameters(), lr=self._config.learning_rate)
        path = self._work / STATE
        if not path.is_file():
            return 0
        state = torch.load(path, weights_only=True)
        if state["key"] != self._key:
            raise InputError(f"{self._work} holds a run with other settings or data: name another folder or delete it")
        self.bag.load_state_dict(state["bag"])
        self._optimizer.load_state_dict(state["optimizer"])
        return int(state["step"])

    def step(self, step: int) -> dict[str, float]:
        """One step of Adam. Batches depend on the seed and the step alone, so that a continued run sees the same."""
        rng = random.Random(self._config.seed * 1_000_003 + step)
        rate = self._config.learning_rate * min(1.0, (step + 1) / 50) * (1 - step / self._config.steps)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        pairs, teacher = self._pair_loss(rng), self._teacher_loss(rng)
        self._optimizer.zero_grad()
        (pairs + self._config.teacher_weight * teacher).backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return {"pairs": round(pairs.item(), 4), "teacher": round(teacher.item(), 4)}

    def save(self, step: int) -> None:
        """Write the state atomically."""
        state = {
            "key": self._key,
            "step": step,
            "bag": self.bag.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }
        temporary = self._work / f"{STATE}.new"
        torch.save(state, temporary)
        temporary.replace(self._work / STATE)

    def _pair_loss(self, rng: random.Random) -> torch.Tensor:
        kinds = rng.choices(list(self._kinds.values()), self._shares, k=self._config.pairs)
        chosen = [rng.choice(own) for own in kinds]
        gold = [[self._row[c] for c in sorted(self.pairs[n].gold) if c in self._row] for n in chosen]
        others = rng.sample(range(len(self.cards)), min(self._config.others, len(self.cards)))
        rows = list(dict.fromkeys([rng.choice(g) for g in gold] + others))
        column = {r: n for n, r in enumerate(rows)}
        right = torch.zeros(len(chosen), len(rows), dtype=torch.bool)
        for n, own in enumerate(gold):
            right[n, [column[r] for r in own if r in column]] = True
        queries, cards = self._embed(self._queries.take(chosen)), self._embed(self._card_bags.take(rows))
        similar = SCALE * queries @ cards.T  # [pairs, cards]
        return (similar.logsumexp(1) - similar.masked_fill(~right, -torch.inf).logsumexp(1)).mean()

    def _teacher_loss(self, rng: random.Random) -> torch.Tensor:
        rows = rng.sample(range(len(self._data.texts)), min(self._config.texts, len(self._data.texts)))
        if len(rows) < 2:  # noqa: PLR2004 - nothing to compare
            return torch.zeros(())
        own, target = self._embed(self._text_bags.take(rows)), self._targets[rows]
        itself = torch.eye(len(rows), dtype=torch.bool)
        student = functional.log_softmax((SCALE * own @ own.T).masked_fill(itself, -1e9), dim=1)
        wanted = functional.log_softmax((SCALE * target @ target.T).masked_fill(itself, -1e9), dim=1)
        return functional.kl_div(student, wanted, log_target=True, reduction="batchmean")

    def _embed(self, bags: _Bags) -> torch.Tensor:
        return functional.normalize(self.bag(bags.ids, bags.starts), dim=-1)

    def _bags(self, texts: Sequence[str]) -> _Bags:
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        ids = [e.ids or [0] for e in encodings]
        starts = np.cumsum([0, *(len(i) for i in ids[:-1])])
        return _Bags(torch.tensor([x for own in ids for x in own]), torch.from_numpy(starts))

    def _encoded(
        self, what: str, texts: Sequence[str], teacher: Teacher, progress: Callable[[int, int, str], None]
    ) -> Vectors:
        """The teacher's vectors of texts, kept on disk: they are what takes time."""
        key = hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()[:16]
        path = self._work / f"{what}-{key}.npy"
        if path.is_file():
            return np.asarray(np.load(path, allow_pickle=False), np.float32)
        parts = []
        for at in range(0, len(texts), 256):
            parts.append(teacher.encode(texts[at : at + 256]))
            progress(min(at + 256, len(texts)), len(texts), f"teacher: {what}")
        vectors = np.concatenate(parts).astype(np.float32)
        with path.with_suffix(".new").open("wb") as file:
            np.save(file, vectors)
        path.with_suffix(".new").replace(path)
        return vectors

    def _initial(self, tokens: Vectors) -> Vectors:
        """Token vectors on their principal axes, length by rarity in the cards and texts, float32 [V, D]."""
        centred = tokens - tokens.mean(0)
        _, _, axes = np.linalg.svd(centred[:: max(1, len(centred) // 8192)], full_matrices=False)
        reduced = centred @ axes[: self._config.dimension].T
        reduced /= np.maximum(np.linalg.norm(reduced, axis=1, keepdims=True), 1e-9)
        counts = np.ones(len(tokens))
        total = 1
        for bags in (self._card_bags, self._text_bags):
            for own in torch.tensor_split(bags.ids, bags.starts[1:]):
                counts[np.unique(own.numpy())] += 1
                total += 1
        weights = np.log((total + 1) / counts)
        for n in range(len(tokens)):
            if _WORTHLESS.fullmatch(self._tokenizer.id_to_token(n) or ""):
                weights[n] = 0
        return np.asarray(reduced * (weights / weights.max())[:, None], np.float32)
