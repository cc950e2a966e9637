"""`tierwise data rationales`: verdicts and a reason for labelled rows, from the rule engine or from a teacher.

2508.12365, making of the CoT data: the atomic rules that apply to a pair are fetched, and a teacher explains the gold
tier by them. A teacher is not taken at its word: an answer whose verdicts imply another tier than the gold one, or that
the rule engine contradicts where it is sure, is rejected and another one is drawn. Where nobody can explain a tier, the
row stays without verdicts, and teaches its label alone.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Final

from models.errors import DataError, RequestRefusedError, TrainingError
from models.rationale import RULE_TIERS, AttributeVerdict, ContextUse, Rationale, implied_tiers
from models.train import rules
from models.train.data.reading import Reader
from models.train.data.schema import Row, Verdicts, parse_row, tier_column
from models.train.endpoint import ask_teacher, read_rationale

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from models.manifest import Tier
    from models.train.data.reading import Reading
    from models.train.rulebook import Atom, Rulebook
    from models.train.rules import Judgement
    from models.train.stages.config import Endpoint

_REDRAWN: Final = 0.7  # temperature of a teacher's second try and later ones; the first is its best guess
_SILENT: Final = 16  # rows in a row without an answer: the endpoint is down, not unlucky


class By(StrEnum):
    """Where a row's verdicts come from, or why it has none."""

    BEFORE = "there before"
    TEACHER = "from the teacher"
    RULES = "from the rules"
    UNTOLD = "the rules cannot tell"
    AGAINST = "the rules contradict the tier"


class Rejected(StrEnum):
    """Why a teacher's answer was not taken."""

    NONE = "no answer"
    REFUSED = "the pair refused"
    CUT = "cut off before its end"
    UNREADABLE = "not in the schema"
    TIER = "against the tier"
    RULES = "against the rules"
    CONTEXT = "against the known use of the chunk"


@dataclass(frozen=True, slots=True)
class Explained:
    """One row, where its verdicts come from, and what was rejected on the way.

    Attributes:
        row: with its verdicts, if there are any.
        by: where they come from.
        rejected: why each of the teacher's answers was not taken.
        refusal: what the teacher said where it refused the pair.
    """

    row: Row
    by: By
    rejected: tuple[Rejected, ...] = ()
    refusal: str = ""

    @property
    def answered(self) -> bool:
        """Whether a teacher said anything about it."""
        return self.by is By.TEACHER or any(why is not Rejected.NONE for why in self.rejected)


@dataclass(slots=True)
class Summary:
    """What became of the rows of one run.

    Attributes:
        kept: rows that an earlier run had written.
        by: rows of this run.
        rejected: teacher's answers of this run that were not taken.
        refusal: what the teacher said of the first pair that it refused.
    """

    kept: int = 0
    by: Counter[By] = field(default_factory=Counter)
    rejected: Counter[Rejected] = field(default_factory=Counter)
    refusal: str = ""


