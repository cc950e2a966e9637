"""Tests of the sentence encoder that an evaluation sets beside the judge; here because it needs torch."""

import numpy as np

from models.evaluation.baselines import SentenceEncoder, full_text, short_text
from models.evaluation.pairs import LabelledPair
from models.prompt import Item


def test_the_encoder_ranks_by_meaning() -> None:
    """A cosine per pair in the order of the pairs: alike above unlike, with no word in common."""
    items = [
        Item("Laser printer toner", "Brother"),
        Item("Notebook 15 inch", "Dell"),
        Item("Espresso machine", "Philips"),
    ]
    pairs = [LabelledPair("laptop computer", str(n), item, 0, "c") for n, item in enumerate(items)]
    told: list[tuple[int, int]] = []
    scores = SentenceEncoder().scores(pairs, progress=lambda done, total: told.append((done, total)))
    assert scores.argmax() == 1
    assert np.all((scores >= -1) & (scores <= 1))
    assert told[-1] == (4, 4)


def test_the_description_counts_where_it_is_read() -> None:
    """The full view tells two items apart that the short view cannot."""
    items = [Item("X100", description="a toner cartridge"), Item("X100", description="a coffee machine")]
    pairs = [LabelledPair("coffee", str(n), item, 0, "c") for n, item in enumerate(items)]
    encoder = SentenceEncoder()
    short, full = encoder.scores(pairs, short_text), encoder.scores(pairs, full_text)
    assert short[0] == short[1]
    assert full[1] > full[0]
