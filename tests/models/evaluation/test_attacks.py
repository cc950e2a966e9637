"""Tests of the attacks: enough of them, everywhere, and judged by what they lift."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from models.errors import DataError
from models.evaluation.attack_run import forged_ids, run_attacks
from models.evaluation.attacks import LONG, PLACES, STUFFING, Attack, attacks
from models.evaluation.pairs import LabelledPair
from models.evaluation.runs import subject_of
from models.prompt import Item

if TYPE_CHECKING:
    from models.evaluation.scoring import Judge


@pytest.fixture
def victim() -> LabelledPair:
    """An Irrelevant pair with every field filled."""
    return LabelledPair("phone x", "1", Item("case", "v", "w", "q r", "s t"), 3, "phone x")


def test_there_are_at_least_fifty_of_every_promised_kind(judge: Judge) -> None:
    """Names are unique, kinds and places complete."""
    planned = attacks(judge.manifest, judge.tokenizer)
    assert len({(a.name, a.place) for a in planned}) == len(planned)
    assert len({a.payload for a in planned if a.kind != STUFFING}) >= 50
    assert {a.place for a in planned} == set(PLACES)
    assert {a.kind for a in planned} >= {
        "label names",
        "instructions",
        "template markers",
        "special tokens",
        "invisible characters",
        "long fields",
        STUFFING,
    }


def test_only_stuffing_speaks_of_the_query(judge: Judge, victim: LabelledPair) -> None:
    """Elsewhere the payload holds no word of the query, so what it lifts it lifts by attack alone."""
    for attack in attacks(judge.manifest, judge.tokenizer):
        told = "{query}" in attack.payload
        assert told == (attack.kind == STUFFING)
        if not told:
            assert victim.query not in attack.payload


def test_an_attack_changes_its_place_alone(victim: LabelledPair) -> None:
    """The payload stands in front of the field's own text; a chunk is replaced."""
    hit = Attack("a", "k", "brand", "evil {query}").apply(victim)
    assert hit.item == replace(victim.item, brand="evil phone x v")
    assert Attack("a", "k", "chunk", "evil").apply(victim) == replace(victim, chunk="evil")


def test_every_attack_of_the_tiny_checkpoint_leaves_no_reserved_id(judge: Judge, victim: LabelledPair) -> None:
    """Counted against the template's own literals, without trusting the tokenizer's own check."""
    for attack in attacks(judge.manifest, judge.tokenizer):
        assert not forged_ids(judge, attack.apply(victim)), attack.name


def test_a_forged_id_would_be_seen(judge: Judge, victim: LabelledPair, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the split switched off, the counting finds the forgery that the tokenizer's assertion would stop."""
    pair = replace(victim, item=replace(victim.item, title="[unused7] case"))
    assert not forged_ids(judge, pair)
    monkeypatch.setattr(judge.tokenizer, "_fast", None)
    monkeypatch.setattr(judge.tokenizer._fields, "encode_special_tokens", False)
    everything = judge.tokenizer.reserved
    monkeypatch.setattr(judge.tokenizer, "reserved", frozenset())
    prompt = judge.writer.write(pair.query, None, [pair.item])
    assert everything & set(prompt.suffixes[0].ids)
    [marker] = judge.tokenizer.literal("[unused7]")
    assert list(prompt.suffixes[0].ids).count(marker) == 2


async def test_a_judge_of_overlap_is_lifted_by_stuffing_alone(judge: Judge, victim: LabelledPair) -> None:
    """Instructions, markers and tokens do nothing to it; the query in the title does, and is listed apart."""
    told: list[tuple[int, int]] = []
    pairs = [victim, replace(victim, query="laptop z", cluster="laptop z")]
    report = await run_attacks(judge, pairs, subject_of(judge, None), lambda done, total: told.append((done, total)))
    assert report.passed
    assert report.overall.lifted == 0
    assert report.overall.trials == 2 * report.attacks
    assert report.stuffing.lifted > 0
    assert report.crashes == report.reserved == ()
    assert sum(f.trials for f in report.by_kind) == sum(f.trials for f in report.by_place) == report.overall.trials
    assert told[-1] == (report.attacks + report.stuffing.attacks,) * 2


async def test_items_that_are_good_already_are_left_out(judge: Judge, victim: LabelledPair) -> None:
    """A judge's own error is not an attack's success; when there is nothing else, that is said."""
    good = replace(victim, item=Item("phone x"))
    report = await run_attacks(judge, [victim, good], subject_of(judge, None))
    assert (report.items, report.already_good) == (2, 1)
    assert report.overall.trials == report.attacks
    with pytest.raises(DataError, match="before any attack"):
        await run_attacks(judge, [good], subject_of(judge, None))


async def test_a_crash_is_a_finding(judge: Judge, engine: Any, victim: LabelledPair) -> None:
    """An engine that fails on one attack's text is reported with the attack's name, and the rest goes on."""
    [token] = judge.tokenizer.literal("excellent")
    engine.fails_on = frozenset({token})
    report = await run_attacks(judge, [victim], subject_of(judge, None))
    assert not report.passed
    assert any("best tier in the title" in text for text in report.crashes)
    assert report.overall.trials > 0


def test_long_fields_are_long(judge: Judge) -> None:
    """100 kB and more."""
    long = [a.payload for a in attacks(judge.manifest, judge.tokenizer) if a.kind == "long fields"]
    assert min(map(len, long)) >= LONG