class Explainer:
    """Explains rows, one at a time, from any thread.

    Args:
        rows: all of them: brands and types are read by the words of every row.
        rulebook: atoms.
        tiers: of the checkpoint that is to be trained.
        teacher: asked first; None for the rules alone.
        tries: answers drawn of a teacher before the rules are asked.

    Raises:
        DataError: the tiers are not the four that the rules speak of.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        rulebook: Rulebook,
        tiers: Sequence[Tier],
        *,
        teacher: Endpoint | None = None,
        tries: int = 4,
    ) -> None:
        if len(tiers) != RULE_TIERS:
            raise DataError(f"the rules know four tiers, the checkpoint has {len(tiers)}: verdicts cannot be derived")
        self.rulebook = rulebook
        self.teacher = teacher
        self._tiers, self._tries = tiers, tries
        self._reader = Reader(rows, rulebook)

    def explain(self, row: Row) -> Explained:
        """Verdicts, use of the chunk, reason and ids of the atoms; a row that has verdicts is kept as it is.

        Raises:
            TrainingError: the teacher refuses every request.
        """
        if row.verdicts is not None and row.verdicts.category is not None:
            return Explained(row, By.BEFORE)
        tier = tier_column(row.tier or "", self._tiers)
        reading = self._reader.read(row)
        judged = rules.judge(reading.query, reading.product, reading.fits, self.rulebook)
        agrees = judged is not None and tier in implied_tiers(judged.category, dict(judged.attributes))
        sure = judged if agrees else None
        rejected: list[Rejected] = []
        refusal = ""
        for n in range(self._tries if self.teacher is not None else 0):
            try:
                found = self._draw(row, reading, tier, sure, temperature=_REDRAWN if n else 0.0)
            except RequestRefusedError as error:
                found, refusal = Rejected.REFUSED, str(error)
            if isinstance(found, Rationale):
                return Explained(self._from_teacher(row, reading, found, sure), By.TEACHER, tuple(rejected))
            rejected.append(found)
            if found in {Rejected.NONE, Rejected.REFUSED}:
                break
        if sure is not None:
            return Explained(self._from_rules(row, reading, sure), By.RULES, tuple(rejected), refusal)
        return Explained(row, By.UNTOLD if judged is None else By.AGAINST, tuple(rejected), refusal)

    def _draw(
        self, row: Row, reading: Reading, tier: int | None, sure: Judgement | None, *, temperature: float
    ) -> Rationale | Rejected:
        """One answer of the teacher, or why it cannot be taken."""
        assert self.teacher is not None  # noqa: S101 - asked only where there is one
        texts = [atom.text for atom in self._picked(row, reading)]
        answer = ask_teacher(self.teacher, row, texts, tiers=self._tiers, temperature=temperature)
        if answer is None:
            return Rejected.NONE
        taught = read_rationale(answer.text)
        if taught is None:
            return Rejected.CUT if answer.cut else Rejected.UNREADABLE
        return _objection(taught, row, tier, sure) or taught

    def _picked(self, row: Row, reading: Reading) -> Sequence[Atom]:
        asked = rules.asked_of(reading.query)
        return self.rulebook.pick(rules.facets(reading.query), asked, context=bool(row.context))

    def _from_teacher(self, row: Row, reading: Reading, taught: Rationale, sure: Judgement | None) -> Row:
        fallback = rules.reason_of(reading.query, reading.product, sure) if sure is not None else ""
        return _with(
            row,
            taught,
            reason=taught.reason or fallback,
            ids=[self.rulebook.signed(atom.id) for atom in self._picked(row, reading)],
        )

    def _from_rules(self, row: Row, reading: Reading, judged: Judgement) -> Row:
        ids, use = list(judged.atoms), ContextUse.IGNORE
        if reading.about is not None and row.context_use is None:
            use, atom = rules.context_use(reading.about, reading.query, self.rulebook)
            ids.append(atom)
        found = Rationale(judged.category, judged.attributes, use, "")
        reason = rules.reason_of(reading.query, reading.product, judged)
        return _with(row, found, reason=reason, ids=[self.rulebook.signed(i) for i in ids])


def _objection(taught: Rationale, row: Row, tier: int | None, sure: Judgement | None) -> Rejected | None:
    """Why a teacher's rationale cannot be taken; an `unknown` of the rules is no objection to knowing better."""
    if tier not in implied_tiers(taught.category, dict(taught.attributes)):
        return Rejected.TIER
    if row.context and row.context_use is not None and taught.context is not row.context_use:
        return Rejected.CONTEXT
    if sure is None:
        return None
    known = {n.lower(): v for n, v in sure.attributes if v is not AttributeVerdict.UNKNOWN}
    differ = any(known.get(n.lower(), v) is not v for n, v in taught.attributes)
    return Rejected.RULES if differ or taught.category is not sure.category else None


