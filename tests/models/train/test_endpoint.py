"""A teacher or judge endpoint: what it says is parsed or refused, never guessed. Against a real HTTP server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from models.errors import TrainingError
from models.manifest import SHIPPED, load_manifest
from models.rationale import AttributeVerdict, CategoryVerdict
from models.train.data.schema import parse_row
from models.train.endpoint import ask, judge_steps, rationale_schema, teacher_answer, teacher_prompt
from models.train.stages.config import Endpoint
from tests.models.train.chat import ChatServer

if TYPE_CHECKING:
    from collections.abc import Iterator

ROW = parse_row("here", {"query": "phone case", "title": "laptop case", "tier": "2-Mismatch"})


class Scripted(ChatServer):
    """Answers every chat completion with the next (status, content) of its script, the last one for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.script: list[tuple[int, str]] = [(200, "")]
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
    """Four tiers are named with their verdicts; of another number the rule table says nothing."""
    tiers = load_manifest(SHIPPED).tiers
    prompt = teacher_prompt(ROW, tiers=tiers)
    assert "1-Irrelevant when category is mismatch" in prompt
    assert prompt.index("4-Excellent when") < prompt.index("3-Related when") < prompt.index("2-Mismatch when")
    assert teacher_prompt(ROW, tiers=tiers[:2]) == teacher_prompt(ROW)


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


def test_gives_up(server: Scripted, endpoint: Endpoint) -> None:
    """Three failures are no answer; a refusal for good stops the run with address and model."""
    server.script = [(500, "")]
    assert ask(endpoint, "x") is None
    assert len(server.bodies) == 3
    server.script = [(401, "")]
    with pytest.raises(TrainingError, match="401 for model 'big'"):
        ask(endpoint, "x")


def test_schema() -> None:
    """What the schema asks for is what is read: the closed values, every key, and no other."""
    schema = rationale_schema()
    assert set(schema["required"]) == {"category", "attributes", "context", "reason"}
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["AttributeVerdict"]["enum"] == [verdict.value for verdict in AttributeVerdict]


def test_endpoint_without_schemas(server: Scripted, endpoint: Endpoint) -> None:
    """A 400 is told in the endpoint's own words with what to set; then no schema is sent."""
    server.script = [(400, "")]
    with pytest.raises(TrainingError, match="structured: false"):
        teacher_answer(endpoint, ROW)
    plain = endpoint.model_copy(update={"structured": False})
    server.script = [(200, json.dumps({"category": "mismatch"}))]
    found = teacher_answer(plain, ROW)
    assert found is not None
    assert found.category is CategoryVerdict.MISMATCH
    assert "response_format" not in server.bodies[-1]
