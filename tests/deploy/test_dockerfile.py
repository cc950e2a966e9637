"""The Dockerfile, as its linter reads it."""

import subprocess
import sysconfig
from pathlib import Path

from tests.deploy.containers import ROOT

SCRIPTS = Path(sysconfig.get_path("scripts"))


def test_linter_has_nothing_to_say() -> None:
    """No finding but those that .hadolint.yaml gives a reason for."""
    done = subprocess.run([SCRIPTS / "hadolint", "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
