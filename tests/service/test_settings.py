"""Settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from service.settings import EngineName, SettingsError, load_settings

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_an_argument_wins_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nearest source decides, setting by setting."""
    (tmp_path / "tierwise.yaml").write_text("deadline_ms: 10\nhost: file\nlimits: {items: 3, query_characters: 5}\n")
    monkeypatch.setenv("TIERWISE_DEADLINE_MS", "20")
    monkeypatch.setenv("TIERWISE_LIMITS__ITEMS", "4")
    settings = load_settings(deadline_ms=30, host=None)
    assert settings.deadline_ms == 30
    assert settings.host == "file"
    assert (settings.limits.items, settings.limits.query_characters) == (4, 5)
    assert settings.engine is EngineName.ONNX_INT8


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("TIERWISE_HTTP_PORT", "99999", "http_port"),
        ("TIERWISE_LIMITS__ITEMS", "0", "limits.items"),
        ("TIERWISE_DEADLINE_MS", "soon", "deadline_ms"),
        ("TIERWISE_ENGINE", "gpt", "engine"),
        ("TIERWISE_DEADLNE_MS", "5", "TIERWISE_DEADLNE_MS"),
        ("TIERWISE_LIMITS__ITMES", "5", "TIERWISE_LIMITS__ITMES"),
        ("TIERWISE_LIMITS", "{", "limits"),
        ("TIERWISE_CONFIG", "nowhere.yaml", "TIERWISE_CONFIG"),
        ("TIERWISE_WORKERS", "0", "workers"),
        ("TIERWISE_DRAIN_PAUSE_SECONDS", "-1", "drain_pause_seconds"),
        ("TIERWISE_HEALTH__FAILURES", "0", r"health\.failures"),
        ("TIERWISE_HEALTH__FALIURES", "5", "TIERWISE_HEALTH__FALIURES"),
        ("TIERWISE_CACHE__REDIS_URL", "http://redis", r"cache\.redis_url"),
        ("TIERWISE_CACHE__REDIS_CLUSTER", "true", "redis_url"),
        ("TIERWISE_ADMISSION__WEIGHTS", '{"acme": -1}', r"admission\.weights"),
        ("TIERWISE_ADMISSION__BROWN_OUT", "all", r"admission\.brown_out"),
        ("TIERWISE_ACCESS__REFRESH_SECONDS", "0", r"access\.refresh_seconds"),
        ("TIERWISE_TENANTS", '{"acme": {}}', r"tenants\.acme\.knowledge"),
    ],
)
def test_a_wrong_variable_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, named: str
) -> None:
    """The message names the setting, also for a variable that is misspelt."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=named):
        load_settings()


@pytest.mark.parametrize("text", ["deadline_ms: -1", "dedline_ms: 5", "limits: {items: x}", "limits: 7", "a: [", "- 1"])
def test_a_wrong_file_is_refused(tmp_path: Path, text: str) -> None:
    """Wrong values, unknown names and what is no YAML mapping all stop the start."""
    (tmp_path / "tierwise.yaml").write_text(text)
    with pytest.raises(SettingsError):
        load_settings()


def test_what_kubernetes_sets_for_a_service_of_our_name_is_no_misspelt_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Service links must not keep a pod from starting."""
    monkeypatch.setenv("TIERWISE_PORT", "tcp://10.0.0.1:8080")
    monkeypatch.setenv("TIERWISE_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("TIERWISE_PORT_8080_TCP_ADDR", "10.0.0.1")
    monkeypatch.setenv("TIERWISE_BLUE_SERVICE_PORT_HTTP", "8080")
    assert load_settings().http_port == 8080
