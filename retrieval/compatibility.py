"""Which devices a supply fits, read from free text.

    "HP DeskJet 1200c, 3820, 9300 / HP OfficeJet 5110"  ->  HP DeskJet 1200c, HP DeskJet 3820, HP DeskJet 9300, ...

Sellers write the family once and then only numbers; both are carried from left to right. What is no device (operating
systems, screen sizes, sentences) is left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from retrieval.wordlists import wordlist

if TYPE_CHECKING:
    from collections.abc import Mapping

    from retrieval.catalogue import Product

ATTRIBUTES: Final = ("compatibility", "compatible products", "compatible devices", "compatible with", "fits")
BRAND_ATTRIBUTES: Final = ("brand compatibility", "compatible brand")
MAX_DEVICES: Final = 60
MAX_FAMILY_WORDS: Final = 4
_SEPARATORS: Final = re.compile(r"[,;/+]| and | & |(?:^|\s)- ?(?=[A-Za-z])")
_BRACKETS: Final = re.compile(r"\([^)]*\)")
_MODEL: Final = re.compile(r"^(?=.*\d{2})[A-Za-z]{0,6}-?[A-Za-z0-9-]*$")
_BARE: Final = re.compile(r"^\d+[a-zA-Z]*$")
_PREFIX: Final = re.compile(r"^([A-Za-z]{1,4}-?)\d")
_FAMILY_WORD: Final = re.compile(r"^[A-Za-z][A-Za-z.-]*\d?$")
_NO_DEVICE: Final = wordlist("not a device")


@dataclass(frozen=True, slots=True, order=True)
class Device:
    """A device named by a supply: brand, family (may be empty) and model."""

    brand: str
    family: str
    model: str

    def __str__(self) -> str:
        return " ".join(filter(None, (self.brand, self.family, self.model)))


def devices_of(product: Product, brands: Mapping[str, str]) -> tuple[Device, ...]:
    """Devices that a product says it fits, in the order given, each once.

    Args:
        product: any product; most fit nothing.
        brands: lower-case brand -> brand as it is written, for every brand of the catalogue.
    """
    text = next((product.attributes[a] for a in ATTRIBUTES if product.attributes.get(a)), "")
    named = next((product.attributes[a] for a in BRAND_ATTRIBUTES if product.attributes.get(a)), product.brand)
    found: dict[Device, None] = {}
    previous = Device(brands.get(named.lower(), product.brand), "", "")
    for part in _SEPARATORS.split(_BRACKETS.sub(" ", text)):
        words = part.split()
        while words and len(found) < MAX_DEVICES:
            device, words = _next_device(words, previous, brands)
            if device:
                found[device] = None
                previous = device
    return tuple(found)


def _next_device(words: list[str], previous: Device, brands: Mapping[str, str]) -> tuple[Device | None, list[str]]:
    """The first device among words, and the words after it: lists are written without separators too."""
    brand = previous.brand
    own = brands.get(words[0].lower()) if len(words) > 1 else None
    if own:
        brand, words = own, words[1:]
    at = next((i for i, w in enumerate(words) if _MODEL.match(w.strip(".:"))), None)
    if at is None:
        return None, []
    rest, family_words, model = words[at + 1 :], words[:at], words[at].strip(".:")
    family = " ".join(family_words)
    if previous.family and family.endswith(f" {previous.family}"):  # words about the device before stand between
        family = previous.family
    elif at > MAX_FAMILY_WORDS or not all(_FAMILY_WORD.match(w) for w in family_words):
        return None, rest
    if _NO_DEVICE.intersection(w.lower() for w in words[: at + 1]):
        return None, rest
    if not family and not own:
        family = previous.family
        prefix = _PREFIX.match(previous.model)
        if _BARE.match(model) and prefix:  # "C5850/5950": the letter is written once
            model = prefix[1] + model
        elif not _BARE.match(model) and not prefix:  # "DeskJet 3820, PSC750": another naming begins
            family = ""
    return Device(brand, family, model), rest
