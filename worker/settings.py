"""Settings of all processes, read from `KIRAZURI_*` variables once at start."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from model.rating import Rating
from worker.setting_values import (
    Address,
    BucketKey,
    Bytes,
    Count,
    Device,
    Hosts,
    KeptSeconds,
    ModelNames,
    Origins,
    Region,
    Seconds,
    Store,
    Url,
    WebhookDelays,
    WebhookNetworks,
    WebhookSecrets,
)


class Settings(BaseSettings):
    """All settings; each field is read from `KIRAZURI_<NAME>` or from `.env`."""

    model_config = SettingsConfigDict(
        env_prefix="KIRAZURI_",
        env_file=".env",
        env_ignore_empty=True,  # compose writes an unset variable so
        secrets_dir=[*Path("/run").glob("kirazuri")] or None,  # of containers; docs/settings.md
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,  # the input may be a secret
    )

    redis_url: SecretStr | None = Field(
        default=None,
        description="URL of Redis: redis://, rediss://, unix://, valkey:// or redis+sentinel://. "
        "Unset: `kirazuri up` starts its own Redis.",
    )
    allow_volatile_redis: bool = Field(
        default=False,
        description="Whether jobs are accepted although Redis may lose them: without an "
        "append-only file, or with a maxmemory-policy other than noeviction.",
    )
    data_dir: Path = Field(
        default=Path("data"),
        description="Folder for images and for the Redis that `kirazuri up` starts.",
    )
    store: Store = Field(
        default="local",
        description="Image store: `local` (inside the data folder) or `s3://bucket/prefix`.",
    )
    s3_endpoint: Url | None = Field(
        default=None,
        description="URL of an S3-compatible server. Unset: AWS_ENDPOINT_URL, else AWS.",
    )
    s3_public_endpoint: Url | None = Field(
        default=None,
        description="URL of the same server for clients. Unset: KIRAZURI_S3_ENDPOINT.",
    )
    s3_region: Region | None = Field(
        default=None, description="Region of the bucket. Unset: AWS_REGION, else us-east-1."
    )
    s3_access_key_id: BucketKey | None = Field(
        default=None,
        description="Access key for S3. Unset: AWS_ACCESS_KEY_ID, else the machine's role.",
    )
    s3_secret_access_key: BucketKey | None = Field(
        default=None, description="Secret key for KIRAZURI_S3_ACCESS_KEY_ID."
    )
    signed_url_seconds: int = Field(
        default=3600,
        ge=60,
        le=604_800,
        description="Lifetime of signed image URLs (S3 and browser links).",
    )
    store_patience_seconds: Seconds = Field(
        default=60.0,
        ge=0,
        description="How long a worker tries to store an image before its job is requeued.",
    )
    max_unstored: Count = Field(
        default=32,
        ge=1,
        description="A worker takes no new jobs while this many images wait to be stored.",
    )
    card: str = Field(
        default="kirazuri-tiny", description="Model card: a name or the path of a .toml file."
    )
    checkpoint_dir: Path | None = Field(
        default=None,
        description="Folder with the checkpoint of the card, or with a diffusers pipeline. Unset: "
        "the bundled checkpoint.",
    )
    lora_dir: Path | None = Field(
        default=None, description="Folder of LoRA files, for API and workers. Unset: no LoRAs."
    )
    lora_skip_misfits: bool = Field(
        default=False,
        description="Leave out tensors of a LoRA that the checkpoint has no place for, with a "
        "warning that names them, instead of refusing the file. For API and workers.",
    )
    lora_cache_sets: Count = Field(
        default=2,
        ge=1,
        description="Merged LoRA sets a worker keeps in memory, each as large as the weights it "
        "changes.",
    )
    device: Device = Field(
        default="auto", description="Device of a worker: auto, cpu, cuda, cuda:1 …"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="Model precision. auto: bfloat16 on CUDA, float32 on CPU."
    )
    torch_threads: int = Field(
        default=0,
        ge=0,
        le=1024,
        description="CPU threads of a worker. 0: the fastest number, measured at the first start; "
        "at most as many as there are cores for each of KIRAZURI_WORKERS.",
    )
    workers: int = Field(
        default=1,
        ge=1,
        le=1024,
        description="Workers that share the cores of this machine. `kirazuri up` sets it.",
    )
    compile: Literal["auto", "always", "off"] = Field(
        default="auto",
        description="Whether pictures are computed by compiled code. auto: on a GPU once it is "
        "compiled, on a CPU if a trial while the worker is idle finds it faster. always: without "
        "a trial.",
    )
    experimental: Literal["none", "float8", "templates"] = Field(
        default="none",
        description="What is not measured on a GPU: float8, or products by compiled templates.",
    )
    warm: Literal["smallest", "presets"] = Field(
        default="smallest",
        description="What a worker computes before it is ready: a picture of the card's smallest "
        "size, or, once the compiled code is there, one of each preset.",
    )
    device_memory_gb: float = Field(
        default=0.0,
        ge=0,
        le=10_000,
        description="GB of GPU memory that a worker may use. 0: all of it.",
    )
    max_running: Count = Field(
        default=8,
        ge=1,
        description="Jobs of one API key that a worker runs at once; in total it runs up to twice "
        "as many.",
    )
    token_budget: Count = Field(
        default=8192, ge=64, description="Maximum latent tokens per model call; limits batches."
    )
    max_queue: Count = Field(
        default=1000, ge=1, description="Maximum waiting jobs; further requests get 429."
    )
    max_attempts: Count = Field(default=3, ge=1, description="Attempts at a job before it fails.")
    lease_seconds: Seconds = Field(
        default=6.0, ge=1, description="A worker that is silent for this long loses its jobs."
    )
    heartbeat_seconds: float = Field(
        default=2.0,
        ge=0.01,
        le=28_800,
        description="Interval at which a worker sends heartbeats and renews leases; at most a "
        "third of KIRAZURI_LEASE_SECONDS.",
    )
    maintenance_seconds: Seconds = Field(
        default=2.0,
        ge=0.01,
        description="Interval at which workers look for lost jobs and expired results.",
    )
    drain_seconds: Seconds = Field(
        default=30.0, ge=0, description="Time that running jobs have to finish after SIGTERM."
    )
    hang_seconds: Seconds = Field(
        default=120.0,
        ge=0.01,
        description="A worker exits when an engine step or a call of the image store takes longer.",
    )
    load_seconds: Seconds = Field(
        default=1800.0,
        ge=0.01,
        description="A worker exits when loading and warming up the model takes longer than this.",
    )
    stall_seconds: Seconds = Field(
        default=30.0,
        ge=0.01,
        description="A worker is not ready while an engine step takes longer than this.",
    )
    recycle_after_jobs: Count = Field(
        default=0,
        ge=0,
        description="A worker exits after this many jobs, to be restarted. 0: never.",
    )
    result_ttl_seconds: KeptSeconds = Field(
        default=86_400, ge=60, description="How long results are kept."
    )
    idempotency_ttl_seconds: KeptSeconds = Field(
        default=86_400, ge=60, description="How long an `Idempotency-Key` is remembered."
    )
    max_body_bytes: Bytes = Field(
        default=16_000_000,
        ge=1024,
        description="Maximum size of a request body; larger ones get 413. Images in base64 are a "
        "third larger than their files.",
    )
    max_bodies_bytes: Bytes = Field(
        default=64_000_000,
        ge=1024,
        description="Maximum size of all request bodies in an API process; further ones get 503. "
        "The first 65 536 bytes of each do not count.",
    )
    max_head_bytes: Bytes = Field(
        default=32_768,
        ge=4096,
        description="Maximum size of a request's line and headers; larger ones get 431.",
    )
    max_connections: Count = Field(
        default=1000,
        ge=1,
        description="Maximum connections of an API process; others but probes get 503.",
    )
    max_requests_per_key: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Maximum requests of one API key at once, event streams included, in an API "
        "process; further ones get 429. Unset: 40 % of KIRAZURI_MAX_CONNECTIONS.",
    )
    head_seconds: Seconds = Field(
        default=10.0, ge=0.01, description="Timeout for receiving a request's line and headers."
    )
    body_seconds: Seconds = Field(
        default=60.0, ge=0.01, description="Timeout for receiving a request's body."
    )
    send_seconds: Seconds = Field(
        default=60.0,
        ge=0.01,
        description="A client that reads nothing of its response for this long is disconnected.",
    )
    cors_origins: Origins = Field(
        default="",
        description="Origins whose web pages may call the API, such as "
        "`https://art.example,http://localhost:3000`. Empty: none.",
    )
    allowed_hosts: Hosts = Field(
        default="",
        description="Accepted `Host` headers, such as `art.example,localhost`; others get 421. "
        "Empty: any.",
    )
    max_rating: Rating = Field(
        default="safe",
        description="Highest image rating for requests whose key does not set one.",
    )
    policy_file: Path | None = Field(
        default=None, description="TOML file with content rules. Unset: the bundled rules."
    )
    tags_file: Path | None = Field(default=None, description="CSV list of tags. Unset: the card's.")
    output_filter: str | None = Field(
        default=None,
        min_length=1,
        description="Filter that checks images before they are stored: `package.module:attribute` "
        "or the name of an entry point. Unset: none.",
    )
    policy_log_prompts: bool = Field(
        default=False, description="Whether prompts that the policy refused are logged."
    )
    max_wait_seconds: Seconds = Field(default=60.0, ge=0, description="Maximum of `Prefer: wait`.")
    sync_wait_seconds: Seconds = Field(
        default=55.0,
        ge=0,
        description="How long a call of the OpenAI or A1111 API waits for its images. After that "
        "the response names the job.",
    )
    openai_models: ModelNames = Field(
        default="gpt-image-*,chatgpt-image-*,dall-e-*",
        description="Further names for the checkpoint in the OpenAI API; `*` matches anything.",
    )
    public_url: Url | None = Field(
        default=None,
        description="Prefix of image and job URLs. Unset: the URL that the client called.",
    )
    auth: Literal["auto", "required", "off"] = Field(
        default="auto",
        description="Whether requests need an API key. auto: if other machines can reach the API, "
        "and always once a key exists.",
    )
    keys_file: Path | None = Field(
        default=None, description="TOML file with API keys, in addition to those in Redis."
    )
    listen: Address | None = Field(
        default=None,
        description="host:port at which others reach the API, for KIRAZURI_AUTH=auto. Unset: the "
        "address that received the request. `kirazuri up` and compose set it.",
    )
    url: str = Field(
        default="http://127.0.0.1:8000",
        description="Service that client commands such as `kirazuri generate` call.",
    )
    api_key: SecretStr | None = Field(
        default=None, description="API key that client commands such as `kirazuri generate` send."
    )
    webhook_secret: WebhookSecrets | None = Field(
        default=None,
        description="Secret that signs webhooks: `whsec_` and base64 of 24 to 64 bytes. Several "
        "secrets, separated by spaces, all sign. Unset: no webhooks.",
    )
    webhook_allow_http: bool = Field(
        default=False, description="Whether webhooks may use http:// as well as https://."
    )
    webhook_networks: WebhookNetworks = Field(
        default="",
        description="Private networks that may receive webhooks, such as "
        "`10.1.0.0/16,127.0.0.1/32`.",
    )
    webhook_retry_seconds: WebhookDelays = Field(
        default="5,300,1800,7200,18000,36000,36000",
        description="Seconds before each retry of a webhook; one value per retry.",
    )
    webhook_timeout_seconds: Seconds = Field(
        default=15.0, ge=0.01, description="Timeout for the response of a webhook's receiver."
    )
    c2pa_certificate: Path | None = Field(
        default=None,
        description="PEM file with the certificate that signs images (C2PA), followed by its "
        "issuers. Unset: images are not signed.",
    )
    c2pa_key: Path | None = Field(
        default=None,
        description="PEM file with the certificate's private key; only workers need it.",
    )
    c2pa_trust: Path | None = Field(
        default=None,
        description="PEM file with the certificates that `POST /verify` trusts. Unset: the last "
        "one in KIRAZURI_C2PA_CERTIFICATE.",
    )
    require_mark: bool = Field(
        default=False,
        description="Whether requests with `metadata: none` are refused, so that every image is "
        "marked as AI-generated.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Lowest level of the service's log lines."
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="Format of log lines. json: one object per line."
    )

    @model_validator(mode="before")
    @classmethod
    def _leave_out_empty(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Take an empty file of a container like an empty variable, as if it were not there."""
        texts = {name: text.strip() for name, text in values.items() if isinstance(text, str)}
        return {name: value for name, value in (values | texts).items() if value != ""}

    @model_validator(mode="after")
    def _check_heartbeat(self) -> Self:
        if self.heartbeat_seconds > self.lease_seconds / 3:
            raise ValueError(
                f"KIRAZURI_HEARTBEAT_SECONDS is {self.heartbeat_seconds:g}, but it must be at most "
                f"a third of KIRAZURI_LEASE_SECONDS, which is {self.lease_seconds:g}"
            )
        return self


def redis_dsn(settings: Settings) -> str:
    """The Redis URL; ValueError with advice if it is unset."""
    if settings.redis_url is None:
        raise ValueError("KIRAZURI_REDIS_URL is not set; set it, or use `kirazuri up`")
    return settings.redis_url.get_secret_value()
