"""Tests of the catalogue reader: layouts, columns, and errors that say what to change."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.catalogue import Product, attribute_text, read_catalogue, value_text
from models.errors import DataError


def write_jsonl(path: Path, *rows: object) -> Path:
    """Rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_json_lines(tmp_path: Path) -> None:
    """Every field is read; attributes may be a mapping."""
    row = {
        "id": 7,
        "title": "Phone  X\n5",
        "brand": "Acme",
        "category": "Phones",
        "description": "A phone",
        "name": "X5",
        "attributes": {"battery_capacity": 3000.0, "dual sim": True, "colours": ["black", "blue"], "none": None},
    }
    attributes = {"battery capacity": "3000", "dual sim": "yes", "colours": "black blue"}
    assert read_catalogue(write_jsonl(tmp_path / "c.jsonl", row)) == {
        "7": Product("7", "Phone X 5", "Acme", "Phones", attributes, "A phone", "X5")
    }


@pytest.mark.parametrize(
    "cell",
    [
        [["colour", "black"], ["weight", 5]],
        [{"name": "colour", "value": "black"}, {"name": "weight", "value": 5.0}],
        "colour: black; weight: 5",
        '{"colour": "black", "weight": 5}',
        '[["colour", "black"], ["weight", 5]]',
    ],
)
def test_attributes_in_their_shapes(tmp_path: Path, cell: object) -> None:
    """Pairs, objects, text and JSON inside a cell mean the same."""
    path = write_jsonl(tmp_path / "c.jsonl", {"id": "1", "title": "t", "attributes": cell})
    assert read_catalogue(path)["1"].attributes == {"colour": "black", "weight": "5"}


def test_csv_with_other_column_names(tmp_path: Path) -> None:
    """Known synonyms need no mapping, others do; a quoted line break is white space."""
    path = tmp_path / "c.csv"
    path.write_text('\ufeffproduct_id,label,supplier,short_description\n1,"Phone\nX",Acme,A phone\n', encoding="utf-8")
    assert read_catalogue(path, columns={"title": "label"}) == {
        "1": Product("1", "Phone X", brand="Acme", description="A phone")
    }


def test_icecat_layout(tmp_path: Path) -> None:
    """products.parquet with attributes_long.parquet beside it, found by name, also through the folder."""
    products = pa.table({"id": ["1", "2"], "title": ["Phone", "Case"], "supplier": ["Acme", None]})
    long = pa.table(
        {
            "product_id": ["1", "1", "1", "9"],
            "attribute": ["product_colour", "bluetooth", "ports", "x"],
            "kind": ["t", "b", "n", "t"],
            "value": ["Black", "true", "6.0", "y"],
        }
    )
    pq.write_table(products, tmp_path / "products.parquet")
    pq.write_table(long, tmp_path / "attributes_long.parquet")
    expected = {
        "1": Product("1", "Phone", "Acme", attributes={"product colour": "Black", "bluetooth": "yes", "ports": "6"}),
        "2": Product("2", "Case"),
    }
    assert read_catalogue(tmp_path / "products.parquet") == expected
    assert read_catalogue(tmp_path) == expected


def test_an_attribute_that_repeats_keeps_all_values(tmp_path: Path) -> None:
    """Values of a repeated attribute are joined, as a list's are."""
    write_jsonl(tmp_path / "products.jsonl", {"id": "1", "title": "t"})
    rows = [{"product_id": "1", "attribute": "colour", "value": v} for v in ("black", "blue")]
    write_jsonl(tmp_path / "attributes_long.jsonl", *rows)
    assert read_catalogue(tmp_path / "products.jsonl")["1"].attributes == {"colour": "black blue"}


def test_item_is_the_text_that_the_judge_reads() -> None:
    """Attributes become one text; the model name stays out, since titles hold it."""
    item = Product("1", "Phone", "Acme", "Phones", {"colour": "black", "ports": "2"}, "d", "X5").item()
    assert item.attributes == attribute_text({"colour": "black", "ports": "2"}) == "colour black, ports 2"
    assert (item.title, item.brand, item.category, item.description) == ("Phone", "Acme", "Phones", "d")


@pytest.mark.parametrize(
    ("value", "text"),
    [("6.0", "6"), (6.0, "6"), ("2.0+EDR", "2.0+EDR"), (True, "yes"), ("False", "no"), ("a\\nb", "a b"), (-3.0, "-3")],
)
def test_values_as_text(value: object, text: str) -> None:
    """Whole numbers lose .0, booleans read yes and no, written-out line breaks are white space."""
    assert value_text(value) == text


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("c.jsonl", '{"id": "1", "title": "t"}\n{"id": "2"}\n', r"line 2: no title.*row has id"),
        ("c.jsonl", '{"title": "t"}\n', "line 1: no id.*id or product_id"),
        ("c.jsonl", '{"id": "1", "title": "t"}\n\n{"id": "1", "title": "u"}\n', "line 3.*'1' occurs twice"),
        ("c.jsonl", "nonsense\n", "line 1: not a JSON object"),
        ("c.jsonl", "[1]\n", "line 1: expected a JSON object, found list"),
        ("c.jsonl", '{"id": "1", "title": "t", "attributes": 5}\n', "line 1: attributes must be"),
        ("c.jsonl", '{"id": "1", "title": "t", "attributes": "{broken"}\n', "look like JSON"),
        ("c.jsonl", "", "holds no products"),
        ("c.csv", "id,title\n1\n", "line 2: 1 cells, the header names 2"),
        ("c.csv", "id,id\n", "line 1 must name the columns, each once"),
        ("c.parquet", "not parquet", "not a readable Parquet file"),
        ("c.xlsx", "", r"\.jsonl, \.csv, \.parquet"),
    ],
)
def test_bad_input_is_named(tmp_path: Path, name: str, content: str, told: str) -> None:
    """Each message names the file or the line, and what to change."""
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=told):
        read_catalogue(tmp_path / name)


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    """A file in another encoding is refused, not guessed at."""
    (tmp_path / "c.csv").write_bytes("id,title\n1,Gerät\n".encode("latin-1"))
    with pytest.raises(DataError, match="UTF-8"):
        read_catalogue(tmp_path / "c.csv")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The path is in the message."""
    with pytest.raises(DataError, match=r"gone\.jsonl does not exist"):
        read_catalogue(tmp_path / "gone.jsonl")


def test_a_mapping_to_nothing_is_refused(tmp_path: Path) -> None:
    """A mapped column that no row fills is a misspelling; a field that does not exist is told with those that do."""
    path = write_jsonl(tmp_path / "c.jsonl", {"id": "1", "title": "t"})
    with pytest.raises(DataError, match="no column makr"):
        read_catalogue(path, columns={"brand": "makr"})
    with pytest.raises(DataError, match="its fields are id, title"):
        read_catalogue(path, columns={"price": "cost"})


def test_a_long_table_without_its_columns_is_refused(tmp_path: Path) -> None:
    """The expected columns are named."""
    write_jsonl(tmp_path / "products.jsonl", {"id": "1", "title": "t"})
    write_jsonl(tmp_path / "attributes_long.jsonl", {"id": "1", "name": "colour", "value": "black"})
    with pytest.raises(DataError, match="product_id, attribute, value"):
        read_catalogue(tmp_path / "products.jsonl")
