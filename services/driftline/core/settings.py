"""Settings: frozen, typed, documented, read once at start.

Every setting is an environment variable `DRIFTLINE_<SECTION>__<FIELD>`, or a key of the YAML file that
`DRIFTLINE_CONFIG` names (the environment wins). Secrets come from files and are never printed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import parse_qs, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from driftline.core import yamls
from driftline.core.errors import ConfigError
from driftline.core.topics import LETTER_ROOM

_S = TypeVar("_S", bound="ServiceSettings")


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _refuse_password(setting: str, url: str, instead: str) -> None:
    """Settings are logged at the start and printed by `driftline settings`: no secret may stand in one.

    Call it from a validator of the whole section: the message of a field's own would repeat the field's value.
    """
    parts = urlsplit(url)
    if parts.password is not None or "password" in parse_qs(parts.query):
        raise ValueError(f"{setting} holds a password, and settings are logged: {instead}")


class KafkaSettings(Section):
    """The brokers and how the pipeline's topics are named."""

    bootstrap_servers: str = Field("localhost:9092", description="host:port, comma-separated")
    topic_prefix: str = Field("driftline.", description="put before every topic's name")
    partitions: int = Field(8, ge=1, le=10_000, description="partitions of changes, vectors, documents, receipts")
    replicas: int = Field(1, ge=1, le=9, description="replication factor of new topics")
    session_timeout_ms: int = Field(10_000, ge=3_000, le=300_000, description="a silent member loses its partitions")
    heartbeat_interval_ms: int = Field(2_000, ge=200, le=60_000)
    fetch_wait_ms: int = Field(500, ge=1, le=10_000, description="a broker answers earlier as soon as it has records")
    max_request_bytes: int = Field(8_000_000, ge=100_000, description="largest record and produce request")
    compression: Literal["none", "gzip"] = Field("none", description="of produced batches")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    sasl_username: str = ""
    sasl_password_file: Path | None = Field(None, description="file that holds the password")
    ssl_cafile: Path | None = Field(None, description="PEM file of the authorities to trust")

    @property
    def letter_bytes(self) -> int:
        """Largest record of `dead-letters`: it holds another record whole."""
        return self.max_request_bytes + LETTER_ROOM

    @model_validator(mode="after")
    def _heartbeats_fit(self) -> KafkaSettings:
        if self.heartbeat_interval_ms * 3 > self.session_timeout_ms:
            raise ValueError("heartbeat_interval_ms must be at most a third of session_timeout_ms")
        return self

    @model_validator(mode="after")
    def _password_given(self) -> KafkaSettings:
        if self.security_protocol.startswith("SASL") and self.sasl_password_file is None:
            raise ValueError(f"kafka.sasl_password_file is required with {self.security_protocol}")
        return self


class TritonSettings(Section):
    """The inference server."""

    url: str = Field("localhost:8001", description="gRPC address, host:port; the name may stand for several servers")
    timeout_seconds: float = Field(60.0, gt=0, le=3600, description="of one request")
    max_in_flight: int = Field(8, ge=1, le=256, description="requests at once, per service process")


