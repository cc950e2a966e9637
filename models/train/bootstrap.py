"""`tierwise train bootstrap`: from a product catalogue alone to a judge, without a single human label.

Rounds of generated queries (queries.py) with candidates, rule verdicts and soft targets (pairs.py, teacher.py) train a
causal decoder that starts from all-MiniLM-L6-v2 (minilm.py). The loss is label-first: soft cross-entropy over the label
tokens at the answer position, plus next-token loss over label and rationale on a share of the pairs (2508.12365,
section on SFT with post-CoT). The learning rate warms up, stays, and decays over the last quarter, so that a run can be
prolonged.

A killed run resumes from its last checkpoint: everything drawn at random depends on the seed and the step alone.
"""

from __future__ import annotations

import copy
import json
import math
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from models.errors import TrainingError
from models.prompt import PromptWriter
from models.tokenizer import FieldTokenizer
from models.train import minilm, rules
from models.train.data.held_out import HELD_OUT, split_names, split_products
from models.train.examples import ExampleWriter, rule_tiers
from models.train.facts import FACT_ITEMS, followed, shares, told_answers
from models.train.judging import Judging, Keeping, losses
from models.train.network import mixed_precision
from models.train.pairs import ITEMS
from models.train.queries import QueryMaker, synonyms
from models.train.release import labelled_rows
from models.train.sides import Side
from models.train.teacher import OrdinalMap, SentenceEncoder
from models.train.template import initial_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from models.catalogue import Product
    from models.train.pairs import Card, Group

STATE: Final = "state.pt"
LOG: Final = "log.jsonl"


