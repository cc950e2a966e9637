"""API keys as text: `tw_<id>_<secret>`. The id stands in clear in logs and in the keys file, the secret nowhere.

A key is kept as one round of SHA-256. A slow hash protects guessable passwords; a secret of 160 random bits cannot be
guessed at any speed, and a slow hash at thousands of requests a second would only help those who want to stop us.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string

_KEY = re.compile(r"tw_([a-z]{8})_[0-9a-f]{40}")
_SECRET = re.compile(r"(tw_[a-z]{8}_)[0-9a-f]+")


def new_key() -> str:
    """A new random key."""
    name = "".join(secrets.choice(string.ascii_lowercase) for _ in range(8))  # letters: YAML reads no number in it
    return f"tw_{name}_{secrets.token_hex(20)}"


def key_id(key: str) -> str | None:
    """The id in a key, None when it has not the shape of one."""
    match = _KEY.fullmatch(key)
    return match[1] if match else None


def key_hash(key: str) -> str:
    """What the keys file holds of a key: 64 hexadecimal digits."""
    return hashlib.sha256(key.encode()).hexdigest()


def without_secrets(text: str) -> str:
    """The text with every key cut down to its id: for the log, whatever a caller or an operator put where."""
    return _SECRET.sub(r"\1...", text) if "tw_" in text else text
