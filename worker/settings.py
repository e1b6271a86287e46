"""All settings of all processes, from `KIRAZURI_*` variables; read once, in the entry points."""

import base64
import ipaddress
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from model.rating import Rating


class Settings(BaseSettings):
    """One flat type; every field can be set as `KIRAZURI_<NAME>` or in `.env`."""

    model_config = SettingsConfigDict(
        env_prefix="KIRAZURI_",
        env_file=".env",
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,  # it may be a secret
    )

    redis_url: SecretStr | None = Field(
        default=None,
        description="redis://, rediss://, unix://, valkey:// or redis+sentinel://; unset: "
        "`kirazuri up` embeds one.",
    )
    data_dir: Path = Field(default=Path("data"), description="Images and the embedded Redis.")
    store: str = Field(
        default="local",
        pattern=r"^(local|s3://[a-z0-9][a-z0-9.-]+(/[A-Za-z0-9._-]+)*/?)$",
        description="Where images are kept: `local`, below the data folder, or `s3://bucket/prefix`.",
    )
    s3_endpoint: str | None = Field(
        default=None,
        pattern="^https?://",
        description="URL of an S3-compatible server; unset: AWS_ENDPOINT_URL, or that of AWS.",
    )
    s3_public_endpoint: str | None = Field(
        default=None,
        pattern="^https?://",
        description="The same server as clients reach it; unset: KIRAZURI_S3_ENDPOINT.",
    )
    s3_region: str | None = Field(
        default=None, description="Region of the bucket; unset: AWS_REGION, or us-east-1."
    )
    s3_access_key_id: SecretStr | None = Field(
        default=None,
        description="With the secret key; unset: AWS_ACCESS_KEY_ID …, or the machine's role.",
    )
    s3_secret_access_key: SecretStr | None = Field(
        default=None, description="Belongs to KIRAZURI_S3_ACCESS_KEY_ID."
    )
    signed_url_seconds: int = Field(
        default=3600,
        ge=60,
        le=604_800,
        description="How long a signed URL can be used, of an image in S3 or for a browser.",
    )
    store_patience_seconds: float = Field(
        default=60.0,
        ge=0,
        description="How long a worker tries to store an image before its job goes back to the "
        "queue.",
    )
    max_unstored: int = Field(
        default=32,
        ge=1,
        description="With so many images that wait to be stored a worker takes no more jobs.",
    )
    card: str = Field(default="kirazuri-tiny", description="A card's name or its .toml path.")
    checkpoint_dir: Path | None = Field(
        default=None,
        description="Folder of the card's files, or one of diffusers; unset: the one that ships.",
    )
    lora_dir: Path | None = Field(
        default=None, description="Folder of LoRA files, for the API and the workers; unset: none."
    )
    lora_cache_sets: int = Field(
        default=2,
        ge=1,
        description="Sets of LoRAs a worker keeps merged, each as large as what it changes.",
    )
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:1 …")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="auto: bfloat16 on CUDA, float32 on the CPU."
    )
    torch_threads: int = Field(default=0, ge=0, description="CPU threads of a worker; 0: all.")
    max_running: int = Field(
        default=8,
        ge=1,
        description="Jobs a worker has in its engine at once; with several keys of each as many, "
        "together twice as many.",
    )
    token_budget: int = Field(
        default=8192, ge=64, description="Latent tokens per forward, at which a batch is full."
    )
    max_queue: int = Field(default=1000, ge=1, description="Jobs that may wait; more get 429.")
    max_attempts: int = Field(default=3, ge=1, description="Tries of a job before it fails.")
    lease_seconds: float = Field(
        default=6.0, ge=1, description="A worker silent for so long has lost its jobs."
    )
    heartbeat_seconds: float = Field(
        default=2.0, gt=0, description="How often a worker says that it lives and renews leases."
    )
    maintenance_seconds: float = Field(
        default=2.0, gt=0, description="How often lost jobs and expired results are looked for."
    )
    drain_seconds: float = Field(
        default=30.0, ge=0, description="How long SIGTERM lets running jobs finish."
    )
    hang_seconds: float = Field(
        default=120.0, gt=0, description="An engine step longer than this ends the worker."
    )
    stall_seconds: float = Field(
        default=30.0, gt=0, description="With a step longer than this a worker is not ready."
    )
    recycle_after_jobs: int = Field(
        default=0,
        ge=0,
        description="A worker ends after so many jobs, to be started anew; 0: never.",
    )
    result_ttl_seconds: int = Field(default=86_400, ge=60, description="How long results are kept.")
    idempotency_ttl_seconds: int = Field(
        default=86_400, ge=60, description="How long an `Idempotency-Key` is remembered."
    )
    max_body_bytes: int = Field(
        default=16_000_000,
        ge=1024,
        description="Larger request bodies get 413; pictures come in base64, a third longer.",
    )
    max_head_bytes: int = Field(
        default=32_768,
        ge=4096,
        description="A request's line and headers may have so many bytes; more get 431.",
    )
    max_connections: int = Field(
        default=1000, ge=1, description="Connections an API process serves at once; more get 503."
    )
    head_seconds: float = Field(
        default=10.0, gt=0, description="How long a request's line and headers may take to arrive."
    )
    body_seconds: float = Field(
        default=60.0, gt=0, description="How long a request's body may take to arrive."
    )
    send_seconds: float = Field(
        default=60.0,
        gt=0,
        description="A client that reads nothing of its answer for so long is cut off.",
    )
    cors_origins: str = Field(
        default="",
        description="Origins whose web pages may call the API, such as "
        "`https://art.example,http://localhost:3000`; empty: none.",
    )
    allowed_hosts: str = Field(
        default="",
        description="Hosts that requests may name, such as `art.example,localhost`; for others "
        "421. Empty: any.",
    )
    max_rating: Rating = Field(
        default="safe",
        description="The highest rating of a picture, where a key has none of its own.",
    )
    policy_file: Path | None = Field(
        default=None, description="TOML file of rules; unset: those that ship."
    )
    output_filter: str | None = Field(
        default=None,
        min_length=1,
        description="Looks at pictures before they are stored: `package.module:attribute` or the "
        "name of an entry point; unset: none.",
    )
    policy_log_prompts: bool = Field(
        default=False, description="Whether the log has the prompts that the policy refused."
    )
    max_wait_seconds: float = Field(default=60.0, ge=0, description="Cap of `Prefer: wait`.")
    sync_wait_seconds: float = Field(
        default=55.0,
        ge=0,
        description="How long a call of the OpenAI surface or that of A1111 waits for its pictures "
        "before it names the job to fetch them from.",
    )
    openai_models: str = Field(
        default="gpt-image-*,chatgpt-image-*,dall-e-*",
        description="Names that stand for the checkpoint on the OpenAI surface beside its own; "
        "`*` matches anything.",
    )
    public_url: str | None = Field(
        default=None, description="Prefix of image and job URLs; unset: as the client called."
    )
    auth: Literal["auto", "required", "off"] = Field(
        default="auto",
        description="Whether an API key is needed; auto: where other machines reach the API, and "
        "everywhere once there was a key.",
    )
    keys_file: Path | None = Field(
        default=None, description="TOML file with API keys, beside those in Redis."
    )
    listen: str | None = Field(
        default=None,
        description="host:port where others reach the API, for KIRAZURI_AUTH=auto; unset: where a "
        "request came in. `kirazuri up` and compose set it.",
    )
    api_key: SecretStr | None = Field(
        default=None, description="The API key that `kirazuri generate` and its like send."
    )
    webhook_secret: SecretStr | None = Field(
        default=None,
        description="Signs webhooks: `whsec_` and base64 of 24 to 64 bytes; a second one after a "
        "space signs too. Unset: no webhooks.",
    )
    webhook_allow_http: bool = Field(
        default=False, description="Whether webhooks may go to http:// and not only to https://."
    )
    webhook_networks: str = Field(
        default="",
        description="Networks that are not public and may get webhooks all the same, such as "
        "`10.1.0.0/16,127.0.0.1/32`.",
    )
    webhook_retry_seconds: str = Field(
        default="5,300,1800,7200,18000,36000,36000",
        description="Seconds before each further try of a webhook.",
    )
    webhook_timeout_seconds: float = Field(
        default=15.0, gt=0, description="How long a receiver of a webhook may take to answer."
    )
    c2pa_certificate: Path | None = Field(
        default=None,
        description="PEM file with the certificate that signs pictures (C2PA), then its issuers. "
        "Unset: pictures are not signed.",
    )
    c2pa_key: Path | None = Field(
        default=None,
        description="PEM file with the certificate's private key, for the workers alone.",
    )
    c2pa_trust: Path | None = Field(
        default=None,
        description="PEM file with the certificates that POST /verify trusts to sign; unset: the "
        "last one in KIRAZURI_C2PA_CERTIFICATE.",
    )
    require_mark: bool = Field(
        default=False,
        description="Whether requests with `metadata: none` are refused, so that every picture "
        "says that a model made it.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="What is worth a line in the log."
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="How lines of the log are written; json: an object each."
    )

    @field_validator("webhook_secret")
    @classmethod
    def _is_secret(cls, value: SecretStr | None) -> SecretStr | None:
        for secret in webhook_secrets(value):
            try:
                size = len(base64.b64decode(secret.removeprefix("whsec_"), validate=True))
            except ValueError:
                size = 0
            if not secret.startswith("whsec_") or not 24 <= size <= 64:
                raise ValueError("each secret is whsec_ and base64 of 24 to 64 bytes")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _is_origins(cls, value: str) -> str:
        for origin in split_commas(value):
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is no origin, such as https://art.example")
        return value

    @field_validator("allowed_hosts")
    @classmethod
    def _is_hosts(cls, value: str) -> str:
        for host in split_commas(value):
            if not _HOST.fullmatch(host):
                raise ValueError(f"{host!r} is no host, such as art.example; leave the port out")
        return value

    @field_validator("webhook_networks")
    @classmethod
    def _is_networks(cls, value: str) -> str:
        webhook_networks(value)
        return value

    @field_validator("webhook_retry_seconds")
    @classmethod
    def _is_delays(cls, value: str) -> str:
        delays = webhook_delays(value)
        if any(delay < 0 for delay in delays) or sum(delays) > _LONGEST_RETRYING:
            raise ValueError(f"none is negative, all together at most {_LONGEST_RETRYING}")
        return value


