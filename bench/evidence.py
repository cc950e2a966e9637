"""What each stage of training brings, on one small budget: `make evidence`, into docs/training.md.

    .venv-train/bin/python bench/evidence.py --catalogue FOLDER [--judgements FILE] [--docs docs/training.md] [--quick]

Every row of the table is a run of `tierwise train STAGE` on rows that evidence_data.py generates from the catalogue and
the rules label. A row that is done is not done again; a run that was killed goes on where it was. Beta and temperature
of each row are chosen on the calibration rows, figures are of the validation rows (selection), of the context test set
and, if given, of human judgements, which nothing is chosen on. The folder is held to the settings it was made with.

Runs of reinforcement learning see `RL_STEPS` steps of 64 sampled answers, eight to a prompt. They start from rag-sft of
the same seed. `distilled` learns unlabelled pairs from the row that is best on the validation rows. `averaged` is
the mean of that row's weights (distilled itself can be it) and of the checkpoint that all start from.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.evidence_data import GENERATOR, QUICK, Sizes, count_rows, write_rows
from bench.evidence_figures import Sources, measured
from bench.evidence_folder import hold_to
from bench.evidence_table import best_row, figures_only, markdown, plot, replaced
from models.errors import DataError
from models.manifest import SHIPPED, file_hash, load_manifest

AVERAGE = "average"
RL_STEPS = 40
DPO_ROWS = 300  # eight answers are sampled of each, with its chunk and without
RL = {
    "batch_size": 64,
    "learning_rate": 1e-5,
    "max_steps": RL_STEPS,
    "save_steps": 20,
    "log_steps": 5,
}
SUPERVISED = {"batch_size": 16, "epochs": 2, "learning_rate": 5e-5}


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table.

    Attributes:
        name: of the row.
        stage: of `tierwise train`, None for the checkpoint that all start from; AVERAGE takes no steps.
        base: the row it starts from.
        settings: beside the shared ones.
        rows: file of the training rows.
        seeds: how often it is run; the first seed's checkpoint is the row's.
        of_best: it learns from the row that is best on the validation rows so far, or is averaged with it.
    """

    name: str
    stage: str | None = None
    base: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    rows: str = "train"
    seeds: int = 1
    of_best: bool = False


ROWS = (
    Row("bootstrap"),
    Row("sft", "sft", "bootstrap", {**SUPERVISED, "drop_context": 1.0}),
    Row("rag-sft", "sft", "bootstrap", {**SUPERVISED, "drop_context": 0.3}, seeds=3),
    Row("rag-dpo", "dpo", "rag-sft", {"learning_rate": 5e-6, "samples": 8, "batch_size": 16}, rows="dpo"),
    Row("rag-grpo", "grpo", "rag-sft", RL),
    Row("dyknow", "dyknow", "rag-sft", {**RL, "pool_confidence": 0.7}, seeds=3),
    Row("agrl", "agrl", "rag-sft", RL),
    Row("srpo", "srpo", "rag-sft", RL),
    Row("distilled", "distill", "bootstrap", SUPERVISED, rows="unlabelled", of_best=True),
    Row("averaged", AVERAGE, "bootstrap", of_best=True),
)


