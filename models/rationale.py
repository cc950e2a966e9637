"""One rationale schema for serving, training and rewards: category, attributes, context, reason, in this order."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.manifest import RationaleMarkers


class CategoryVerdict(StrEnum):
    """Does the item's category answer the query's?"""

    MATCH = "match"
    RELATED = "related"
    MISMATCH = "mismatch"


class AttributeVerdict(StrEnum):
    """Is one constraint of the query satisfied by the item?"""

    OK = "ok"
    UNKNOWN = "unknown"
    VIOLATED = "violated"


class ContextUse(StrEnum):
    """What the judge did with the chunk (2510.11122 section on the output format)."""

    ADOPT = "adopt"
    PARTIAL = "partial"
    IGNORE = "ignore"


@dataclass(frozen=True, slots=True)
class Rationale:
    """The fields that follow the label."""

    category: CategoryVerdict
    attributes: tuple[tuple[str, AttributeVerdict], ...]
    context: ContextUse
    reason: str


def render(rationale: Rationale, markers: RationaleMarkers) -> str:
    """Rationale -> the text that follows the label token."""
    attributes = ", ".join(f"{name} {verdict}" for name, verdict in rationale.attributes) or "none"
    return (
        f"{markers.category} {rationale.category} {markers.attributes} {attributes} "
        f"{markers.context} {rationale.context} {markers.reason} {rationale.reason}"
    )


def parse(text: str, markers: RationaleMarkers) -> Rationale | None:
    """Decoded text after the label -> rationale, or None when it does not follow the schema."""
    parts = []
    rest = text
    for marker in (markers.category, markers.attributes, markers.context, markers.reason):
        before, found, rest = rest.partition(marker)
        if not found:
            return None
        parts.append(before.strip())
    if parts[0]:
        return None
    _, category, attributes, context = parts
    try:
        return Rationale(
            category=CategoryVerdict(category),
            attributes=() if attributes == "none" else tuple(_attribute(a) for a in attributes.split(",")),
            context=ContextUse(context),
            reason=rest.strip(),
        )
    except ValueError:
        return None


def _attribute(text: str) -> tuple[str, AttributeVerdict]:
    name, _, verdict = text.strip().rpartition(" ")
    if not name:
        msg = f"attribute verdict without a name: {text!r}"
        raise ValueError(msg)
    return name, AttributeVerdict(verdict)


RULE_TIERS: Final = 4  # what the rule table knows


def implied_tiers(category: CategoryVerdict, attributes: Mapping[str, AttributeVerdict]) -> frozenset[int]:
    """The rule table: tier columns (0 is best of four) that verdicts allow. Deterministic.

    Mismatch -> Irrelevant. Related -> Mismatch. Match -> Excellent when every constraint holds, Related when one is
    unknown, Mismatch when one is violated; with a violated brand or model, Irrelevant is allowed too, because a query
    that names only those leaves nothing in common (models/train/rules.py).
    """
    if category is CategoryVerdict.MISMATCH:
        return frozenset({3})
    if category is CategoryVerdict.RELATED:
        return frozenset({2})
    found = set(attributes.values())
    if AttributeVerdict.VIOLATED in found:
        core = {n for n, v in attributes.items() if v is AttributeVerdict.VIOLATED} & {"brand", "model", "fits"}
        return frozenset({2, 3} if core else {2})
    return frozenset({1} if AttributeVerdict.UNKNOWN in found else {0})
