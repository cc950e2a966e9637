"""Devices in free text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.catalogue import Product
from retrieval.compatibility import MAX_DEVICES, devices_of

BRANDS = {"hp": "HP", "epson": "Epson", "oki": "OKI", "lexmark": "Lexmark"}


def named(text: str, brand: str = "HP", **attributes: str) -> list[str]:
    product = Product(id="1", title="t", brand=brand, attributes={"compatibility": text, **attributes})
    return [str(device) for device in devices_of(product, BRANDS)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("HP DeskJet 1200c, 3820 / HP OfficeJet 5110", ["HP DeskJet 1200c", "HP DeskJet 3820", "HP OfficeJet 5110"]),
        ("CLP-610ND, CLX-6200FX", ["HP CLP-610ND", "HP CLX-6200FX"]),
        ("C5850/5950/MC560", ["HP C5850", "HP C5950", "HP MC560"]),
        ("- Stylus DX4850 - Stylus DX4800", ["HP Stylus DX4850", "HP Stylus DX4800"]),
        ("Lexmark C780n (10Z0250) Lexmark C782n (10Z0150)", ["Lexmark C780n", "Lexmark C782n"]),
        ("HP Designjet 1000 series Printers", ["HP Designjet 1000"]),
        ("Stylus Photo R2880 NiK bundle Stylus Photo R2400", ["HP Stylus Photo R2880", "HP Stylus Photo R2400"]),
        ("HP Photosmart D5460, HP Photosmart D5460", ["HP Photosmart D5460"]),
    ],
)
def test_families_and_letters_are_carried_on(text: str, expected: list[str]) -> None:
    """Sellers write a family once; with and without separators, brackets and repetitions."""
    assert named(text) == expected


@pytest.mark.parametrize(
    "text", ["", "Windows 2000, XP", '17.3"', "USB 2.0", "all LCD monitors", "Mac OS X 10.2 or later"]
)
def test_what_is_no_device_is_left_out(text: str) -> None:
    """Operating systems, sizes, interfaces and sentences."""
    assert named(text) == []


def test_the_brand_is_the_device_s() -> None:
    """A supply of one brand for devices of another says so in an attribute."""
    assert named("Phaser 6200", "Xerox") == ["Xerox Phaser 6200"]
    assert named("R2880", "Pelikan", **{"brand compatibility": "epson"}) == ["Epson R2880"]


@given(st.text(max_size=200))
def test_any_text_gives_a_bounded_list(text: str) -> None:
    """Nothing breaks it, nothing is named twice, and every model holds a digit."""
    devices = devices_of(Product(id="1", title="t", brand="HP", attributes={"fits": text}), BRANDS)
    assert len(devices) == len(set(devices)) <= MAX_DEVICES
    assert all(any(map(str.isdigit, d.model)) for d in devices)
