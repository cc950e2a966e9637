"""The shipped judge's manifest before it is trained: tiers, prompt, budgets, markers."""

from __future__ import annotations

from models.manifest import Manifest, PromptTemplate, RationaleMarkers, Segment, Tier
from models.train import minilm
from models.train.network import Shape


def initial_manifest(name: str) -> Manifest:
    """The manifest of the shipped judge before it is trained. Markers and labels are reserved vocabulary entries.

    The suffix repeats the query after the item: under a causal mask only the second copy can look at the item, and the
    item only at the first.
    """
    template = PromptTemplate(
        prefix=(Segment(text="[unused0]", field="query"), Segment(text="[unused1]", field="chunk")),
        suffix=(
            Segment(text="[unused2]", field="title"),
            Segment(text="[unused3]", field="brand"),
            Segment(text="[unused4]", field="category"),
            Segment(text="[unused5]", field="attributes"),
            Segment(text="[unused8]", field="description"),
            Segment(text="[unused6]", field="query"),
            Segment(text="[unused7]"),
        ),
        budgets={
            "query": 32,
            "chunk": 128,
            "title": 56,
            "brand": 8,
            "category": 16,
            "attributes": 72,
            "description": 72,
        },
    )
    names = (
        ("4-Excellent", "4", "Good"),
        ("3-Related", "3", "Good"),
        ("2-Mismatch", "2", "Mid"),
        ("1-Irrelevant", "1", "Bad"),
    )
    return Manifest(
        name=name,
        tiers=tuple(
            Tier.model_validate({"name": n, "label": label, "band": band, "token_id": token})
            for (n, label, band), token in zip(names, minilm.LABELS, strict=True)
        ),
        prompt=template,
        prompt_hash=template.hash,
        max_tokens=Shape().positions - 1,
        beta=0.5,
        rationale=RationaleMarkers(
            category="[unused9]",
            attributes="[unused10]",
            context="[unused11]",
            reason="[unused12]",
            end_token_id=minilm.SEP,
        ),
        files={},
    )
