"""Manifests before training: the shipped judge's, and one for a plain language model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from models.errors import CheckpointError
from models.manifest import Manifest, PromptTemplate, RationaleMarkers, Segment, Tier
from models.train import minilm
from models.train.network import Shape

if TYPE_CHECKING:
    from models.tokenizer import FieldTokenizer

TIERS: Final = (
    ("4-Excellent", "4", "Good"),
    ("3-Related", "3", "Good"),
    ("2-Mismatch", "2", "Mid"),
    ("1-Irrelevant", "1", "Bad"),
)
ANSWER_TOKENS: Final = 64


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
    return Manifest(
        name=name,
        tiers=tuple(
            Tier.model_validate({"name": n, "label": label, "band": band, "token_id": token})
            for (n, label, band), token in zip(TIERS, minilm.LABELS, strict=True)
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


def text_manifest(name: str, tokenizer: FieldTokenizer, positions: int, end_token_id: int) -> Manifest:
    """A manifest for a plain causal language model: words for markers, the digits 4 to 1 for labels.

    Args:
        name: of the checkpoint.
        tokenizer: of the model.
        positions: the longest input that it takes.
        end_token_id: what ends its answers.

    Raises:
        CheckpointError: a digit is not one token after the answer marker.
    """
    template = PromptTemplate(
        prefix=(
            Segment(text="Does the item answer the shopping query? 4 excellent, 3 related, 2 mismatch, 1 irrelevant."),
            Segment(text="\nquery:", field="query"),
            Segment(text="\nknowledge:", field="chunk"),
        ),
        suffix=(
            Segment(text="\ntitle:", field="title"),
            Segment(text="\nbrand:", field="brand"),
            Segment(text="\ncategory:", field="category"),
            Segment(text="\nattributes:", field="attributes"),
            Segment(text="\ndescription:", field="description"),
            Segment(text="\nquery:", field="query"),
            Segment(text="\nanswer:"),
        ),
        budgets={
            "query": 48,
            "chunk": 192,
            "title": 80,
            "brand": 16,
            "category": 32,
            "attributes": 112,
            "description": 112,
        },
    )
    tiers = []
    for tier, label, band in TIERS:
        ids = tokenizer.literal(label)
        if len(ids) != 1:
            raise CheckpointError(f"the label {label!r} is {len(ids)} tokens; write a tierwise.json with other labels")
        tiers.append(Tier.model_validate({"name": tier, "label": label, "band": band, "token_id": ids[0]}))
    return Manifest(
        name=name,
        tiers=tuple(tiers),
        prompt=template,
        prompt_hash=template.hash,
        max_tokens=positions - ANSWER_TOKENS,
        beta=0.5,
        rationale=RationaleMarkers(
            category="\ncategory match:",
            attributes="\nattribute match:",
            context="\ncontext use:",
            reason="\nreason:",
            end_token_id=end_token_id,
            max_tokens=ANSWER_TOKENS,
        ),
        files={},
    )
