"""Real Redis servers in subprocesses, for tests: one alone, a Cluster of three, or a Sentinel that watches one."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import redis

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SLOTS = 16_384
SECONDS = 30.0  # for a server to come up on a busy machine


class RedisServer:
    """One redis-server. It can be killed and started again at the same port, with nothing kept."""

    def __init__(self, folder: Path, *options: str, port: int | None = None, sentinel: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = port or free_port()
        self._folder = folder
        self._options = options
        self._sentinel = sentinel
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it answers."""
        command = ["redis-server"]
        if self._sentinel:
            configuration = self._folder / "sentinel.conf"
            configuration.write_text("\n".join([f"port {self.port}", "bind 127.0.0.1", *self._options, ""]))
            command += [str(configuration), "--sentinel"]
        else:
            command += ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
            command += ["--dir", str(self._folder), *self._options]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        until(self._answers, f"redis-server on port {self.port} does not come up")

    def kill(self) -> None:
        """End it at once, and wait until it has."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Stop it: connections stay and are accepted, nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def client(self) -> redis.Redis:
        """A plain client, for looking at what is there."""
        password = self._options[self._options.index("--requirepass") + 1] if "--requirepass" in self._options else None
        return redis.Redis(port=self.port, password=password, socket_timeout=5.0)

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


@contextmanager
def redis_server(folder: Path, *options: str) -> Iterator[RedisServer]:
    """A running server."""
    server = RedisServer(folder, *options)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def redis_cluster(folder: Path) -> Iterator[list[RedisServer]]:
    """Three masters that share the slots."""
    with ExitStack() as stack:
        nodes = []
        for n in range(3):
            bus = str(free_port())
            options = ("--cluster-enabled", "yes", "--cluster-port", bus, "--cluster-node-timeout", "2000")
            nodes.append((stack.enter_context(redis_server(folder / str(n), *options)), bus))
        clients = [stack.enter_context(node.client()) for node, _ in nodes]
        edges = [SLOTS * n // 3 for n in range(4)]
        for n, client in enumerate(clients):
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", edges[n], edges[n + 1] - 1)
            for node, bus in nodes[:n]:
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port, bus)
        until(
            lambda: (
                all(b"cluster_state:ok" in _raw(c, "CLUSTER", "INFO") for c in clients)
                and all(_raw(c, "CLUSTER", "NODES").count(b"connected") == 3 for c in clients)
            ),
            "the cluster does not form",
        )
        yield [node for node, _ in nodes]


@contextmanager
def redis_sentinel(folder: Path) -> Iterator[tuple[RedisServer, RedisServer, RedisServer]]:
    """A Sentinel that watches `mymaster`, the master, and its replica."""
    with redis_server(folder / "master") as master:
        follow = ("--replicaof", "127.0.0.1", str(master.port))
        with redis_server(folder / "replica", *follow) as replica:
            options = (
                f"sentinel monitor mymaster 127.0.0.1 {master.port} 1",
                "sentinel down-after-milliseconds mymaster 500",
                "sentinel failover-timeout mymaster 2000",
            )
            sentinel = RedisServer(folder / "sentinel", *options, sentinel=True)
            sentinel.start()
            try:
                with sentinel.client() as client:
                    until(
                        lambda: len(client.execute_command("SENTINEL", "REPLICAS", "mymaster")) == 1,
                        "the Sentinel does not find the replica",
                    )
                yield sentinel, master, replica
            finally:
                sentinel.kill()


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def until(holds: Callable[[], bool], otherwise: str) -> None:
    """Wait until something holds.

    Raises:
        TimeoutError: it does not.
    """
    end = time.monotonic() + SECONDS
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(otherwise)
        time.sleep(0.02)


def _raw(client: redis.Redis, *command: str) -> bytes:
    answer: object = client.execute_command(*command)  # type: ignore[no-untyped-call] # redis leaves it untyped
    return answer if isinstance(answer, bytes) else str(answer).encode()
