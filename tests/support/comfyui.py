"""Graphs of ComfyUI in its API format."""

import json
from typing import Any

from model.recipes.comfyui.workflow import read_workflow
from model.recipes.imported import ImportedRequest

Graph = dict[str, dict[str, Any]]


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    """A node with its inputs: values, or links [id, output]."""
    return {"class_type": kind, "inputs": inputs}


def plain_graph() -> Graph:
    """The workflow template for this family of models in ComfyUI's API format."""
    return {
        "3": node(
            "KSampler", seed=42, steps=30, cfg=4.0, sampler_name="er_sde", scheduler="simple",
            denoise=1.0, model=["44", 0], positive=["11", 0], negative=["12", 0],
            latent_image=["28", 0],
        ),
        "8": node("VAEDecode", samples=["3", 0], vae=["15", 0]),
        "9": node("SaveImage", filename_prefix="x", images=["8", 0]),
        "11": node("CLIPTextEncode", text="1girl, (blue hair:1.2)", clip=["45", 0]),
        "12": node("CLIPTextEncode", text="worst quality", clip=["45", 0]),
        "15": node("VAELoader", vae_name="qwen_image_vae.safetensors"),
        "28": node("EmptyLatentImage", width=1024, height=1536, batch_size=1),
        "44": node("UNETLoader", unet_name="anima-preview.safetensors", weight_dtype="default"),
        "45": node("CLIPLoader", clip_name="qwen_3_06b_base.safetensors"),
    }  # fmt: skip


PLAIN_FIELDS = {
    "prompt": "1girl, (blue hair:1.2)",
    "negative_prompt": "worst quality",
    "steps": 30,
    "cfg_scale": 4.0,
    "sampler": "er_sde",
    "scheduler": "simple",
    "seed": 42,
    "resolution": "1024x1536",
}
"""What is imported from `plain_graph`."""


def read_graph_text(graph: Graph) -> ImportedRequest:
    """The request in a graph that was written as JSON."""
    return read_workflow(json.dumps(graph))
