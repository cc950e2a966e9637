"""What a keys file may hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.access.keys import key_hash, key_id, new_key
from service.access.roster import RosterError, parse_roster

GOOD = "{id: abcdefgh, sha256: '" + "0" * 64 + "', tenant: shop, scopes: [score]"


def test_keys_are_random_and_their_id_is_in_clear() -> None:
    """160 bits of secret; the id alone opens nothing."""
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    for key in keys:
        prefix, name, secret = key.split("_")
        assert (prefix, name, len(bytes.fromhex(secret))) == ("tw", key_id(key), 20)
        assert len(key_hash(key)) == 64


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("keys: [", "not YAML, line 1"),
        ("just text", "file: "),
        ("", "file: "),
        ("{}", "no key and no certificate"),
        (f"keys: [{GOOD}, scope: [score]}}]", r"keys\.0\.scope: "),
        (f"keys: [{GOOD.replace('score', 'root')}}}]", r"keys\.0\.scopes.*'score', 'explain' or 'admin'"),
        (f"keys: [{GOOD.replace('[score]', '[]')}}}]", r"keys\.0\.scopes"),
        (f"keys: [{GOOD.replace('shop', 'a shop')}}}]", r"keys\.0\.tenant"),
        (f"keys: [{GOOD}, priority: high}}]", r"keys\.0\.priority"),
        (f"keys: [{GOOD}, quota: {{tokens_per_second: 0}}}}]", r"keys\.0\.quota\.tokens_per_second"),
        (f"keys: [{GOOD}, expires: soon}}]", r"keys\.0\.expires"),
        (f"keys: [{GOOD}}}, {GOOD}}}]", "same id"),
        (f"keys: [{GOOD}}}]\nquotas: {{shpo: {{}}}}", "without a credential: shpo"),
        ("certificates: [{name: a, tenant: b, scopes: [score]}, {name: a, tenant: c, scopes: [score]}]", "same name"),
    ],
)
def test_a_wrong_file_is_refused_by_field(text: str, message: str) -> None:
    """The operator learns which line to mend."""
    with pytest.raises(RosterError, match=message):
        parse_roster(text)


def test_a_key_in_the_wrong_place_is_not_repeated() -> None:
    """Whoever pastes the key where its hash belongs does not find it in the log."""
    key = new_key()
    for text in (f"keys: [{GOOD.replace('0' * 64, key)}}}]", f"keys: [{key}]", f"{key}: 1", f"a: [{key}"):
        with pytest.raises(RosterError) as refusal:
            parse_roster(text)
        assert key.rpartition("_")[2] not in str(refusal.value)


@given(st.text())
def test_no_text_is_a_crash(text: str) -> None:
    """Whatever is in the file, it is a roster or a RosterError."""
    with pytest.raises(RosterError):
        parse_roster(text)
