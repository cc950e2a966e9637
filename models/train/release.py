"""The end of a bootstrap run: a checkpoint folder that the service takes, and the held-out pairs that calibrate it."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from models.canaries import recorded
from models.deadline import Deadline
from models.engines.onnx import OnnxEngine
from models.manifest import Canary, CanaryItem, file_hash, save_manifest
from models.prompt import Item, PromptWriter
from models.tiers import softmax
from models.tokenizer import FieldTokenizer
from models.train.examples import context_use, rationale_of, visible_item

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from models.catalogue import Product
    from models.engines.port import Engine
    from models.manifest import Manifest
    from models.train.pairs import Card, Group

HELD_OUT: Final = "held_out.jsonl"
CANARIES_PER_TIER: Final = 2
_CLEAR: Final = 0.6  # a canary's tier holds at least this probability, so that no beta in use and no rounding moves it
TOKENIZER_FILES: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
)
# What a checkpoint may consist of beside its manifest; anything else in the folder is left out of it.
_FILES: Final = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    *TOKENIZER_FILES,
)


def labelled_rows(
    groups: Sequence[Group],
    products: Sequence[Product],
    cards: Sequence[Card],
    manifest: Manifest,
    seed: int,
    *,
    bare: float = 0.0,
) -> list[dict[str, Any]]:
    """Rule-judged pairs of groups, as rows that every command reads.

    Args:
        groups: queries with their candidates.
        products: that the groups' items number.
        cards: that the groups' cards number.
        manifest: names the tiers.
        seed: decides which fields are visible.
        bare: share of the groups with a helpful card whose items lack attributes and description, as in training.
    """
    rng = random.Random(seed)
    rows = []
    for group in groups:
        chunk = cards[group.card].text if group.card is not None else ""
        withheld = group.card_helps and rng.random() < bare
        for n, judgement in zip(group.items, group.judgements, strict=True):
            if judgement is None:
                continue
            item = visible_item(products[n], group.query, rng, bare=withheld)
            use = context_use(group, n, cards)
            row = {
                "query": group.query.text,
                "kind": group.query.kind,
                "tier": manifest.tiers[judgement.tier].name,
                "id": products[n].id,
                **asdict(item),
                "context": chunk,
                "context_use": str(use) if chunk else "",
                "verdicts": {"category": str(judgement.category), "attributes": dict(judgement.attributes)},
                "reason": rationale_of(group.query, products[n], judgement, use).reason,
            }
            rows.append({name: value for name, value in row.items() if value})
    return rows


def write_rows(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write rows as JSON lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def checkpoint_files(folder: Path) -> dict[str, str]:
    """Name -> sha256 of every file that belongs to a checkpoint."""
    return {path.name: file_hash(path) for pattern in _FILES for path in sorted(folder.glob(pattern))}


async def release(
    folder: Path,
    manifest: Manifest,
    rows: Sequence[dict[str, Any]],
    training: dict[str, Any],
    reference: Engine | None = None,
) -> Manifest:
    """Write `tierwise.json` beside trained weights, with canaries that the float32 engine answers clearly and right.

    Args:
        folder: the checkpoint: config, tokenizer and weights.
        manifest: template, tiers and budgets; its files, canaries and training record are replaced.
        rows: labelled pairs to pick canaries from.
        training: where the weights come from, for the record.
        reference: an engine of the folder's weights in float32, for architectures that the embedded engine does not
            know; it is closed at the end.
    """
    manifest = manifest.model_copy(update={"files": checkpoint_files(folder), "training": training, "canaries": ()})
    save_manifest(manifest, folder)
    engine = reference or OnnxEngine.load(folder, manifest, precision="float32")
    try:
        await engine.warm_up()
        writer = PromptWriter(manifest, FieldTokenizer(folder))
        canaries = []
        for tier in manifest.tiers:
            mine = [row for row in rows if row["tier"] == tier.name and len(row["title"]) < 100]  # noqa: PLR2004 - readable
            clear = await _clearest(engine, writer, mine[:200], manifest.tiers.index(tier))
            canaries += [_canary(row) for row in clear[:CANARIES_PER_TIER]]
        manifest = await recorded(manifest.model_copy(update={"canaries": tuple(canaries)}), writer, engine)
    finally:
        await engine.close()
    save_manifest(manifest, folder)
    return manifest


async def _clearest(
    engine: Engine, writer: PromptWriter, rows: Sequence[dict[str, Any]], tier: int
) -> list[dict[str, Any]]:
    """Rows whose tier the engine finds with certainty, surest first, one of each query."""
    sure: dict[str, tuple[float, dict[str, Any]]] = {}
    for row in rows:
        prompt = writer.write(row["query"], row.get("context"), [Item(**_item_fields(row))])
        scores = await engine.score(prompt.prefix.ids, [prompt.suffixes[0].ids], Deadline.never())
        p = softmax(scores.logprobs)[0]
        if int(np.argmax(p)) == tier and p[tier] >= _CLEAR and p[tier] > sure.get(row["query"], (0.0, row))[0]:
            sure[row["query"]] = float(p[tier]), row
    return [row for _, row in sorted(sure.values(), key=lambda found: -found[0])]


def _item_fields(row: dict[str, Any]) -> dict[str, str]:
    return {field.name: row.get(field.name, "") for field in fields(Item)}


def _canary(row: dict[str, Any]) -> Canary:
    return Canary(query=row["query"], item=CanaryItem(**_item_fields(row)), chunk=row.get("context"), tier=row["tier"])
