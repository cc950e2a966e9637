"""The rulebook: atoms are checked as they are read, and the narrowest that holds decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from models.errors import DataError
from models.train.rulebook import ANY, MOST, About, Asked, Kin, Told, load_rulebook, shipped

if TYPE_CHECKING:
    from pathlib import Path


def atom(**fields: Any) -> dict[str, Any]:
    return {"id": "one", "when": {"attribute": "size", "item": "says"}, "text": "A size.", "verdict": "ok", **fields}


def book(path: Path, *atoms: Any, **fields: Any) -> Path:
    """The shipped atoms and these."""
    shipped_atoms = [a.model_dump(mode="json", exclude_defaults=True) for a in shipped().atoms]
    for a in shipped_atoms:
        a["when"] = {k: sorted(v) if isinstance(v, list) else v for k, v in a["when"].items()}
    path.write_text(yaml.safe_dump({"version": 7, "atoms": [*shipped_atoms, *atoms], **fields}))
    return path


def test_the_shipped_book_decides_every_fact() -> None:
    """Whatever an attribute is called and however an item stands to it, one atom says what follows."""
    for asked in (Asked(), Asked(frozenset({"toner cartridge"}), frozenset({"black"}))):
        for subject, stands in (("category", Kin), ("context", About), ("colour", Told), ("nothing known", Told)):
            assert all(shipped().decide(subject, value, asked).verdict for value in stands)


def test_the_narrowest_atom_decides() -> None:
    """Types narrow an atom down, a named attribute beats any, and a kind of unit is a measure."""
    toner = Asked(frozenset({"toner cartridge"}))
    assert shipped().decide("colour", Told.DIFFERS, toner).id == "ink-colour-differs"
    assert shipped().decide("colour", Told.DIFFERS, Asked(frozenset({"mouse"}))).id == "colour-differs"
    assert shipped().decide("colour", Told.SILENT, toner).id == "value-untold"
    assert shipped().decide("capacity", Told.SAYS, toner).id == "measure-same"
    assert shipped().decide("finish", Told.SAYS, toner).id == "value-same"


def test_a_query_gets_the_atoms_that_it_calls_for() -> None:
    """The category's three, what is asked, the chunk's only with a chunk; never more than a prompt holds."""
    picked = [a.id for a in shipped().pick(["colour"], Asked(frozenset({"toner"})), context=False)]
    assert picked[:4] == ["category-same", "category-kin", "category-other", "ink-colour-differs"]
    assert "colour-differs" not in picked
    assert not [i for i in picked if i.startswith(("brand", "context"))]
    many = shipped().pick(["brand", "model", "fits", "colour", "length"], Asked(), context=True)
    assert len(many) == MOST


def test_words_narrow_an_atom(tmp_path: Path) -> None:
    """An atom for queries that hold a word is for no other."""
    own = atom(id="kids-size", when={"attribute": ANY, "item": "silent", "words": ["Kids"]}, verdict="violated")
    found = load_rulebook(book(tmp_path / "b.yaml", own))
    assert found.decide("size", Told.SILENT, Asked(words=frozenset({"kids", "shoe"}))).id == "kids-size"
    assert found.decide("size", Told.SILENT, Asked(words=frozenset({"shoe"}))).id == "value-untold"
    assert found.signed("value-untold") == "value-untold@7"


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (atom(verdict="match"), "atom one: the verdict of one is 'match'; it may be ok, unknown, violated"),
        (atom(id="Colour Black"), "atom Colour Black.id: "),
        (atom(id="brand-same"), "the id 'brand-same' occurs twice"),
        (atom(when={"attribute": "size"}), "atom one.when: attribute and item .* go together"),
        (atom(when={"category": "same", "context": "item"}), "atom one.when: name one of"),
        (atom(when={"category": "near"}), "atom one.when.category: Input should be 'same', 'kin' or 'other'"),
        (atom(text="a\nb"), "atom one.text: "),
        (atom(colour="x"), "atom one.colour: Extra inputs"),
        ("no atom", "atom 26: "),
    ],
)
def test_a_bad_atom_is_named(tmp_path: Path, broken: Any, told: str) -> None:
    """The message has the file, the atom and what is wrong with it."""
    path = book(tmp_path / "b.yaml", broken)
    with pytest.raises(DataError, match=told) as caught:
        load_rulebook(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_book_with_holes_is_refused(tmp_path: Path) -> None:
    """A fact that no general atom decides would leave a pair without a verdict."""
    path = tmp_path / "b.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "atoms": [atom()]}))
    with pytest.raises(DataError, match=r"no atom without types and words decides \{category: same\}"):
        load_rulebook(path)


@pytest.mark.parametrize("text", ["[", "7", "", "version: 1", "version: 0\natoms: []", "!!python/object:os.system {}"])
def test_a_file_that_is_no_rulebook_is_refused(tmp_path: Path, text: str) -> None:
    """Whatever the file holds, the answer is one line that names it."""
    path = tmp_path / "b.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=r"b\.yaml"):
        load_rulebook(path)
    with pytest.raises(DataError, match=r"gone\.yaml"):
        load_rulebook(tmp_path / "gone.yaml")
