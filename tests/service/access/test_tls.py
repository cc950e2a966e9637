"""TLS on real sockets, with real certificates, at both doors."""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import trustme
import uvloop

from service.access.settings import TlsSettings
from service.access.tls import Tls, names_in, names_in_properties, open_tls
from service.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Who signs servers."""
    return trustme.CA()


@pytest.fixture(scope="module")
def clients() -> trustme.CA:
    """Who signs clients."""
    return trustme.CA()


def store(folder: Path, server: trustme.LeafCert, clients: trustme.CA | None = None, **rest: Any) -> TlsSettings:
    """Settings with the files of a server."""
    certificate, key = folder / "server.pem", folder / "server.key"
    certificate.write_bytes(b"".join(part.bytes() for part in server.cert_chain_pems))
    key.write_bytes(server.private_key_pem.bytes())
    client_ca = folder / "clients.pem"
    if clients:
        client_ca.write_bytes(clients.cert_pem.bytes())
    return TlsSettings(certificate=certificate, key=key, client_ca=client_ca if clients else None, **rest)


async def shake(tls: Tls, authority: trustme.CA, client: trustme.LeafCert | None = None, name: str = "tierwise") -> Any:
    """One connection: (serial number of the server's certificate, names of the client's)."""
    seen: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.set_result(list(names_in(writer.get_extra_info("ssl_object").getpeercert() or {})))
        writer.write(b"x")
        await writer.drain()
        writer.close()

    context = ssl.create_default_context()
    authority.configure_trust(context)
    if client:
        client.configure_cert(context)
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls.context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
        try:
            assert await reader.read(1) == b"x"
            return writer.get_extra_info("ssl_object").getpeercert()["serialNumber"], await seen
        finally:
            writer.close()


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop])
def run(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Runs a coroutine on either event loop."""

    def in_loop(coroutine: Any) -> Any:
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(coroutine)

    return in_loop


@pytest.mark.parametrize("name", ["tierwise", "127.0.0.1"])
def test_a_renewed_certificate_reaches_new_connections(
    run: Callable[..., Any], tmp_path: Path, authority: trustme.CA, name: str
) -> None:
    """The server goes on with the context that it was given, with a server name in the handshake or without."""
    tls = Tls(store(tmp_path, authority.issue_cert("tierwise", "127.0.0.1")))
    first = run(shake(tls, authority, name=name))
    assert not tls.refresh()
    store(tmp_path, authority.issue_cert("tierwise", "127.0.0.1"))
    assert run(shake(tls, authority, name=name)) == first
    assert tls.refresh()
    assert run(shake(tls, authority, name=name)) != first


