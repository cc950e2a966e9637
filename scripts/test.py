"""Run every test in the environment that it needs and end with one summed line.

The tests fall into three groups: training needs torch, what uses vLLM needs it, all others must pass with neither
installed. A skipped test is a failure (tests/conftest.py), so that a green line means that everything ran. Arguments go
on to pytest; `-k` and the like may then leave a group empty.
"""

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET

ROOT = Path(__file__).resolve().parent.parent
REPORTS = ROOT / ".cache" / "tests"
TRAIN = ["tests/models/train", "tests/retrieval/train"]
ROLLOUTS = "tests/models/train/stages/vllm"  # training that samples with vLLM
VLLM = ["tests/models/engines/vllm", ROLLOUTS]
GROUPS = {
    ".venv": ["tests", *(f"--ignore={folder}" for folder in (*TRAIN, *VLLM))],
    ".venv-train": [*TRAIN, f"--ignore={ROLLOUTS}"],
    ".venv-vllm": VLLM,
}
NOTHING_COLLECTED = 5  # pytest's exit status


def run(environment: str, selection: list[str], arguments: list[str]) -> tuple[int, Counter[str]]:
    """Run one group; return pytest's exit status and how many tests ended in which way."""
    report = REPORTS / f"{environment.lstrip('.')}.xml"
    report.unlink(missing_ok=True)
    print(f"\n{environment}: pytest {' '.join(selection)}", flush=True)
    command = [
        str(ROOT / environment / "bin" / "python"),
        "-m",
        "pytest",
        *selection,
        f"--junitxml={report}",
        *arguments,
    ]
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    counts: Counter[str] = Counter()
    for suite in ET.parse(report).getroot().iter("testsuite") if report.exists() else ():
        ended = {name: int(suite.attrib[name]) for name in ("failures", "errors", "skipped")}
        counts.update(failed=ended["failures"], errors=ended["errors"], skipped=ended["skipped"])
        counts["passed"] += int(suite.attrib["tests"]) - sum(ended.values())
    return status, counts


def main(arguments: list[str]) -> int:
    """Run all groups, print the sum, and return 0 only when every test of every group passed."""
    REPORTS.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    total: Counter[str] = Counter()
    broken = []
    for environment, selection in GROUPS.items():
        status, counts = run(environment, selection, arguments)
        total += counts
        if status and not (arguments and status == NOTHING_COLLECTED):
            broken.append(environment)
    summed = ", ".join(f"{total[how]} {how}" for how in ("failed", "passed", "skipped", "errors") if total[how])
    where = f" (see {', '.join(broken)} above)" if broken else ""
    print(f"\n===== {summed or 'no tests ran'} in {time.monotonic() - started:.2f}s{where} =====")
    return 1 if broken or not total["passed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
