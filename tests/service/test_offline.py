"""Offline scoring and its command."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from models.errors import EngineUnavailableError
from service import cli
from service.commands import score as command
from service.errors import NotReadyError, ServiceError
from service.fetch import Fetcher
from service.offline import Line, score_window
from service.pipeline import Pipeline
from service.settings import Limits
from tests.service.conftest import FakeKnowledge, OverlapEngine, judge_on

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

TITLES = ["abcd", "wxyz", "abxy"]
GOOD = [
    {"query": query, "item": {"id": f"{query}-{n}", "title": title}}
    for n, title in enumerate(TITLES)
    for query in ("abcd", "wxyz")
]


def lines(*rows: object) -> list[Line]:
    """Lines of a file; a row that is bytes stands as it is."""
    raws = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    return [Line(n, raw) for n, raw in enumerate(raws, start=1)]


async def score_lines(
    checkpoint: Path, *rows: object, engine: OverlapEngine | None = None, knowledge: FakeKnowledge | None = None
) -> list[dict[str, Any]]:
    """Score rows in one window with requests of at most two items."""
    pipeline = Pipeline(judge_on(checkpoint, engine or OverlapEngine()), Fetcher(knowledge, float("inf")))
    return await score_window(pipeline, lines(*rows), Limits(items=2), "auto")


async def test_rows_come_in_input_order_with_the_documented_keys(checkpoint: Path) -> None:
    """Grouping by query is ours; the caller sees its own order."""
    rows = await score_lines(checkpoint, *GOOD)
    assert [row["id"] for row in rows] == [pair["item"]["id"] for pair in GOOD]  # type: ignore[index] # a dict of dicts
    assert list(rows[0]) == ["id", "tier", "label", "band", "score", "margin", "probabilities", "status"]
    assert (rows[0]["tier"], rows[1]["tier"]) == ("4-Excellent", "1-Irrelevant")


async def test_pairs_of_one_query_share_requests_up_to_the_limit(checkpoint: Path) -> None:
    """The prefix is computed once per request, not once per pair."""
    engine = OverlapEngine()
    await score_lines(checkpoint, *GOOD, engine=engine)
    assert sorted(len(suffixes) for _, suffixes in engine.calls) == [1, 1, 2, 2]


async def test_an_id_may_come_again_on_another_line(checkpoint: Path) -> None:
    """Lines are pairs of their own; ids only label them."""
    pair = {"query": "abcd", "item": {"id": "same", "title": "abcd"}}
    assert [row["status"] for row in await score_lines(checkpoint, pair, pair)] == ["ok", "ok"]


async def test_a_bad_line_keeps_its_place_and_the_rest_goes_on(checkpoint: Path) -> None:
    """The row in its place has the line's number and what to change."""
    rows = await score_lines(
        checkpoint, GOOD[0], b"{", {"query": "q", "item": {"id": "x", "title": "\u200b"}}, {"query": "q"}, GOOD[1]
    )
    assert [row["status"] for row in rows] == ["ok", "invalid", "invalid", "invalid", "ok"]
    assert [(row["line"], row["id"]) for row in rows[1:4]] == [(2, None), (3, "x"), (4, None)]
    assert "item/title" in rows[2]["error"]
    assert "required" in rows[3]["error"]


async def test_cut_text_is_reported(checkpoint: Path) -> None:
    """Offline, too, nothing is cut silently."""
    (row,) = await score_lines(checkpoint, {"query": "abcd", "item": {"id": "a", "title": "t" * 500 + "耳"}})
    assert row["truncated"] == ("title",)


async def test_a_failure_of_engine_or_knowledge_ends_the_run(checkpoint: Path) -> None:
    """Half a file scored without its chunks would be a wrong file."""
    with pytest.raises(NotReadyError):
        await score_lines(checkpoint, GOOD[0], engine=OverlapEngine(raises=EngineUnavailableError("dead")))
    with pytest.raises(ServiceError, match="knowledge"):
        await score_lines(checkpoint, GOOD[0], knowledge=FakeKnowledge(raises=OSError("disk")))


