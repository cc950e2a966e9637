"""Redis as a Cluster and behind Sentinels, and the settings that say so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis, SentinelConnectionPool, SSLConnection

from models.deadline import Deadline
from service.cache.breaker import BreakerState
from service.cache.redis import close_client, open_client
from service.settings import SettingsError, load_settings
from tests.redis_server import redis_cluster, redis_sentinel
from tests.service.cache.conftest import connect, eventually, remote_at, settings_for

if TYPE_CHECKING:
    from pathlib import Path

    from service.cache.remote import RemoteCache

NEVER = Deadline.never()
QUERIES = [bytes([n]) * 16 for n in range(24)]
KEYS = [bytes([n]) * 16 for n in range(8)]


async def fill(remote: RemoteCache) -> None:
    """Write entries of many queries, and wait until they are there."""
    stored = remote.stats.stored
    for shared in QUERIES:
        remote.write(shared, [(key, shared + key) for key in KEYS], 60.0)
    await eventually(lambda: remote.stats.stored == stored + len(QUERIES) * len(KEYS))


async def read(remote: RemoteCache) -> bool:
    """Whether all of them are read."""
    found = [await remote.read(shared, KEYS, NEVER) for shared in QUERIES]
    return found == [[shared + key for key in KEYS] for shared in QUERIES]


async def test_a_cluster_serves_each_query_from_one_slot(tmp_path: Path) -> None:
    """Queries spread over the nodes, all keys of one lie together; a lost node costs its share and no error."""
    with redis_cluster(tmp_path) as nodes:
        async with remote_at(nodes[0].port, redis_cluster=True) as remote:
            await fill(remote)
            assert await read(remote)
            sizes = []
            for node in nodes:
                with node.client() as client:
                    sizes.append(client.dbsize())
            assert sum(sizes) == len(QUERIES) * len(KEYS)
            assert all(size and size % len(KEYS) == 0 for size in sizes)
            nodes[2].kill()
            for shared in QUERIES:
                values = await remote.read(shared, KEYS, NEVER)
                assert values in ([None] * len(KEYS), [shared + key for key in KEYS])
            assert remote.reads.state is not BreakerState.CLOSED


async def test_sentinels_name_the_master_and_its_successor(tmp_path: Path) -> None:
    """After a failover the new master is read and written."""
    with redis_sentinel(tmp_path) as (sentinel, master, replica):
        addresses = (f"127.0.0.1:{sentinel.port}",)
        async with remote_at(0, redis_url=None, redis_sentinels=addresses) as remote:
            await fill(remote)
            assert await read(remote)
            with replica.client() as client:
                await eventually(lambda: client.dbsize() == len(QUERIES) * len(KEYS))
                master.kill()
                await eventually(lambda: client.role()[0] == b"master")
            assert await remote.read(QUERIES[0], KEYS, NEVER) in ([None] * len(KEYS), [QUERIES[0] + k for k in KEYS])
            await connect(remote)
            assert await read(remote)
            await eventually(lambda: remote.writes.state is not BreakerState.OPEN)
            await fill(remote)


async def test_a_tls_address_holds_for_the_master_and_the_sentinels() -> None:
    """Nothing goes in the clear when the address says rediss."""
    settings = settings_for(1, redis_url="rediss://user:pass@x/3", redis_sentinels=("a:1", "b:2"))
    client = open_client(settings, 1.0)
    assert isinstance(client, Redis)
    pool = client.connection_pool
    assert isinstance(pool, SentinelConnectionPool)
    assert issubclass(pool.connection_class, SSLConnection)
    assert (pool.connection_kwargs["password"], pool.connection_kwargs["db"]) == ("pass", 3)
    for sentinel in pool.sentinel_manager.sentinels:
        assert issubclass(sentinel.connection_pool.connection_class, SSLConnection)
    await close_client(client)


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"REDIS_URL": "http://:secret@host"}, "cache.redis_url"),
        ({"REDIS_URL": "localhost:6379"}, "cache.redis_url"),
        ({"REDIS_SENTINELS": '["host"]'}, "cache.redis_sentinels"),
        ({"REDIS_URL": "redis://h:1", "REDIS_CLUSTER": "true", "REDIS_SENTINELS": '["h:1"]'}, "exclude each other"),
        ({"REDIS_CLUSTER": "true"}, "needs redis_url"),
        ({"REDIS_TIMEOUT_MS": "0"}, "cache.redis_timeout_ms"),
        ({"MEMORY_BYTES": "-1"}, "cache.memory_bytes"),
        ({"TTL": "5"}, "TIERWISE_CACHE__TTL"),
    ],
)
def test_a_wrong_setting_is_named_and_no_secret_is_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variables: dict[str, str], named: str
) -> None:
    """The start stops, and the message holds no part of an address that may carry a password."""
    monkeypatch.chdir(tmp_path)
    for name, value in variables.items():
        monkeypatch.setenv(f"TIERWISE_CACHE__{name}", value)
    with pytest.raises(SettingsError, match=named) as caught:
        load_settings()
    assert "secret" not in str(caught.value)


def test_redis_is_off_until_it_has_an_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The cache of the process is on."""
    monkeypatch.chdir(tmp_path)
    settings = load_settings().cache
    assert (settings.enabled, settings.remote) == (True, False)
    monkeypatch.setenv("TIERWISE_CACHE__REDIS_URL", "rediss://user:secret@host:1/2")
    settings = load_settings().cache
    assert settings.remote
    assert "secret" not in repr(settings)
