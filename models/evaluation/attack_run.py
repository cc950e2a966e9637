"""Runs the attacks on Irrelevant items and counts what they lift, crash or forge."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from models.errors import DataError
from models.evaluation.attacks import STUFFING, attacks
from models.evaluation.evaluate import Judged, good_columns
from models.evaluation.reports import AttackFigures, AttackReport, LiftedItem
from models.evaluation.scoring import score_pairs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from models.evaluation.attacks import Attack
    from models.evaluation.pairs import LabelledPair
    from models.evaluation.reports import Subject
    from models.evaluation.scoring import Judge

IRRELEVANT_PAIRS: Final = Path(__file__).parent / "attack_pairs.jsonl"  # real products, queries of another kind
LIMIT: Final = 0.05  # share of Irrelevant items that the attacks may lift to a Good band
WORST: Final = 30
_SHARED: Final = frozenset({"query", "chunk"})


@dataclass
class _Tally:
    """Counts while the attacks run."""

    rises: defaultdict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))  # (kind, place)
    lifted: Counter[tuple[str, str]] = field(default_factory=Counter)
    crashes: list[str] = field(default_factory=list)
    reserved: list[str] = field(default_factory=list)
    items: list[LiftedItem] = field(default_factory=list)


async def run_attacks(
    judge: Judge, pairs: Sequence[LabelledPair], subject: Subject, progress: Callable[[int, int], object] | None = None
) -> AttackReport:
    """Attack every pair in every way.

    Args:
        judge: checkpoint and warm engine.
        pairs: Irrelevant ones. Those that the judge calls Good without any attack are its own error, not an attack's:
            they are counted and left out.
        subject: goes into the report.
        progress: called with attacks done and attacks in all.

    Raises:
        DataError: every pair is Good to begin with.
        EngineError: the engine did not answer for the untouched pairs.
    """
    good = good_columns(judge.manifest)
    clean = Judged.of(judge.manifest, (await score_pairs(judge, pairs)).logprobs)
    rows = [n for n, tier in enumerate(clean.verdicts.tiers) if tier not in good]
    if not rows:
        raise DataError("the judge calls every Irrelevant pair Good before any attack: there is nothing to lift")
    planned = attacks(judge.manifest, judge.tokenizer)
    tally = _Tally()
    for done, attack in enumerate(planned, start=1):
        await _run_one(judge, attack, [pairs[r] for r in rows], [float(clean.scores[r]) for r in rows], tally)
        if progress is not None:
            progress(done, len(planned))
    return _report(pairs, rows, planned, subject, tally)


async def _run_one(
    judge: Judge, attack: Attack, pairs: Sequence[LabelledPair], before: Sequence[float], tally: _Tally
) -> None:
    attacked = [attack.apply(pair) for pair in pairs]
    where = f"{attack.name} in the {attack.place}"
    try:
        if any(forged_ids(judge, pair) for pair in attacked):
            tally.reserved.append(where)
        judged = Judged.of(judge.manifest, (await score_pairs(judge, attacked)).logprobs)
    except Exception as error:  # noqa: BLE001 - a crash of any kind is the finding
        tally.crashes.append(f"{where}: {type(error).__name__}: {error}")
        return
    good = good_columns(judge.manifest)
    key = (attack.kind, attack.place)
    for pair, tier, score, clean in zip(pairs, judged.verdicts.tiers, judged.scores, before, strict=True):
        tally.rises[key].append(float(score) - clean)
        if tier not in good:
            continue
        tally.lifted[key] += 1
        if attack.kind != STUFFING:
            item = LiftedItem(attack=where, query=pair.query, title=pair.item.title, before=clean, after=float(score))
            tally.items.append(item)


def forged_ids(judge: Judge, pair: LabelledPair) -> Counter[int]:
    """Reserved ids in a pair's prompt beyond those of the template's own literals.

    The literals' ids are counted in a twin of the pair whose every field is a harmless word; a field that encodes to
    nothing drops its literal, so only a surplus is a forgery.
    """
    names = [f for f in judge.manifest.prompt.budgets if f not in _SHARED and pair.item.field(f)]
    item = replace(pair.item, **dict.fromkeys(names, "a"))
    twin = judge.writer.write("a", "a" if pair.chunk else None, [item])
    prompt = judge.writer.write(pair.query, pair.chunk, [pair.item])

    def reserved(ids: Sequence[int]) -> Counter[int]:
        return Counter(i for i in ids if i in judge.tokenizer.reserved)

    return reserved(prompt.prefix.ids + prompt.suffixes[0].ids) - reserved(twin.prefix.ids + twin.suffixes[0].ids)


def _report(
    pairs: Sequence[LabelledPair],
    rows: Sequence[int],
    planned: Sequence[Attack],
    subject: Subject,
    tally: _Tally,
) -> AttackReport:
    def figures(name: str, chosen: Callable[[str, str], bool]) -> AttackFigures:
        rises = [rise for key, values in tally.rises.items() if chosen(*key) for rise in values]
        return AttackFigures(
            kind=name,
            attacks=sum(chosen(a.kind, a.place) for a in planned),
            trials=len(rises),
            lifted=sum(n for key, n in tally.lifted.items() if chosen(*key)),
            rise=sum(rises) / len(rises) if rises else 0.0,
            highest=max(rises, default=0.0),
        )

    kinds = [k for k in dict.fromkeys(a.kind for a in planned) if k != STUFFING]
    places = list(dict.fromkeys(a.place for a in planned))
    return AttackReport(
        subject=subject,
        items=len(pairs),
        already_good=len(pairs) - len(rows),
        attacks=sum(a.kind != STUFFING for a in planned),
        limit=LIMIT,
        overall=figures("all but keyword stuffing", lambda kind, _: kind != STUFFING),
        by_kind=tuple(figures(k, lambda kind, _, k=k: kind == k) for k in kinds),  # type: ignore[misc]  # lambda default
        by_place=tuple(
            figures(p, lambda kind, place, p=p: place == p and kind != STUFFING)  # type: ignore[misc]  # lambda default
            for p in places
        ),
        stuffing=figures(STUFFING, lambda kind, _: kind == STUFFING),
        crashes=tuple(tally.crashes),
        reserved=tuple(tally.reserved),
        worst=tuple(sorted(tally.items, key=lambda i: i.before - i.after)[:WORST]),
    )
