"""All settings of the server: one frozen value, read once.

A flag wins over the environment (``LLMOBS_*``), the environment over a TOML file
(``--config`` or ``llmobs.toml``), the file over the default. A key that is not known is an
error, so that a typing mistake cannot pass for a default.
"""

from __future__ import annotations

import os
import tomllib
import urllib.parse
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from llmobs.errors import ConfigurationError

__all__ = ["Settings", "ThresholdSetting", "load_settings"]

CONFIG_FILE: Final = "llmobs.toml"
# Variables of this prefix that are read elsewhere: by the command line, the SDK and the tests.
NOT_SETTINGS: Final = frozenset(
    {
        "LLMOBS_CONFIG",
        "LLMOBS_INGEST_KEY",
        "LLMOBS_KAFKA_HOME",
        "LLMOBS_URL",
        "LLMOBS_REQUIRE_OUTSIDE_PARTS",
        "LLMOBS_SPOOL",
        "LLMOBS_SPOOL_MAX_BYTES",
        "LLMOBS_TEST_CLICKHOUSE_URL",
    }
)
_DAY_S: Final = 86_400.0


class ThresholdSetting(BaseModel):
    """Where a score fails; `llmobs scorers calibrate --toml` writes such ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    score: str
    target: Literal["input", "output", "pair"]
    service: str = ""
    language: str = ""
    fail_from: float | None = None
    fail_below: float | None = None

    @model_validator(mode="after")
    def _have_one_rule(self) -> ThresholdSetting:
        if (self.fail_from is None) == (self.fail_below is None):
            raise ValueError("give fail_from or fail_below")
        return self


class Settings(BaseSettings):
    """What an operator may choose. Every field has a unit, a bound and a description."""

    model_config = SettingsConfigDict(
        env_prefix="LLMOBS_", frozen=True, extra="forbid", hide_input_in_errors=True
    )

    # Where
    data: Path = Field(
        default=Path("llmobs-data"), description="Folder of everything that is kept."
    )
    store: str = Field(
        default="",
        description="Store URL; empty: chdb in the data folder. clickhouse://… is a server.",
    )
    log: SecretStr | None = Field(
        default=None,
        description="Log URL; none: segment files in the data folder. kafka://… is a broker.",
    )
    role: Literal["all", "worker", "watch"] = Field(
        default="all",
        description="What this process does: all, or of many on one store: worker (takes, stores "
        "and scores) or watch (monitors and alerts; one of them).",
    )
    node: int = Field(
        default=0,
        ge=0,
        lt=1 << 15,
        description="Number of this analyzer among those that share a store, each with a log of "
        "its own; no two the same.",
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    grpc_port: int = Field(default=4317, ge=0, le=65535, description="OTLP/gRPC; 0: a free port.")
    http_port: int = Field(default=4318, ge=0, le=65535, description="OTLP/HTTP; 0: a free port.")
    web_port: int = Field(default=4319, ge=0, le=65535, description="Page, API and /metrics.")
    public_url: str = Field(
        default="",
        description="How people reach the page, for links in alerts; empty: host and port.",
    )

    # Who
    ingest_keys: tuple[SecretStr, ...] = Field(
        default=(), description="Keys (or sha256: hashes) that senders must show; none: open."
    )
    feedback_keys: tuple[SecretStr, ...] = Field(
        default=(),
        description="Keys (or hashes) that may send feedback and nothing else, for web pages; "
        "they need ingest_keys beside them.",
    )
    feedback_per_s: float = Field(
        default=20.0, gt=0, description="Feedback that each of these keys may send, per second."
    )
    cors_origins: tuple[str, ...] = Field(
        default=(),
        description="Origins whose web pages may send, such as https://app.example; *: any.",
    )
    web_token: SecretStr | None = Field(
        default=None, description="Bearer token of the page and the API; none: open."
    )

    admin_token: SecretStr | None = Field(
        default=None,
        description="Bearer token that may delete users and sessions, and rescore; none: "
        "nobody may.",
    )

    # How much
    max_request_bytes: int = Field(
        default=16 << 20, gt=0, description="Largest request as sent, in bytes."
    )
    max_unpacked_bytes: int = Field(
        default=64 << 20, gt=0, description="Largest request after gunzip, in bytes."
    )
    log_max_bytes: int = Field(
        default=1 << 30, gt=0, description="Log on disk before senders are asked to wait, in bytes."
    )
    segment_max_bytes: int = Field(
        default=16 << 20, gt=0, description="Size at which a log segment is sealed, in bytes."
    )
    segment_max_age_s: float = Field(
        default=1.0, gt=0, description="Age at which a log segment is sealed, in seconds."
    )
    store_memory_bytes: int = Field(
        default=2 << 30,
        ge=256 << 20,
        description="Memory that the embedded store may use, in bytes.",
    )
    retention_days: int = Field(
        default=30,
        gt=0,
        le=36_500,
        description="How long spans, scores, events and metric points are kept, in days.",
    )
    texts_days: int | None = Field(
        default=None,
        gt=0,
        le=36_500,
        description="How long prompts, answers and bodies of events are kept, in days; none: as "
        "long as their spans.",
    )
    rollups_days: int = Field(
        default=400,
        gt=0,
        le=36_500,
        description="How long the minute roll-up is kept, which knows no user and no text, in "
        "days.",
    )
    text_index: bool = Field(
        default=False,
        description="Index of texts, for a faster search: about a third more on disk, 4 µs a span.",
    )
    analysis_batch: int = Field(
        default=4096, gt=0, description="Spans that the analysis takes at once, in spans."
    )

    completeness_grace_s: float = Field(
        default=300.0,
        ge=0,
        description="How late a span may come before it counts as missing, in seconds.",
    )

    # What is judged
    scorers: tuple[str, ...] = Field(
        default=("all",), description="Scorers to run, by entry point; all: what is installed."
    )
    scorer_files: tuple[Path, ...] = Field(
        default=(), description="Python files whose scorers run as well."
    )
    scorer_timeout_s: float = Field(
        default=10.0, gt=0, description="Time that one scorer may take for one batch, in seconds."
    )
    thresholds: tuple[ThresholdSetting, ...] = Field(
        default=(),
        description="Where scores fail, by score, target, service and language; of several the "
        "one that says more. `llmobs scorers calibrate --toml` writes them.",
    )
    prices: dict[str, dict[str, float]] = Field(
        default_factory=dict,
        description="Own prices: model (or pattern with *) -> input, output, cache_read, "
        "cache_write in USD per million tokens.",
    )

    # Monitors
    reference_s: float = Field(
        default=14 * _DAY_S, gt=0, description="Length of the pinned reference, in seconds."
    )
    min_reference_sessions: int = Field(
        default=400,
        ge=50,
        description="Sessions before a provisional reference is used, in sessions.",
    )
    session_idle_s: float = Field(
        default=600.0,
        gt=0,
        description="A session without a call for this long is over, in seconds.",
    )
    session_cap_s: float = Field(
        default=3600.0,
        gt=0,
        description="A session is judged after this long at the latest, in seconds.",
    )
    false_pages: float = Field(
        default=1.0,
        gt=0,
        description="False pages in 30 days that all monitors together may cause.",
    )
    cooldown_s: float = Field(
        default=3600.0,
        gt=0,
        description="Quiet time after which a monitor leaves alarm, in seconds.",
    )
    resolve_after_s: float = Field(
        default=900.0, gt=0, description="Quiet time after which an alert is resolved, in seconds."
    )

    # Who hears of it
    channels: dict[str, SecretStr] = Field(
        default_factory=dict,
        description="Channel name -> Apprise URL (slack://…, json://…, mailto://…).",
    )
    grafana_url: str = Field(
        default="", description="Grafana to annotate with findings; empty: none."
    )
    grafana_token: SecretStr | None = Field(
        default=None, description="Service-account token of that Grafana."
    )
    otlp_endpoint: str = Field(
        default="", description="OTLP/HTTP base URL that gets the llmobs_* metrics; empty: none."
    )
    otlp_interval_s: float = Field(
        default=15.0, gt=0, description="How often those metrics are pushed, in seconds."
    )
    otlp_evaluations: Literal["none", "fail", "all"] = Field(
        default="none",
        description="Which scores go to otlp_endpoint as gen_ai.evaluation.result log events: "
        "none, those that fail, or all.",
    )

    @field_validator("feedback_keys")
    @classmethod
    def _need_ingest_keys(
        cls, keys: tuple[SecretStr, ...], info: ValidationInfo
    ) -> tuple[SecretStr, ...]:
        if keys and not info.data.get("ingest_keys"):
            raise ValueError("they need ingest_keys: without these everybody may send everything")
        return keys

    @field_validator("otlp_evaluations")
    @classmethod
    def _go_elsewhere(cls, which: str, info: ValidationInfo) -> str:
        if which == "none":
            return which
        endpoint = info.data.get("otlp_endpoint")
        if not endpoint:
            raise ValueError("they need otlp_endpoint: the receiver that the scores go to")
        address = urllib.parse.urlsplit(endpoint)
        is_here = address.hostname in {"127.0.0.1", "localhost", "::1", info.data.get("host")}
        if is_here and address.port == info.data.get("http_port"):
            raise ValueError(
                "otlp_endpoint is this server's own receiver, which has the scores already; name "
                "another one, or choose none"
            )
        return which

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read flags and the environment; the file is merged by `load_settings`."""
        return (init_settings, env_settings)

    @property
    def store_url(self) -> str:
        """Return the store's URL with the default filled in."""
        return self.store or f"chdb://{(self.data / 'store').absolute()}"

    @property
    def page_url(self) -> str:
        """Return the address that people open."""
        host = "127.0.0.1" if self.host in {"0.0.0.0", "::"} else self.host  # noqa: S104
        return self.public_url.rstrip("/") or f"http://{host}:{self.web_port}"


