"""A teacher or judge endpoint: what it says is parsed or refused, never guessed. Against a real HTTP server."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from models.errors import RequestRefusedError, TrainingError
from models.manifest import SHIPPED, load_manifest
from models.rationale import AttributeVerdict, CategoryVerdict
from models.train.data.schema import parse_row
from models.train.endpoint import Answer, ask, judge_steps, rationale_schema, teacher_answer, teacher_prompt
from models.train.stages.config import Endpoint, RequestField
from tests.models.train.chat import ChatServer

if TYPE_CHECKING:
    from collections.abc import Iterator

ROW = parse_row("here", {"query": "phone case", "title": "laptop case", "tier": "2-Mismatch"})


class Scripted(ChatServer):
    """Answers every chat completion with the next (status, content) of its script, the last one for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.script: list[tuple[int, str | None]] = [(200, "")]
        self.bodies: list[Any] = []
        self.keys: list[str | None] = []

    def reply(self, body: Any, key: str | None) -> tuple[int, Any]:
        """The next of the script."""
        self.bodies.append(body)
        self.keys.append(key)
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]


@pytest.fixture
def server() -> Iterator[Scripted]:
    with Scripted().answering() as made:
        yield made


@pytest.fixture
def endpoint(server: Scripted) -> Endpoint:
    return Endpoint(url=f"http://127.0.0.1:{server.server_port}/v1", model="big", key_variable="TEACHER_KEY")


