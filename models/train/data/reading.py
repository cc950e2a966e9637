"""What a plain row's query asks and its item tells, in the terms of the rule engine.

The rules were made for generated queries, which know what they ask. Here both sides are read from text: types and
brands by the words of the file's own items (and everyday names of types), colours and measures by the rulebook's lists,
model names as words with digits, "for X" as a device, "without X" as what is ruled out. Any other word is a property of
that name. A query that names no known type, nor only a brand or a model, or that names too much besides, is a free
phrase: the rules cannot tell.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from models.catalogue import Product
from models.train.queries import Query, spellings, synonyms, words
from models.train.rulebook import About

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from models.train.data.schema import Row, RowItem
    from models.train.rulebook import Rulebook

_FOR: Final = frozenset({"for", "fits", "compatible"})
_RULED_OUT: Final = frozenset({"without", "no", "non", "not", "minus", "except"})
_FILLERS: Final = frozenset(
    "a an and by from in of on or the to with w x i my me best good new buy cheap".split()  # noqa: SIM905 - a list of words
)
_LEGAL_FORMS: Final = frozenset({"inc", "ltd", "llc", "gmbh", "ag", "corp", "co", "corporation", "limited"})
_PATH: Final = re.compile(r"\s*[>|]\s*|\s+/\s+")
_CLOSE: Final = 0.045  # measures this near are the same to people: 1 TB and 1024 GB, 15 and 15.6 inches
_LONGEST: Final = 5  # words of a type's or a brand's name
_MODEL_DIGITS: Final = 3
_MOST: Final = 3  # properties beside type, brand, model, colour and measures; a query with more is a sentence


@dataclass(frozen=True, slots=True)
class Reading:
    """A row in the terms of the rule engine.

    Attributes:
        query: what is asked; its kind is `phrase` where the rules cannot tell.
        product: the item, with the type that its category or title names, and what it tells of the asked values.
        fits: the asked device when the item's text names it; None when nothing is known.
        about: what the chunk speaks of; None without one.
    """

    query: Query
    product: Product
    fits: frozenset[str] | None
    about: About | None


class Reader:
    """Reads rows by the words of all of them; equal rows in any order give equal readings.

    Args:
        rows: whose items' brands and categories are the known ones.
        rulebook: colours and units.
    """

    def __init__(self, rows: Iterable[Row], rulebook: Rulebook) -> None:
        everyday = synonyms()
        brands: set[str] = set()
        types = {*everyday}
        for row in rows:
            brands.add(_company(row.item.brand))
            types.add(_PATH.split(row.item.category)[-1].lower())
        self._brands = frozenset(brands - {""})
        self._spelled: dict[str, set[str]] = defaultdict(set)  # every way to name a type
        for name in types - {""}:
            for spelling in spellings(name, everyday):
                self._spelled[_plain(spelling)].add(_plain(name))
        self._asked: dict[str, set[str]] = defaultdict(set)  # and "cable" for any of the cables
        for spelling, names in self._spelled.items():
            self._asked[spelling] |= names
            self._asked[spelling.split()[-1]] |= names
        self._colours = {s: name for name, others in rulebook.colours.items() for s in (name, *others)}
        self._units = {s: (kind, size) for kind, units in rulebook.units.items() for s, size in units.items()}
        spelled = "|".join(re.escape(u) for u in sorted(self._units, key=len, reverse=True)) or r"(?!)"
        self._measure = re.compile(rf"(?<![\w.])(\d+(?:[.,]\d+)?)[\s-]?({spelled})(?!\w)")

    def read(self, row: Row) -> Reading:
        """One row."""
        query, item = self._query(row.query), row.item
        about = self._about(query, row) if row.context else None
        chunk = row.context if row.context and about is About.ITEM else ""
        stated = f"{item.title} , {item.attributes} , {item.description} , {chunk}"
        product = Product(
            id=item.id,
            title=item.title,
            brand=self._brand(item),
            category=_plain(_PATH.split(item.category)[-1]) or self._named_type(item.title, query),
            attributes=self._values(query, stated),
            description=f"{item.brand} , {item.attributes} , {item.description} , {chunk}",
        )
        fits = _holds(stated, words(query.device)) if query.device else False
        return Reading(query, product, frozenset({query.device}) if fits else None, about)

    def _query(self, text: str) -> Query:
        plain = text.lower()
        left, device = _parted(words(plain), _FOR)
        left, ruled_out = _parted(left, _RULED_OUT)
        brand, left = _taken(left, self._brands)
        values = [("without", ruled_out)] if ruled_out else []
        for spelled, kind, _ in self._measured(re.sub(rf"\b{re.escape(brand)}\b", " ", plain) if brand else plain):
            if set(words(spelled)) <= set(left):
                values.append((kind, spelled))
                for word in words(spelled):
                    left.remove(word)
        kind, left = _taken([_singular(w) for w in left], self._asked, last=True)
        values += [("colour", c) for c in dict.fromkeys(self._colours[w] for w in left if w in self._colours)]
        left = [w for w in left if w not in self._colours and w not in _FILLERS]
        # A short number may count or measure anything, so it is a property, not a model.
        model = tuple(w for w in left if any(c.isdigit() for c in w) and not (w.isdigit() and len(w) < _MODEL_DIGITS))
        others = [w for w in dict.fromkeys(left) if w not in model]
        values += [(w, w) for w in others]
        names = [name for name, _ in values]
        # Words beside a brand may name a type that nobody here knows; two colours may be asked of two things.
        clear = (kind or ((brand or model) and not others)) and len(others) <= _MOST and len(set(names)) == len(names)
        types = frozenset(self._asked[kind]) if kind else frozenset()
        return Query(text, "read" if clear else "phrase", types, brand, tuple(values), model, device)

    def _measured(self, text: str) -> Iterator[tuple[str, str, float]]:
        """(as spelled, kind, value in the kind's first unit) of each measure in a text."""
        for found in self._measure.finditer(text.lower()):
            kind, size = self._units[found[2]]
            yield found[0], kind, float(found[1].replace(",", ".")) * size

    def _values(self, query: Query, stated: str) -> Mapping[str, str]:
        """What a text tells of the values that the query asks: the asked one itself, or the first other one."""
        held = f" {' '.join(_singular(w) for w in words(stated))} "
        found: dict[str, str] = {}
        for name, value in query.values:
            if name == "colour":
                theirs = [self._colours[w] for w in words(stated) if w in self._colours]
                found[name] = value if value in theirs else next(iter(theirs), "")
            elif asked := next((size for _, kind, size in self._measured(value) if kind == name), None):
                alike = [(spelled, size) for spelled, kind, size in self._measured(stated) if kind == name]
                same = any(abs(size - asked) <= _CLOSE * asked for _, size in alike)
                found[name] = value if same else next((spelled for spelled, _ in alike), "")
            elif name == value and f" {value} " in held:
                found[name] = value
        return {name: value for name, value in found.items() if value}

    def _brand(self, item: RowItem) -> str:
        """The item's brand, or the known one that its title begins with; "" for none."""
        title = words(item.title)
        starts = (" ".join(title[:n]) for n in range(_LONGEST, 0, -1))
        return _company(item.brand) or next((start for start in starts if start in self._brands), "")

    def _named_type(self, title: str, query: Query) -> str:
        """The longest known type that a title names, one that the query asks for among equals; "" for none."""
        spelling, _ = _taken([_singular(w) for w in words(title)], self._spelled)
        names = self._spelled[spelling] if spelling else set()
        return next(iter(sorted(names & query.categories) or sorted(names)), "")

    def _about(self, query: Query, row: Row) -> About:
        """Of the item: the chunk holds its title or model name, and something asked. Of the query: its proper names."""
        chunk = row.context or ""
        title = words(row.item.title)
        model = [w for w in title if len(w) > 3 and not w.isdigit() and not w.isalpha() and w[0].isalnum()]  # noqa: PLR2004 - "4gb" is no model
        model = [w for w in model if not self._measure.fullmatch(w)]
        proper = [*words(query.brand), *query.model, *words(query.device)]
        names_item = _holds(chunk, title) or any(_holds(chunk, [w]) for w in model)
        if names_item and (self._values(query, chunk) or any(_holds(chunk, [w]) for w in proper)):
            return About.ITEM
        return About.QUERY if proper and all(_holds(chunk, [w]) for w in proper) else About.OTHER


def _singular(word: str) -> str:
    plural = len(word) > 3 and word.isalpha() and word.endswith("s") and not word.endswith("ss")  # noqa: PLR2004 - "gps"
    return word[:-1] if plural else word


def _company(name: str) -> str:
    """A brand as people type it: without its legal form."""
    return " ".join(w for w in words(name) if w not in _LEGAL_FORMS)


def _plain(name: str) -> str:
    """A type's name as it is compared."""
    return " ".join(_singular(w) for w in words(name))


def _holds(text: str, phrase: Sequence[str]) -> bool:
    """Whether a text holds these words in a row."""
    return bool(phrase) and f" {' '.join(phrase)} " in f" {' '.join(words(text))} "


def _parted(left: list[str], marks: frozenset[str]) -> tuple[list[str], str]:
    """Words before the first mark, and what follows it; a mark at an end marks nothing."""
    at = next((n for n, word in enumerate(left) if word in marks and 0 < n < len(left) - 1), None)
    if at is None:
        return left, ""
    return left[:at], " ".join(w for w in left[at + 1 :] if w not in _FILLERS | marks)


def _taken(left: list[str], known: Collection[str], *, last: bool = False) -> tuple[str, list[str]]:
    """The longest known phrase and the words without it; the first of equals, or the last."""
    for size in range(min(_LONGEST, len(left)), 0, -1):
        starts = range(len(left) - size + 1)
        for at in reversed(starts) if last else starts:
            if (phrase := " ".join(left[at : at + size])) in known:
                return phrase, left[:at] + left[at + size :]
    return "", left
