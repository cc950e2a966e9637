"""Entries."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.cache.entry import (
    decision_of,
    entry_type,
    is_entry,
    is_reference,
    read_entries,
    read_reference,
    write_entries,
    write_reference,
)
from service.reply import ContextReference
from service.rows import OK, Rows, row_type

KEYS = [bytes([n]) * 16 for n in range(3)]
REFERENCES = (
    None,
    ContextReference("card-1", "cards", 0.123456),
    ContextReference("", "", -1.0),
    ContextReference("é" * 300, "source", 0.0),
    ContextReference(None, "caller", None),
)


def rows(count: int = 3, tiers: int = 4) -> Rows:
    """Scored records with something in every field."""
    made = np.zeros(count, row_type(tiers))
    made["logprobs"] = -np.arange(1, count * tiers + 1, dtype=np.float32).reshape(count, tiers) / 7
    made["label_mass"] = [0.5, np.nan, 0.25][:count]
    made["prefix_tokens"], made["suffix_tokens"] = 70_000, np.arange(count)
    made["truncated"], made["unrepresentable"], made["status"] = 5, 127, OK
    return made


@pytest.mark.parametrize(("tiers", "size"), [(2, 56), (3, 60), (4, 64), (5, 68)])
def test_an_entry_is_small_and_comes_back_whole(tiers: int, size: int) -> None:
    """64 bytes for four tiers; every bit of the record survives."""
    written = rows(tiers=tiers)
    values = write_entries(KEYS, written, decision=7, expires=123.5, cost=0.25)
    assert {len(value) for value in values} == {size}
    assert all(is_entry(key, value, tiers) for key, value in zip(KEYS, values, strict=True))
    read = read_entries(values, tiers)
    assert read["row"].tobytes() == written.tobytes()
    assert (read["decision"].tolist(), read["expires"].tolist(), read["cost"].tolist()) == (
        [7] * 3,
        [123.5] * 3,
        [0.25] * 3,
    )


@given(st.integers(0, 63), st.integers(1, 255))
def test_no_changed_byte_goes_unseen(place: int, change: int) -> None:
    """Corruption anywhere makes it no entry."""
    value = bytearray(write_entries(KEYS[:1], rows(1), 7, 123.5, 0.25)[0])
    value[place] ^= change
    assert not is_entry(KEYS[0], bytes(value), 4)


@given(st.binary(max_size=80))
def test_garbage_is_no_entry(value: bytes) -> None:
    """Nor is it a chunk decision."""
    assert not is_entry(KEYS[0], value, 4)
    assert not is_reference(KEYS[0], value)


def test_an_entry_under_another_key_or_of_another_size_is_none() -> None:
    """Swapped values are misses, never another item's score."""
    values = write_entries(KEYS, rows(), 7, 123.5, 0.25)
    assert not is_entry(KEYS[1], values[0], 4)
    assert not is_entry(KEYS[0], values[0][:-1], 4)
    assert not is_entry(KEYS[0], values[0] + b"\0", 4)
    assert not is_entry(KEYS[0], values[0], 5)
    assert entry_type(4).itemsize == 64


@pytest.mark.parametrize("reference", REFERENCES)
def test_a_chunk_decision_comes_back_whole(reference: ContextReference | None) -> None:
    """Id, source and score as they were, `no chunk` too; and nowhere else."""
    value = write_reference(KEYS[0], reference, 99.5)
    assert is_reference(KEYS[0], value)
    assert read_reference(value) == (reference, 99.5)
    assert not is_reference(KEYS[1], value)
    assert not any(is_reference(KEYS[0], value[:at] + b"#" + value[at + 1 :]) for at in range(0, len(value), 7))


def test_decisions_are_told_apart_by_the_chunk_alone() -> None:
    """Two machines may find the same chunk with another last digit of similarity."""
    assert len({decision_of(reference) for reference in REFERENCES}) == len(REFERENCES)
    assert decision_of(ContextReference("a", "b", 0.1)) == decision_of(ContextReference("a", "b", 0.2))
    assert decision_of(ContextReference("ab", "c", 0.1)) != decision_of(ContextReference("a", "bc", 0.1))
    assert decision_of(None) == 0
