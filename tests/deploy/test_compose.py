"""The compose file: what it runs exists, is locked down, and is watched."""

import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import yaml

from service.settings import Settings
from tests.deploy.chart import DEPLOY

COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICE: dict[str, Any] = COMPOSE["services"]["tierwise"]


def test_image_is_the_one_that_make_builds() -> None:
    """The tag holds the project's version and a target of the Dockerfile."""
    version = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]["version"]
    target = SERVICE["build"]["target"]
    assert SERVICE["image"] == f"tierwise:{version}-{target}"
    assert f"AS {target}\n" in (DEPLOY.parent / "Dockerfile").read_text()
    assert (DEPLOY / SERVICE["build"]["context"]).resolve() == DEPLOY.parent


def test_service_is_locked_down() -> None:
    """The root file system cannot be written, no capability is kept, and only this machine can call."""
    assert SERVICE["read_only"] is True
    assert SERVICE["cap_drop"] == ["ALL"]
    assert SERVICE["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for one in COMPOSE["services"].values() for port in one.get("ports", ()))


def test_service_has_time_to_drain() -> None:
    """The stop signal comes earlier than the kill by more than the service's own drain."""
    grace = int(SERVICE["stop_grace_period"].removesuffix("s"))
    assert grace > Settings.model_fields["drain_seconds"].default


def test_variables_are_settings() -> None:
    """Every variable names a setting of the service."""
    names = {name.removeprefix("TIERWISE_").partition("__")[0].lower() for name in SERVICE["environment"]}
    assert names <= set(Settings.model_fields)


def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    """The mounted files are there, and Prometheus finds nothing wrong with them in the places they are mounted."""
    prometheus = COMPOSE["services"]["prometheus"]
    for mount in prometheus["volumes"]:
        source, target, *_ = mount.split(":")
        if source.startswith("./"):
            shutil.copy(DEPLOY / source, tmp_path / Path(target).name)
    (config,) = (part.partition("=")[2] for part in prometheus["command"] if part.startswith("--config.file"))
    subprocess.run(["promtool", "check", "config", tmp_path / Path(config).name], check=True)
    (target,) = yaml.safe_load((tmp_path / Path(config).name).read_text())["scrape_configs"][0]["static_configs"]
    assert target["targets"] == [f"tierwise:{Settings.model_fields['admin_port'].default}"]
