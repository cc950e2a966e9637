"""Opens the client for a single Redis, a Cluster, or what Sentinels watch. It connects with the first command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from redis.asyncio import Redis, RedisCluster, Sentinel, SentinelConnectionPool, SSLConnection
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

if TYPE_CHECKING:
    from service.cache.settings import CacheSettings

Client: TypeAlias = Redis | RedisCluster


def open_client(settings: CacheSettings, patience: float) -> Client:
    """A client that tries everything once.

    Args:
        settings: with an address.
        patience: seconds for making a connection, and for any single answer; callers wait less.
    """
    options: dict[str, Any] = {
        "protocol": 3,
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": patience,
        "socket_connect_timeout": patience,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
    url = settings.redis_url.get_secret_value() if settings.redis_url else "redis://"
    if settings.redis_cluster:
        return RedisCluster.from_url(
            url, max_connections=2 * settings.redis_connections, require_full_coverage=False, **options
        )
    # Reads, a probe and the writer each hold at most so many: the pool never refuses.
    options["max_connections"] = 2 * settings.redis_connections + 1
    if settings.redis_sentinels:
        return _master(settings, {**parse_url(url), **options})
    return Redis.from_url(url, **options)


async def close_client(client: Client) -> None:
    """Close every connection; redis itself leaves some open."""
    await client.aclose()
    if isinstance(client, RedisCluster):  # which closes nothing when its last command failed
        await client.nodes_manager.aclose()
        await client.nodes_manager.aclose("startup_nodes")
    elif isinstance(client.connection_pool, SentinelConnectionPool):
        for sentinel in client.connection_pool.sentinel_manager.sentinels:
            await sentinel.aclose()


def _master(settings: CacheSettings, options: dict[str, Any]) -> Redis:
    """What the Sentinels name as the master; with a rediss:// address, they are asked over TLS too."""
    options = {name: value for name, value in options.items() if name not in {"host", "port"}}
    if options.pop("connection_class", None) is SSLConnection:
        options["ssl"] = True
    password = settings.redis_sentinel_password
    shared = {"socket_timeout", "socket_connect_timeout", "retry"}
    asking = {name: value for name, value in options.items() if name in shared or name.startswith("ssl")}
    addresses = [address.rpartition(":") for address in settings.redis_sentinels]
    sentinel = Sentinel(  # type: ignore[no-untyped-call] # redis leaves it untyped
        [(host, int(port)) for host, _, port in addresses],
        sentinel_kwargs={**asking, "password": password.get_secret_value() if password else None},
    )
    master: Redis = sentinel.master_for(settings.redis_service, **options)
    return master
