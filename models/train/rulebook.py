"""The rulebook: versioned atomic rules, each a condition in closed words, a sentence, and the verdict that follows.

2508.12365 (making of the CoT data) splits business rules into atoms and fetches those that apply to a pair; its rules
and their form are not public, so the form here is a PROPOSAL. Atoms live in the training data, never in the serving
prompt.
"""

from __future__ import annotations

from collections.abc import Iterable  # noqa: TC003 - pydantic reads it
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, Any, Final, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from models.errors import DataError
from models.rationale import AttributeVerdict, CategoryVerdict, ContextUse

if TYPE_CHECKING:
    from pathlib import Path

ANY: Final = "any"
MEASURE: Final = "measure"
MOST: Final = 12  # atoms that a teacher is given: a query with two constraints and a chunk has about as many


class Kin(StrEnum):
    """How the item's type stands to the type that the query names."""

    SAME = "same"
    KIN = "kin"
    OTHER = "other"


class Told(StrEnum):
    """What an item tells about one thing that the query asks."""

    SAYS = "says"
    NAMES = "names"
    DIFFERS = "differs"
    SILENT = "silent"


class About(StrEnum):
    """What a chunk speaks of: this item and what is asked, the query's brand, model or device, or other things."""

    ITEM = "item"
    QUERY = "query"
    OTHER = "other"


Verdict = CategoryVerdict | AttributeVerdict | ContextUse


@dataclass(frozen=True, slots=True)
class Asked:
    """What of a query decides which atoms apply: the types it names and its words, both in lower case."""

    types: frozenset[str] = frozenset()
    words: frozenset[str] = frozenset()


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _lower(value: Any) -> Any:
    return [v.lower() if isinstance(v, str) else v for v in value] if isinstance(value, list) else value


Names = Annotated[frozenset[str], BeforeValidator(_lower)]


class When(_Frozen):
    """The condition of an atom: one of category, attribute and context, and what narrows it."""

    category: Kin | None = None
    attribute: str | None = Field(default=None, min_length=1, max_length=40)
    item: Told | None = None
    context: About | None = None
    types: Names = frozenset()
    words: Names = frozenset()

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(v is not None for v in (self.category, self.attribute, self.context)) != 1:
            msg = "name one of category, attribute and context"
            raise ValueError(msg)
        if (self.item is None) != (self.attribute is None):
            msg = "attribute and item (says, names, differs, silent) go together"
            raise ValueError(msg)
        return self

    @property
    def fact(self) -> tuple[str, str]:
        """What the engine has to find: (category, attribute's name or context; how it stands)."""
        if self.attribute is not None:
            return self.attribute, str(self.item)
        return ("category", str(self.category)) if self.category is not None else ("context", str(self.context))

    @property
    def conditions(self) -> int:
        """How narrow it is."""
        return (self.attribute != ANY) + bool(self.types) + bool(self.words)

    def holds(self, asked: Asked) -> bool:
        """Whether the query is one that the atom is for."""
        return (not self.types or bool(self.types & asked.types)) and (not self.words or bool(self.words & asked.words))


class Atom(_Frozen):
    """One rule."""

    id: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=40)
    when: When
    text: str = Field(min_length=1, max_length=200, pattern=r"^[^\n]+$")
    verdict: str

    @model_validator(mode="after")
    def _closed(self) -> Self:
        closed = self._verdicts()
        if self.verdict not in closed.__members__.values():
            msg = f"the verdict of {self.id} is {self.verdict!r}; it may be {', '.join(closed)}"
            raise ValueError(msg)
        return self

    def _verdicts(self) -> type[Verdict]:
        if self.when.attribute is not None:
            return AttributeVerdict
        return CategoryVerdict if self.when.category is not None else ContextUse


