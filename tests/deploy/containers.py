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
BASE_CONTEXT = ROOT / ".cache" / "base"
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
        self._store = ["--root", str(folder / "store"), "--runroot", str(folder / "run")]
        probe = ["buildah", "--storage-driver", "overlay", *self._store, "info"]
        driver = "vfs" if subprocess.run(probe, capture_output=True, check=False).returncode else "overlay"
        self._buildah = ["buildah", "--storage-driver", driver, *self._store]
        config, storage = folder / "containers.conf", folder / "storage.conf"
        config.write_text(CONFIG)
        storage.write_text(
            f'[storage]\ndriver = "{driver}"\ngraphroot = "{folder / "store"}"\nrunroot = "{folder / "run"}"\n'
        )
        self.environment = os.environ | {"CONTAINERS_CONF": str(config), "CONTAINERS_STORAGE_CONF": str(storage)}

    def make_base(self) -> None:
        """Make the base image, from the archive when there is one."""
        archive = BASE_CONTEXT / "base.tar"
        if not archive.exists():
            BASE_CONTEXT.mkdir(parents=True, exist_ok=True)
            part = BASE_CONTEXT / "part.tar"
            packages = "--include=python3,python3-venv,python3-pip,ca-certificates"
            subprocess.run(["mmdebstrap", "--quiet", "--variant=apt", packages, "bookworm", part], check=True)
            part.rename(archive)
        (BASE_CONTEXT / "Dockerfile").write_text(BASE_FILE)
        self.build(BASE_CONTEXT, BASE)

    def build(self, context: Path, tag: str, *arguments: str) -> None:
        """Build an image from a folder with a Dockerfile."""
        own = ["bud", "--quiet", "--isolation", "chroot", "--network", "host", "--pull-never", "--format", "docker"]
        mounts = ["--volume", f"{CERTIFICATES}:{CERTIFICATES}:ro"]
        command = [*self._buildah, *own, *mounts, "--tag", tag, *arguments, str(context)]
        subprocess.run(command, check=True)

    def clear(self) -> None:
        """Remove every image and container, so that the folder can be deleted."""
        subprocess.run([*self._buildah, "rmi", "--all", "--force"], check=True)

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
