"""Shapes of the A1111 surface's lists and settings, with the keys that its clients look for."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class _ListModel(BaseModel):
    model_config = ConfigDict(frozen=True, protected_namespaces=())


class A1111Options(_ListModel):
    """The web UI's settings as far as they mean something here. Nobody changes them."""

    sd_model_checkpoint: str = Field(
        description="`title` of the one checkpoint.", examples=["kirazuri-anima-v1.safetensors"]
    )
    sd_checkpoint_hash: str = Field(
        description='Its SHA-256; "" while no worker is up.', examples=["9f86d081884c7d65…"]
    )
    sd_vae: str = Field(default="Automatic", description="There is one.", examples=["Automatic"])
    CLIP_stop_at_last_layers: int = Field(  # the web UI's own spelling
        default=1, description="Always 1.", examples=[1]
    )
    samples_format: str = Field(
        default="png",
        description="Of pictures; `override_settings` of a call may say `jpg`, `webp` or `avif`.",
        examples=["png"],
    )
    jpeg_quality: int = Field(
        default=90, description="Of lossy formats; for a call as above.", examples=[90]
    )
    live_previews_enable: bool = Field(
        default=True,
        description="Whether jobs have previews; for a call as above.",
        examples=[True],
    )
    live_previews_image_format: str = Field(
        default="webp", description="Of `current_image`.", examples=["webp"]
    )


class A1111Model(_ListModel):
    """The checkpoint."""

    title: str = Field(
        description="What `sd_model_checkpoint` says.", examples=["kirazuri-anima-v1.safetensors"]
    )
    model_name: str = Field(description="Its card's name.", examples=["kirazuri-v1"])
    hash: str | None = Field(
        description="Ten digits of its SHA-256; null while no worker is up.",
        examples=["9f86d08188"],
    )
    sha256: str | None = Field(description="All of them.", examples=["9f86d081884c7d65…"])
    filename: str = Field(
        description="Below the folder of the checkpoint.",
        examples=["diffusion_models/kirazuri-anima-v1.safetensors"],
    )
    config: str | None = Field(description="Always null.", examples=[None])


class A1111Module(_ListModel):
    """A file beside the checkpoint."""

    model_name: str = Field(description="Its name.", examples=["qwen_image_vae.safetensors"])
    filename: str = Field(
        description="Below the folder of the checkpoint.",
        examples=["vae/qwen_image_vae.safetensors"],
    )


class A1111Sampler(_ListModel):
    """A sampler; requests may use its name or an alias."""

    name: str = Field(description="As the web UI calls it.", examples=["ER SDE"])
    aliases: list[str] = Field(description="Its name in `/capabilities`.", examples=[["er_sde"]])
    options: dict[str, Any] = Field(description="Always empty.", examples=[{}])


class A1111Scheduler(_ListModel):
    """A noise schedule; requests may use its name or its label."""

    name: str = Field(description="Its name in `/capabilities`.", examples=["sgm_uniform"])
    label: str = Field(description="As the web UI calls it.", examples=["SGM Uniform"])
    aliases: list[str] | None = Field(default=None, description="None.", examples=[None])
    default_rho: float = Field(default=-1.0, description="Always -1: none.", examples=[-1.0])
    need_inner_model: bool = Field(default=False, description="Always false.", examples=[False])


class A1111Upscaler(_ListModel):
    """What enlarges a picture; none of them is a model."""

    name: str = Field(description="For `hr_upscaler`.", examples=["Lanczos"])
    model_name: str | None = Field(default=None, description="Always null.", examples=[None])
    model_path: str | None = Field(default=None, description="Always null.", examples=[None])
    model_url: str | None = Field(default=None, description="Always null.", examples=[None])
    scale: float = Field(
        default=4.0, description="Says nothing; any factor is possible.", examples=[4.0]
    )


class A1111Named(_ListModel):
    """A thing with a name."""

    name: str = Field(description="Its name.", examples=["Latent (bicubic)"])


class A1111Lora(_ListModel):
    """A LoRA for `<lora:name:weight>`."""

    name: str = Field(description="Its name.", examples=["watercolor"])
    alias: str = Field(description="The same.", examples=["watercolor"])
    path: str = Field(description="In the folder of LoRAs.", examples=["watercolor.safetensors"])
    metadata: dict[str, Any] = Field(
        description="`sha256`, `base` and `trigger_words`.",
        examples=[{"sha256": "9f86d081884c7d65…", "base": None, "trigger_words": []}],
    )


class A1111Embeddings(_ListModel):
    """Textual inversions: there are none."""

    loaded: dict[str, Any] = Field(description="Always empty.", examples=[{}])
    skipped: dict[str, Any] = Field(description="Always empty.", examples=[{}])


class A1111Scripts(_ListModel):
    """Scripts: there are none."""

    txt2img: list[str] = Field(description="Always empty.", examples=[[]])
    img2img: list[str] = Field(description="Always empty.", examples=[[]])


class A1111Flags(_ListModel):
    """How the web UI would have been started."""

    api: bool = Field(default=True, description="Always true.", examples=[True])
    nowebui: bool = Field(default=True, description="Always true: no pages.", examples=[True])


class A1111Memory(_ListModel):
    """Memory, which is not told here."""

    ram: dict[str, Any] = Field(description="Always an error.", examples=[{"error": "unavailable"}])
    cuda: dict[str, Any] = Field(
        description="Always an error.", examples=[{"error": "unavailable"}]
    )
