"""One row of training data: a (query, item) pair and what is known about it. JSON lines, one object a line.

    query         text                                                        required
    item          title (required), brand, category, attributes, description, id; or the same names flat in the row
    tier          a tier's name or label ("4-Excellent" or "4")               required but for unlabelled pairs
    context       one chunk of knowledge about the query
    context_use   adopt, partial or ignore: what a good judge does with the chunk
    verdicts      {"category": match | related | mismatch, "attributes": {name: ok | unknown | violated}}
    reason        one short sentence that ends the rationale
    rules         ids of the rulebook's atoms that decided the verdicts, or that a teacher was given: `brand-same@1`
    probabilities teacher's tier probabilities, best tier first (stage distill)
    cluster       near-duplicate queries share one; by default queries of the same words do
    rater         who gave the tier; disagreement is looked for between raters
    domain        shop section or market, for prototypes in distillation
    kind          kind of query; `negation`, `alternative`, `question`, `knowledge` count as hard
    source        where the row comes from

A row may hold nothing else: a misspelt column would be a silent loss.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Final, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from models.catalogue import attribute_text, value_text
from models.errors import DataError
from models.prompt import Item
from models.rationale import AttributeVerdict, CategoryVerdict, ContextUse  # noqa: TC001 - pydantic reads them
from models.rows import read_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from models.manifest import Tier

HARD_KINDS: Final = frozenset({"negation", "alternative", "question", "knowledge"})
_ITEM_FIELDS: Final = ("title", "brand", "category", "attributes", "description", "id")
_WORD: Final = re.compile(r"[^\W_]+")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _joined(value: Any) -> Any:
    """Attributes given as a mapping, as the one text that prompts hold."""
    return attribute_text({str(k): value_text(v) for k, v in value.items()}) if isinstance(value, dict) else value


def _text(value: Any) -> Any:
    """Numbers from a CSV or a sloppy exporter as text."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Text = Annotated[str, BeforeValidator(_text)]


class RowItem(_Frozen):
    """The item's fields as a caller of the service would send them."""

    title: Text = Field(min_length=1)
    brand: Text = ""
    category: Text = ""
    attributes: Annotated[str, BeforeValidator(_joined)] = ""
    description: Text = ""
    id: Text = ""

    def item(self) -> Item:
        """As the prompt writer takes it."""
        return Item(**self.model_dump(exclude={"id"}))


class Verdicts(_Frozen):
    """Gold verdicts of the steps before the tier."""

    category: CategoryVerdict | None = None
    attributes: dict[str, AttributeVerdict] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _named(self) -> Self:
        if any("," in name or not name.strip() for name in self.attributes):
            msg = "attribute names must be words without a comma: the rationale separates them by commas"
            raise ValueError(msg)
        return self


class Row(_Frozen):
    """One pair; see the module's docstring."""

    query: Text = Field(min_length=1)
    item: RowItem
    tier: Text | None = None
    context: str | None = None
    context_use: ContextUse | None = None
    verdicts: Verdicts | None = None
    reason: str = ""
    rules: tuple[Text, ...] = ()
    probabilities: tuple[Annotated[float, Field(ge=0, le=1)], ...] = ()
    cluster: Text = ""
    rater: Text = ""
    domain: Text = ""
    kind: Text = ""
    source: Text = ""

    @model_validator(mode="before")
    @classmethod
    def _nested(cls, value: Any) -> Any:
        """Accept the item's fields flat in the row, and `chunk` for `context`."""
        if not isinstance(value, dict):
            return value
        value = dict(value)
        if "chunk" in value:
            value.setdefault("context", value.pop("chunk"))
        if "item" not in value:
            value["item"] = {name: value.pop(name) for name in _ITEM_FIELDS if name in value}
        return value

    @model_validator(mode="after")
    def _sums(self) -> Self:
        if self.probabilities and abs(sum(self.probabilities) - 1) > 0.01:  # noqa: PLR2004 - rounded by an exporter
            msg = f"probabilities add up to {sum(self.probabilities):.3f}, not 1"
            raise ValueError(msg)
        return self

    @property
    def group(self) -> str:
        """The cluster that decides on which side of a split the row falls."""
        return self.cluster or " ".join(query_words(self.query)) or self.query

    def without_context(self) -> Row:
        """The same pair with no chunk to use: what a judge is to say of it uses none either."""
        return self.model_copy(update={"context": None, "context_use": None})

    @property
    def hard(self) -> bool:
        """Of one of the four hard kinds of query (2508.12365)."""
        return self.kind in HARD_KINDS

    @property
    def pair(self) -> tuple[str, str, str]:
        """Equal for rows that ask the same: query, item, context."""
        item = self.item.id or "\x1f".join(str(v) for v in self.item.model_dump().values())
        return " ".join(self.query.lower().split()), item, self.context or ""


def query_words(query: str) -> list[str]:
    """Distinct words of a query in order of the alphabet, without a plural's s: what near-duplicates share."""
    return sorted({w.removesuffix("s") if len(w) > 3 else w for w in _WORD.findall(query.lower())})  # noqa: PLR2004


def tier_column(name: str, tiers: Sequence[Tier]) -> int | None:
    """Column of a tier given by name or label; None when the checkpoint has no such tier."""
    return next((n for n, tier in enumerate(tiers) if name in (tier.name, tier.label)), None)


def gold_column(row: Row, tiers: Sequence[Tier]) -> int:
    """Column of the gold tier of a row that `read_training_rows` has accepted."""
    column = tier_column(row.tier or "", tiers)
    assert column is not None  # noqa: S101 - it has refused any other
    return column


def parse_row(place: str, value: dict[str, Any]) -> Row:
    """One row.

    Raises:
        DataError: naming the place, each bad field and what is wrong with it.
    """
    try:
        return Row.model_validate(value)
    except ValidationError as error:
        raise DataError(f"{place}: {'; '.join(_sentences(error))}") from error


def _sentences(error: ValidationError) -> Iterator[str]:
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            yield f"unknown field {where!r}"
        else:
            yield f"{where}: {problem['msg'].removeprefix('Value error, ')}".removeprefix(": ")


def placed_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """Yield (place, row) of a file.

    Raises:
        DataError: at the first bad row, with its line.
    """
    for place, value in read_rows(path):
        yield place, parse_row(place, value)


def read_training_rows(path: Path, tiers: Sequence[Tier], *, labelled: bool = True) -> list[Row]:
    """All rows of a file, each with a tier that the checkpoint knows.

    Args:
        path: .jsonl, .csv or .parquet.
        tiers: the checkpoint's.
        labelled: refuse rows without a tier.

    Raises:
        DataError: a bad row, an unknown or missing tier, no rows; the message names the line.
    """
    rows = []
    for place, row in placed_rows(path):
        if row.tier is None and labelled:
            raise DataError(f"{place}: no tier; this stage learns from labelled pairs")
        if row.tier is not None and tier_column(row.tier, tiers) is None:
            raise DataError(f"{place}: no tier {row.tier!r}; the checkpoint's are {', '.join(t.name for t in tiers)}")
        if row.probabilities and len(row.probabilities) != len(tiers):
            raise DataError(f"{place}: {len(row.probabilities)} probabilities, the checkpoint has {len(tiers)} tiers")
        rows.append(row)
    if not rows:
        raise DataError(f"{path.name} holds no rows")
    return rows


def write_training_rows(rows: Iterable[Row], path: Path) -> int:
    """Write rows as JSON lines without empty fields; returns how many."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(row.model_dump_json(exclude_defaults=True) + "\n")
            count += 1
    return count
