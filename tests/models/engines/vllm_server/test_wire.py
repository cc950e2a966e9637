import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.engines.vllm_server.wire import BadReplyError, label_reads, streamed_ids

LABELS = (4, 5)
PROMPTS = [[1, 2, 3], [1, 2]]


def reply(**changes: Any) -> dict[str, Any]:
    """A good reply to two prompts, answers in reverse order as servers may send them."""
    choices = [
        {"index": n, "logprobs": {"top_logprobs": [{"token_id:4": -0.5 - n, "token_id:5": -1.5, "token_id:9": -0.1}]}}
        for n in (1, 0)
    ]
    return {"choices": choices, "usage": {"prompt_tokens": 5}} | changes


def test_answers_come_in_the_order_of_the_prompts() -> None:
    """Each prompt must get its own labels' values, by id, whatever order the server answered in."""
    reads = label_reads(json.dumps(reply()).encode(), PROMPTS, LABELS)
    assert [r.logprobs for r in reads] == [(-0.5, -1.5), (-1.5, -1.5)]


def test_cached_tokens_are_read_where_they_are_told() -> None:
    """With --enable-prompt-tokens-details the usage says how much of the prompts was found in the cache."""
    usage = {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}
    reads = label_reads(json.dumps(reply(usage=usage)).encode(), PROMPTS, LABELS)
    assert [r.cached_tokens for r in reads] == [2, 2]


@pytest.mark.parametrize("cut", range(0, 200, 7))
def test_half_a_body_is_no_answer(cut: int) -> None:
    """A reply cut anywhere must be refused."""
    with pytest.raises(BadReplyError):
        label_reads(json.dumps(reply()).encode()[:cut], PROMPTS, LABELS)


def test_tokens_that_were_cut_are_noticed() -> None:
    """A server that read fewer tokens than were sent scored another prompt."""
    with pytest.raises(BadReplyError, match="4 prompt tokens, 5 were sent"):
        label_reads(json.dumps(reply(usage={"prompt_tokens": 4})).encode(), PROMPTS, LABELS)


@pytest.mark.parametrize("value", [math.nan, -math.inf, 0.5, None])
def test_a_value_that_is_no_log_probability_is_refused(value: float | None) -> None:
    """NaN, minus infinity, a probability above one and nothing at all must never become a score."""
    bad = reply()
    bad["choices"][0]["logprobs"]["top_logprobs"][0]["token_id:4"] = value
    with pytest.raises(BadReplyError):
        label_reads(json.dumps(bad).encode(), PROMPTS, LABELS)


@given(
    st.binary(max_size=64)
    | st.recursive(st.none() | st.floats() | st.text(), st.lists).map(lambda v: json.dumps(v).encode())
)
def test_anything_else_is_refused_in_one_way(content: bytes) -> None:
    """Whatever a server sends instead of an answer must end in the one error that the pool handles."""
    with pytest.raises(BadReplyError):
        label_reads(content, PROMPTS, LABELS)


def test_streamed_ids_until_done() -> None:
    """Ids of events come out; comments and blank lines carry none; the end is told apart from an empty event."""
    assert streamed_ids('data: {"choices": [{"token_ids": [7, 8]}]}') == [7, 8]
    assert streamed_ids("") == []
    assert streamed_ids(": keep-alive") == []
    assert streamed_ids('data: {"choices": []}') == []
    assert streamed_ids("data: [DONE]") is None


@pytest.mark.parametrize("line", ["event: x", "data: {", 'data: {"error": {"message": "out of memory"}}'])
def test_a_broken_stream_is_refused(line: str) -> None:
    """Anything that is not an event of the stream, or reports a failure, must end it with an error."""
    with pytest.raises(BadReplyError):
        streamed_ids(line)