def test_bad_files_are_refused_and_the_old_certificate_stays(
    run: Callable[..., Any], tmp_path: Path, authority: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    """A half-written renewal, a key that does not fit, or a missing file is told once each and changes nothing."""
    settings = store(tmp_path, authority.issue_cert("tierwise"))
    tls = Tls(settings)
    first = run(shake(tls, authority))
    assert settings.key is not None
    good = settings.key.read_bytes()
    with caplog.at_level(logging.INFO, "service.access"):
        for broken in (b"", good[:100], authority.issue_cert("x").private_key_pem.bytes()):
            settings.key.write_bytes(broken)
            assert not tls.refresh()
            assert not tls.refresh()
            assert tls.refused
            assert run(shake(tls, authority)) == first
        settings.key.unlink()
        assert not tls.refresh()
        settings.key.write_bytes(good)
        assert not tls.refresh()
        assert tls.refused is None
    assert {r.levelname for r in caplog.records} == {"ERROR"}
    assert "PRIVATE" not in caplog.text


def test_clients_are_verified(
    run: Callable[..., Any], tmp_path: Path, authority: trustme.CA, clients: trustme.CA
) -> None:
    """A client of ours is known by every name; a stranger, or none, does not get in."""
    tls = Tls(store(tmp_path, authority.issue_cert("tierwise"), clients))
    known = clients.issue_cert("front.internal", "spiffe.internal", common_name="front")
    assert run(shake(tls, authority, known))[1] == ["front.internal", "spiffe.internal", "front"]
    for stranger in (None, authority.issue_cert("front.internal")):
        with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
            run(shake(tls, authority, stranger))


def test_a_client_certificate_may_be_optional(
    run: Callable[..., Any], tmp_path: Path, authority: trustme.CA, clients: trustme.CA
) -> None:
    """Then who shows none has no name, and who shows a wrong one is refused all the same."""
    tls = Tls(store(tmp_path, authority.issue_cert("tierwise"), clients, client_required=False))
    assert run(shake(tls, authority))[1] == []
    assert run(shake(tls, authority, clients.issue_cert("front.internal")))[1] == ["front.internal"]
    with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
        run(shake(tls, authority, authority.issue_cert("front.internal")))


def test_a_withdrawn_authority_signs_no_more(
    run: Callable[..., Any], tmp_path: Path, authority: trustme.CA, clients: trustme.CA
) -> None:
    """A renewal replaces who may sign clients; it does not add to it."""
    server = authority.issue_cert("tierwise")
    tls = Tls(store(tmp_path, server, clients))
    run(shake(tls, authority, clients.issue_cert("front.internal")))
    others = trustme.CA()
    store(tmp_path, server, others)
    assert tls.refresh()
    assert run(shake(tls, authority, others.issue_cert("back.internal")))[1] == ["back.internal"]
    with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
        run(shake(tls, authority, clients.issue_cert("front.internal")))


async def test_grpc_has_the_same_certificates(tmp_path: Path, authority: trustme.CA, clients: trustme.CA) -> None:
    """Renewed at the next connection; clients are verified, and named in the same order as at the other door."""
    tls = Tls(store(tmp_path, authority.issue_cert("localhost"), clients))
    seen: list[dict[str, Any]] = []

    async def answer(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        seen.append(dict(context.auth_context()))
        return request

    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t", {"Echo": handler}),))
    port = server.add_secure_port("localhost:0", tls.grpc_credentials())
    await server.start()

    async def call(trusted: trustme.CA, client: trustme.LeafCert | None) -> bytes:
        chain = b"".join(part.bytes() for part in client.cert_chain_pems) if client else None
        key = client.private_key_pem.bytes() if client else None
        credentials = grpc.ssl_channel_credentials(trusted.cert_pem.bytes(), key, chain)
        async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
            echo: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/t/Echo")
            return await echo(b"x", timeout=10)

    known = clients.issue_cert("front.internal", "spiffe.internal", common_name="front")
    assert await call(authority, known) == b"x"
    assert list(names_in_properties(seen[0])) == ["front.internal", "spiffe.internal", "front"]
    with pytest.raises(grpc.aio.AioRpcError):
        await call(authority, None)
    other = trustme.CA()
    store(tmp_path, other.issue_cert("localhost"), clients)
    assert tls.refresh()
    assert await call(other, known) == b"x"
    await server.stop(None)


def test_wrong_files_stop_the_start_by_name(tmp_path: Path, authority: trustme.CA) -> None:
    """The setting is named, and the file that cannot be read."""
    assert open_tls(TlsSettings()) is None
    settings = store(tmp_path, authority.issue_cert("tierwise"))
    assert settings.key is not None
    settings.key.write_bytes(authority.issue_cert("x").private_key_pem.bytes())
    with pytest.raises(SettingsError, match="TIERWISE_TLS__CERTIFICATE"):
        open_tls(settings)
    settings.key.unlink()
    with pytest.raises(SettingsError, match=r"server\.key cannot be read"):
        open_tls(settings)


def test_a_key_with_a_password_stops_the_start(tmp_path: Path, authority: trustme.CA) -> None:
    """Nobody sits at the terminal to type it."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 # for this test alone

    server = authority.issue_cert("tierwise")
    settings = store(tmp_path, server)
    assert settings.key is not None
    key = serialization.load_pem_private_key(server.private_key_pem.bytes(), None)
    locked = serialization.BestAvailableEncryption(b"secret")
    form = serialization.PrivateFormat.PKCS8
    settings.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, locked))
    with pytest.raises(SettingsError, match="has a password"):
        open_tls(settings)


@pytest.mark.parametrize("given", [{"certificate": "a"}, {"key": "a"}, {"client_ca": "a"}])
def test_half_of_the_settings_is_refused(given: dict[str, str]) -> None:
    """A door that was meant to be private does not open in plain text."""
    with pytest.raises(ValueError, match="certificate and key"):
        TlsSettings.model_validate(given)