def _with(row: Row, found: Rationale, *, reason: str, ids: Sequence[str]) -> Row:
    """A row with these verdicts; what it knew of its chunk and its own reason stay."""
    return row.model_copy(
        update={
            "verdicts": Verdicts(category=found.category, attributes=dict(found.attributes)),
            "context_use": row.context_use or (found.context if row.context else None),
            "reason": row.reason or reason,
            "rules": tuple(ids),
        }
    )


def write_rationales(
    rows: Sequence[Row],
    explainer: Explainer,
    output: Path,
    *,
    concurrency: int = 1,
    progress: Callable[[int, int], object] | None = None,
) -> Summary:
    """Explain rows into a file, in their order; a file that holds the first of them already is gone on with.

    Args:
        rows: labelled.
        explainer: made from the same rows.
        output: JSON lines, one written row after the other.
        concurrency: rows explained at a time.
        progress: called with rows done and rows in all.

    Raises:
        DataError: the file holds other rows, or rows by another version of the rulebook.
        TrainingError: the teacher refuses, or has stopped to answer; what is written stays and is gone on with.
    """
    summary = Summary(kept=_written(output, rows, explainer.rulebook))
    left = iter(rows[summary.kept :])
    held: list[Explained] = []  # rows since the teacher fell silent: if it is down, a later run shall ask for them
    answered = explainer.teacher is None
    with output.open("a", encoding="utf-8") as file, ThreadPoolExecutor(concurrency) as pool:
        ahead = deque(pool.submit(explainer.explain, row) for row in islice(left, 2 * concurrency))
        try:
            while ahead:
                held.append(ahead.popleft().result())
                ahead.extend(pool.submit(explainer.explain, row) for row in islice(left, 1))
                answered |= held[-1].answered
                silent = sum(Rejected.NONE in one.rejected for one in held)
                if silent >= _SILENT or (silent and not ahead and not answered):
                    raise TrainingError(_down(explainer, silent))
                if silent and ahead and not held[-1].answered:
                    continue
                for one in held:
                    file.write(one.row.model_dump_json(exclude_defaults=True) + "\n")
                    summary.by[one.by] += 1
                    summary.rejected.update(one.rejected)
                    summary.refusal = summary.refusal or one.refusal
                file.flush()
                held.clear()
                if progress is not None:
                    progress(summary.kept + summary.by.total(), len(rows))
        finally:
            for future in ahead:
                future.cancel()
    return summary


def _down(explainer: Explainer, count: int) -> str:
    assert explainer.teacher is not None  # noqa: S101 - nobody else is silent
    return (
        f"{explainer.teacher.url} gave no answer for {count} rows in a row: check the address and that it serves "
        f"{explainer.teacher.model!r}, and run the same command again; it goes on where it stopped"
    )


def _written(output: Path, rows: Sequence[Row], rulebook: Rulebook) -> int:
    """How many rows a file holds already; a line that was cut off by a kill is taken off it."""
    if not output.exists():
        return 0
    raw = output.read_bytes()
    whole = raw[: raw.rfind(b"\n") + 1]
    lines = whole.split(b"\n")[:-1]
    for n, line in enumerate(lines):
        place = f"{output}: line {n + 1}"
        try:
            row = parse_row(place, json.loads(line))
        except ValueError as error:
            raise DataError(f"{place} is not a row: name a new file") from error
        if n >= len(rows) or (row.pair, row.tier) != (rows[n].pair, rows[n].tier):
            raise DataError(f"{place} is not the input's row {n + 1}: name a new file")
        other = {i for i in row.rules if not i.endswith(f"@{rulebook.version}")} - set(rows[n].rules)
        if other:
            raise DataError(f"{place} was written by {min(other)}, the rulebook is {rulebook.version}: name a new file")
    if len(whole) < len(raw):
        with output.open("r+b") as file:
            file.truncate(len(whole))
    return len(lines)
