from __future__ import annotations

from pathlib import Path

import pytest

from llmobs.errors import ConfigurationError
from llmobs.settings import load_settings


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_flag_wins_over_the_environment_and_that_over_the_file(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (elsewhere / "llmobs.toml").write_text("web_port = 1\ngrpc_port = 2\nhttp_port = 3\n")
    monkeypatch.setenv("LLMOBS_GRPC_PORT", "20")
    monkeypatch.setenv("LLMOBS_HTTP_PORT", "30")
    settings = load_settings(http_port=300)
    assert (settings.web_port, settings.grpc_port, settings.http_port) == (1, 20, 300)


def test_an_unknown_key_of_the_file_is_named(elsewhere: Path) -> None:
    (elsewhere / "llmobs.toml").write_text("wep_port = 1\n")
    with pytest.raises(ConfigurationError, match="wep_port"):
        load_settings()


def test_an_unknown_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMOBS_WEP_PORT", "1")
    with pytest.raises(ConfigurationError, match="LLMOBS_WEP_PORT"):
        load_settings()


def test_a_value_out_of_bounds_is_named_and_not_shown() -> None:
    with pytest.raises(ConfigurationError, match="web_port"):
        load_settings(web_port=70_000)


def test_a_channel_does_not_show_its_secret(elsewhere: Path) -> None:
    (elsewhere / "llmobs.toml").write_text('[channels]\nops = "slack://secret-token"\n')
    settings = load_settings()
    assert "secret-token" not in repr(settings)
    assert settings.channels["ops"].get_secret_value() == "slack://secret-token"


def test_keys_of_web_pages_are_refused_where_everybody_may_send(elsewhere: Path) -> None:
    (elsewhere / "llmobs.toml").write_text('feedback_keys = ["public"]\n')
    with pytest.raises(ConfigurationError, match=r"feedback_keys.*need ingest_keys"):
        load_settings()
    (elsewhere / "llmobs.toml").write_text('feedback_keys = ["public"]\ningest_keys = ["k"]\n')
    assert len(load_settings().feedback_keys) == 1


def test_a_settings_file_that_is_named_but_missing_is_an_error(elsewhere: Path) -> None:
    with pytest.raises(ConfigurationError, match="no settings file"):
        load_settings(elsewhere / "nowhere.toml")


@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [
        ("", "need otlp_endpoint"),
        ("http://localhost:4318", "own receiver"),
        ("http://127.0.0.1:4318/", "own receiver"),
    ],
)
def test_scores_are_not_pushed_to_nobody_or_to_the_server_itself(
    endpoint: str, reason: str
) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        load_settings(otlp_endpoint=endpoint, otlp_evaluations="all")


def test_scores_may_be_pushed_to_a_collector_on_the_same_machine() -> None:
    settings = load_settings(otlp_endpoint="http://localhost:14318", otlp_evaluations="fail")
    assert settings.otlp_evaluations == "fail"


@pytest.mark.parametrize("rule", ["", "fail_from = 1\nfail_below = 2", "fail_form = 1"])
def test_a_threshold_has_one_rule(elsewhere: Path, rule: str) -> None:
    start = '[[thresholds]]\nscore = "toxicity"\ntarget = "input"\n'
    (elsewhere / "llmobs.toml").write_text(start + rule)
    with pytest.raises(ConfigurationError, match="thresholds"):
        load_settings()
    (elsewhere / "llmobs.toml").write_text(start + "fail_from = 1")
    assert load_settings().thresholds[0].fail_from == 1
