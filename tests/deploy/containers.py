"""Builds and runs images for real with buildah and podman, on a base that is made here: no daemon, no registry.

The base stands in for the public Python image. It is a Debian with python3, made once by mmdebstrap and kept in .cache.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BASE_ARCHIVE = ROOT / ".cache" / "base.tar"
BASE = "localhost/base:test"
CERTIFICATES = "/etc/ssl/certs"
SCRATCH = "/tmp"  # noqa: S108 # inside the container
BASE_FILE = """
FROM scratch
ADD base.tar /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
"""
# runc and these limits work where user namespaces, systemd or cgroup v2 are missing.
CONFIG = """
[containers]
default_ulimits = ["nofile=10000:10000", "nproc=1000:1000"]
netns = "host"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


class Containers:
    """One store of images and the programs that work on it. Everything lies below `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._driver = "overlay" if self._works("overlay") else "vfs"
        config, storage = folder / "containers.conf", folder / "storage.conf"
        config.write_text(CONFIG)
        storage.write_text(
            f'[storage]\ndriver = "{self._driver}"\ngraphroot = "{folder / "store"}"\nrunroot = "{folder / "run"}"\n'
        )
        self.environment = os.environ | {"CONTAINERS_CONF": str(config), "CONTAINERS_STORAGE_CONF": str(storage)}

    def _works(self, driver: str) -> bool:
        probe = [*self._buildah(driver, "probe"), "info"]
        return subprocess.run(probe, capture_output=True, check=False).returncode == 0

    def _buildah(self, driver: str, store: str) -> list[str]:
        run = self._folder / f"{store}-run" if store != "store" else self._folder / "run"
        return ["buildah", "--storage-driver", driver, "--root", str(self._folder / store), "--runroot", str(run)]

    def make_base(self) -> None:
        """Make the base image, from the archive when there is one."""
        if not BASE_ARCHIVE.exists():
            BASE_ARCHIVE.parent.mkdir(exist_ok=True)
            part = BASE_ARCHIVE.with_suffix(".part.tar")
            packages = "--include=python3,python3-venv,python3-pip,ca-certificates"
            subprocess.run(["mmdebstrap", "--quiet", "--variant=essential", packages, "bookworm", part], check=True)
            part.rename(BASE_ARCHIVE)
        context = self._folder / "base"
        context.mkdir()
        (context / "base.tar").symlink_to(BASE_ARCHIVE)
        (context / "base.tar").unlink()
        os.link(BASE_ARCHIVE, context / "base.tar")
        (context / "Dockerfile").write_text(BASE_FILE)
        self.build(context, BASE)

    def build(self, context: Path, tag: str, *arguments: str) -> None:
        """Build an image from a folder with a Dockerfile."""
        own = ["bud", "--quiet", "--isolation", "chroot", "--network", "host", "--pull-never", "--format", "docker"]
        mounts = ["--volume", f"{CERTIFICATES}:{CERTIFICATES}:ro"]
        command = [*self._buildah(self._driver, "store"), *own, *mounts, "--tag", tag, *arguments, str(context)]
        subprocess.run(command, check=True)

    def inspect(self, tag: str) -> dict[str, Any]:
        """Return what an image says about itself."""
        command = ["podman", "image", "inspect", tag]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True)
        found: dict[str, Any] = json.loads(done.stdout)[0]
        return found

    def run(self, tag: str, *arguments: str, options: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        """Start a container in the foreground, locked down as in production: signals to it go to its first process."""
        locked = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--tmpfs", SCRATCH]
        command = ["podman", "run", "--rm", "--pull=never", "--no-healthcheck", *locked, *options, tag, *arguments]
        return subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
