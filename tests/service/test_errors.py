"""The error tree."""

from __future__ import annotations

import pytest

from models import errors as model_errors
from service import errors


def every_kind(kind: type[errors.ServiceError]) -> list[type[errors.ServiceError]]:
    """The class and everything below it that the service raises; the client has one of its own."""
    children = [child for child in kind.__subclasses__() if child.__module__ == errors.__name__]
    return [kind, *(deeper for child in children for deeper in every_kind(child))]


def test_every_failure_has_a_code_of_its_own_and_a_status_that_fits_its_grpc_code() -> None:
    """Clients branch on `code`; both doors must say the same thing."""
    kinds = every_kind(errors.ServiceError)
    assert len({kind.code for kind in kinds}) == len(kinds)
    retryable = {kind for kind in kinds if kind.retryable} - {errors.QuotaError}  # which its caller's own pace mends
    assert retryable == {kind for kind in kinds if kind.grpc in {"UNAVAILABLE", "DEADLINE_EXCEEDED"}}
    assert all(kind.status >= 500 for kind in retryable)


@pytest.mark.parametrize(
    ("below", "expected"),
    [
        (model_errors.EngineBusyError("full"), errors.OverloadedError),
        (model_errors.EngineUnavailableError("dead"), errors.NotReadyError),
        (model_errors.PromptTooLongError("600 tokens"), errors.InvalidRequestError),
        (model_errors.UnreadableQueryError("no token"), errors.InvalidRequestError),
        (model_errors.EngineError("?"), errors.ServiceError),
    ],
)
def test_failures_below_map_to_the_most_specific_one(
    below: model_errors.ModelError, expected: type[errors.ServiceError]
) -> None:
    """A caller learns whether to retry, wait or change the request."""
    assert type(errors.from_model(below)) is expected


def test_a_defect_does_not_show_its_cause_to_the_caller() -> None:
    """Paths and stack details stay in the log."""
    assert "secret" not in errors.from_model(model_errors.CheckpointError("secret path")).detail


def test_problem_details_hold_everything_that_a_client_needs_to_mend_the_request() -> None:
    """RFC 9457 members, our extensions, and a pointer for each wrong field."""
    body = errors.problem(errors.invalid("#/items/3/title", "write a title"), "r1")
    assert body == {
        "type": "urn:tierwise:problem:invalid-request",
        "title": "The request is not valid",
        "status": 422,
        "detail": "items/3/title: write a title",
        "instance": "urn:tierwise:request:r1",
        "code": "invalid-request",
        "retryable": False,
        "errors": [{"pointer": "#/items/3/title", "detail": "write a title"}],
    }
