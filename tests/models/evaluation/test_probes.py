"""Tests of the figures on a context test set."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from models.errors import DataError
from models.evaluation.pairs import LabelledPair
from models.evaluation.probes import VARIANTS, probe_figures, read_probes
from models.prompt import Item

if TYPE_CHECKING:
    from pathlib import Path

    from models.evaluation.scoring import Judge
    from models.manifest import Manifest


def probed(hits: dict[str, int], count: int) -> list[LabelledPair]:
    """Probes whose title names the query on the first `hits` rows of each kind of chunk, and nothing of it after."""
    return [
        LabelledPair("phone", f"{n}", Item("phone" if n < hits[kind] else "case"), 0, f"probe {n}", None, kind)
        for n in range(count)
        for kind in VARIANTS
    ]


async def test_accuracy_is_taken_by_kind_of_chunk(judge: Judge) -> None:
    """Each kind has its own share of right rows, and differences are paired over probes."""
    found = await probe_figures(
        judge, probed({"none": 5, "right": 9, "useless": 5, "misleading": 4}, 10), resamples=200
    )
    assert {v: found.accuracy[v].value for v in VARIANTS} == {
        "none": 0.5,
        "right": 0.9,
        "useless": 0.5,
        "misleading": 0.4,
    }
    assert found.argmax["right"].value == 0.9
    gain = (found.accuracy["right"] - found.accuracy["none"]).estimate()
    assert gain.value == pytest.approx(0.4)
    assert gain.excludes_zero
    same = found.accuracy["useless"] - found.accuracy["none"]
    assert not same.samples.any()  # right on the very same probes, so equal in every resample
    assert found.decoded == 40


async def test_no_rationale_is_decoded_when_none_is_asked_for(judge: Judge) -> None:
    """Consistency is then undefined, the accuracies are not."""
    found = await probe_figures(judge, probed(dict.fromkeys(VARIANTS, 1), 2), resamples=10, rationales=0)
    assert found.decoded == 0
    assert found.consistency.estimate().value is None


def test_a_file_without_every_kind_of_chunk_is_refused(tmp_path: Path, manifest: Manifest) -> None:
    """The message names the kinds found and the command that makes such a file."""
    path = tmp_path / "probes.jsonl"
    rows = [{"query": "q", "title": "t", "tier": "4", "kind": k} for k in VARIANTS]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert [p.kind for p in read_probes(path, manifest.tiers)] == list(VARIANTS)
    path.write_text("".join(json.dumps(r) + "\n" for r in rows[1:]))
    with pytest.raises(DataError, match=r"'misleading', 'right', 'useless'.*tierwise data probes"):
        read_probes(path, manifest.tiers)
