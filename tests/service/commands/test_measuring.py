"""Tests of `tierwise eval`, `compare` and `calibrate` from files to files, on a real engine with random weights."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from ml_dtypes import bfloat16
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from typer.testing import CliRunner

from models.manifest import (
    Manifest,
    PromptTemplate,
    RationaleMarkers,
    Segment,
    Tier,
    file_hash,
    load_manifest,
    save_manifest,
)
from service.cli import COMMANDS, load_command

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

WIDTH, INNER, POSITIONS = 32, 64, 192
NAMES = (("4-Excellent", "Good"), ("3-Related", "Good"), ("2-Mismatch", "Mid"), ("1-Irrelevant", "Bad"))
WORDS = [f"{a}{b}" for a in ("phone", "laptop", "cable", "lamp", "mouse", "case") for b in ("", "s", " x", " y", " z")]


def write_tokenizer(folder: Path) -> dict[str, int]:
    """WordPiece over letters and digits, with reserved entries; returns the vocabulary."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"[unused{n}]" for n in range(28))]
    letters = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    vocabulary = {t: n for n, t in enumerate([*special, *letters, *(f"##{c}" for c in letters)])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106 # a token of text
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(folder / "tokenizer.json"))
    return vocabulary


def write_weights(folder: Path, vocabulary: int, seed: int) -> None:
    """One random post-layer-norm OPT layer: enough that scores differ from item to item."""
    draw = np.random.default_rng(seed)
    root, layer = "model.decoder", "model.decoder.layers.0"
    shapes = {
        f"{root}.embed_tokens.weight": (vocabulary, WIDTH),
        f"{root}.embed_positions.weight": (POSITIONS + 2, WIDTH),
        **{f"{layer}.self_attn.{n}.weight": (WIDTH, WIDTH) for n in ("q_proj", "k_proj", "v_proj", "out_proj")},
        f"{layer}.fc1.weight": (INNER, WIDTH),
        f"{layer}.fc2.weight": (WIDTH, INNER),
    }
    weights = {name: draw.normal(0, 0.3, shape) for name, shape in shapes.items()}
    for name in [n for n in shapes if ".layers." in n]:
        weights[name.replace("weight", "bias")] = np.zeros(shapes[name][0])
    for norm in ("self_attn_layer_norm", "final_layer_norm"):
        weights |= {f"{layer}.{norm}.weight": np.ones(WIDTH), f"{layer}.{norm}.bias": np.zeros(WIDTH)}
    save_file({n: np.ascontiguousarray(w.astype(bfloat16)) for n, w in weights.items()}, folder / "model.safetensors")
    config = {
        "architectures": ["OPTForCausalLM"],
        "model_type": "opt",
        "_remove_final_layer_norm": False,
        "activation_function": "gelu",
        "bos_token_id": 2,
        "do_layer_norm_before": False,
        "enable_bias": True,
        "eos_token_id": 3,
        "ffn_dim": INNER,
        "hidden_size": WIDTH,
        "layer_norm_elementwise_affine": True,
        "max_position_embeddings": POSITIONS,
        "num_attention_heads": 1,
        "num_hidden_layers": 1,
        "pad_token_id": 0,
        "tie_word_embeddings": True,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "dtype": "bfloat16",
        "vocab_size": vocabulary,
        "word_embed_proj_dim": WIDTH,
    }
    (folder / "config.json").write_text(json.dumps(config))


