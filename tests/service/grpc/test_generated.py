"""The committed code of the protocol is what its .proto says."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc

from scripts.proto import PROTO, ROOT, generate
from service.grpc.relevance import SERVICE, Relevance
from service.grpc.v1 import relevance_pb2 as pb

if TYPE_CHECKING:
    from pathlib import Path

    from tests.service.grpc.conftest import Doors


def test_generating_again_gives_the_same_bytes(tmp_path: Path) -> None:
    """Nobody edited generated code, and nobody edited the .proto without generating."""
    generate(tmp_path)
    written = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*_pb2*")}
    committed = {path.relative_to(ROOT): path.read_bytes() for path in (ROOT / PROTO).parent.glob("*_pb2*")}
    assert len(committed) == 3
    assert written == committed


async def test_every_method_of_the_protocol_is_served(doors: Doors) -> None:
    """The handler knows the methods of the descriptor, and reads every message itself: not before a key is shown."""
    methods = pb.DESCRIPTOR.services_by_name["Relevance"].methods
    handler = Relevance(doors.http.gateway, asyncio.Event()).handler()
    for method in methods:
        found = handler.service(_Details(f"/{SERVICE}/{method.name}"))
        assert found is not None, method.name
        assert (found.request_streaming, found.response_streaming) == (True, method.server_streaming)


class _Details(grpc.HandlerCallDetails):
    def __init__(self, method: str) -> None:
        self.method = method
        self.invocation_metadata = ()
