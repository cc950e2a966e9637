"""Checks that need the configured limits or the whole request: both doors and the command line run them. Pure."""

from __future__ import annotations

from itertools import chain, islice
from typing import TYPE_CHECKING, Final, NamedTuple

from service.errors import FieldError, InvalidRequestError
from service.request import OwnContext

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.request import Candidate, ScoreRequest
    from service.settings import Limits

MOST_ERRORS: Final = 20  # enough to mend a request by; a hostile one must not buy a long answer


class Places(NamedTuple):
    """Where a wire format keeps the items: pointers for the list and for one field of one item."""

    items: str
    field: str


ITEMS: Final = Places("#/items", "#/items/{index}/{name}")
ONE_ITEM: Final = Places("#/item", "#/item/{name}")
DOCUMENTS: Final = Places("#/documents", "#/documents/{index}")


def check_limits(request: ScoreRequest, limits: Limits, places: Places = ITEMS) -> None:
    """Refuse a request outside the limits.

    Raises:
        InvalidRequestError: naming up to 20 wrong fields and what to change.
    """
    found = chain(
        _query_errors(request.query, limits),
        _context_errors(request, limits),
        _items_errors(request.candidates, limits, places),
    )
    errors = list(islice(found, MOST_ERRORS))
    if errors:
        first = errors[0]
        raise InvalidRequestError(f"{first.pointer.removeprefix('#/')}: {first.detail}", errors=errors)


def is_blank(text: str) -> bool:
    """Whether nothing of the text is visible: white space, control and zero-width characters only.

    A hostile text holds millions of those and this runs on the event loop, so no character gets a step of its own:
    `repr` writes one backslash for each that is not visible, and but for what is looked for first none for others.
    """
    if text[:1].isalnum():  # nearly always
        return False
    rest = text.replace(" ", "")
    return "\\" not in rest and "'" not in rest and repr(rest).count("\\") == len(rest)


def _query_errors(query: str, limits: Limits) -> Iterator[FieldError]:
    if len(query) > limits.query_characters:
        yield FieldError("#/query", f"shorten it to {limits.query_characters} characters, it has {len(query)}")
    elif is_blank(query):
        yield FieldError("#/query", "write a query; this one has no visible character")


def _context_errors(request: ScoreRequest, limits: Limits) -> Iterator[FieldError]:
    if not isinstance(request.context, OwnContext):
        return
    text = request.context.text
    if len(text) > limits.context_characters:
        yield FieldError("#/context/text", f"shorten it to {limits.context_characters} characters, it has {len(text)}")
    elif is_blank(text):
        yield FieldError("#/context/text", 'write a text, or send "none"; this one has no visible character')


def _items_errors(candidates: tuple[Candidate, ...], limits: Limits, places: Places) -> Iterator[FieldError]:
    if not candidates:
        yield FieldError(places.items, "send at least one item")
    if len(candidates) > limits.items:
        yield FieldError(places.items, f"send at most {limits.items} in one request, these are {len(candidates)}")
        return
    seen: dict[str, int] = {}
    for index, candidate in enumerate(candidates):
        if (first := seen.setdefault(candidate.id, index)) != index:
            yield FieldError(
                places.field.format(index=index, name="id"), f"ids must be unique, item {first} has it too"
            )
        if len(candidate.id) > limits.id_characters:
            detail = f"shorten it to {limits.id_characters} characters"
            yield FieldError(places.field.format(index=index, name="id"), detail)
        if is_blank(candidate.item.title):
            detail = "write something; this one has no visible character"
            yield FieldError(places.field.format(index=index, name="title"), detail)