def load_settings(config: Path | None = None, **flags: Any) -> Settings:
    """Read the settings from flags, environment and file.

    Args:
        config: TOML file; None: ``llmobs.toml`` in the working directory, if there is one.
        **flags: Values given on the command line; None means not given.

    Raises:
        ConfigurationError: A key is unknown, a value is out of bounds, or the file can't be read.
    """
    known = {f"LLMOBS_{name.upper()}" for name in Settings.model_fields} | NOT_SETTINGS
    unknown = sorted(
        name for name in os.environ if name.startswith("LLMOBS_") and name not in known
    )
    if unknown:
        raise ConfigurationError(
            f"unknown variable {', '.join(unknown)}; known ones are listed by `llmobs settings`"
        )
    given = {name: value for name, value in flags.items() if value is not None}
    from_file = _read_file(config)
    in_environment = {
        name for name in from_file if f"LLMOBS_{name.upper()}" in os.environ and name not in given
    }
    for name in in_environment:
        del from_file[name]
    try:
        return Settings(**{**from_file, **given})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(f"setting {field!r}: {first['msg']}") from error


def _read_file(config: Path | None) -> dict[str, Any]:
    path = config or Path(CONFIG_FILE)
    if not path.exists():
        if config is not None:
            raise ConfigurationError(f"no settings file at {config}")
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"settings file {path} can't be read: {error}") from error
