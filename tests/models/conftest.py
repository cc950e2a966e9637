"""Two small tokenizers of the kinds that checkpoints bring, and a manifest for them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from models.manifest import (
    Canary,
    CanaryItem,
    Manifest,
    PromptTemplate,
    RationaleMarkers,
    Segment,
    Tier,
    file_hash,
    save_manifest,
)

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("4-Excellent", "3-Related", "2-Mismatch", "1-Irrelevant")
BANDS = ("Good", "Good", "Mid", "Bad")
LABELS = tuple(f"[unused{n}]" for n in (20, 21, 22, 23))
BUDGETS = {"query": 24, "chunk": 32, "title": 24, "brand": 8, "category": 8, "attributes": 24, "description": 24}


@pytest.fixture(scope="session")
def wordpiece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT-like WordPiece tokenizer: lower case, with reserved [unusedN] entries."""
    folder = tmp_path_factory.mktemp("wordpiece")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"[unused{n}]" for n in range(32))]
    letters = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    words = [*special, *letters, *(f"##{c}" for c in letters), "phone", "case", "laptop", "##s", "excellent"]
    vocabulary = {token: n for n, token in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106 # a token of text
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(special)
    tokenizer.enable_truncation(16)  # a checkpoint's own limits must not decide
    tokenizer.enable_padding(length=16)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="session")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen-like byte-level tokenizer whose <think> is an added token that is not special."""
    folder = tmp_path_factory.mktemp("byte_level")
    vocabulary = {token: n for n, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens([AddedToken("<think>", special=False), AddedToken("</think>", special=False)])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="session")
def manifest(wordpiece: Path) -> Manifest:
    """A manifest for the WordPiece tokenizer, saved beside it."""
    ids = Tokenizer.from_file(str(wordpiece / "tokenizer.json")).get_vocab()
    prompt = PromptTemplate(
        prefix=(Segment(text="[unused0]", field="query"), Segment(text="[unused1]", field="chunk")),
        suffix=(
            Segment(text="[unused2]", field="title"),
            Segment(text="[unused3]", field="brand"),
            Segment(text="[unused4]", field="category"),
            Segment(text="[unused5]", field="attributes"),
            Segment(text="[unused8]", field="description"),
            Segment(text="[unused6]", field="query"),
            Segment(text="[unused7]"),
        ),
        budgets=BUDGETS,
    )
    made = Manifest(
        name="tiny",
        tiers=tuple(
            Tier.model_validate({"name": name, "label": name[0], "token_id": ids[label], "band": band})
            for name, label, band in zip(NAMES, LABELS, BANDS, strict=True)
        ),
        prompt=prompt,
        prompt_hash=prompt.hash,
        max_tokens=512,
        beta=0.5,
        rationale=RationaleMarkers(
            category="[unused9]",
            attributes="[unused10]",
            context="[unused11]",
            reason="[unused12]",
            end_token_id=ids["[SEP]"],
        ),
        canaries=(Canary(query="phone", item=CanaryItem(title="phone"), tier="4-Excellent"),),
        files={"tokenizer.json": file_hash(wordpiece / "tokenizer.json")},
    )
    save_manifest(made, wordpiece)
    return made


@pytest.fixture
def tokenizer_spec(wordpiece: Path) -> dict[str, object]:
    """The WordPiece tokenizer's file as a value."""
    spec: dict[str, object] = json.loads((wordpiece / "tokenizer.json").read_bytes())
    return spec