def make_checkpoint(folder: Path, seed: int) -> Path:
    """A whole checkpoint folder."""
    folder.mkdir()
    ids = write_tokenizer(folder)
    write_weights(folder, len(ids), seed)
    prompt = PromptTemplate(
        prefix=(Segment(text="[unused0]", field="query"), Segment(text="[unused1]", field="chunk")),
        suffix=(
            Segment(text="[unused2]", field="title"),
            Segment(text="[unused3]", field="brand"),
            Segment(text="[unused7]"),
        ),
        budgets={"query": 24, "chunk": 24, "title": 48, "brand": 8},
    )
    manifest = Manifest(
        name="tiny",
        tiers=tuple(
            Tier.model_validate({"name": n, "label": n[0], "token_id": ids[f"[unused{20 + i}]"], "band": band})
            for i, (n, band) in enumerate(NAMES)
        ),
        prompt=prompt,
        prompt_hash=prompt.hash,
        max_tokens=120,
        beta=0.5,
        rationale=RationaleMarkers(
            category="[unused9]",
            attributes="[unused10]",
            context="[unused11]",
            reason="[unused12]",
            end_token_id=3,
            max_tokens=8,
        ),
        files={n: file_hash(folder / n) for n in ("config.json", "model.safetensors", "tokenizer.json")},
    )
    save_manifest(manifest, folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two checkpoints, a catalogue, judgements; graphs are cached here and nowhere else."""
    path = tmp_path_factory.mktemp("measuring")
    for name, seed in (("a", 0), ("b", 1)):
        make_checkpoint(path / name, seed)
    with (path / "products.jsonl").open("w") as file:
        for n, words in enumerate(WORDS):
            file.write(json.dumps({"id": n, "title": f"{words} {n}", "brand": "Acme"}) + "\n")
    rows = ["query,product_id,rating,cluster"]
    rows += [f"{q},{n},{(n + c) % 4},{c}" for c, q in enumerate(WORDS[::5]) for n in range(0, len(WORDS), 2)]
    (path / "judgements.csv").write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture(autouse=True)
def cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs go to the test's folder."""
    monkeypatch.setenv("TIERWISE_CACHE_DIR", str(folder / "cache"))


def run(command: str, *arguments: object) -> Result:
    """A command as the shell would call it."""
    return CliRunner().invoke(load_command(COMMANDS[command][0]), [str(a) for a in arguments])


def judged(folder: Path) -> list[object]:
    """The options that name the judgements."""
    return ["--judgements", folder / "judgements.csv", "--catalogue", folder / "products.jsonl", "--resamples", 100]


def test_eval_writes_a_table_a_json_and_a_page(folder: Path) -> None:
    """The three agree on the figure, and the page needs no other file."""
    out = folder / "out"
    result = run(
        "eval", "--checkpoint", folder / "a", *judged(folder), "--json", out / "e.json", "--html", out / "e.html"
    )
    assert result.exit_code == 0, result.output
    report = json.loads((out / "e.json").read_text())
    value = report["systems"][0]["figures"]["ndcg@10"]["value"]
    assert report["data"]["pairs"] == 90
    assert [s["name"] for s in report["systems"]][:2] == ["tiny", "BM25"]
    assert f"{value:.3f}" in result.output
    assert f"{value:.3f}" in (out / "e.html").read_text()
    assert sorted(p.name for p in out.iterdir()) == ["e.html", "e.json"]


def test_eval_without_the_extra_says_what_is_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder's place holds the command that installs it, and the rest is measured all the same."""
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    result = run("eval", "--checkpoint", folder / "a", *judged(folder))
    assert result.exit_code == 0, result.output
    assert "pip install 'tierwise[train]'" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "give --judgements with --catalogue, or --attacks, or --probes"),
        (("--judgements", "gone.csv", "--catalogue", "gone.csv"), "gone.csv does not exist"),
        (("--judgements", "j.csv", "--catalogue", "c.csv", "--columns", "title"), "not of the form field=column"),
        (("--attacks", "--checkpoint", "nowhere"), "nowhere is not a checkpoint"),
        (("--probes", "gone.jsonl"), "gone.jsonl does not exist"),
        (("--attacks", "--knowledge", "nowhere"), "nowhere"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(folder: Path, arguments: tuple[str, ...], told: str) -> None:
    """Exit status 2 and one line, no stack."""
    chosen = () if "--checkpoint" in arguments else ("--checkpoint", str(folder / "a"))
    result = run("eval", *arguments, *chosen)
    assert result.exit_code == 2
    assert told in result.output
    assert "Traceback" not in result.output


def test_attacks_fail_the_command_when_a_limit_is_broken(folder: Path) -> None:
    """Random weights are easily moved: exit status 1 and the verdict in words, the same as the JSON's figures say."""
    out = folder / "attacks.json"
    pairs = folder / "irrelevant.jsonl"
    pairs.write_text("".join(json.dumps({"query": w, "title": "stone"}) + "\n" for w in WORDS[:3]))
    result = run("eval", "--attacks", "--attack-pairs", pairs, "--checkpoint", folder / "a", "--json", out)
    if result.exit_code == 2:
        assert "before any attack" in result.output
        return
    report = json.loads(out.read_text())
    share = report["overall"]["lifted"] / report["overall"]["trials"]
    assert result.exit_code == int(share > report["limit"])
    assert ("FAILED" in result.output) == (result.exit_code == 1)
    assert report["crashes"] == report["reserved"] == []


def test_probes_are_told_by_kind_of_chunk(folder: Path) -> None:
    """Four accuracies, three paired differences and rule consistency, in the table, the JSON and the page."""
    out, source = folder / "probes.json", folder / "probes.jsonl"
    rows = [
        {"query": q, "title": f"{w} {q}", "tier": "4", "kind": kind, "cluster": w, "context": chunk}
        for q, w in zip(WORDS, reversed(WORDS), strict=True)
        for kind, chunk in (("none", ""), ("right", f"{w} {q}"), ("useless", "stone"), ("misleading", w))
    ]
    source.write_text("".join(json.dumps(r) + "\n" for r in rows))
    arguments = ("--probes", source, "--checkpoint", folder / "a", "--resamples", 100)
    result = run("eval", *arguments, "--json", out, "--html", folder / "probes.html")
    assert result.exit_code == 0, result.output
    report = json.loads(out.read_text())
    assert report["kind"] == "probes"
    assert [f["chunk"] for f in report["by_chunk"]] == ["none", "right", "useless", "misleading"]
    assert [f["change"] is None for f in report["by_chunk"]] == [True, False, False, False]
    assert report["decoded"] == len(rows)
    assert "Rule consistency" in result.output
    assert "misleading minus none" in (folder / "probes.html").read_text()


def test_compare_sets_b_beside_a(folder: Path) -> None:
    """Two checkpoints on the same pairs; a checkpoint beside itself flips nothing."""
    out = folder / "c.json"
    result = run("compare", folder / "a", folder / "b", *judged(folder), "--json", out, "--html", folder / "c.html")
    assert result.exit_code == 0, result.output
    report = json.loads(out.read_text())
    assert report["a"]["checkpoint"] != report["b"]["checkpoint"]
    assert sum(report["flip_counts"][n] for n in ("better", "worse", "neither")) == len(report["flips"])
    assert run("compare", folder / "a", folder / "a", *judged(folder), "--json", out).exit_code == 0
    assert json.loads(out.read_text())["flips"] == []


def test_compare_shows_what_a_precision_costs(folder: Path) -> None:
    """One checkpoint on two engines."""
    out = folder / "p.json"
    engines = ("--engine", "onnx-float32", "--engine-b", "onnx-int8")
    result = run("compare", folder / "a", folder / "a", *judged(folder), *engines, "--json", out)
    assert result.exit_code == 0, result.output
    report = json.loads(out.read_text())
    assert [report[s]["engine"] for s in ("a", "b")] == ["onnx-float32", "onnx-int8"]


def scores(folder: Path) -> list[tuple[float, dict[str, Any]]]:
    """Every pair with the score that checkpoint A gives it, from `tierwise eval`'s own engine."""
    out = folder / "s.json"
    pairs = [{"query": q, "title": w} for q in WORDS[::3] for w in WORDS]
    source = folder / "pairs_to_score.jsonl"
    source.write_text(
        "".join(
            json.dumps({"query": p["query"], "item": {"id": str(n), "title": p["title"]}}) + "\n"
            for n, p in enumerate(pairs)
        )
    )
    result = run("score", "--input", source, "--output", out, "--checkpoint", folder / "a")
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    return sorted(((row["score"], pairs[int(row["id"])]) for row in rows), key=lambda r: -r[0])


@pytest.fixture(scope="module")
def labels(folder: Path) -> Path:
    """Labelled pairs on which checkpoint A separates the tiers: its own ranking, cut in four."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIERWISE_CACHE_DIR", str(folder / "cache"))
        ranked = scores(folder)
    path = folder / "labels.jsonl"
    size = len(ranked) // 4 + 1
    rows = ({**pair, "tier": NAMES[n // size][0]} for n, (_, pair) in enumerate(ranked))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_calibrate_changes_nothing_unless_told(folder: Path, labels: Path) -> None:
    """Without --write the manifest stays as it is, to the byte; judgements are reported beside."""
    before = (folder / "a" / "tierwise.json").read_bytes()
    beside = ("--judgements", folder / "judgements.csv", "--catalogue", folder / "products.jsonl")
    result = run("calibrate", "--pairs", labels, "--checkpoint", folder / "a", *beside, "--html", folder / "k.html")
    assert result.exit_code == 0, result.output
    assert "Nothing was changed" in result.output
    assert "reported only" in result.output
    assert (folder / "a" / "tierwise.json").read_bytes() == before


def test_calibrate_writes_two_numbers(labels: Path, tmp_path: Path) -> None:
    """Beta, temperature and their figures; every other part of the manifest stays, and it still loads."""
    checkpoint = make_checkpoint(tmp_path / "own", 0)
    before = load_manifest(checkpoint)
    out = tmp_path / "k.json"
    result = run("calibrate", "--pairs", labels, "--checkpoint", checkpoint, "--write", "--json", out)
    assert result.exit_code == 0, result.output
    report = json.loads(out.read_text())
    after = load_manifest(checkpoint)
    assert report["written"]
    assert (after.beta, after.temperature) == (report["chosen"]["beta"], report["chosen"]["temperature"])
    assert after.figures["calibration"]["data"]["name"] == "labels.jsonl"
    same = {"beta": before.beta, "temperature": before.temperature, "figures": before.figures}
    assert after.model_copy(update=same) == before
    assert after.checkpoint_id == before.checkpoint_id
    assert report["chosen"]["macro_f1"] >= report["current"]["macro_f1"]


def test_calibrate_refuses_tiers_that_do_not_separate(folder: Path, labels: Path, tmp_path: Path) -> None:
    """Labels turned upside down have nothing to calibrate: exit status 2, the tiers named, the manifest untouched."""
    turned = tmp_path / "turned.jsonl"
    names = [n for n, _ in NAMES]
    rows = [json.loads(line) for line in labels.read_text().splitlines()]
    turned.write_text("".join(json.dumps({**r, "tier": names[3 - names.index(r["tier"])]}) + "\n" for r in rows))
    before = (folder / "a" / "tierwise.json").read_bytes()
    result = run("calibrate", "--pairs", turned, "--checkpoint", folder / "a", "--write")
    assert result.exit_code == 2
    assert "do not separate" in result.output
    assert (folder / "a" / "tierwise.json").read_bytes() == before
