"""Keys at the admin door."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx

from service.access.keys import key_hash, key_id, new_key
from service.http.admin import create_admin

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from tests.service.conftest import Door

    OpenDoor = Callable[..., AbstractAsyncContextManager[Door]]

ADMIN, SCORER = new_key(), new_key()


def admin(door: Door) -> httpx.AsyncClient:
    """A client of the admin door."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(create_admin(door.gateway)), base_url="http://admin")


async def test_keys_in_force_are_shown_to_those_who_may(open_door: OpenDoor, tmp_path: Path) -> None:
    """By their ids, never by their hashes; a file that was refused is told, there and in the metrics."""
    grants = ((ADMIN, "ops", ["admin"]), (SCORER, "shop", ["score"]))
    records = [{"id": key_id(k), "sha256": key_hash(k), "tenant": t, "scopes": s} for k, t, s in grants]
    file = tmp_path / "keys.yaml"
    file.write_text(json.dumps({"keys": records}))
    async with open_door(access={"keys_file": file}) as door, admin(door) as client:
        for key, status in ((None, 401), (SCORER, 403), (ADMIN, 200)):
            response = await client.get("/keys", headers={"x-api-key": key} if key else {})
            assert response.status_code == status
            assert key_hash(SCORER) not in response.text
        shown = response.json()
        assert [(c["credential"], c["tenant"]) for c in shown["credentials"]] == [
            (f"key:{key_id(ADMIN)}", "ops"),
            (f"key:{key_id(SCORER)}", "shop"),
        ]
        assert shown["refused"] is None
        assert 'tierwise_access_refused{files="keys"} 0.0' in (await client.get("/metrics")).text
        file.write_text("keys: [")
        refused = (await client.get("/keys", headers={"x-api-key": ADMIN})).json()
        assert "not YAML" in refused["refused"]
        assert refused["credentials"] == shown["credentials"]
        assert 'tierwise_access_refused{files="keys"} 1.0' in (await client.get("/metrics")).text


async def test_without_keys_everyone_is_known(open_door: OpenDoor) -> None:
    """The answer says so instead of an empty list, which would read as nobody."""
    async with open_door() as door, admin(door) as client:
        assert (await client.get("/keys")).json() == {"credentials": None, "refused": None}
