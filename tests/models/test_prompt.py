"""Tests of the prompt writer: one prefix, one suffix per item, literals that text cannot forge."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import CheckpointError, PromptTooLongError, UnreadableQueryError
from models.manifest import Manifest
from models.prompt import Item, PromptWriter, check_length
from models.tokenizer import FieldTokenizer

SPELLINGS = ("[unused7]", "[unused2]", "[SEP]", "[CLS]", "4-Excellent", "\u200b", "\u202e", "[unused20]")
TEXT = st.lists(st.one_of(st.sampled_from(SPELLINGS), st.text(max_size=16)), max_size=6).map(" ".join)
QUERY = TEXT.map("phone ".__add__)  # one without a token is refused
ITEMS = st.builds(Item, title=TEXT, brand=TEXT, category=TEXT, attributes=TEXT, description=TEXT)


@pytest.fixture(scope="module")
def tokenizer(manifest: Manifest, wordpiece: Path) -> FieldTokenizer:
    """The manifest's tokenizer."""
    del manifest
    return FieldTokenizer(wordpiece)


@pytest.fixture(scope="module")
def writer(manifest: Manifest, tokenizer: FieldTokenizer) -> PromptWriter:
    """A writer for the tiny checkpoint."""
    return PromptWriter(manifest, tokenizer)


def plain(manifest: Manifest, tokenizer: FieldTokenizer, query: str, chunk: str | None, item: Item) -> list[int]:
    """The slow way: every segment encoded alone, literal before field, empty fields left out."""
    ids: list[int] = []
    for segment in (*manifest.prompt.prefix, *manifest.prompt.suffix):
        if segment.field is None:
            ids += tokenizer.literal(segment.text)
            continue
        text = {"query": query, "chunk": chunk or ""}.get(segment.field)
        [field] = tokenizer.fields(
            [item.field(segment.field) if text is None else text], [manifest.prompt.budgets[segment.field]]
        )
        ids += [*tokenizer.literal(segment.text), *field.ids] if field.ids else []
    return ids


@given(shared=st.tuples(QUERY, st.none() | TEXT), items=st.lists(ITEMS, min_size=1, max_size=4))
def test_prompts_equal_those_of_the_plain_writer(
    manifest: Manifest,
    tokenizer: FieldTokenizer,
    writer: PromptWriter,
    shared: tuple[str, str | None],
    items: list[Item],
) -> None:
    """One call for many items writes what one call for each segment would."""
    query, chunk = shared
    prompt = writer.write(query, chunk, items)
    for item, suffix in zip(items, prompt.suffixes, strict=True):
        assert [*prompt.prefix.ids, *suffix.ids] == plain(manifest, tokenizer, query, chunk, item)


@given(query=QUERY, items=st.lists(ITEMS, min_size=1, max_size=6), seed=st.randoms(use_true_random=False))
def test_order_and_company_of_items_change_nothing(
    writer: PromptWriter, query: str, items: list[Item], seed: object
) -> None:
    """An item's suffix depends on the item and the query alone; the prefix on no item."""
    order = list(range(len(items)))
    seed.shuffle(order)  # type: ignore[attr-defined] # hypothesis hands out a random.Random
    straight = writer.write(query, None, items)
    permuted = writer.write(query, None, [items[i] for i in order])
    assert permuted.prefix == straight.prefix
    assert [straight.suffixes[i] for i in order] == list(permuted.suffixes)
    assert writer.write(query, None, items[:1]).suffixes[0] == straight.suffixes[0]


@given(query=QUERY, chunk=TEXT, item=ITEMS)
def test_text_cannot_forge_a_marker(
    tokenizer: FieldTokenizer, writer: PromptWriter, query: str, chunk: str, item: Item
) -> None:
    """However fields are written, a prompt holds each reserved id at most as often as its template does."""
    prompt = writer.write(query, chunk, [item])
    harmless = writer.write("a", "a", [Item("a", "a", "a", "a", "a")])

    def reserved(ids: tuple[int, ...]) -> list[int]:
        return [i for i in ids if i in tokenizer.reserved]

    template = reserved(harmless.prefix.ids + harmless.suffixes[0].ids)
    for token in reserved(prompt.prefix.ids + prompt.suffixes[0].ids):
        template.remove(token)  # raises when there is one more than the template has


