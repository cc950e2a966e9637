"""Categories read from titles."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from retrieval.catalogue import Product
from retrieval.categories import with_categories
from tests.retrieval.catalogue import shop


def test_the_phrase_after_the_name_is_the_category() -> None:
    """Every title of a shop that writes by the grammar tells its category; nothing else of a product changes."""
    products = shop()
    found = with_categories(products)
    assert Counter(p.category for p in found) == {
        "toner cartridge": 12,
        "laser printer": 12,
        "notebook": 12,
        "notebook case": 12,
    }
    assert [replace(p, category="") for p in found] == products


def test_acronyms_belong_to_the_phrase() -> None:
    """Before the words and in brackets after them."""
    titles = ("APC A1 uninterruptible power supply (UPS) 500 VA", "C2G A2 USB cable 2 m")
    products = [
        Product(id=f"{i}{n}", title=t.replace("A", f"A{n}"), brand=t.split()[0], name=f"A{n}{t.split()[1][1:]}")
        for i, t in enumerate(titles)
        for n in range(3)
    ]
    assert {p.category for p in with_categories(products)} == {"uninterruptible power supply (UPS)", "USB cable"}


def test_a_category_column_is_kept_and_teaches() -> None:
    """Given categories stay as they are, and are found in titles that break the grammar, in any case of letters."""
    given = [replace(p, category="Notebook Case") for p in shop() if p.id.startswith("case")]
    free = Product(id="free", title="Leather Notebook Cases for travel", brand="Targus")
    assert {p.category for p in with_categories([*given, free])} == {"Notebook Case"}


def test_a_single_word_in_the_middle_is_a_modifier() -> None:
    """A notebook battery is no notebook, wherever the word stands but after the name or at the end."""
    odd = [
        Product(id="battery", title="Lenovo Notebook Battery 6 Cell", brand="Lenovo"),
        Product(id="plain", title="Lenovo ThinkPad Notebook", brand="Lenovo"),
        Product(id="named", title="Lenovo E15 Notebook Grey 39.6 cm", brand="Lenovo", name="E15"),
    ]
    found = {p.id: p.category for p in with_categories([*shop(), *odd])}
    assert found["battery"] == ""
    assert found["plain"] == found["named"] == "notebook"


def test_an_open_title_is_classified_only_when_sure() -> None:
    """Attributes of a toner make a toner; a value that no toner has makes none, and something new stays open."""
    told = {"printing colours": "Black", "black toner page yield": "2500", "compatibility": "HL-5201, MFC-8401N"}
    title = "Brother TN-9999 Original Black 1 pc(s)"
    odd = [
        Product(id="toner", title=title, brand="Brother", attributes=told),
        Product(id="drum", title=title, brand="Brother", attributes={**told, "compatibility": "drum unit"}),
        Product(id="toy", title="Castle with 300 bricks", brand="Jumbo", attributes={"age": "3"}),
    ]
    others = [
        Product(id=f"other{n}", title=f"Thing {n} of another kind", attributes={f"a{n}": "1"}) for n in range(400)
    ]
    found = {p.id: p.category for p in with_categories([*shop(), *others, *odd])}
    assert [found[p.id] for p in odd] == ["toner cartridge", "", ""]
    assert {found[p.id] for p in others} == {""}


def test_no_titles_no_categories() -> None:
    """Nothing to learn from leaves everything open."""
    products = [Product(id="a", title="Something"), Product(id="b", title="Something else")]
    assert [p.category for p in with_categories(products)] == ["", ""]
