"""Who is calling? The one answer for both doors, before a body is read."""

from __future__ import annotations

import datetime as dt
import ipaddress
import logging
from typing import TYPE_CHECKING

from service.access.principal import Principal, Scope, asked_priority
from service.access.roster import RosterError, parse_roster
from service.errors import UnauthenticatedError
from service.request import Caller, Priority
from service.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from service.access.roster import CertificateRecord, KeyRecord, Roster
    from service.access.settings import AccessSettings
    from service.settings import Settings

log = logging.getLogger(__name__)

OPEN = frozenset({Scope.SCORE, Scope.EXPLAIN, Scope.ADMIN})
_HOW = "send `authorization: Bearer tw_...` or `x-api-key: tw_...`"


class Access:
    """Knows the credentials. Without a roster the door is open and everyone is the tenant `public`.

    Args:
        roster: what is known at the start.
        file: where `refresh` looks for another roster; None for one that never changes.
    """

    def __init__(self, roster: Roster | None = None, file: Path | None = None) -> None:
        self._roster = roster
        self._file = file
        self._refused: str | None = None

    @property
    def roster(self) -> Roster | None:
        """The credentials in force, None when the door is open."""
        return self._roster

    @property
    def refused(self) -> str | None:
        """Why the latest content of the file was not taken, until a good one is."""
        return self._refused

    def authenticate(self, metadata: Mapping[str, str], certificate: Iterable[str] = ()) -> Principal:
        """Who sent this. A key goes before a certificate; a wrong key is refused whatever the certificate says.

        Args:
            metadata: HTTP headers or gRPC metadata, names in lower case.
            certificate: names in the client certificate that the TLS handshake verified.

        Raises:
            UnauthenticatedError: no credential, or one that is not known or has expired.
            InvalidRequestError: the priority header names no priority.
        """
        if self._roster is None:
            return Principal(Caller(priority=asked_priority(metadata, Priority.CRITICAL)), OPEN, "none")
        record = _find(self._roster, metadata, certificate)
        if record.expires is not None and dt.datetime.now(dt.UTC).date() >= record.expires:
            raise UnauthenticatedError(f"{record.credential} expired on {record.expires}; use its successor")
        priority, quotas = asked_priority(metadata, record.priority), self._roster.quotas_of(record)
        caller = Caller(record.tenant, priority, quotas, by_default=record.tenant not in self._roster.quotas)
        return Principal(caller, record.scopes, record.credential)

    def refresh(self) -> bool:
        """Take over the file's content if it changed; true when it did. A bad one is refused, the last good one stays.

        Blocks for the read of a small file.
        """
        if self._file is None:
            return False
        refused = self._refused
        try:
            roster = read_roster(self._file)
        except RosterError as error:
            self._refused = str(error)
            if self._refused != refused:
                log.error("keys: kept the old ones: %s", self._refused)  # noqa: TRY400 # a bad file, not a defect
            return False
        self._refused = None
        if roster == self._roster:
            return False
        self._roster = roster
        log.info("keys: took over %d keys, %d certificates", len(roster.keys), len(roster.certificates))
        return True


def read_roster(file: Path) -> Roster:
    """The roster in a file.

    Raises:
        RosterError: it cannot be read, or is none.
    """
    try:
        return parse_roster(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RosterError(f"{file} cannot be read: {error}") from None
    except RosterError as error:
        raise RosterError(f"{file}: {error}") from None


def open_access(settings: Settings) -> Access:
    """The configured credentials.

    Raises:
        SettingsError: they cannot be read; or there are none, and an address is open to other machines; or a tenant has
            settings of its own and no credential.
    """
    roster = _configured_roster(settings.access)
    if roster is None:
        _check_may_be_open(settings)
    known = {r.tenant for r in (*roster.keys, *roster.certificates)} if roster else {Caller().tenant}
    if strangers := sorted(settings.tenants.keys() - known):
        # A misspelt tenant would leave the one that was meant with everybody's knowledge.
        raise SettingsError(f"tenants (TIERWISE_TENANTS): no key or certificate belongs to {', '.join(strangers)}")
    return Access(roster, settings.access.keys_file)


def _configured_roster(chosen: AccessSettings) -> Roster | None:
    try:
        if chosen.keys_file is not None:
            return read_roster(chosen.keys_file)
        if chosen.keys is not None:
            return parse_roster(chosen.keys.get_secret_value())
    except RosterError as error:
        name = "keys_file" if chosen.keys_file else "keys"
        raise SettingsError(f"access.{name} (TIERWISE_ACCESS__{name.upper()}): {error}") from error
    return None


def _check_may_be_open(settings: Settings) -> None:
    exposed = {name: host for name in ("host", "admin_host") if not _is_loopback(host := getattr(settings, name))}
    if exposed and not settings.access.open:
        listed = " and ".join(f"{name} {host}" for name, host in exposed.items())
        raise SettingsError(
            f"access.keys_file (TIERWISE_ACCESS__KEYS_FILE): {listed} can be reached from other machines and there are "
            "no keys; make some with `tierwise key new`, or say TIERWISE_ACCESS__OPEN=true to serve everyone"
        )


def _find(roster: Roster, metadata: Mapping[str, str], certificate: Iterable[str]) -> KeyRecord | CertificateRecord:
    key = _offered_key(metadata)
    if key is not None:
        if (by_key := roster.by_key(key)) is None:
            raise UnauthenticatedError(f"this key is not known here; {_HOW}")
        return by_key
    if (by_certificate := roster.by_certificate(certificate)) is None:
        raise UnauthenticatedError(f"there is no key, and no client certificate that is known here; {_HOW}")
    return by_certificate


def _offered_key(metadata: Mapping[str, str]) -> str | None:
    scheme, _, token = metadata.get("authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    return metadata.get("x-api-key")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
