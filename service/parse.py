"""Parse: bytes of a request -> a validated body. What a lenient parser lets through is refused here.

A key given twice, NaN, lone surrogates, trailing text and nesting past 200 levels are legal for many JSON readers and
mean something else to each; jiter refuses them in the same pass, at the speed of a plain parse.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import jiter
from pydantic import BaseModel, ValidationError

from service.errors import FieldError, InvalidRequestError, MalformedBodyError
from service.limits import MOST_ERRORS

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Body = TypeVar("Body", bound=BaseModel)

_MESSAGES = {
    "missing": "is required",
    "extra_forbidden": "is not a field of this request; remove it or check its spelling",
    "string_pattern_mismatch": "must hold visible text",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
}
_CONTEXT = 'must be "auto", "none", or an object {"text": ...}'
_ATTRIBUTE = "must be a string, a number within +-1e15, true, false, or a list of strings"
_DOCUMENT = 'must be a text, or an object {"text": ...}'


def parse_body(model: type[Body], raw: bytes) -> Body:
    """Parse and validate.

    Raises:
        MalformedBodyError: not one JSON document in UTF-8 with unique keys and bounded depth.
        InvalidRequestError: naming up to 20 wrong fields.
    """
    try:
        value = jiter.from_json(raw, allow_inf_nan=False, catch_duplicate_keys=True, cache_mode="keys")
    except ValueError as error:
        raise MalformedBodyError(f"the body is not valid JSON: {error}") from error
    return validated(model, value)


def validated(model: type[Body], value: object) -> Body:
    """Validate what was parsed.

    Raises:
        InvalidRequestError: naming up to 20 wrong fields.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        errors = field_errors(error)
        first = errors[0]
        where = first.pointer.removeprefix("#/") or "body"
        raise InvalidRequestError(f"{where}: {first.detail}", errors=errors) from error


def field_errors(error: ValidationError) -> list[FieldError]:
    """What pydantic found, one per field: the branches of a union count as one."""
    found: dict[str, str] = {}
    for issue in error.errors(include_url=False, include_context=False):
        path, message = _describe(issue)
        pointer = "#" + "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)
        found.setdefault(pointer, message)
    return [FieldError(pointer, detail) for pointer, detail in list(found.items())[:MOST_ERRORS]]


def _describe(issue: ErrorDetails) -> tuple[tuple[Any, ...], str]:
    path = issue["loc"]
    match path:
        case ("context", *_):
            return path[:1], _CONTEXT
        case ("documents", int(), _, *_):
            return path[:2], _DOCUMENT
        case ("items", int(), "attributes", _, kind, *_):
            return path[:4], "a name must not be empty" if kind == "[key]" else _ATTRIBUTE
        case ("item", "attributes", _, kind, *_):
            return path[:3], "a name must not be empty" if kind == "[key]" else _ATTRIBUTE
    message = _MESSAGES.get(issue["type"], issue["msg"][0].lower() + issue["msg"][1:])
    return path, message.replace("input should", "must").replace("must be a valid", "must be a")
