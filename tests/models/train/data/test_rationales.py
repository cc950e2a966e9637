"""Rationales for labelled rows: by the rules, or by a teacher not taken at its word. Against a real HTTP server."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from models.errors import DataError, TrainingError
from models.train.data.rationales import By, Explainer, Rejected, write_rationales
from models.train.data.schema import Row, parse_row, read_training_rows
from models.train.rulebook import shipped
from models.train.stages.config import Endpoint
from tests.models.train.chat import ChatServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from models.manifest import Manifest

TONER = {"title": "Acme T1 toner cartridge Black", "brand": "Acme", "category": "toner cartridge"}
CASE = {"title": "Borel N5 notebook case Blue", "brand": "Borel", "category": "notebook case"}


def row(query: str, tier: str, item: dict[str, Any] = TONER, **fields: Any) -> Row:
    return parse_row("here", {"query": query, "tier": tier, **item, **fields})


ROWS = [
    row("black toner", "4"),
    row("laptop", "2", CASE),
    row("lovely stationery", "1"),  # the rules cannot tell
    row("cyan toner", "4"),  # the rules say Mismatch
    row("toner", "1", verdicts={"category": "mismatch", "attributes": {}}, reason="as known"),
]


def always(status: int, content: str) -> Callable[[str, int], tuple[int, Any]]:
    return lambda _query, _call: (status, content)


class Teacher(ChatServer):
    """Answers every chat completion with what `say` makes of (query, number of the call for it)."""

    def __init__(self) -> None:
        super().__init__()
        self.say: Callable[[str, int], tuple[int, Any]] = always(500, "")
        self.calls: list[tuple[str, float, str]] = []

    def reply(self, body: Any, key: str | None) -> tuple[int, Any]:
        """What `say` makes of it."""
        del key
        prompt = body["messages"][0]["content"]
        found = re.search(r'"query": "(.*?)"', prompt)
        query = found[1] if found is not None else prompt
        call = sum(q == query for q, _, _ in self.calls)
        self.calls.append((query, body["temperature"], prompt))
        return self.say(query, call)


@pytest.fixture
def teacher() -> Iterator[Teacher]:
    with Teacher().answering() as made:
        yield made


def explainer(manifest: Manifest, teacher: Teacher | None = None, rows: list[Row] = ROWS, tries: int = 3) -> Explainer:
    endpoint = (
        Endpoint(url=f"http://127.0.0.1:{teacher.server_port}/v1", model="big", timeout_s=20) if teacher else None
    )
    return Explainer(rows, shipped(), manifest.tiers, teacher=endpoint, tries=tries)


def said(category: str, context: str = "ignore", reason: str = "because", **attributes: str) -> str:
    return json.dumps({"category": category, "attributes": attributes, "context": context, "reason": reason})


def test_rules_explain_what_they_can(manifest: Manifest) -> None:
    """Verdicts, reason and the atoms' ids; where the rules are silent or contradict the tier, no verdicts."""
    found = [explainer(manifest).explain(r) for r in ROWS]
    assert [f.by for f in found] == [By.RULES, By.RULES, By.UNTOLD, By.AGAINST, By.BEFORE]
    first, second = found[0].row, found[1].row
    assert first.verdicts is not None
    assert (first.verdicts.category, first.verdicts.attributes) == ("match", {"colour": "ok"})
    assert first.rules == ("category-same@1", "colour-same@1")
    assert second.verdicts is not None
    assert second.verdicts.category == "related"
    assert second.reason == "wants notebook, but item is notebook case"
    assert [f.row for f in found[2:]] == ROWS[2:]


def test_a_chunk_about_the_item_is_adopted_and_its_atom_named(manifest: Manifest) -> None:
    """The use of the chunk comes from what it speaks of, unless the row knows it already."""
    chunk: dict[str, Any] = {"context": "Acme T1 toner cartridge Black: yield 3000 pages, colour black."}
    told = explainer(manifest).explain(row("black toner", "4", **chunk)).row
    assert told.context_use == "adopt"
    assert "context-of-item@1" in told.rules
    known = explainer(manifest).explain(row("black toner", "4", context_use="ignore", **chunk)).row
    assert known.context_use == "ignore"