@pytest.mark.parametrize("field", ["title", "brand", "category", "attributes", "description"])
@pytest.mark.parametrize("text", ["a" * 100_000, "phone " * 20_000, "\u200b x" * 30_000, "[unused7]" * 10_000])
def test_the_answer_marker_survives_any_length(
    tokenizer: FieldTokenizer, writer: PromptWriter, manifest: Manifest, field: str, text: str
) -> None:
    """A suffix ends with the answer marker and stays within the model's limit, and the cut names its field."""
    prompt = writer.write("phone", None, [replace(Item("phone"), **{field: text})])
    marker = tokenizer.literal(manifest.prompt.suffix[-1].text)
    assert prompt.suffixes[0].ids[-len(marker) :] == marker
    assert len(prompt.prefix.ids) + len(prompt.suffixes[0].ids) <= manifest.max_tokens
    assert field in prompt.suffixes[0].truncated


def test_a_long_query_and_chunk_are_reported_once(writer: PromptWriter) -> None:
    """Shared fields are cut in the prefix and reported there, not again by every suffix that repeats the query."""
    prompt = writer.write("phone " * 100, "case " * 100, [Item("phone")])
    assert prompt.prefix.truncated == ("query", "chunk")
    assert prompt.suffixes[0].truncated == ()


def test_an_empty_field_is_left_out_with_its_literal(tokenizer: FieldTokenizer, writer: PromptWriter) -> None:
    """No brand, no brand marker; no chunk, no chunk marker."""
    prompt = writer.write("phone", None, [Item("phone"), Item("phone", brand="laptop")])
    [brand] = tokenizer.literal("[unused3]")
    [chunk] = tokenizer.literal("[unused1]")
    assert brand not in prompt.suffixes[0].ids
    assert brand in prompt.suffixes[1].ids
    assert chunk not in prompt.prefix.ids


def test_a_field_cannot_merge_with_its_neighbour(tokenizer: FieldTokenizer, writer: PromptWriter) -> None:
    """Two fields are two encodings: 'laptop' split over them stays split."""
    split = writer.write("phone", None, [Item("lap", brand="top")]).suffixes[0].ids
    [laptop] = tokenizer.literal("laptop")
    assert laptop not in split


@pytest.mark.parametrize("query", ["\u0301\u0302", "\u200b\u200d", " "])
def test_a_query_without_a_token_is_refused(writer: PromptWriter, query: str) -> None:
    """Loose accents and invisible characters leave nothing to judge by: no score may come of it."""
    with pytest.raises(UnreadableQueryError, match="in words"):
        writer.write(query, None, [Item("phone")])


def test_unknown_text_is_reported(writer: PromptWriter) -> None:
    """What the vocabulary cannot represent is named by field."""
    prompt = writer.write("phone", None, [Item("\u30b1\u30fc\u30b9")])
    assert prompt.suffixes[0].unrepresentable == ("title",)
    assert prompt.prefix.unrepresentable == ()


def test_tokens_count_the_prefix_once(writer: PromptWriter) -> None:
    """The unit of admission is what has to be computed."""
    prompt = writer.write("phone", None, [Item("phone"), Item("case")])
    assert prompt.tokens == len(prompt.prefix.ids) + sum(len(s.ids) for s in prompt.suffixes)


def test_budgets_beyond_the_model_are_refused(manifest: Manifest, tokenizer: FieldTokenizer) -> None:
    """A manifest whose budgets cannot fit is found at load, not at the first long request."""
    with pytest.raises(CheckpointError, match="the model takes 50"):
        PromptWriter(manifest.model_copy(update={"max_tokens": 50}), tokenizer)


def test_an_engine_with_a_smaller_limit_refuses(writer: PromptWriter) -> None:
    """Length is checked against the engine's own limit, by the longest pair."""
    prompt = writer.write("phone", None, [Item("phone"), Item("case " * 40)])
    longest = len(prompt.prefix.ids) + len(prompt.suffixes[1].ids)
    check_length(prompt, longest)
    with pytest.raises(PromptTooLongError, match=str(longest)):
        check_length(prompt, longest - 1)
