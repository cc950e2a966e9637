"""Who stands behind a credential, and what that allows. Pure values; no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from service.errors import FieldError, ForbiddenError, InvalidRequestError
from service.request import Caller, Priority

if TYPE_CHECKING:
    from collections.abc import Mapping

PRIORITY_HEADER = "x-tierwise-priority"

_RANK = {Priority.BATCH: 0, Priority.DEFAULT: 1, Priority.CRITICAL: 2}


class Scope(StrEnum):
    """What a credential may do; none includes another."""

    SCORE = "score"  # score, rerank, list models
    EXPLAIN = "explain"  # decode reasons, which costs far more than a score
    ADMIN = "admin"  # the admin door's own endpoints


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller.

    Attributes:
        caller: tenant, priority and quotas; what the pipeline sees.
        scopes: what the credential may do.
        credential: its name for the log, `key:ID`, `certificate:NAME` or `none`; never a secret.
    """

    caller: Caller
    scopes: frozenset[Scope]
    credential: str

    def require(self, scope: Scope) -> None:
        """Go on only with a scope.

        Raises:
            ForbiddenError: naming the scope that the credential lacks.
        """
        if scope not in self.scopes:
            held = ", ".join(sorted(self.scopes))
            raise ForbiddenError(f"{self.credential} holds the scopes {held}; this needs {scope}")


def asked_priority(metadata: Mapping[str, str], ceiling: Priority) -> Priority:
    """The priority of one call: what its header asks for, at most `ceiling`; `default` without a header.

    Raises:
        InvalidRequestError: the header names no priority.
    """
    text = metadata.get(PRIORITY_HEADER)
    try:
        asked = Priority.DEFAULT if text is None else Priority(text.strip().lower())
    except ValueError:
        detail = f"header {PRIORITY_HEADER} must be {', '.join(Priority)}, it is {str(text)[:40]!r}"
        raise InvalidRequestError(detail, errors=(FieldError("", detail),)) from None
    return min(asked, ceiling, key=_RANK.__getitem__)
