"""Limits."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.prompt import Item
from service.errors import InvalidRequestError
from service.limits import DOCUMENTS, ONE_ITEM, check_limits, is_blank
from service.request import Candidate, ContextChoice, OwnContext, ScoreRequest
from service.settings import Limits

LIMITS = Limits(items=3, query_characters=10, context_characters=10, id_characters=4)


def request(query: str = "q", *ids: str, title: str = "t", context: str | None = None) -> ScoreRequest:
    """A request with these ids."""
    own: ContextChoice = OwnContext(context) if context is not None else "auto"
    return ScoreRequest(query, tuple(Candidate(i, Item(title)) for i in ids or ("a",)), own)


@pytest.mark.parametrize(
    ("asked", "pointers"),
    [
        (request("\u200b \u202e"), ["#/query"]),
        (request("q" * 11), ["#/query"]),
        (request(" " * 11), ["#/query"]),
        (request("q", context=" "), ["#/context/text"]),
        (request("q", context="c" * 11), ["#/context/text"]),
        (ScoreRequest("q", ()), ["#/items"]),
        (request("q", "a", "b", "c", "d"), ["#/items"]),
        (request("q", "a", "b", "a"), ["#/items/2/id"]),
        (request("q", "abcde"), ["#/items/0/id"]),
        (request("q", "a", title="\u2060"), ["#/items/0/title"]),
        (request("", "a", "a"), ["#/query", "#/items/1/id"]),
    ],
)
def test_each_limit_names_the_field(asked: ScoreRequest, pointers: list[str]) -> None:
    """Every wrong field is named, all of them at once."""
    with pytest.raises(InvalidRequestError) as caught:
        check_limits(asked, LIMITS)
    assert [e.pointer for e in caught.value.errors] == pointers


def test_pointers_speak_the_callers_format() -> None:
    """What is an item here is a document or the only item elsewhere."""
    for places, pointer in ((DOCUMENTS, "#/documents/0"), (ONE_ITEM, "#/item/title")):
        with pytest.raises(InvalidRequestError) as caught:
            check_limits(request(title=" "), LIMITS, places)
        assert [e.pointer for e in caught.value.errors] == [pointer]


def test_a_request_at_the_limits_passes() -> None:
    """Limits are inclusive."""
    check_limits(request("q" * 10, "aaaa", "b", "c", context="c" * 10), LIMITS)


def test_a_hostile_request_buys_a_short_answer() -> None:
    """Errors are counted, not collected without end."""
    with pytest.raises(InvalidRequestError) as caught:
        check_limits(request("q", *["a"] * 200), Limits())
    assert len(caught.value.errors) == 20


def test_text_of_any_script_is_visible() -> None:
    """Only what nobody can see is blank."""
    assert not any(map(is_blank, ["x", "\u200bx", "耳机", "סמן", "🎧", "."]))
    assert all(map(is_blank, ["", " \n\t", "\u200b\u200d", "\x00", "\u00a0"]))


@given(st.text(st.sampled_from(" \t\x00\u00a0\u0378\u200b\u3000\ue000\ud800\U000e0001\"'\\\\xa\u0301\U0001f3a7")))
def test_blank_is_what_has_no_printable_character_but_spaces(text: str) -> None:
    """Whatever characters stand beside each other."""
    assert is_blank(text) == (not any(c.isprintable() and not c.isspace() for c in text))


def test_every_character_is_visible_or_blank() -> None:
    """All of Unicode, one by one."""
    characters = map(chr, range(sys.maxunicode + 1))
    assert not [c for c in characters if is_blank(c) == (c.isprintable() and not c.isspace())]


@pytest.mark.parametrize("character", [" ", "\x00", "\u200b", "\u0378", "\ue000"])
def test_a_hostile_text_is_looked_at_in_few_steps(character: str) -> None:
    """As many for a million characters as for one: they are taken on the event loop."""
    steps: list[str] = []
    before = sys.getprofile()
    sys.setprofile(lambda _, event, __: steps.append(event))
    try:
        assert is_blank(character * 1_000_000)
    finally:
        sys.setprofile(before)
    assert len(steps) < 30
