"""Shared words, against a plain count."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retrieval.errors import SnapshotError
from retrieval.lexicon import LEXICON_FILES, MAX_NAMES, Lexicon, LexiconWriter, words

if TYPE_CHECKING:
    from pathlib import Path

WORDS = st.sampled_from(["toner", "ink", "hp", "tn-3170", "laserjet", "cable", "cables", "usb"])
TEXTS = st.lists(WORDS, min_size=1, max_size=6).map(" ".join)
NAMES = st.lists(TEXTS | st.just(""), max_size=MAX_NAMES).map("|".join)


def written(folder: Path, chunks: list[tuple[str, str]]) -> Lexicon:
    writer = LexiconWriter()
    for title, text in chunks:
        writer.add(title.split("|"), text)
    writer.write(folder)
    return Lexicon(folder, len(chunks))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("TN-3170 Toner", {"tn", "3170", "tn3170", "toner"}),
        ("cables, glass; gas", {"cable", "glass", "gas"}),
        ("USB bus", {"usb", "bus"}),
        ("Ink for the HP 56", {"ink", "hp", "56"}),
        ("Décor 日本", {"décor", "日本"}),
        ("?!", set()),
    ],
)
def test_words_are_what_people_spell(text: str, expected: set[str]) -> None:
    """Case, plural s and hyphens do not separate what means the same."""
    assert words(text) == expected


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(st.tuples(NAMES, TEXTS), min_size=1, max_size=8), TEXTS)
def test_shares_equal_a_plain_count(tmp_path: Path, chunks: list[tuple[str, str]], query: str) -> None:
    """For any chunks and query, the shares are the weighted fractions that their description says."""
    lexicon = written(tmp_path, chunks)
    held = [words(text) | words(title.replace("|", " ")) for title, text in chunks]

    def idf(word: str) -> float:
        frequency = sum(word in own for own in held)
        return math.log(1 + (len(chunks) - frequency + 0.5) / (frequency + 0.5))

    asked = words(query)
    of_query, in_name, of_name = lexicon.shares(query, list(range(len(chunks))))
    rarest = math.log(1 + len(chunks) + 0.5)
    known = set().union(*held)
    for row, (title, _) in enumerate(chunks):
        whole = sum(idf(w) if w in known else rarest for w in asked)
        assert of_query[row] == pytest.approx(sum(idf(w) for w in asked & held[row]) / whole, abs=1e-5)
        names = [words(name) for name in title.split("|")[:MAX_NAMES]]
        expected = max(sum(map(idf, asked & own)) / whole for own in names)
        assert in_name[row] == pytest.approx(expected, abs=1e-5)
        expected = max(sum(map(idf, asked & own)) / sum(map(idf, own)) if own else 0 for own in names)
        assert of_name[row] == pytest.approx(expected, abs=1e-5)


def test_an_unknown_word_lowers_the_share(tmp_path: Path) -> None:
    """A query about something else does not match by the words that it happens to share."""
    lexicon = written(tmp_path, [("toner", "toner"), ("ink", "ink")])
    assert lexicon.shares("toner", [0])[0][0] == pytest.approx(1)
    assert lexicon.shares("toner zebra", [0])[0][0] < 0.5
    assert lexicon.shares("zebra", [0, 1])[0].tolist() == [0, 0]


@pytest.mark.parametrize("name", LEXICON_FILES)
def test_files_that_do_not_fit_together_are_refused(tmp_path: Path, name: str) -> None:
    """A file of another length than the others say is an error at load."""
    written(tmp_path, [("toner", "toner cartridge"), ("ink", "ink")])
    np.save(tmp_path / name, np.load(tmp_path / name)[:-1])
    with pytest.raises(SnapshotError, match="do not fit together"):
        Lexicon(tmp_path, 2)
