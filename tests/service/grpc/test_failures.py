"""Errors travel as google.rpc statuses."""

from __future__ import annotations

import pytest
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st

from service.errors import FieldError, InvalidRequestError, OverloadedError, ServiceError, by_code, invalid
from service.grpc.failures import error_of, status_of
from tests.service.test_errors import every_kind

MOST_BYTES = 5_000  # base64 adds a third, and the peer's limit for all headers is 8 KiB


def test_every_kind_of_error_comes_back_as_itself() -> None:
    """Class, text and retry hint survive; the base stands for a class that takes more than those."""
    for kind in every_kind(ServiceError):
        if kind.__init__ is not ServiceError.__init__:
            continue
        error = error_of(status_of(kind("what to change", retry_after_ms=1500), "id-1"))
        assert error is not None
        assert (type(error), error.detail, error.retry_after_ms) == (kind, "what to change", 1500)


@pytest.mark.parametrize(
    ("pointer", "path"),
    [
        ("#/query", "query"),
        ("#/items/3/title", "items[3].title"),
        ("#/items/3/attributes/battery hours", 'items[3].attributes["battery hours"]'),
        ('#/items/0/attributes/a~1b~0[c]."d', 'items[0].attributes["a/b~[c].\\"d"]'),
        ("", ""),
    ],
)
def test_a_pointer_becomes_the_path_of_a_field_and_comes_back(pointer: str, path: str) -> None:
    """Violations name fields as protobuf does."""
    status = status_of(InvalidRequestError("wrong", errors=[FieldError(pointer, "change it")]), "id-1")
    bad = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad) for detail in status.details)
    assert [v.field for v in bad.field_violations] == [path]
    back = error_of(status)
    assert back is not None
    assert back.errors == (FieldError(pointer, "change it"),)


@given(st.lists(st.tuples(st.text(max_size=2000), st.text(max_size=2000)), max_size=30), st.text(max_size=5000))
def test_no_text_of_a_caller_makes_the_details_too_long(found: list[tuple[str, str]], detail: str) -> None:
    """A peer would drop the whole answer if its headers were too long."""
    errors = [FieldError(f"#/items/0/attributes/{pointer}", text) for pointer, text in found]
    status = status_of(InvalidRequestError(detail, errors=errors), "i" * 128)
    assert len(status.SerializeToString()) + 3 * len(status.message.encode()) < MOST_BYTES + 3 * 512 * 4
    assert error_of(status) is not None


def test_a_status_of_somebody_else_is_not_ours() -> None:
    """Without our domain there is no error of ours to be made of it."""
    assert error_of(Status(code=14, message="no route")) is None


def test_a_code_that_is_not_known_here_is_the_base() -> None:
    """A newer service's error is still an error."""
    assert by_code("invented-later") is ServiceError
    assert by_code(OverloadedError.code) is OverloadedError
    assert by_code(invalid("#/q", "x").code) is InvalidRequestError
