"""Training of the static embedder, in small."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from retrieval.distill import STATE, DistillConfig, DistillData, train_embedder
from retrieval.embedding import SHIPPED
from retrieval.errors import InputError
from retrieval.queries import Pair

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from retrieval.embedding import Vectors

THINGS = ["toner", "ink", "notebook", "keyboard", "mouse", "scanner", "monitor", "cable"]
CARDS = {f"type:{t}": f"{t}: a product of the {t} kind" for t in THINGS}
PAIRS = [
    Pair(f"{word} {t}", frozenset({f"type:{t}"}), "type", "test" if t == "cable" else "train")
    for t in THINGS
    for word in ("buy", "cheap")
]
DATA = DistillData(
    pairs=PAIRS, cards=CARDS, texts=[f"a {t}" for t in THINGS], tokenizer=(SHIPPED / "tokenizer.json").read_text()
)
CONFIG = DistillConfig(dimension=16, steps=30, pairs=16, others=8, texts=8, learning_rate=0.02)


class HashTeacher:
    """A teacher without a model: a fixed direction for each text."""

    def __init__(self) -> None:
        self.asked = 0

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32 [N, 32]."""
        self.asked += len(texts)
        rows = [
            np.random.default_rng(int(hashlib.sha256(t.encode()).hexdigest()[:8], 16)).normal(size=32) for t in texts
        ]
        vectors = np.array(rows, np.float32)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


class Stopped(Exception):  # noqa: N818 - not an error: a process that ends
    """Stands for a process that is killed."""


def losses(work: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (work / "log.jsonl").read_text().splitlines()]


def test_queries_find_their_cards(tmp_path: Path) -> None:
    """After a few steps every training query is nearest to its card, and the log holds the losses."""
    trained = train_embedder(DATA, HashTeacher(), tmp_path / "out", tmp_path / "run", config=CONFIG, tau=0.4)
    asked = [p for p in PAIRS if p.split == "train"]
    cards = trained.embed(list(CARDS.values()))
    best = (trained.embed([p.query for p in asked]) @ cards.T).argmax(1)
    right = [list(CARDS)[n] in p.gold for n, p in zip(best, asked, strict=True)]
    assert np.mean(right) > 0.9
    assert trained.config.tau == 0.4
    assert [entry["step"] for entry in losses(tmp_path / "run")] == [30]


def test_held_out_cards_are_never_read(tmp_path: Path) -> None:
    """Another text for a card of the test split changes nothing."""
    changed = {**CARDS, "type:cable": "words that must not matter"}
    one = train_embedder(DATA, HashTeacher(), tmp_path / "a", tmp_path / "run-a", config=CONFIG, tau=0.4)
    data = DistillData(PAIRS, changed, DATA.texts, DATA.tokenizer)
    other = train_embedder(data, HashTeacher(), tmp_path / "b", tmp_path / "run-b", config=CONFIG, tau=0.4)
    assert one.id == other.id


def test_a_stopped_run_goes_on_to_the_same_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after a saved step and started again, it ends where an undisturbed run does, asking no teacher again."""
    monkeypatch.setattr("retrieval.distill.SAVE_EVERY", 10)
    whole = train_embedder(DATA, HashTeacher(), tmp_path / "a", tmp_path / "run-a", config=CONFIG, tau=0.4)

    def stop(done: int, _total: int, what: str) -> None:
        if (what, done) == ("training", 15):
            raise Stopped

    with pytest.raises(Stopped):
        train_embedder(DATA, HashTeacher(), tmp_path / "b", tmp_path / "run-b", config=CONFIG, tau=0.4, progress=stop)
    teacher = HashTeacher()
    resumed = train_embedder(DATA, teacher, tmp_path / "b", tmp_path / "run-b", config=CONFIG, tau=0.4)
    assert resumed.id == whole.id
    assert teacher.asked == 0
    assert losses(tmp_path / "run-b") == losses(tmp_path / "run-a")


def test_a_run_with_other_settings_is_not_continued(tmp_path: Path) -> None:
    """Silently mixing two runs would make vectors that nobody asked for."""
    train_embedder(DATA, HashTeacher(), tmp_path / "out", tmp_path / "run", config=CONFIG, tau=0.4)
    assert (tmp_path / "run" / STATE).is_file()
    other = DistillConfig(dimension=16, steps=30, pairs=16, others=8, texts=8, seed=1)
    with pytest.raises(InputError, match="other settings or data"):
        train_embedder(DATA, HashTeacher(), tmp_path / "out", tmp_path / "run", config=other, tau=0.4)


def test_a_catalogue_without_pairs_is_refused(tmp_path: Path) -> None:
    """The error says what the catalogue lacks."""
    empty = DistillData([], CARDS, DATA.texts, DATA.tokenizer)
    with pytest.raises(InputError, match="it needs brands, categories or compatibility"):
        train_embedder(empty, HashTeacher(), tmp_path / "out", tmp_path / "run", config=CONFIG, tau=0.4)