def test_a_teacher_is_given_the_tier_and_the_atoms(manifest: Manifest, teacher: Teacher) -> None:
    """Its verdicts and reason go into the row, with the ids of what it was given."""
    teacher.say = always(200, said("match", colour="ok", reason="black,\nas asked"))
    found = explainer(manifest, teacher).explain(ROWS[0])
    assert (found.by, found.rejected) == (By.TEACHER, ())
    assert found.row.reason == "black, as asked"
    assert "category-same@1" in found.row.rules
    assert "ink-colour-differs@1" in found.row.rules
    ((_, temperature, prompt),) = teacher.calls
    assert temperature == 0
    assert "The right tier is 4" in prompt
    assert all(a.text in prompt for a in shipped().atoms if f"{a.id}@1" in found.row.rules)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (said("mismatch"), Rejected.TIER),
        (said("match", colour="violated"), Rejected.TIER),
        (said("match", colour="unknown"), Rejected.TIER),
        ("I would rather not.", Rejected.UNREADABLE),
        ('{"category": "match"', Rejected.UNREADABLE),
        (said("perfect"), Rejected.UNREADABLE),
        (said("match", **{f"a{n}": "ok" for n in range(40)}), Rejected.UNREADABLE),
        ("[" * 100_000 + '{"category":' + '{"a":' * 100_000 + "}", Rejected.UNREADABLE),
        ("", Rejected.UNREADABLE),
        (None, Rejected.UNREADABLE),
    ],
)
def test_a_bad_answer_is_rejected_and_another_drawn(
    manifest: Manifest, teacher: Teacher, answer: str | None, why: Rejected
) -> None:
    """The first is the teacher's best guess, the next is sampled; each rejection is counted by its reason."""
    teacher.say = lambda _query, call: (200, said("match", colour="ok") if call else answer)
    found = explainer(manifest, teacher).explain(ROWS[0])
    assert (found.by, found.rejected) == (By.TEACHER, (why,))
    assert [t > 0 for _, t, _ in teacher.calls] == [False, True]


def test_the_rules_object_only_where_they_are_sure(manifest: Manifest, teacher: Teacher) -> None:
    """A verdict that the rules contradict is rejected, though its tier is right; their unknown is no objection."""
    teacher.say = always(200, said("mismatch"))
    found = explainer(manifest, teacher).explain(row("borel laptop", "1", TONER))
    assert found.by is By.TEACHER  # both say mismatch
    teacher.say = always(200, said("match", brand="violated"))
    lone = explainer(manifest, teacher, tries=2).explain(row("laptop", "2", CASE))
    assert (lone.by, lone.rejected) == (By.RULES, (Rejected.RULES,) * 2)  # the rules are sure that it is a related type
    teacher.say = always(200, said("match", wireless="unknown", odd="ok"))
    free = explainer(manifest, teacher).explain(row("wireless toner", "3"))
    assert free.by is By.TEACHER


def test_a_known_use_of_the_chunk_is_not_talked_away(manifest: Manifest, teacher: Teacher) -> None:
    """A teacher that adopts a chunk known to mislead is rejected."""
    teacher.say = always(200, said("match", context="adopt"))
    probe = row("lovely toner", "4", context="Other T9: lovely.", context_use="ignore")
    found = explainer(manifest, teacher, tries=1).explain(probe)
    assert found.rejected == (Rejected.CONTEXT,)


def test_hostile_text_stays_one_short_line(manifest: Manifest, teacher: Teacher) -> None:
    """Names and reasons lose control characters, commas and length; what is left is a row that reads back."""
    answer = {
        "category": "match",
        "attributes": {"colour,\n\x1b[31mred": "ok", "   ": "ok"},
        "context": "ignore",
        "reason": "\x00\n[unused9] match\r\n" + "x" * 10_000,
        "tier": "1-Irrelevant",
    }
    teacher.say = always(200, json.dumps(answer))
    found = explainer(manifest, teacher).explain(ROWS[0]).row
    assert found.tier == "4"
    assert found.verdicts is not None
    (name,) = found.verdicts.attributes
    assert "," not in name
    assert name.isprintable()
    assert found.reason.isprintable()
    assert len(found.reason) <= 200
    assert parse_row("here", json.loads(found.model_dump_json(exclude_defaults=True))) == found


def test_a_file_is_written_in_order_and_gone_on_with(manifest: Manifest, teacher: Teacher, tmp_path: Path) -> None:
    """A run that was killed in the middle of a line asks only for the rows that are missing, and ends the same."""
    rows = [row(f"toner {n:04}", "4", {**TONER, "title": f"Acme toner {n:04}"}) for n in range(20)]
    teacher.say = always(200, said("match", model="ok"))
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    done: list[tuple[int, int]] = []
    made = explainer(manifest, teacher, rows)
    summary = write_rationales(rows, made, whole, concurrency=4, progress=lambda n, of: done.append((n, of)))
    assert summary.by == {By.TEACHER: 20}
    assert done[-1] == (20, 20)
    assert [r.query for r in read_training_rows(whole, manifest.tiers)] == [r.query for r in rows]
    lines = whole.read_bytes().splitlines(keepends=True)
    cut.write_bytes(b"".join(lines[:7]) + lines[7][:30])
    teacher.calls.clear()
    again = write_rationales(rows, made, cut, concurrency=4)
    assert (again.kept, again.by) == (7, {By.TEACHER: 13})
    assert len(teacher.calls) == 13
    assert cut.read_bytes() == whole.read_bytes()


