"""`tierwise index` and `tierwise knowledge`, end to end on small files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from models.manifest import SHIPPED, load_manifest
from models.tokenizer import FieldTokenizer
from retrieval.embedding import SHIPPED as SHIPPED_EMBEDDER
from retrieval.search import KnowledgeBase
from service.commands.embedder import ENCYCLOPEDIA, read_cards
from service.commands.index import app as index
from service.commands.index import token_counter
from service.commands.knowledge import app as knowledge

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

RUNNER = CliRunner()
PRODUCTS = [
    {
        "product_id": str(n),
        "product_name": f"Brother TN-{3000 + n} toner cartridge Original Black 1 pc(s)",
        "supplier": "Brother",
        "name": f"TN-{3000 + n}",
        "attributes": {"Compatibility": f"HL-{5000 + n}, MFC-{8000 + n}"},
    }
    for n in range(6)
]


def run(app: Any, *arguments: object) -> Result:
    return RUNNER.invoke(app, [str(a) for a in arguments])


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def cards(tmp_path: Path) -> Path:
    """Cards of a small catalogue with column names of its own."""
    catalogue = jsonl(tmp_path / "products.jsonl", PRODUCTS)
    output = tmp_path / "cards.jsonl"
    made = run(
        knowledge, "from-catalogue", "--catalogue", catalogue, "--output", output, "--columns", "title=product_name"
    )
    assert made.exit_code == 0, made.output
    return output


def test_from_a_catalogue_to_an_answer(cards: Path, tmp_path: Path) -> None:
    """Cards, index, check and search, as the help texts say to type them."""
    built = run(index, "build", "--input", cards, "--output", tmp_path / "knowledge")
    assert built.exit_code == 0, built.output
    assert "in force" in built.output
    checked = run(index, "check", tmp_path / "knowledge")
    assert "is intact" in checked.output
    found = run(index, "search", tmp_path / "knowledge", "brother tn 3003 toner")
    assert "(used)" in found.output
    assert "fits Brother HL-5003, MFC-8003" in found.output
    missed = run(index, "search", tmp_path / "knowledge", "zebra stripes")
    assert "not used" in missed.output


def test_defaults_are_the_checkpoint_s_and_the_embedder_s(cards: Path, tmp_path: Path) -> None:
    """Budget from the shipped checkpoint, gate from the shipped embedder, chunks counted as prompts are."""
    run(index, "build", "--input", cards, "--output", tmp_path / "knowledge")
    opened = KnowledgeBase.open(tmp_path / "knowledge")
    assert opened.manifest.budget == load_manifest(SHIPPED).prompt.budgets["chunk"]
    assert opened.tau == json.loads((SHIPPED_EMBEDDER / "embedder.json").read_text())["tau"]
    text = "Brother toner cartridge TN-3003 fits [SEP] HL-5003"
    assert list(token_counter(SHIPPED)([text, ""])) == [len(FieldTokenizer(SHIPPED).fields([text], [999])[0].ids), 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--budget", "5000"], "above the"),
        (["--overlap", "120"], "half at most"),
        (["--checkpoint", "nowhere"], "not a checkpoint"),
        (["--input", "nowhere.jsonl"], "does not exist"),
    ],
)
def test_what_cannot_be_built_is_said(cards: Path, tmp_path: Path, options: list[str], message: str) -> None:
    """One line that says what to change, exit status 2, no traceback, nothing in force."""
    built = run(index, "build", "--input", cards, "--output", tmp_path / "knowledge", *options)
    assert built.exit_code == 2
    assert message in built.output
    assert not (tmp_path / "knowledge" / "CURRENT").exists()


def test_bad_lines_are_named_and_can_be_skipped(tmp_path: Path) -> None:
    """Refused with line numbers; with --skip-bad built, and each skipped line on stderr."""
    source = jsonl(tmp_path / "d.jsonl", [{"id": "a", "text": "Toner.", "source": "s"}, {"id": "b", "text": ""}])
    refused = run(index, "build", "--input", source, "--output", tmp_path / "knowledge")
    assert refused.exit_code == 2
    assert "line 2: no text and no source" in refused.output
    skipped = run(index, "build", "--input", source, "--output", tmp_path / "knowledge", "--skip-bad")
    assert skipped.exit_code == 0
    assert "line 2 skipped" in skipped.stderr


def test_a_damaged_snapshot_is_refused_by_name(cards: Path, tmp_path: Path) -> None:
    """`check` exits with 2 and names the file."""
    run(index, "build", "--input", cards, "--output", tmp_path / "knowledge")
    chunks = next((tmp_path / "knowledge").rglob("chunks.jsonl"))
    chunks.write_bytes(chunks.read_bytes()[:-1])
    checked = run(index, "check", tmp_path / "knowledge")
    assert checked.exit_code == 2
    assert "chunks.jsonl" in checked.output


def test_a_bad_catalogue_is_said(tmp_path: Path) -> None:
    """No such column, no such file."""
    catalogue = jsonl(tmp_path / "products.jsonl", [{"id": "1"}])
    for path in (catalogue, tmp_path / "nowhere.jsonl"):
        made = run(knowledge, "from-catalogue", "--catalogue", path, "--output", tmp_path / "cards.jsonl")
        assert made.exit_code == 2
        assert "No cards:" in made.output


def test_a_taxonomy_becomes_documents(tmp_path: Path) -> None:
    """Categories and attributes are written as documents that an index takes."""
    categories = jsonl(tmp_path / "c.jsonl", [{"id": "a", "full_name": "Toys > Dolls", "attributes": ["age"]}])
    attributes = jsonl(tmp_path / "a.jsonl", [{"name": "Age", "handle": "age", "description": "For whom"}])
    output = tmp_path / "cards.jsonl"
    made = run(knowledge, "from-taxonomy", "--categories", categories, "--attributes", attributes, "--output", output)
    assert made.exit_code == 0, made.output
    assert [card.id for card in read_cards(output)] == ["category:toys-dolls", "attribute:age"]


def test_the_demo_s_knowledge_is_complete_and_attributed() -> None:
    """The committed documents are cards, and each names its source."""
    for path in (ENCYCLOPEDIA, ENCYCLOPEDIA.with_name("cards.jsonl")):
        assert len(read_cards(path)) > 1000
        sources = {json.loads(line)["source"] for line in path.read_text(encoding="utf-8").splitlines()}
        assert len(sources) == 1
        assert "Icecat" in str(sources) or "Shopify" in str(sources)