class Rulebook(_Frozen):
    """Atoms, and the words they need: colours and units.

    Attributes:
        version: raised with every change.
        atoms: in the order that decides among equals.
        colours: name -> other spellings.
        units: kind of measure -> spelling -> how many of the kind's first unit.
    """

    version: int = Field(ge=1)
    atoms: tuple[Atom, ...]
    colours: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    units: dict[str, dict[str, Annotated[float, Field(gt=0)]]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        ids = [atom.id for atom in self.atoms]
        if twice := sorted({i for i in ids if ids.count(i) > 1}):
            msg = f"the id {twice[0]!r} occurs twice"
            raise ValueError(msg)
        general = {a.when.fact for a in self.atoms if not a.when.types and not a.when.words}
        needed = [("category", k) for k in Kin] + [(ANY, t) for t in Told] + [("context", a) for a in About]
        for fact in needed:
            if (fact[0], str(fact[1])) not in general:
                name = f"attribute: any, item: {fact[1]}" if fact[0] == ANY else f"{fact[0]}: {fact[1]}"
                msg = f"no atom without types and words decides {{{name}}}; every pair must get a verdict"
                raise ValueError(msg)
        return self

    @cached_property
    def _by_fact(self) -> dict[tuple[str, str], tuple[Atom, ...]]:
        found: dict[tuple[str, str], list[Atom]] = {}
        for atom in sorted(self.atoms, key=lambda a: -a.when.conditions):  # stable: the first among equals stays first
            found.setdefault(atom.when.fact, []).append(atom)
        return {fact: tuple(atoms) for fact, atoms in found.items()}

    def decide(self, subject: str, stands: str, asked: Asked) -> Atom:
        """The atom that decides a fact.

        Args:
            subject: `category`, `context`, or an attribute's name; a kind of unit is a `measure` too.
            stands: a value of Kin, About or Told.
            asked: of the query.
        """
        for name in (subject, *((MEASURE,) if subject in self.units else ()), ANY):
            for atom in self._by_fact.get((name, stands), ()):
                if atom.when.holds(asked):
                    return atom
        # `_whole` has seen to it that there is one.
        raise AssertionError(f"no atom for {subject} {stands}")

    def pick(self, attributes: Iterable[str], asked: Asked, *, context: bool) -> tuple[Atom, ...]:
        """The atoms that a query calls for, however the item turns out: MOST at most.

        Args:
            attributes: names of what the query asks.
            asked: of the query.
            context: whether a chunk is at hand.
        """
        facts: list[tuple[str, str]] = [("category", k) for k in Kin]
        facts += [(name, t) for name in attributes for t in Told]
        facts += [("context", a) for a in About] if context else []
        found = dict.fromkeys(self.decide(subject, stands, asked) for subject, stands in facts)
        # The three of the category stay; of the others, what is for this query before what is for many.
        order = sorted(found, key=lambda a: (a.when.category is None, -a.when.conditions))
        return tuple(order[:MOST])

    def signed(self, atom: str) -> str:
        """How rows name an atom: its id and the book's version."""
        return f"{atom}@{self.version}"


def load_rulebook(path: Path) -> Rulebook:
    """Read a rulebook.

    Raises:
        DataError: not YAML, or not a rulebook; the message names the atom and what is wrong with it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}") from error
    return _parsed(text, str(path))


@lru_cache(maxsize=1)
def shipped() -> Rulebook:
    """The book that comes with the package, and that bootstrap judges by."""
    return _parsed(files("models.train").joinpath("rulebook.yaml").read_text(encoding="utf-8"), "rulebook.yaml")


def _parsed(text: str, name: str) -> Rulebook:
    try:
        value: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise DataError(f"{name} is not YAML: {' '.join(str(error).split())}") from error
    try:
        return Rulebook.model_validate(value)
    except ValidationError as error:
        raise DataError(f"{name}: {'; '.join(_told(e, value) for e in error.errors())}") from error


def _told(problem: Any, value: Any) -> str:
    """A problem in the words of the file: an atom by its id where it has one."""
    where = list(problem["loc"])
    if where[:1] == ["atoms"] and len(where) > 1:
        raw = value["atoms"][where[1]]
        name = raw.get("id") if isinstance(raw, dict) else None
        where = [f"atom {name or where[1] + 1}", *where[2:]]
    return f"{'.'.join(map(str, where)) or 'rulebook'}: {problem['msg'].removeprefix('Value error, ')}"