_ORIGIN = re.compile(r"https?://(?:[a-z0-9-]+(?:\.[a-z0-9-]+)*|\[[0-9a-f:]+\])(?::\d{1,5})?")
_HOST = re.compile(r"[a-z0-9-]+(?:\.[a-z0-9-]+)*|\[[0-9a-f:]+\]")
_LONGEST_RETRYING = 6 * 86_400
"""Seconds; the outbox keeps what is to be sent for seven days."""

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


def split_commas(value: str) -> tuple[str, ...]:
    """The parts of a setting that is a list with commas."""
    return tuple(part.strip() for part in value.split(",") if part.strip())


def webhook_secrets(value: SecretStr | None) -> Sequence[str]:
    """The secrets in the setting, none where it is not set."""
    return value.get_secret_value().split() if value else ()


def webhook_networks(value: str) -> tuple[IPNetwork, ...]:
    """The networks in the setting. ValueError where one is none."""
    return tuple(ipaddress.ip_network(part.strip()) for part in value.split(",") if part.strip())


def webhook_delays(value: str) -> tuple[float, ...]:
    """The delays in the setting, in seconds. ValueError where one is no number."""
    return tuple(float(part) for part in value.split(",") if part.strip())


def redis_dsn(settings: Settings) -> str:
    """The Redis URL, or a clear error where there is none."""
    if settings.redis_url is None:
        raise ValueError(
            "KIRAZURI_REDIS_URL is not set; set it, or start everything with `kirazuri up`"
        )
    return settings.redis_url.get_secret_value()
