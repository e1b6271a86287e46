"""Entries of the A1111 lists, with the keys that clients look for."""

from typing import Any

from pydantic import Field

from api.a1111.schemas import A1111Body


class A1111Model(A1111Body):
    """The checkpoint."""

    title: str = Field(
        description="Value of `sd_model_checkpoint`.", examples=["kirazuri-anima-v1.safetensors"]
    )
    model_name: str = Field(description="Name of the card.", examples=["kirazuri-v1"])
    hash: str | None = Field(
        description="The first ten digits of `sha256`; null while no worker is running.",
        examples=["9f86d08188"],
    )
    sha256: str | None = Field(
        description="SHA-256 of the file; null while no worker is running.",
        examples=["9f86d081884c7d65…"],
    )
    filename: str = Field(
        description="Path within the checkpoint folder.",
        examples=["diffusion_models/kirazuri-anima-v1.safetensors"],
    )
    config: str | None = Field(description="Always null.", examples=[None])


class A1111Module(A1111Body):
    """A file that belongs to the checkpoint."""

    model_name: str = Field(description="File name.", examples=["qwen_image_vae.safetensors"])
    filename: str = Field(
        description="Path within the checkpoint folder.",
        examples=["vae/qwen_image_vae.safetensors"],
    )


class A1111Sampler(A1111Body):
    """A sampler. Requests may use its name or an alias."""

    name: str = Field(description="Name in the web UI.", examples=["ER SDE"])
    aliases: list[str] = Field(description="Name in `/capabilities`.", examples=[["er_sde"]])
    options: dict[str, Any] = Field(description="Always empty.", examples=[{}])


class A1111Scheduler(A1111Body):
    """A noise schedule. Requests may use its name or its label."""

    name: str = Field(description="Name in `/capabilities`.", examples=["sgm_uniform"])
    label: str = Field(description="Name in the web UI.", examples=["SGM Uniform"])
    aliases: list[str] | None = Field(default=None, description="Always null.", examples=[None])
    default_rho: float = Field(default=-1.0, description="Always -1.", examples=[-1.0])
    need_inner_model: bool = Field(default=False, description="Always false.", examples=[False])


class A1111Upscaler(A1111Body):
    """An upscaler. None of them is a model."""

    name: str = Field(description="Value of `hr_upscaler`.", examples=["Lanczos"])
    model_name: str | None = Field(default=None, description="Always null.", examples=[None])
    model_path: str | None = Field(default=None, description="Always null.", examples=[None])
    model_url: str | None = Field(default=None, description="Always null.", examples=[None])
    scale: float = Field(
        default=4.0, description="Always 4. Any factor is possible.", examples=[4.0]
    )


class A1111Named(A1111Body):
    """An entry that has only a name."""

    name: str = Field(description="Name.", examples=["Latent (bicubic)"])


class A1111Lora(A1111Body):
    """A LoRA for `<lora:name:weight>`."""

    name: str = Field(description="Name.", examples=["watercolor"])
    alias: str = Field(description="The same as `name`.", examples=["watercolor"])
    path: str = Field(
        description="Path within the LoRA folder.", examples=["watercolor.safetensors"]
    )
    metadata: dict[str, Any] = Field(
        description="`sha256`, `base` and `trigger_words`.",
        examples=[{"sha256": "9f86d081884c7d65…", "base": None, "trigger_words": []}],
    )
