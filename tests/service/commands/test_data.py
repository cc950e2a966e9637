"""Tests of `tierwise data` from files to files."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from models.catalogue import Product
from models.train.data.held_out import split_products
from service.cli import COMMANDS, load_command

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

WORDS = ("toner", "mouse", "cable", "lamp", "laptop", "camera", "printer", "router", "monitor", "keyboard")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(load_command(COMMANDS["data"][0]), list(arguments))


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Ten queries, two items each."""
    found = [
        {"query": word, "title": f"Acme {other}", "tier": "4" if word == other else "1"}
        for word, next_word in zip(WORDS, (*WORDS[1:], WORDS[0]), strict=True)
        for other in (word, next_word)
    ]
    return written(tmp_path / "rows.jsonl", found)


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    """Two types in three colours."""
    return written(
        tmp_path / "products.jsonl",
        [
            {
                "id": f"{kind}-{n}",
                "title": f"Acme X{n} {kind}",
                "brand": "Acme",
                "category": kind,
                "attributes": {"colour": c},
            }
            for kind in ("mouse", "keyboard")
            for n, c in enumerate(("black", "red", "white"))
        ],
    )


def test_check_and_split(rows: Path, tmp_path: Path) -> None:
    """A clean file passes, its sides share no query, and figures go to --json."""
    assert run("check", str(rows), "--json", str(tmp_path / "report.json")).exit_code == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["tiers"]["4-Excellent"] == 10
    result = run("split", str(rows), "--output", str(tmp_path / "sides"), "--valid", "0.2", "--test", "0.2")
    assert result.exit_code == 0, result.output
    sides = [tmp_path / "sides" / f"{name}.jsonl" for name in ("train", "valid", "test")]
    assert [len(side.read_text().splitlines()) for side in sides] == [12, 4, 4]
    assert run("check", *map(str, sides)).exit_code == 0


def test_rationales(rows: Path, tmp_path: Path) -> None:
    """Every row is written in its place, the verdicts are counted, and a second run finds nothing left to do."""
    out = tmp_path / "explained.jsonl"
    result = run("rationales", str(rows), "--output", str(out))
    assert result.exit_code == 0, result.output
    read = [json.loads(line) for line in out.read_text().splitlines()]
    assert [r["query"] for r in read] == [json.loads(line)["query"] for line in rows.read_text().splitlines()]
    explained = [r for r in read if "verdicts" in r]
    assert f"from the rules: {len(explained)}" in result.output
    assert f"{20 - len(explained)} of this run have no verdicts" in result.output
    assert all(r["rules"] and r["reason"] for r in explained)
    again = run("rationales", str(rows), "--output", str(out))
    assert "20 of them by an earlier run" in again.output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--teacher", "http://127.0.0.1:9/v1"), "--teacher and --model go together"),
        (("--rules", "gone.yaml"), "gone.yaml"),
        (("--output", "ROWS"), "name another --output"),
    ],
)
def test_rationales_say_what_is_wrong(rows: Path, tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    """One line and exit status 2; nothing is written."""
    before = rows.read_bytes()
    output = () if "--output" in arguments else ("--output", str(tmp_path / "out.jsonl"))
    result = run("rationales", str(rows), *output, *(str(rows) if a == "ROWS" else a for a in arguments))
    assert result.exit_code == 2
    assert told in result.output
    assert rows.read_bytes() == before
    assert not (tmp_path / "out.jsonl").exists()


def test_check_names_the_line(tmp_path: Path) -> None:
    """A bad row is shown with its line, and the exit status says that training on it would be wrong."""
    bad = written(tmp_path / "bad.jsonl", [{"query": "q", "title": "t", "tier": "4"}, {"query": "q", "tire": "4"}])
    result = run("check", str(bad))
    assert result.exit_code == 1
    assert "bad.jsonl: line 2" in result.output
    assert "tire" in result.output


def test_missing_file() -> None:
    """A file that is not there is one sentence on stderr and status 2."""
    result = run("check", "nowhere.jsonl")
    assert result.exit_code == 2
    assert "nowhere.jsonl" in result.output


def test_mine(catalogue: Path, tmp_path: Path) -> None:
    """A click log becomes rows that the check accepts."""
    clicks = written(
        tmp_path / "clicks.jsonl", [{"query": "acme mouse", "product_id": "mouse-0", "clicks": 5, "impressions": 9}]
    )
    mined = tmp_path / "mined.jsonl"
    result = run("mine", "--catalogue", str(catalogue), "--clicks", str(clicks), "--output", str(mined))
    assert result.exit_code == 0, result.output
    sources = [json.loads(line)["source"] for line in mined.read_text().splitlines()]
    assert sources == ["clicked", "near", "near", "near"]
    assert run("check", str(mined)).exit_code == 0


def test_probes(catalogue: Path, tmp_path: Path) -> None:
    """A catalogue becomes probes, four rows each."""
    out = tmp_path / "probes.jsonl"
    result = run("probes", "--catalogue", str(catalogue), "--output", str(out), "--count", "3")
    assert result.exit_code == 0, result.output
    assert len(out.read_text().splitlines()) == 12


def test_probes_of_held_out_products(tmp_path: Path) -> None:
    """Told to, it asks only of products that the bootstrap holds out, and of every one of them in time."""
    colours = ("black", "red", "white", "blue")
    products = [Product(f"m{n}", f"Acme X{n}", "", "mouse", {"colour": colours[n % 4]}) for n in range(200)]
    held = {products[n].id for n in split_products(products)[1]}
    out = tmp_path / "probes.jsonl"
    catalogue = written(tmp_path / "many.jsonl", [asdict(product) for product in products])
    result = run("probes", "--catalogue", str(catalogue), "--output", str(out), "--count", str(len(held)), "--held-out")
    assert result.exit_code == 0, result.output
    assert {json.loads(line)["item"]["id"] for line in out.read_text().splitlines()} == held


def test_suspects(tmp_path: Path) -> None:
    """The shipped judge doubts a label that is plainly wrong, and not one that is plainly right."""
    labelled = [
        {"query": "keyboard", "title": "Logitech K120 wired keyboard", "brand": "Logitech", "tier": "1"},
        {"query": "keyboard", "title": "Logitech K120 wired keyboard", "brand": "Logitech", "tier": "4"},
    ]
    out = tmp_path / "suspects.jsonl"
    file = written(tmp_path / "labelled.jsonl", labelled)
    result = run("suspects", str(file), "--output", str(out), "--confidence", "0.6")
    assert result.exit_code == 0, result.output
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [suspect["place"] for suspect in found] == ["labelled.jsonl: line 1"]
    assert found[0]["proposed"] == "4-Excellent"
