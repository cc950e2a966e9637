"""The word lists that reading a catalogue needs."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import yaml


@cache
def _lists() -> dict[str, str]:
    text = Path(__file__).with_name("wordlists.yaml").read_text(encoding="utf-8")
    return {str(name): str(words) for name, words in yaml.safe_load(text).items()}


def wordlist(name: str) -> frozenset[str]:
    """A list of lower-case words by its name in wordlists.yaml."""
    return frozenset(_lists()[name].split())
