"""Who is calling, and what happens when the keys change."""

from __future__ import annotations

import datetime as dt
import logging
from typing import TYPE_CHECKING

import pytest

from service.access.authenticate import Access, open_access
from service.access.keys import key_hash, key_id, new_key
from service.access.principal import Scope
from service.access.roster import parse_roster
from service.errors import ForbiddenError, InvalidRequestError, UnauthenticatedError
from service.request import Caller, Priority, Quota
from service.settings import Settings, SettingsError, load_settings

if TYPE_CHECKING:
    from pathlib import Path

KEY, OTHER = new_key(), new_key()
ANYONE = "0.0.0.0"  # noqa: S104 # nothing is bound


def line(key: str, rest: str = "") -> str:
    """One key of the tenant `shop`, in YAML."""
    return f"- {{id: {key_id(key)}, sha256: '{key_hash(key)}', tenant: shop, scopes: [score]{rest}}}\n"


def access(rest: str = "", more: str = "") -> Access:
    """Access with one key."""
    return Access(parse_roster(f"keys:\n{line(KEY, rest)}{more}"))


@pytest.mark.parametrize("header", ["authorization", "x-api-key"])
def test_a_key_is_taken_from_either_header(header: str) -> None:
    """Bearer for those who follow the standard, x-api-key for those whose proxy owns `authorization`."""
    value = f"Bearer {KEY}" if header == "authorization" else KEY
    principal = access().authenticate({header: value})
    assert (principal.caller, principal.scopes) == (Caller("shop"), frozenset({Scope.SCORE}))
    assert principal.credential == f"key:{key_id(KEY)}"


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": f"Basic {KEY}"},
        {"authorization": f"Bearer {OTHER}"},
        {"x-api-key": KEY[:-1]},
        {"x-api-key": KEY + "0"},
        {"x-api-key": KEY[:-1] + ("0" if KEY[-1] != "0" else "1")},
        {"x-api-key": KEY.upper()},
        {"x-api-key": "tw_\u00e4\ud7ff"},
        {"authorization": f"Bearer {OTHER}", "x-api-key": KEY},
    ],
)
def test_anything_but_the_whole_key_is_refused(metadata: dict[str, str]) -> None:
    """The refusal says how to send a key and repeats nothing of what was sent."""
    with pytest.raises(UnauthenticatedError, match="x-api-key") as refusal:
        access().authenticate(metadata)
    assert key_hash(KEY) not in refusal.value.detail
    assert not any(len(value) > 10 and value in refusal.value.detail for value in metadata.values())


def test_two_keys_of_one_tenant_are_one_tenant() -> None:
    """That is how a key is changed without a gap."""
    both = Access(parse_roster(f"keys:\n{line(KEY)}{line(OTHER)}"))
    assert {both.authenticate({"x-api-key": key}).caller for key in (KEY, OTHER)} == {Caller("shop")}


def test_an_expired_key_is_refused_from_its_day_on() -> None:
    """The day is in UTC; the message names the key by its id."""
    today = dt.datetime.now(dt.UTC).date()
    access(f", expires: {today + dt.timedelta(days=1)}").authenticate({"x-api-key": KEY})
    with pytest.raises(UnauthenticatedError, match=f"key:{key_id(KEY)} expired on {today}"):
        access(f", expires: {today}").authenticate({"x-api-key": KEY})


@pytest.mark.parametrize(
    ("ceiling", "asked", "given"),
    [
        ("default", None, "default"),
        ("default", "critical", "default"),
        ("default", "batch", "batch"),
        ("critical", None, "default"),
        ("critical", " Critical ", "critical"),
        ("batch", None, "batch"),
        ("batch", "critical", "batch"),
    ],
)
def test_the_priority_is_bounded_by_the_key(ceiling: str, asked: str | None, given: str) -> None:
    """A caller may give way, never push ahead of what its key allows."""
    metadata = {"x-api-key": KEY} | ({"x-tierwise-priority": asked} if asked else {})
    assert access(f", priority: {ceiling}").authenticate(metadata).caller.priority == Priority(given)


def test_an_unknown_priority_is_named() -> None:
    """A misspelt priority is not silently another one."""
    with pytest.raises(InvalidRequestError, match="critical, default, batch"):
        access().authenticate({"x-api-key": KEY, "x-tierwise-priority": "urgent"})


def test_a_missing_scope_is_named() -> None:
    """The holder of a good key learns what it lacks."""
    principal = access().authenticate({"x-api-key": KEY})
    principal.require(Scope.SCORE)
    with pytest.raises(ForbiddenError, match="holds the scopes score; this needs explain"):
        principal.require(Scope.EXPLAIN)


def test_a_tenants_quota_is_shared_and_a_keys_own_is_not() -> None:
    """Two keys draw on the tenant's allowance under one name; a key's own stands beside it."""
    keys = line(KEY, ", quota: {tokens_per_second: 5}") + line(OTHER)
    text = f"keys:\n{keys}quotas: {{shop: {{requests_per_second: 9}}}}"
    both = Access(parse_roster(text))
    shared = Quota("tenant:shop", requests_per_second=9)
    assert both.authenticate({"x-api-key": OTHER}).caller.quotas == (shared,)
    own = Quota(f"key:{key_id(KEY)}", tokens_per_second=5)
    assert both.authenticate({"x-api-key": KEY}).caller.quotas == (shared, own)


