"""The roster: which keys and certificates are known, and what each may do. One immutable value, read from YAML."""

from __future__ import annotations

import datetime as dt  # noqa: TC003 # pydantic reads the annotations
import hmac
from typing import TYPE_CHECKING, Annotated, Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from service.access.keys import key_hash, key_id, without_secrets
from service.access.principal import Scope  # noqa: TC001 # pydantic reads the annotations
from service.request import Priority, Quota

if TYPE_CHECKING:
    from collections.abc import Iterable

Tenant = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]

_UNKNOWN = "0" * 64  # what an unknown id is compared with, so that it takes as long as a known one


class RosterError(Exception):
    """The text is not a roster; the message says where, and repeats nothing of it."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Allowance(_Record):
    """How much may be asked for. None is no limit."""

    requests_per_second: float | None = Field(default=None, gt=0)
    tokens_per_second: float | None = Field(default=None, gt=0)


class Grant(_Record):
    """What a credential may do.

    Attributes:
        tenant: scope of everything that is kept between calls.
        scopes: at least one.
        priority: the highest that its calls may ask for.
        quota: its own, beside the tenant's.
        expires: first day, in UTC, on which it is refused.
    """

    tenant: Tenant
    scopes: frozenset[Scope] = Field(min_length=1)
    priority: Priority = Priority.DEFAULT
    quota: Allowance | None = None
    expires: dt.date | None = None


class KeyRecord(Grant):
    """A key: its id and the hash of its whole text."""

    id: str = Field(pattern=r"^[a-z]{8}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @property
    def credential(self) -> str:
        """Its name for the log."""
        return f"key:{self.id}"


class CertificateRecord(Grant):
    """A client certificate: a name that a verified one carries, as its subject's CN or as an alternative name."""

    name: str = Field(min_length=1, max_length=256)

    @property
    def credential(self) -> str:
        """Its name for the log."""
        return f"certificate:{self.name}"


class Roster(_Record):
    """Everything in the file. Several keys of one tenant are the way to change a key without a gap."""

    keys: tuple[KeyRecord, ...] = ()
    certificates: tuple[CertificateRecord, ...] = ()
    quotas: dict[Tenant, Allowance] = Field(default={}, description="of a tenant, shared by its credentials")

    _by_id: dict[str, KeyRecord]
    _by_name: dict[str, CertificateRecord]

    @model_validator(mode="after")
    def _index(self) -> Self:
        self._by_id = {record.id: record for record in self.keys}
        self._by_name = {record.name: record for record in self.certificates}
        if len(self._by_id) < len(self.keys):
            raise ValueError("two keys have the same id")
        if len(self._by_name) < len(self.certificates):
            raise ValueError("two certificates have the same name")
        if not self.keys and not self.certificates:
            raise ValueError("it holds no key and no certificate")
        if strangers := self.quotas.keys() - {r.tenant for r in (*self.keys, *self.certificates)}:
            raise ValueError(f"quotas names tenants without a credential: {', '.join(sorted(strangers))}")
        return self

    def by_key(self, key: str) -> KeyRecord | None:
        """The record of a key, compared in constant time; None for a key that is not known."""
        name = key_id(key)
        record = self._by_id.get(name) if name else None
        offered = key_hash(key)
        known = hmac.compare_digest(offered, record.sha256 if record else _UNKNOWN)
        return record if known else None

    def by_certificate(self, names: Iterable[str]) -> CertificateRecord | None:
        """The record of the first name that is known."""
        return next((self._by_name[name] for name in names if name in self._by_name), None)

    def quotas_of(self, record: KeyRecord | CertificateRecord) -> tuple[Quota, ...]:
        """Every quota that a credential's calls count against."""
        found = []
        if shared := self.quotas.get(record.tenant):
            found.append(Quota(f"tenant:{record.tenant}", shared.requests_per_second, shared.tokens_per_second))
        if own := record.quota:
            found.append(Quota(record.credential, own.requests_per_second, own.tokens_per_second))
        return tuple(found)


def parse_roster(text: str) -> Roster:
    """Read a roster.

    Raises:
        RosterError: naming every wrong field; values are left out, since one may be a key that is in the wrong place.
    """
    try:
        content: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise RosterError(f"it is not YAML{where}") from None
    try:
        return Roster.model_validate(content)
    except ValidationError as error:
        issues = error.errors(include_url=False, include_context=False, include_input=False)
        lines = [f"{'.'.join(map(str, issue['loc'])) or 'file'}: {issue['msg']}" for issue in issues]
        raise RosterError(without_secrets("; ".join(lines))) from None
