"""TLS of the doors: one set of files, a context for uvicorn and credentials for gRPC, both renewed when the files are.

TLS 1.2 is the least that is spoken. Renewal reaches new connections; those that are open keep what they began with.
"""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path
    from typing import Any

    import grpc

    from service.access.settings import TlsSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Files:
    """What the files hold."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None


class Tls:
    """The certificate in force.

    Attributes:
        context: for servers of TCP; follows `refresh` by itself.

    Raises:
        SettingsError: the files cannot be read, or do not fit each other.
    """

    def __init__(self, settings: TlsSettings) -> None:
        self._settings = settings
        try:
            self._files = self._read()
            self._current = self.context = self._load()
        except (OSError, ValueError) as error:
            raise SettingsError(f"tls (TIERWISE_TLS__CERTIFICATE, __KEY, __CLIENT_CA): {error}") from error
        self.context.sni_callback = self._choose
        self._refused: str | None = None

    @property
    def refused(self) -> str | None:
        """Why the latest files were not taken, until good ones are."""
        return self._refused

    def refresh(self) -> bool:
        """Take over renewed files; true when they were. Bad ones are refused, the last good ones stay. Blocks."""
        refused = self._refused
        try:
            files = self._read()
            if files == self._files:
                self._refused = None
                return False
            self._current = self._load()
        except (OSError, ValueError) as error:
            self._refused = str(error)
            if self._refused != refused:
                log.error("tls: kept the old certificate: %s", self._refused)  # noqa: TRY400 # bad files, no defect
            return False
        self._files, self._refused = files, None
        log.info("tls: took over a new certificate")
        return True

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """Credentials that follow this object: gRPC asks for the files in force at every handshake."""
        import grpc  # noqa: PLC0415 # only with TLS

        def current() -> grpc.ServerCertificateConfiguration:
            files = self._files
            return grpc.ssl_server_certificate_configuration([(files.key, files.certificate)], files.client_ca)

        required = self._settings.client_ca is not None and self._settings.client_required
        return grpc.dynamic_ssl_server_credentials(current(), current, require_client_authentication=required)

    def _read(self) -> _Files:
        chosen = self._settings
        assert chosen.certificate is not None  # noqa: S101 # `open_tls` makes none without
        assert chosen.key is not None  # noqa: S101
        authority = _bytes(chosen.client_ca) if chosen.client_ca else None
        return _Files(_bytes(chosen.certificate), _bytes(chosen.key), authority)

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        chosen = self._settings
        assert chosen.certificate is not None  # noqa: S101
        context.load_cert_chain(chosen.certificate, chosen.key, password=_no_password)
        if chosen.client_ca is not None:
            context.load_verify_locations(chosen.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED if chosen.client_required else ssl.CERT_OPTIONAL
        return context

    def _choose(self, handshake: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        # OpenSSL asks at every handshake, also without a server name: the context that a server was given stays, what
        # stands behind it changes, and no context is changed while it is in use.
        handshake.context = self._current


def open_tls(settings: TlsSettings) -> Tls | None:
    """TLS as configured, None for plain text.

    Raises:
        SettingsError: the files cannot be read, or do not fit each other.
    """
    return Tls(settings) if settings.certificate is not None else None


def names_in(certificate: Mapping[str, Any]) -> Iterator[str]:
    """Names in a verified certificate as `ssl.SSLObject.getpeercert` tells it."""
    alternative = (name for _, name in certificate.get("subjectAltName", ()) if isinstance(name, str))
    common = (value for part in certificate.get("subject", ()) for kind, value in part if kind == "commonName")
    return _in_order(alternative, common)


def names_in_properties(properties: Mapping[str, Iterable[bytes]]) -> Iterator[str]:
    """Names in a verified certificate as `grpc.ServicerContext.auth_context` tells it."""
    alternative, common = (
        (name.decode(errors="replace") for name in properties.get(kind, ()))
        for kind in ("x509_subject_alternative_name", "x509_common_name")
    )
    return _in_order(alternative, common)


def _in_order(alternative: Iterable[str], common: Iterable[str]) -> Iterator[str]:
    """The first known name says whose the certificate is, so that both doors must offer them in one order."""
    yield from alternative
    yield from common


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise OSError(f"{file} cannot be read: {error.strerror}") from error


def _no_password() -> str:
    raise ValueError("the private key has a password; store it without")  # else OpenSSL would ask at the terminal