def test_the_default_quota_is_for_tenants_without_one_of_their_own() -> None:
    """A quota of the key alone does not take its place, one of the tenant does."""
    keys = line(KEY, ", quota: {tokens_per_second: 5}")
    for quotas, by_default in (("", True), ("quotas: {shop: {requests_per_second: 9}}", False)):
        known = Access(parse_roster(f"keys:\n{keys}{quotas}"))
        assert known.authenticate({"x-api-key": KEY}).caller.by_default is by_default


def test_a_verified_certificate_names_its_tenant() -> None:
    """The first known name counts; a key goes before it, and a wrong key is no way around."""
    known = access(more="certificates:\n- {name: front.internal, tenant: front, scopes: [score, explain]}\n")
    principal = known.authenticate({}, ["unknown", "front.internal"])
    assert (principal.caller.tenant, principal.credential) == ("front", "certificate:front.internal")
    assert known.authenticate({"x-api-key": KEY}, ["front.internal"]).caller.tenant == "shop"
    with pytest.raises(UnauthenticatedError):
        known.authenticate({"x-api-key": OTHER}, ["front.internal"])
    with pytest.raises(UnauthenticatedError):
        known.authenticate({}, ["unknown"])


def test_without_a_roster_everyone_is_public() -> None:
    """The door on this machine alone needs no key and gives every scope."""
    principal = Access().authenticate({"x-tierwise-priority": "critical", "x-api-key": "anything"})
    assert principal.caller == Caller("public", Priority.CRITICAL)
    assert principal.scopes == set(Scope)


def test_keys_change_while_the_service_runs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A good file is taken, a broken or missing one is refused and told once, and the old keys stay."""
    file = tmp_path / "keys.yaml"
    file.write_text(f"keys:\n{line(KEY)}")
    following = open_access(Settings(access={"keys_file": file}, host=ANYONE))
    assert not following.refresh()
    with caplog.at_level(logging.INFO, "service.access"):
        for broken in ("keys: [", "", "keys: []", f"keys:\n{line(KEY)}{line(KEY)}"):
            file.write_text(broken)
            assert not following.refresh()
            assert not following.refresh()
            assert following.refused
            following.authenticate({"x-api-key": KEY})
        file.unlink()
        assert not following.refresh()
        file.write_text(f"keys:\n{line(OTHER)}")
        assert following.refresh()
    assert following.refused is None
    following.authenticate({"x-api-key": OTHER})
    with pytest.raises(UnauthenticatedError):
        following.authenticate({"x-api-key": KEY})
    assert [r.levelname for r in caplog.records] == ["ERROR"] * 5 + ["INFO"]
    assert key_hash(KEY) not in caplog.text


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_loopback_may_be_open(host: str) -> None:
    """Nobody else can call."""
    assert open_access(Settings(host=host)).roster is None


@pytest.mark.parametrize("name", ["host", "admin_host"])
def test_other_addresses_need_keys_or_a_word(name: str) -> None:
    """A door that anyone can reach is never open by accident."""
    with pytest.raises(SettingsError, match=rf"{name} 0\.0\.0\.0.*TIERWISE_ACCESS__OPEN=true"):
        open_access(load_settings(**{name: ANYONE}))
    assert open_access(load_settings(**{name: ANYONE}, access={"open": True})).roster is None


def test_keys_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same text as a file's, and it does not show in the settings' own text."""
    monkeypatch.setenv("TIERWISE_ACCESS__KEYS", f"keys:\n{line(KEY)}")
    settings = Settings()
    open_access(settings).authenticate({"x-api-key": KEY})
    assert key_hash(KEY) not in repr(settings)


def test_a_tenant_that_nobody_is_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Misspelt, it would leave the one that was meant with everybody's knowledge."""
    monkeypatch.setenv("TIERWISE_ACCESS__KEYS", f"keys:\n{line(KEY)}")
    monkeypatch.setenv("TIERWISE_TENANTS", '{"shop": {"knowledge": "shop-cards", "tau": 0.5}}')
    assert open_access(load_settings()).roster is not None
    monkeypatch.setenv("TIERWISE_TENANTS", '{"shpo": {"knowledge": "shop-cards"}}')
    with pytest.raises(SettingsError, match=r"TIERWISE_TENANTS.*shpo"):
        open_access(load_settings())
    monkeypatch.delenv("TIERWISE_ACCESS__KEYS")
    with pytest.raises(SettingsError, match=r"TIERWISE_TENANTS.*shpo"):
        open_access(load_settings())
    monkeypatch.setenv("TIERWISE_TENANTS", '{"public": {"knowledge": "cards"}}')
    assert open_access(load_settings()).roster is None


def test_bad_keys_stop_the_start_by_name(tmp_path: Path) -> None:
    """The setting and the file are named."""
    with pytest.raises(SettingsError, match=r"TIERWISE_ACCESS__KEYS_FILE.*cannot be read"):
        open_access(Settings(access={"keys_file": tmp_path / "none.yaml"}))
    with pytest.raises(SettingsError, match=r"TIERWISE_ACCESS__KEYS.*no key"):
        open_access(Settings(access={"keys": "keys: []"}))