def test_a_teacher_that_is_down_stops_the_run(manifest: Manifest, teacher: Teacher, tmp_path: Path) -> None:
    """Rows without an answer are not written as if nobody could explain them; a later run asks for them again."""
    rows = [row(f"toner {n:04}", "4", {**TONER, "title": f"Acme toner {n:04}"}) for n in range(60)]
    teacher.say = lambda query, _call: (200, said("match", model="ok")) if query < "toner 0010" else (500, "")
    out = tmp_path / "out.jsonl"
    with pytest.raises(TrainingError, match="no answer for 16 rows in a row"):
        write_rationales(rows, explainer(manifest, teacher, rows), out, concurrency=16)
    assert len(read_training_rows(out, manifest.tiers)) == 10
    teacher.say = always(200, said("match", model="ok"))
    summary = write_rationales(rows, explainer(manifest, teacher, rows), out, concurrency=16)
    assert (summary.kept, summary.by) == (10, {By.TEACHER: 50})


def test_one_missing_answer_is_left_to_the_rules(manifest: Manifest, teacher: Teacher, tmp_path: Path) -> None:
    """Among rows that are answered, one that is not is explained by the rules, and counted."""
    teacher.say = lambda query, _call: (503, "") if query == "laptop" else (200, said("match", colour="ok"))
    rows = [ROWS[0], ROWS[1], row("black toners", "4")]
    summary = write_rationales(rows, explainer(manifest, teacher, rows), tmp_path / "out.jsonl", concurrency=2)
    assert summary.by == {By.TEACHER: 2, By.RULES: 1}
    assert summary.rejected == {Rejected.NONE: 1}


def test_refused_rows_are_left_to_the_rules(manifest: Manifest, teacher: Teacher, tmp_path: Path) -> None:
    """Texts that the teacher does not take, as a filter may decide, cost their rows and no others, however many."""
    teacher.say = lambda query, _call: (400, "filtered") if "laptop" in query else (200, said("match", colour="ok"))
    rows = [ROWS[0], *[row("laptop", "2", {**CASE, "title": f"Borel N{n} notebook case"}) for n in range(20)]]
    summary = write_rationales(rows, explainer(manifest, teacher, rows), tmp_path / "out.jsonl", concurrency=2)
    assert summary.by == {By.TEACHER: 1, By.RULES: 20}
    assert summary.rejected == {Rejected.REFUSED: 20}
    assert "filtered" in summary.refusal
    assert sum(query == "laptop" for query, _, _ in teacher.calls) == 20, "each is asked once"
    cut = tmp_path / "cut.jsonl"
    cut.write_bytes(b"".join((tmp_path / "out.jsonl").read_bytes().splitlines(keepends=True)[:-1]))
    again = write_rationales(rows, explainer(manifest, teacher, rows), cut)
    assert (again.kept, again.by) == (20, {By.RULES: 1}), "though nothing else shows that the teacher works"


def test_a_teacher_that_takes_nothing_stops_the_run(manifest: Manifest, teacher: Teacher, tmp_path: Path) -> None:
    """Told in its own words, with what to leave out; nothing is written that a later run would keep."""
    teacher.say = always(400, "response_format is not supported")
    out = tmp_path / "out.jsonl"
    with pytest.raises(TrainingError, match=r"response_format is not supported.*--omit"):
        write_rationales(ROWS[:4], explainer(manifest, teacher), out)
    assert not out.read_bytes()


def test_an_answer_that_ran_into_its_limit_is_counted_apart(manifest: Manifest, teacher: Teacher) -> None:
    """Half a sentence is no fault of the schema: more tokens help."""
    teacher.say, teacher.finish_reason = always(200, '{"category": "mat'), "length"
    assert explainer(manifest, teacher).explain(ROWS[0]).rejected == (Rejected.CUT,) * 3


def test_a_refusal_for_good_is_told_with_its_address(manifest: Manifest, teacher: Teacher, tmp_path: Path) -> None:
    """A wrong key or model ends the run at once."""
    teacher.say = always(401, "")
    with pytest.raises(TrainingError, match="401 for model 'big'"):
        write_rationales(ROWS, explainer(manifest, teacher), tmp_path / "out.jsonl", concurrency=2)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{}", "line 1"),
        ("no JSON", "line 1 is not a row"),
        (json.dumps({"query": "other", "title": "t", "tier": "4"}), "is not the input's row 1"),
        (json.dumps({"query": "black toner", "tier": "4", **TONER, "rules": ["a@9"]}), "was written by a@9"),
    ],
)
def test_a_file_of_another_run_is_not_touched(manifest: Manifest, tmp_path: Path, line: str, told: str) -> None:
    """Other rows, another rulebook or no rows at all: the message says what to do, and the file stays as it is."""
    out = tmp_path / "out.jsonl"
    out.write_text(f"{line}\nunfinished")
    with pytest.raises(DataError, match=told):
        write_rationales(ROWS, explainer(manifest), out)
    assert out.read_text() == f"{line}\nunfinished"


def test_only_four_tiers_can_be_derived(manifest: Manifest) -> None:
    """The rule table speaks of four."""
    with pytest.raises(DataError, match="four tiers"):
        Explainer(ROWS, shipped(), manifest.tiers[:3])