@dataclass(frozen=True, slots=True)
class BootstrapConfig:
    """Settings of a run. Equal settings on an equal catalogue give equal figures on one kind of machine.

    Attributes:
        pairs: training pairs in all; may be changed when a run resumes.
        groups_per_step: queries in a step, in groups of 8 pairs.
        fact_share: share of a step's pairs that ask for what only a chunk can tell (facts.py).
        keep: weight of the base's answer without the chunk in the targets of what a chunk tells nothing about
            (judging.Keeping); needs a base.
        freeze_words: leave the vectors of words as they are; those of labels and markers learn.
        held_out_names: share of the types' everyday names kept for validation.
        round_groups: queries generated at a time.
        learning_rate: of the steady phase.
        text_weight: weight of the label-and-rationale loss beside the soft label loss.
        held_out: share of the products kept for validation.
        validation_groups: generated validation queries.
        checkpoint_steps: steps between saved states.
        seed: of everything.
        name: of the checkpoint.
        base: id of the checkpoint that the run starts from; empty for the sentence encoder's weights.
    """

    pairs: int = 500_000
    groups_per_step: int = 16
    fact_share: float = 0.0
    keep: float = 0.0
    freeze_words: bool = False
    held_out_names: float = 0.0
    round_groups: int = 12_288
    learning_rate: float = 2e-4
    warmup_steps: int = 150
    decay_share: float = 0.3
    weight_decay: float = 0.01
    text_weight: float = 0.15
    held_out: float = HELD_OUT
    validation_groups: int = 256
    checkpoint_steps: int = 250
    seed: int = 1
    name: str = "tierwise-mini"
    base: str = ""

    @property
    def fact_groups(self) -> int:
        """Groups of a step whose fact only a chunk tells; they take the place of whole groups of 8."""
        return (self.groups_per_step - self.plain_groups) * ITEMS // FACT_ITEMS

    @property
    def plain_groups(self) -> int:
        """The other groups of a step."""
        return self.groups_per_step - round(self.groups_per_step * self.fact_share)

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return max(1, self.pairs // (self.groups_per_step * ITEMS))

    def rate(self, step: int) -> float:
        """Learning rate of a step: warm up, stay, decay linearly to zero over the last share."""
        left = (self.steps - step) / max(1.0, self.steps * self.decay_share)
        warm_up = max(1, min(self.warmup_steps, self.steps // 10))
        return self.learning_rate * min(1.0, (step + 1) / warm_up, max(0.0, left))


class Bootstrap:
    """One run in one folder."""

    def __init__(
        self,
        products: Sequence[Product],
        cards: Sequence[Card],
        folder: Path,
        config: BootstrapConfig,
        progress: Callable[[str, int, int], None],
        *,
        base: Path | None = None,
    ) -> None:
        if len(products) < 200:  # noqa: PLR2004 - below that, held-out figures mean nothing
            raise TrainingError(f"the catalogue holds {len(products)} products; bootstrap needs at least 200")
        self.config = config
        self.folder = folder
        self._progress = progress
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(config.seed)
        encoder_folder = minilm.encoder_folder()
        if config.keep and base is None:
            raise TrainingError("keep needs a base whose answers are kept")
        first = minilm.trained_decoder(base) if base else minilm.initial_decoder(encoder_folder, seed=config.seed)
        self.decoder = first.to(self._device)
        folder.mkdir(parents=True, exist_ok=True)
        minilm.write_tokenizer(encoder_folder, folder / "checkpoint")
        self.manifest = initial_manifest(config.name)
        tokenizer = FieldTokenizer(folder / "checkpoint")
        prompts = PromptWriter(self.manifest, tokenizer)
        self._labels = torch.tensor(self.manifest.label_token_ids, device=self._device)
        train, held = split_products(products, config.held_out)
        names, self._unseen = split_names(synonyms(), config.held_out_names)
        encoder = SentenceEncoder(encoder_folder)
        self._train, self._valid = (
            Side(products, cards, rows, encoder=encoder, progress=progress, folder=folder, everyday=names)
            for rows in (train, held)
        )
        self._train_writer = ExampleWriter(self.manifest, tokenizer, prompts, self._train.products, self._train.cards)
        self._valid_writer = ExampleWriter(self.manifest, tokenizer, prompts, self._valid.products, self._valid.cards)
        self._keeping = self._kept() if config.keep else None
        if config.freeze_words:
            self._freeze_words()
        decayed = [p for n, p in self.decoder.named_parameters() if p.dim() > 1 and "tokens" not in n]
        others = [p for n, p in self.decoder.named_parameters() if p.dim() <= 1 or "tokens" in n]
        self._optimiser = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=config.learning_rate,
            betas=(0.9, 0.98),
            fused=True,
        )
        self.step = 0
        self._read: list[bool] = []  # since the last log; see told_answers
        self._followed: list[bool] = []  # see followed

    def run(self) -> dict[str, Any]:
        """Train to the end, from the last saved state when there is one.

        Returns:
            The last validation figures.
        """
        self._resume()
        per_step = self.config.plain_groups
        round_steps = self.config.round_groups // self.config.groups_per_step
        groups: list[Group] = []
        made = -1
        if self._valid.pairs.ordinal is None:
            groups, made = self._round(0), 0  # fits the ordinal map
            self._valid.pairs.ordinal = self._train.pairs.ordinal
        validation = self._valid.pairs.make(self._valid.queries.make(self.config.validation_groups, 7), 7)
        if self.config.fact_groups:
            validation += self._valid.facts.make(2 * self.config.validation_groups, 7)
        asked = QueryMaker(self._valid.products, everyday=self._unseen).everyday_types()
        unseen = self._valid.pairs.make(asked, 7) if asked else []
        figures: dict[str, Any] = {}
        started, first = time.monotonic(), self.step
        while self.step < self.config.steps:
            number = self.step // round_steps
            if number != made:
                groups, made = self._round(number), number
            at = (self.step % round_steps) * per_step
            facts = self._train.facts.make(self.config.fact_groups, self.config.seed * 10_000_000 + self.step)
            label_loss, text_loss = self._train_step(groups[at : at + per_step] + facts)
            self.step += 1
            self._progress(f"train (loss {label_loss:.3f})", self.step, self.config.steps)
            if self.step % 25 == 0:
                speed = (self.step - first) * self.config.groups_per_step * ITEMS / (time.monotonic() - started)
                read = shares(read=self._read, followed=self._followed)
                self._log(label_loss=label_loss, text_loss=text_loss, **read, pairs_per_s=round(speed, 1))
                self._read, self._followed = [], []
            if self.step % self.config.checkpoint_steps == 0 or self.step == self.config.steps:
                figures = self.validate(validation, unseen)
                self._log(**figures)
                self._save()
        minilm.write_weights(self.decoder, minilm.encoder_folder(), self.folder / "checkpoint")
        return figures

    def held_out(self, count: int) -> list[dict[str, Any]]:
        """Rule-labelled pairs of held-out products and fresh queries, as rows for `tierwise calibrate --pairs`."""
        groups = self._valid.pairs.make(self._valid.queries.make(count, 8), 8)
        return labelled_rows(groups, self._valid.products, self._valid.cards, self.manifest, self.config.seed)

    def _round(self, number: int) -> list[Group]:
        seed = self.config.seed * 1000 + number
        count = self.config.round_groups // self.config.groups_per_step * self.config.plain_groups
        return self._train.pairs.make(self._train.queries.make(count, seed), seed)

    def _kept(self) -> Keeping:
        base = Judging(copy.deepcopy(self.decoder), self._train_writer, self._labels)
        return Keeping(base, self._train.cards, self.config.keep)

    def _freeze_words(self) -> None:
        """Let only reserved entries learn: Adam makes full steps of every word's smallest gradients."""
        table = self.decoder.tokens.weight
        learning = torch.zeros(len(table), 1, device=self._device)
        learning[list(minilm.RESERVED)] = 1
        table.register_hook(lambda gradient: gradient * learning)  # type: ignore[no-untyped-call] # torch's own

    def _train_step(self, groups: Sequence[Group]) -> tuple[float, float]:
        for group in self._optimiser.param_groups:
            group["lr"] = self.config.rate(self.step)
        seed = self.config.seed * 10_000_000 + self.step
        examples = self._train_writer.write(groups, seed).to(self._device)
        if self._keeping:
            examples = self._keeping(examples, groups, seed)
        with mixed_precision(self._device):
            label_loss, text_loss, logits = losses(self.decoder, examples, self._labels)
        answers = logits.argmax(-1).tolist()
        self._read += told_answers(groups, answers)
        self._followed += followed(groups, answers)
        loss = label_loss + self.config.text_weight * text_loss
        if not math.isfinite(loss.item()):
            raise TrainingError(f"the loss is {loss.item()} at step {self.step}: lower learning_rate and resume")
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.decoder.parameters(), 1.0)
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        return label_loss.item(), text_loss.item()

    def validate(self, groups: Sequence[Group], unseen: Sequence[Group] = ()) -> dict[str, Any]:
        """Figures on held-out products.

        Args:
            groups: of a retriever's candidates, and such that ask for a fact.
            unseen: groups whose queries are names that no training query holds.

        Returns:
            Of candidates loss, accuracy and AUC on the rule-labelled pairs; of groups that ask for a fact how often one
            that is told is read, and another's is followed (facts.py); accuracy and AUC of the unseen names.
        """
        judging = Judging(self.decoder, self._valid_writer, self._labels)
        facts = [g for g in groups if g.fact is not None]
        groups = [g for g in groups if g.fact is None]
        read: dict[str, float] = {}
        if facts:
            answers = judging(facts, 0)[0].argmax(-1).tolist()
            read = shares(valid_read=told_answers(facts, answers), valid_followed=followed(facts, answers))
        p, loss = judging(groups, 0)
        figures = {"valid_loss": round(loss, 4), **read, **_named("valid", _figures(groups, p.cpu().numpy()))}
        if unseen:
            figures |= _named("valid_unseen", _figures(unseen, judging(unseen, 0)[0].cpu().numpy()))
        return figures

    def _log(self, **figures: Any) -> None:
        with (self.folder / LOG).open("a") as file:
            file.write(json.dumps({"step": self.step, "rate": self.config.rate(self.step), **figures}) + "\n")

    def _save(self) -> None:
        ordinal = self._train.pairs.ordinal
        assert ordinal is not None  # noqa: S101 - the first round has fitted it
        state = {
            "step": self.step,
            "decoder": self.decoder.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "ordinal": [ordinal.slope, *ordinal.thresholds],
            "config": asdict(self.config),
        }
        temporary = self.folder / f"{STATE}.tmp"
        torch.save(state, temporary)
        temporary.replace(self.folder / STATE)

    def _resume(self) -> None:
        path = self.folder / STATE
        if not path.exists():
            return
        state = torch.load(path, map_location=self._device, weights_only=True)
        changed = {
            name
            for name, value in asdict(self.config).items()
            if state["config"].get(name) != value and name not in ("pairs", "decay_share", "checkpoint_steps")
        }
        if changed:
            raise TrainingError(
                f"{self.folder} holds a run with other settings for {sorted(changed)}: use a new folder"
            )
        self.decoder.load_state_dict(state["decoder"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]
        slope, *thresholds = state["ordinal"]
        self._train.pairs.ordinal = self._valid.pairs.ordinal = OrdinalMap(slope, tuple(thresholds))


def _named(prefix: str, figures: dict[str, float]) -> dict[str, float]:
    return {f"{prefix}_{name}": value for name, value in figures.items()}


def _figures(groups: Sequence[Group], p: NDArray[np.float32]) -> dict[str, float]:
    """Figures of label probabilities [N, TIERS] on the pairs of groups that the rules judge."""
    tiers = np.array(rule_tiers(groups))
    known = tiers >= 0
    figures: dict[str, float] = {"pairs": int(known.sum())}
    if not known.any():  # a catalogue whose titles tell no category: the rules are silent
        return figures
    good, score = tiers[known] <= rules.RELATED, p[known] @ np.linspace(1, 0, p.shape[1])
    ranks = score.argsort().argsort() + 1.0
    positives = int(good.sum())
    auc = (ranks[good].sum() - positives * (positives + 1) / 2) / max(1, positives * int((~good).sum()))
    accuracy = float((p[known].argmax(-1) == tiers[known]).mean())
    return {**figures, "accuracy": round(accuracy, 4), "auc": round(float(auc), 4)}