class MilvusSettings(Section):
    """The vector database."""

    uri: str = Field("http://localhost:19530", description="http(s)://host:port")
    token_file: Path | None = Field(None, description="file that holds user:password or an API key")
    database: str = Field("", description="Milvus database; empty is the default one")
    prefix: str = Field("driftline_", pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$", description="of Milvus collection names")
    timeout_seconds: float = Field(30.0, gt=0, le=600, description="of one call")
    shards: int = Field(1, ge=1, le=64, description="shards of new collections")
    hnsw_m: int = Field(16, ge=4, le=64)
    hnsw_ef_construction: int = Field(200, ge=8, le=2_000)
    hnsw_ef: int = Field(128, ge=8, le=32_768, description="search breadth; raised to the limit of a larger search")

    @model_validator(mode="after")
    def _no_password(self) -> MilvusSettings:
        _refuse_password("milvus.uri", self.uri, "put user:password in the file of milvus.token_file")
        return self


class RedisSettings(Section):
    """The cache. Optional: nothing fails without it."""

    url: str = Field("", description="redis://host:port/db, without a password; empty switches caching off")
    password_file: Path | None = Field(None, description="file that holds the password")
    timeout_seconds: float = Field(0.1, gt=0, le=5)
    retry_seconds: float = Field(2.0, gt=0, le=60, description="pause after a failure before it is asked again")

    @model_validator(mode="after")
    def _no_password(self) -> RedisSettings:
        _refuse_password("redis.url", self.url, "put it in the file of redis.password_file")
        return self


class RunnerSettings(Section):
    """How a stage takes records: batches are cut by count, bytes or age, whichever comes first."""

    batch_records: int = Field(512, ge=1, le=20_000)
    batch_bytes: int = Field(8_000_000, ge=1_000)
    batch_age_seconds: float = Field(0.02, ge=0, le=10)
    max_in_flight: int = Field(2, ge=1, le=16, description="batches between poll and commit")
    drain_seconds: float = Field(25.0, gt=0, le=600, description="to finish what is in flight after SIGTERM")
    dead_letter_limit: float = Field(
        0.5,
        gt=0,
        le=1,
        description="a source rests when more than this share of the last window was refused; a stage stops when so "
        "many were for reasons that may be its own fault, in records of several producers",
    )
    dead_letter_window: int = Field(2_000, ge=10, description="records the share is measured over")


class HttpSettings(Section):
    """The listening side. Loopback unless told otherwise."""

    host: str = "127.0.0.1"
    port: int = Field(0, ge=0, le=65_535)
    grpc_port: int = Field(0, ge=0, le=65_535, description="0 switches gRPC off")
    max_body_bytes: int = Field(
        4_000_000, ge=1_000, description="of one request that is not streamed, and of one gRPC message"
    )
    max_buffered_bytes: int = Field(32_000_000, ge=1_000, description="bodies of all requests at once; more: 429")
    max_header_bytes: int = Field(
        32_768, ge=1_024, le=1_000_000, description="request line and headers of one request, metadata of one gRPC call"
    )
    header_seconds: float = Field(10.0, gt=0, le=300, description="longest time that a request's head may take")
    body_seconds: float = Field(
        30.0,
        gt=0,
        le=3_600,
        description="longest time for a body; for the next part of a bulk request; for a client to read of its answer",
    )
    idle_seconds: int = Field(
        75,
        ge=1,
        le=3_600,
        description="a connection without a request is closed then; more than a proxy in front keeps",
    )
    max_connections: int = Field(
        4_096, ge=16, le=100_000, description="HTTP connections at once; a newer one takes the place of the idlest"
    )
    max_requests: int = Field(256, ge=1, le=10_000, description="HTTP requests answered at once; more: 429")
    max_calls: int = Field(64, ge=1, le=10_000, description="gRPC calls at once; more: RESOURCE_EXHAUSTED")
    drain_seconds: int = Field(20, ge=1, le=600, description="for what is under way after SIGTERM")


class AuthSettings(Section):
    """API keys. On unless switched off for local use."""

    mode: Literal["api_key", "off"] = "api_key"
    keys_file: Path | None = Field(None, description="lines of `name role key`; role: search, write or admin")

    @model_validator(mode="after")
    def _keys_given(self) -> AuthSettings:
        if self.mode == "api_key" and self.keys_file is None:
            raise ValueError("auth.keys_file is required while auth.mode is api_key (or set auth.mode to off)")
        return self


class TelemetrySettings(Section):
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    otlp_endpoint: str = Field(
        "", description="http(s)://host:port of an OpenTelemetry collector (OTLP over HTTP); empty exports no spans"
    )
    metrics_host: str = Field("127.0.0.1", description="where health and metrics listen")
    metrics_port: int = Field(0, ge=0, le=65_535, description="health and metrics of services without an API")

    @model_validator(mode="after")
    def _no_password(self) -> TelemetrySettings:
        _refuse_password("telemetry.otlp_endpoint", self.otlp_endpoint, "let a collector beside the service add it")
        return self


class ServiceSettings(BaseSettings):
    """What every service has."""

    model_config = SettingsConfigDict(
        env_prefix="DRIFTLINE_",
        env_nested_delimiter="__",
        frozen=True,
        extra="ignore",
        validate_default=False,
    )

    kafka: KafkaSettings = KafkaSettings()
    telemetry: TelemetrySettings = TelemetrySettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic-settings passes it by name
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _YamlSource(settings_cls)


class _YamlSource(PydanticBaseSettingsSource):
    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        del field
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        path = os.environ.get("DRIFTLINE_CONFIG", "")
        if not path:
            return {}
        content = yamls.parse(Path(path).read_text(encoding="utf-8"), path) or {}
        if not isinstance(content, dict):
            raise ConfigError(f"{path}: expected a mapping of sections")
        known = self.settings_cls.model_fields
        return {key: value for key, value in content.items() if key in known}


def load(kind: type[_S]) -> _S:
    """Read the settings. Raises ConfigError, which names every wrong one, what it must be and what was given."""
    try:
        return kind()
    except ValidationError as error:
        raise ConfigError("; ".join(_problem(problem) for problem in error.errors())) from error
    except (OSError, ValueError, ConfigError) as error:
        raise ConfigError(" ".join(f"settings: {error}".split())) from error


def _problem(problem: ErrorDetails) -> str:
    path = "__".join(str(part).upper() for part in problem["loc"])
    # What is wrong between the fields of a section has all of them as its input; and what is given under a name that is
    # no setting's may be the password itself, instead of the file that holds it.
    silent = isinstance(problem["input"], BaseModel | dict) or problem["type"] == "extra_forbidden"
    given = "" if silent else f" (given: {problem['input']!r})"
    return f"setting DRIFTLINE_{path}: {problem['msg']}{given}"


def read_secret(path: Path | None, setting: str) -> SecretStr | None:
    """The content of a secret file, stripped; None without a file. `setting` is the one that names it.

    Adapters call it in their constructors, which is in `main`: a secret that cannot be read must stop the start, not
    some thread hours later. Raises ConfigError.
    """
    if path is None:
        return None
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"{setting} {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{setting} {path}: byte {error.start} is not UTF-8") from error
    if not secret:
        raise ConfigError(f"{setting} {path}: the file is empty")
    return SecretStr(secret)