class Evidence:
    """All rows in one folder."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.folder: Path = args.output.resolve()
        self.sources = Sources(self.folder / "rows", args.judgements, args.catalogue)
        self.results: dict[str, dict[str, Any]] = {}

    def run(self) -> dict[str, Any]:
        """Rows, first seeds before further ones, then the table."""
        sizes = QUICK if self.args.quick else Sizes()
        hold_to(
            self.folder,
            {
                "generator": GENERATOR,
                "sizes": asdict(sizes),
                "catalogue": _hashes(self.args.catalogue),
                "judgements": _hashes(self.args.judgements) if self.args.judgements else None,
                "base": load_manifest(Path(self.args.base)).checkpoint_id,
                "precision": self.args.precision,
            },
        )
        write_rows(self.args.catalogue, self.folder / "rows", sizes, _told)
        self._dpo_rows(DPO_ROWS if not self.args.quick else 60)
        seeds = 1 if self.args.quick else self.args.seeds
        for seed in range(1, seeds + 1):
            for row in ROWS:
                if seed <= row.seeds and (self.args.only is None or row.name in self.args.only):
                    self._row(row, seed)
        return {
            "rows": self.results,
            "data": count_rows(self.folder / "rows"),
            "best": best_row(self.results),
            "cores": os.cpu_count(),
        }

    def _dpo_rows(self, count: int) -> None:
        lines = (self.folder / "rows" / "train.jsonl").read_text().splitlines(keepends=True)
        (self.folder / "rows" / "dpo.jsonl").write_text("".join(lines[:count]))

    def _row(self, row: Row, seed: int) -> None:
        name = row.name if seed == 1 else f"{row.name}-{seed}"
        path = self.folder / f"{name}.json"
        if row.stage:
            hold_to(self.folder / name, {"stage": row.stage, "base": row.base, "rows": row.rows, **row.settings})
        if not path.is_file():
            print(f"{time.strftime('%H:%M:%S')} {name}", file=sys.stderr, flush=True)
            best = best_row(self.results) if row.of_best else None
            minutes = self._train(row, seed, name, best) if row.stage else 0.0
            found = asyncio.run(measured(self._checkpoint(name), self.sources))
            found |= {"minutes": round(minutes, 1), "seed": seed, "row": row.name, "of_best": best}
            path.write_text(json.dumps(found, indent=1) + "\n")
        self.results[name] = json.loads(path.read_text())

    def _checkpoint(self, name: str) -> Path:
        if name == "bootstrap":
            return Path(self.args.base)
        return self.folder / name / "checkpoint"

    def _train(self, row: Row, seed: int, name: str, best: str | None) -> float:
        """`tierwise train` in a process of its own; minutes that it took, over all of its starts."""
        output = self.folder / name
        base = row.base if seed == 1 or row.base == "bootstrap" else f"{row.base}-{seed}"
        if row.stage == AVERAGE:
            arguments, last = self._average([base, best or base], output), output / "checkpoint" / "tierwise.json"
        else:
            arguments, last = self._stage(row, seed, base, output, best), output / "report.json"
        started = time.monotonic()
        if not last.is_file():
            command = [str(Path(sys.executable).with_name("tierwise")), "train", *arguments]
            with (output / "train.log").open("a") as log:
                done = subprocess.run(command, stdout=log, stderr=log, env=_environment(), check=False)  # noqa: S603 - ours
            if done.returncode:
                sys.exit(f"{name} ended with status {done.returncode}; its last words are in {output / 'train.log'}")
        clock = output / "minutes"
        total = (float(clock.read_text()) if clock.is_file() else 0.0) + (time.monotonic() - started) / 60
        clock.write_text(f"{total:.2f}\n")
        return total

    def _average(self, names: list[str], output: Path) -> list[str]:
        pairs, mean = self.folder / "rows" / "calibration.jsonl", output / "checkpoint"
        checkpoints = [str(self._checkpoint(name)) for name in names]
        return [AVERAGE, *checkpoints, "--pairs", str(pairs), "--output", str(mean)]

    def _stage(self, row: Row, seed: int, base: str, output: Path, teacher: str | None) -> list[str]:
        settings: dict[str, Any] = {
            "base": str(self._checkpoint(base)),
            "output": str(output),
            "train": str(self.folder / "rows" / f"{row.rows}.jsonl"),
            "valid": str(self.folder / "rows" / "calibration.jsonl"),
            "name": "tierwise-mini",
            "seed": seed,
            "precision": self.args.precision,
            **row.settings,
        }
        if teacher:
            settings["teacher"] = str(self._checkpoint(teacher))
        if self.args.quick and "max_steps" in settings:
            settings |= {"max_steps": 2, "batch_size": 16, "save_steps": 2, "log_steps": 1, "pool_confidence": 1.0}
        config = output / "config.yaml"
        config.write_text(yaml.safe_dump(settings, sort_keys=False))
        return [str(row.stage), "--config", str(config)]


def _hashes(source: Path) -> dict[str, str]:
    """Name -> hash of a file, or of a folder's files."""
    files = [source] if source.is_file() else sorted(path for path in source.iterdir() if path.is_file())
    return {path.name: file_hash(path) for path in files}


def _environment() -> dict[str, str]:
    """Glibc gives large blocks back after every step and faults them in again; keeping them saves a tenth."""
    kept = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "4294967296"}
    return {**os.environ, **kept}


def _told(what: str, done: int, total: int) -> None:
    if done == total:
        print(f"{time.strftime('%H:%M:%S')} {what}: {total:,}", file=sys.stderr, flush=True)


def main() -> None:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalogue", type=Path, required=True, help="products, or a folder of them")
    parser.add_argument("--judgements", type=Path, help="human grades of the catalogue's products; for evaluation only")
    parser.add_argument("--base", default=str(SHIPPED), help="checkpoint that all rows start from: the shipped judge")
    parser.add_argument("--output", type=Path, default=Path("runs/evidence"), help="rows, runs and figures")
    parser.add_argument("--seeds", type=int, default=3, help="at most, for the rows that have several")
    parser.add_argument("--only", nargs="*", help="names of rows")
    parser.add_argument("--precision", default="bfloat16", choices=("bfloat16", "float32"), help="of training")
    parser.add_argument("--quick", action="store_true", help="a few steps each, nothing put into docs")
    parser.add_argument("--json", type=Path, help="write every figure here; figures.json in --output if not given")
    parser.add_argument("--docs", type=Path, help="put the tables between this file's markers")
    parser.add_argument("--plot", type=Path, help="draw the figures here")
    args = parser.parse_args()
    try:
        report = Evidence(args).run()
    except DataError as error:
        sys.exit(str(error))
    text = markdown(report)
    print(text)
    figures = args.json or args.output / "figures.json"
    figures.write_text(json.dumps(figures_only(report), indent=1) + "\n")
    if args.docs and not args.quick:
        args.docs.write_text(replaced(args.docs.read_text(), text))
    if args.plot and not args.quick:
        plot(report, args.plot)


if __name__ == "__main__":
    main()