@pytest.fixture
def engine(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> OverlapEngine:
    """The engine behind the command."""
    fake = OverlapEngine()
    monkeypatch.setattr(command, "open_judge", lambda _: judge_on(checkpoint, fake))
    monkeypatch.setattr(command, "WINDOW", 2)
    return fake


def run(folder: Path) -> Result:
    """`tierwise score` on pairs.jsonl of a folder."""
    arguments = ["score", "--input", str(folder / "pairs.jsonl"), "--output", str(folder / "scores.jsonl")]
    return CliRunner().invoke(cli.app, arguments)


def write(folder: Path, *rows: object) -> None:
    """Write pairs.jsonl."""
    (folder / "pairs.jsonl").write_bytes(b"".join(line.raw + b"\n" for line in lines(*rows)))


def read(folder: Path, name: str = "scores.jsonl") -> list[dict[str, Any]]:
    """Rows of an output."""
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


@pytest.mark.usefixtures("engine")
def test_the_command_scores_a_file(tmp_path: Path) -> None:
    """Exit code 0, every line scored, nothing left beside the output."""
    write(tmp_path, *GOOD)
    assert run(tmp_path).exit_code == 0
    assert [row["id"] for row in read(tmp_path)] == [pair["item"]["id"] for pair in GOOD]  # type: ignore[index] # dicts
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pairs.jsonl", "scores.jsonl"]


@pytest.mark.usefixtures("engine")
def test_the_command_names_bad_lines_and_exits_with_1(tmp_path: Path) -> None:
    """Numbers are those of the file, blank lines counted, and blank lines are not pairs."""
    write(tmp_path, GOOD[0], b"", b"nonsense", GOOD[1])
    result = run(tmp_path)
    assert result.exit_code == 1
    assert "line 3: the body is not valid JSON" in result.output
    assert [row["status"] for row in read(tmp_path)] == ["ok", "invalid", "ok"]


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path, engine: OverlapEngine) -> None:
    """The second run scores what is missing, and the file is what one run would have written."""
    write(tmp_path, b"nonsense", *GOOD)
    assert run(tmp_path).exit_code == 1
    whole = (tmp_path / "scores.jsonl").read_bytes()
    (tmp_path / "scores.jsonl").unlink()
    engine.calls.clear()
    engine.dies_after = 2 + 3  # the canaries, and the requests of the first two windows
    assert run(tmp_path).exit_code == 2
    assert len(read(tmp_path, "scores.jsonl.part")) == 4
    with (tmp_path / "scores.jsonl.part").open("a") as part:
        part.write('{"id": "half-wri')
    engine.dies_after = float("inf")
    engine.calls.clear()
    assert run(tmp_path).exit_code == 1
    assert (tmp_path / "scores.jsonl").read_bytes() == whole
    assert sum(len(suffixes) for _, suffixes in engine.calls) == 2 + len(GOOD) - 3


@pytest.mark.usefixtures("engine")
def test_a_part_of_another_input_is_not_taken(tmp_path: Path) -> None:
    """Only a run of the same input, versions and settings goes on; any other starts over."""
    write(tmp_path, *GOOD)
    (tmp_path / "scores.jsonl.part").write_text('{"id": "foreign", "status": "ok"}\n')
    (tmp_path / "scores.jsonl.part.json").write_text('{"input_sha256": "other"}')
    assert run(tmp_path).exit_code == 0
    assert "foreign" not in {row["id"] for row in read(tmp_path)}


def test_a_failed_self_test_scores_nothing(tmp_path: Path, engine: OverlapEngine) -> None:
    """An engine that scores known pairs wrong must not write a file."""
    write(tmp_path, *GOOD)
    engine.failed = frozenset({0})
    result = run(tmp_path)
    assert result.exit_code == 2
    assert "self-test" in result.output
    assert not (tmp_path / "scores.jsonl").exists()
