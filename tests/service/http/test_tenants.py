"""Nothing of one tenant is visible to another."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from service.access.keys import key_hash, key_id, new_key
from tests.service.conftest import FakeHit, FakeKnowledge

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from tests.service.conftest import Door

    OpenDoor = Callable[..., AbstractAsyncContextManager[Door]]

BODY: dict[str, Any] = {"query": "abcd", "items": [{"id": "a", "title": "abcd"}]}
KEYS = {tenant: new_key() for tenant in ("a", "b", "c")}
OWN = {t: FakeKnowledge(version=f"index-{t}", hit=FakeHit(text=f"known to {t}", chunk_id=f"card-{t}")) for t in "ab"}


@pytest.fixture
async def tenants(open_door: OpenDoor) -> AsyncIterator[Door]:
    """A door with three tenants, two of which have knowledge of their own."""
    records = [
        {"id": key_id(key), "sha256": key_hash(key), "tenant": tenant, "scopes": ["score", "explain"]}
        for tenant, key in KEYS.items()
    ]
    async with open_door(knowledge=FakeKnowledge(), own=OWN, access={"keys": json.dumps({"keys": records})}) as door:
        yield door


async def test_each_tenant_is_judged_with_its_own_knowledge(tenants: Door) -> None:
    """The chunk, its name and the index version are the tenant's; who has none sees the shared one."""
    for tenant, chunk, index in (("a", "card-a", "index-a"), ("b", "card-b", "index-b"), ("c", "card-1", "index-1")):
        reply = (await tenants.post("/v1/score", BODY, **{"x-api-key": KEYS[tenant]})).json()
        assert (reply["context"]["chunk_id"], reply["versions"]["index"]) == (chunk, index)
        models = await tenants.client.get("/v1/models", headers={"x-api-key": KEYS[tenant]})
        assert models.json()["data"][0]["versions"]["index"] == index


async def test_no_header_or_field_lets_a_caller_choose_a_tenant(tenants: Door) -> None:
    """The tenant comes from the credential alone."""
    forged = {"x-api-key": KEYS["a"], "x-tierwise-tenant": "b", "tenant": "b"}
    assert (await tenants.post("/v1/score", BODY, **forged)).json()["versions"]["index"] == "index-a"
    assert (await tenants.post("/v1/score", {**BODY, "tenant": "b"}, **forged)).status_code == 422


async def test_what_one_tenant_asked_is_not_cached_for_another(tenants: Door) -> None:
    """The same question costs each tenant its own pass: nobody can tell from a quick answer what others ask."""
    own_context = {**BODY, "context": {"text": "the same for both"}}
    for body in (BODY, own_context):
        tenants.engine.calls.clear()
        for tenant, passes in (("b", 1), ("b", 1), ("c", 2), ("b", 2), ("c", 2)):
            reply = await tenants.post("/v1/score", body, **{"x-api-key": KEYS[tenant]})
            assert reply.status_code == 200
            assert len(tenants.engine.calls) == passes


async def test_one_tenants_quota_is_not_anothers(open_door: OpenDoor) -> None:
    """Who is over its quota is told so; the others are served as before. A key's own quota is its own."""
    second = new_key()
    records = [
        {"id": key_id(key), "sha256": key_hash(key), "tenant": tenant, "scopes": ["score"], "quota": quota}
        for key, tenant, quota in (
            (KEYS["a"], "a", None),
            (KEYS["b"], "b", None),
            (KEYS["c"], "c", {"requests_per_second": 0.01}),
            (second, "c", None),
        )
    ]
    keys = {"keys": records, "quotas": {"a": {"requests_per_second": 0.01}}}
    async with open_door(access={"keys": json.dumps(keys)}, admission={"burst_seconds": 100}) as door:

        async def statuses(key: str) -> list[int]:
            return [(await door.post("/v1/score", BODY, **{"x-api-key": key})).status_code for _ in range(4)]

        assert (await statuses(KEYS["a"]))[-2:] == [429, 429]
        assert await statuses(KEYS["b"]) == [200] * 4
        assert (await statuses(KEYS["c"]))[-2:] == [429, 429]
        assert await statuses(second) == [200] * 4


async def test_the_engine_is_asked_in_the_scope_of_the_tenant(tenants: Door) -> None:
    """Keys and values that an engine keeps between calls are told apart by tenant."""
    for tenant in ("a", "b"):
        await tenants.post("/v1/score", BODY, **{"x-api-key": KEYS[tenant]})
    assert tenants.engine.scopes == ["a", "b"]
