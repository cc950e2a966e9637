"""Both doors of one process, with keys and with TLS: what is private on one is private on the other."""

from __future__ import annotations

import json
import signal
import ssl
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
import trustme

from service.access.keys import key_hash, key_id, new_key
from service.grpc.relevance import SERVICE
from service.grpc.v1 import relevance_pb2 as pb
from tests.service.test_server import running

if TYPE_CHECKING:
    from pathlib import Path

BODY: dict[str, Any] = {"query": "abcd", "items": [{"id": "a", "title": "abcd"}]}
MESSAGE = pb.ScoreRequest(query="abcd", items=[pb.Item(id="a", title="abcd")])
KEY = new_key()


def score(channel: grpc.Channel, *metadata: tuple[str, str]) -> pb.ScoreResponse:
    """Score one item over gRPC."""
    call: grpc.UnaryUnaryMultiCallable[pb.ScoreRequest, pb.ScoreResponse] = channel.unary_unary(
        f"/{SERVICE}/Score",
        request_serializer=pb.ScoreRequest.SerializeToString,
        response_deserializer=pb.ScoreResponse.FromString,
    )
    return call(MESSAGE, timeout=10, metadata=metadata)


def test_a_certificate_opens_both_doors_and_names_the_tenant(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is spoken in plain text; a client of ours needs no key; the log says which tenant called.

    Where several names of a certificate are known, both doors take the same one.
    """
    authority, clients = trustme.CA(), trustme.CA()
    server, client = authority.issue_cert("127.0.0.1"), clients.issue_cert("front.internal", common_name="house")
    (tmp_path / "server.pem").write_bytes(b"".join(part.bytes() for part in server.cert_chain_pems))
    (tmp_path / "server.key").write_bytes(server.private_key_pem.bytes())
    (tmp_path / "clients.pem").write_bytes(clients.cert_pem.bytes())
    names = {"front.internal": "front", "house": "other"}
    grants = {"certificates": [{"name": name, "tenant": of, "scopes": ["score"]} for name, of in names.items()]}
    for name, value in {
        "TLS__CERTIFICATE": tmp_path / "server.pem",
        "TLS__KEY": tmp_path / "server.key",
        "TLS__CLIENT_CA": tmp_path / "clients.pem",
        "ACCESS__KEYS": json.dumps(grants),
    }.items():
        monkeypatch.setenv(f"TIERWISE_{name}", str(value))
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    with running(checkpoint) as service:
        assert service.http.startswith("https://")
        with pytest.raises(httpx.TransportError), httpx.Client(verify=trust) as stranger:
            stranger.get(f"{service.http}/livez")
        client.configure_cert(trust)
        with httpx.Client(verify=trust) as known:
            assert known.post(f"{service.http}/v1/score", json=BODY).status_code == 200
        assert service.read_until("request")["tenant"] == "front"
        credentials = grpc.ssl_channel_credentials(
            authority.cert_pem.bytes(),
            client.private_key_pem.bytes(),
            b"".join(part.bytes() for part in client.cert_chain_pems),
        )
        with grpc.secure_channel(service.grpc.removeprefix("grpcs://"), credentials) as channel:
            assert score(channel).results[0].id == "a"
        assert service.read_until("request")["tenant"] == "front"
        assert httpx.get(f"{service.admin}/readyz").status_code == 200


def test_no_secret_is_logged(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a good key nor a wrong one, wherever a caller puts it; nor its hash, nor the file when it breaks."""
    file = tmp_path / "keys.yaml"
    good = {"id": key_id(KEY), "sha256": key_hash(KEY), "tenant": "shop", "scopes": ["score"]}
    file.write_text(json.dumps({"keys": [good]}))
    monkeypatch.setenv("TIERWISE_ACCESS__KEYS_FILE", str(file))
    monkeypatch.setenv("TIERWISE_ACCESS__REFRESH_SECONDS", "0.05")
    wrong = new_key()
    with running(checkpoint) as service:
        with httpx.Client(base_url=service.http) as client:
            for key, status in ((KEY, 200), (wrong, 401)):
                for headers in ({"authorization": f"Bearer {key}"}, {"x-api-key": key}):
                    assert client.post("/v1/score", json=BODY, headers=headers).status_code == status
                client.post(f"/v1/score/{key}?key={key}", headers={"x-api-key": KEY, "x-request-id": key})
                client.post("/v1/score", json={key: 1}, headers={"x-api-key": KEY})
                client.post("/v1/score", json=BODY, headers={"x-api-key": KEY, "x-tierwise-priority": key})
                client.post("/v1/score", json=BODY, headers={"x-api-key": KEY, "x-request-deadline-ms": key})
        with grpc.insecure_channel(service.grpc.removeprefix("grpc://")) as channel:
            assert score(channel, ("x-api-key", KEY)).results[0].id == "a"
            with pytest.raises(grpc.RpcError):
                score(channel, ("authorization", f"Bearer {wrong}"))
        file.write_text(json.dumps({"keys": [{**good, "sha256": KEY}]}))
        service.read_until("keys: kept the old ones")
        service.process.send_signal(signal.SIGTERM)
        assert service.process.stdout is not None
        service.lines += [json.loads(line) for line in service.process.stdout]
        log = json.dumps(service.lines)
    assert f"key:{key_id(KEY)}" in log
    for key in (KEY, wrong):
        assert key.rpartition("_")[2] not in log
        assert key_hash(key) not in log
