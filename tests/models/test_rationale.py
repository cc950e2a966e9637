"""Tests of the one rationale schema."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.manifest import Manifest
from models.rationale import AttributeVerdict as A
from models.rationale import CategoryVerdict as C
from models.rationale import ContextUse, Rationale, implied_tiers, parse, render

# A name with a comma, or a text with a marker, is not something the schema can carry.
NAMES = st.from_regex(r"[a-z]{1,8}( [a-z]{1,6})?", fullmatch=True)
RATIONALES = st.builds(
    Rationale,
    category=st.sampled_from(C),
    attributes=st.lists(st.tuples(NAMES, st.sampled_from(A)), max_size=4).map(tuple),
    context=st.sampled_from(ContextUse),
    reason=st.from_regex(r"[a-z0-9 ]{0,40}", fullmatch=True).map(str.strip),
)


@given(rationale=RATIONALES)
def test_what_is_rendered_parses_back(manifest: Manifest, rationale: Rationale) -> None:
    """Training text and parser agree on the schema."""
    assert parse(render(rationale, manifest.rationale), manifest.rationale) == rationale


@given(text=st.text(max_size=80))
def test_free_text_is_not_a_rationale(manifest: Manifest, text: str) -> None:
    """Whatever a model writes without the markers parses to nothing, and never raises."""
    assert parse(text, manifest.rationale) is None


@pytest.mark.parametrize(
    "text",
    [
        "[unused9] match [unused10] none [unused11] adopt",  # no reason
        "[unused10] none [unused9] match [unused11] adopt [unused12] x",  # wrong order
        "so: [unused9] match [unused10] none [unused11] adopt [unused12] x",  # text before the first marker
        "[unused9] maybe [unused10] none [unused11] adopt [unused12] x",  # no such verdict
        "[unused9] match [unused10] ok [unused11] adopt [unused12] x",  # verdict without a name
        "[unused9] match [unused10] brand fine [unused11] adopt [unused12] x",
        "[unused9] match [unused10] none [unused11] yes [unused12] x",
    ],
)
def test_text_that_breaks_the_schema_is_none(manifest: Manifest, text: str) -> None:
    """A missing, misplaced or unknown part is not guessed at."""
    assert parse(text, manifest.rationale) is None


def test_the_fields_stand_in_the_documented_order(manifest: Manifest) -> None:
    """Category, attributes, context, reason."""
    rationale = Rationale(C.RELATED, (("brand", A.OK),), ContextUse.IGNORE, "other kind")
    expected = "[unused9] related [unused10] brand ok [unused11] ignore [unused12] other kind"
    assert render(rationale, manifest.rationale) == expected


@pytest.mark.parametrize(
    ("category", "attributes", "tiers"),
    [
        (C.MATCH, {}, {0}),
        (C.MATCH, {"brand": A.OK}, {0}),
        (C.MATCH, {"colour": A.UNKNOWN, "brand": A.OK}, {1}),
        (C.MATCH, {"colour": A.VIOLATED, "size": A.UNKNOWN}, {2}),
        (C.MATCH, {"brand": A.VIOLATED}, {2, 3}),
        (C.RELATED, {"brand": A.OK}, {2}),
        (C.MISMATCH, {"brand": A.OK}, {3}),
    ],
)
def test_rule_table(category: C, attributes: dict[str, A], tiers: set[int]) -> None:
    """Verdicts imply tiers."""
    assert implied_tiers(category, attributes) == tiers