def test_teacher(server: Scripted, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rationale is read out of the answer; key, model, rules and the gold tier were sent."""
    monkeypatch.setenv("TEACHER_KEY", "secret")
    said = {
        "category": "related",
        "attributes": {"type, kind": "violated"},
        "context": "ignore",
        "reason": "for laptops",
    }
    server.script = [(503, ""), (200, f"Sure: {json.dumps(said)}")]
    found = teacher_answer(endpoint, ROW, ["An accessory is a mismatch."])
    assert found is not None
    assert (found.category, found.reason) == ("related", "for laptops")
    assert dict(found.attributes) == {"type  kind": "violated"}
    assert server.keys == ["Bearer secret"] * 2
    prompt = server.bodies[-1]["messages"][0]["content"]
    assert server.bodies[-1]["model"] == "big"
    assert server.bodies[-1]["max_completion_tokens"] == endpoint.longest
    assert server.bodies[-1]["response_format"]["json_schema"]["schema"] == rationale_schema()
    assert "2-Mismatch" in prompt
    assert "An accessory is a mismatch." in prompt


def test_teacher_knows_what_tiers_follow_from() -> None:
    """Four tiers are named with their verdicts as the rule table has them; of another number it says nothing."""
    tiers = load_manifest(SHIPPED).tiers
    told = teacher_prompt(ROW.model_copy(update={"tier": "2"}), tiers=tiers)
    assert told == teacher_prompt(ROW, tiers=tiers), "a tier is called by its name, however the row writes it"
    assert dict(line.removeprefix("- ").split(": ") for line in told.splitlines() if line.startswith("- category")) == {
        "category match, no attribute unknown or violated": "4-Excellent",
        "category match, an attribute unknown and none violated": "3-Related",
        "category match, an attribute violated": "2-Mismatch",
        "category match, an attribute named brand, model or fits violated": "2-Mismatch or 1-Irrelevant",
        "category related": "2-Mismatch",
        "category mismatch": "1-Irrelevant",
    }
    assert "must fit" not in teacher_prompt(ROW, tiers=tiers[:2])


@pytest.mark.parametrize("content", ["", "no JSON", '{"category": "perhaps"}', '{"category": "match"', "{}"])
def test_unreadable_teacher(server: Scripted, endpoint: Endpoint, content: str) -> None:
    """An answer that breaks the schema is no answer."""
    server.script = [(200, content)]
    assert teacher_answer(endpoint, ROW) is None


def test_judge(server: Scripted, endpoint: Endpoint) -> None:
    """The last word counts; anything but RIGHT or WRONG is an abstention."""
    alone = endpoint.model_copy(update={"concurrency": 1})
    server.script = [(200, "Fine.\nRIGHT"), (200, "No.\n**WRONG**"), (200, "Hm.\nUNSURE"), (200, "")]
    assert judge_steps(alone, [(ROW, "reason", "x")] * 4) == [True, False, None, None]


def test_judge_that_refuses(server: Scripted, endpoint: Endpoint) -> None:
    """A step that it does not take is an abstention, even all of a batch; if it takes nothing, the run stops."""
    alone = endpoint.model_copy(update={"concurrency": 1})
    server.script = [(400, "not that one"), (200, "yes"), (403, "nor that"), (200, "yes"), (200, "RIGHT")]
    assert judge_steps(alone, [(ROW, "reason", "x")] * 2) == [None, None]
    assert judge_steps(alone, [(ROW, "reason", "x")]) == [True]
    server.script = [(400, "no such field")]
    with pytest.raises(TrainingError, match="no such field"):
        judge_steps(alone, [(ROW, "reason", "x")] * 2)


def test_gives_up(server: Scripted, endpoint: Endpoint) -> None:
    """Three failures are no answer; a refusal for good stops the run with address and model."""
    server.script = [(500, "")]
    assert ask(endpoint, "x") is None
    assert len(server.bodies) == 3
    server.script = [(401, "")]
    with pytest.raises(TrainingError, match="401 for model 'big'"):
        ask(endpoint, "x")


def test_waits_as_long_as_it_is_told(server: Scripted, endpoint: Endpoint) -> None:
    """An endpoint that is asked too often says when to come back."""
    server.script, server.retry_after = [(429, ""), (429, ""), (200, "now")], 1.0
    asked = time.monotonic()
    assert ask(endpoint, "x") == Answer("now")
    assert time.monotonic() - asked >= 2.0


def test_an_answer_that_ran_into_its_limit(server: Scripted, endpoint: Endpoint) -> None:
    """Thoughts that took all tokens leave no text, which is not the text "None"."""
    server.script, server.finish_reason = [(200, None)], "length"
    assert ask(endpoint, "x") == Answer("", cut=True)


def test_a_filtered_answer_is_a_refusal(server: Scripted, endpoint: Endpoint) -> None:
    """An endpoint that filters everything is no teacher, and says so."""
    server.script, server.finish_reason = [(200, None)], "content_filter"
    with pytest.raises(TrainingError, match="content_filter"):
        ask(endpoint, "x")


def test_one_prompt_refused(server: Scripted, endpoint: Endpoint) -> None:
    """Who takes a harmless prompt refuses this one alone, and the error says which of the two it is."""
    server.script = [(403, "flagged"), (200, "yes")]
    with pytest.raises(RequestRefusedError, match="flagged"):
        ask(endpoint, "x")
    assert [body["messages"][0]["content"] for body in server.bodies] == ["x", "Say yes."]


def test_schema() -> None:
    """What the schema asks for is what is read: the closed values, every key, and no other."""
    schema = rationale_schema()
    assert set(schema["required"]) == {"category", "attributes", "context", "reason"}
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["AttributeVerdict"]["enum"] == [verdict.value for verdict in AttributeVerdict]


@pytest.mark.parametrize("status", [400, 422])
def test_endpoint_that_knows_fewer_fields(server: Scripted, endpoint: Endpoint, status: int) -> None:
    """A refusal is told in the endpoint's own words with the fields that can be left out; then they are not sent."""
    server.script = [(status, "no such field")]
    with pytest.raises(TrainingError, match=r"no such field.*max_completion_tokens, response_format.*--omit"):
        teacher_answer(endpoint, ROW)
    with pytest.raises(TrainingError) as refusal:
        ask(endpoint, "x")
    assert "response_format" not in str(refusal.value), "none was sent"
    plain = endpoint.model_copy(update={"omit": tuple(RequestField)})
    server.script = [(200, json.dumps({"category": "mismatch"}))]
    found = teacher_answer(plain, ROW)
    assert found is not None
    assert found.category is CategoryVerdict.MISMATCH
    assert set(server.bodies[-1]) == {"model", "messages"}
