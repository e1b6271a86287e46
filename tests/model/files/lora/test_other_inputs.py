"""LoRAs that need a reference image or another latent frame."""

import json
from pathlib import Path

import pytest

from model.errors import LoraUnusable
from model.files.lora.other_inputs import refuse_other_inputs
from model.files.safetensors_header import StoredTensor

STEM = "diffusion_model.blocks.0.mlp.layer1"
PATCH = "diffusion_model.x_embedder.proj.1.lora_A.weight"
COLUMNS = 68


def entries(**more: tuple[int, ...]) -> dict[str, StoredTensor]:
    shapes = {f"{STEM}.lora_A.weight": (2, 8), f"{STEM}.lora_B.weight": (8, 2), **more}
    return {key: StoredTensor(Path("a"), key, "F32", shape, 0, 0) for key, shape in shapes.items()}


METADATA = [
    {"modelspec.architecture": "anima-incontext/lora"},
    {"modelspec.title": "Anima InContext v1"},
    {"ss_output_name": "AnimaEdit_v2"},
    {"ss_base_model_version": "anima_edit"},
    {"ss_network_module": "networks.control_net_lllite_anima"},
    {"lllite.version": "2"},
    {"reference_downscale_factor": "1"},
    {"ss_datasets": json.dumps([{"subsets": [{"conditioning_data_dir": "/d/control"}]}])},
    {"training_config": json.dumps({"datasets": [{"control_path": "/d"}]})},
    {"modelspec.title": "my edit lora"},
    {"modelspec.title": "Anima Image Edit LoRA"},
    {"modelspec.title": "Anima Kontext style"},
    {"modelspec.title": "Anima inpaint"},
    {"modelspec.title": "Anima In-Context LoRA"},
    {"modelspec.title": "in context LoRA for pairs"},
    {"ss_output_name": "anima_reference_only"},
    {"ss_output_name": "pairs-incontext-v2"},
    {"modelspec.description": "Needs a reference image: in-context LoRA"},
    {"modelspec.description": "An image editing LoRA."},
    {"modelspec.tags": "edit, in-context"},
    {"modelspec.tags": "anime, inpainting"},
    {"modelspec.usage_hint": "use with AnimaEdit node"},
    {"task": "image-to-image edit"},
    {"task": "image-to-image"},
    {"task": "ti2i"},
    {"model_type": "edit"},
    {"ss_datasets": json.dumps([{"reference_image_dir": "/x"}])},
    {"ss_network_module": "networks.lora_anima_edit"},
    {"ss_network_module": "anima_control"},
    {"ss_network_module": "networks.lora_anima_reference"},
    {"modelspec.architecture": "anima_reference"},
    {"modelspec.architecture": "control_lora"},
    {"modelspec.architecture": "anima-edit2"},
    {"ss_output_name": "anima_inpaint_v2"},
    {"modelspec.title": "Line art ControlNet"},
    {"config": json.dumps({"control_path_1": "/d"})},
    {"config": json.dumps({"control_directories": ["/d"]})},
    {"description": "Reference image required."},
    {"description": "Style LoRA; must be used with a reference image"},
    {"modelspec.usage_hint": "Needs two reference images"},
    {"simpletuner_config": json.dumps({"conditioning_type": "reference_strict"})},
    {"any": json.dumps({"model_type": "lora", "controlnet": True})},
    {"lora_adapter_metadata": json.dumps({"transformer.task_type": "image-edit"})},
]
KEYS = [
    "lllite_dit_blocks_0_self_attn_q_proj.down.0.weight",
    "diffusion_model.ref_embed.lora_A.weight",
    "role_embedding.weight",
    "image_proj.0.weight",
]


def test_they_are_recognised_by_metadata() -> None:
    wrong = []
    for metadata in METADATA:
        try:
            refuse_other_inputs(metadata, entries(), COLUMNS)
            wrong.append(metadata)
        except LoraUnusable as exc:
            if next(iter(metadata)) not in str(exc):
                wrong.append(metadata)
    assert wrong == []


def test_they_are_recognised_by_keys() -> None:
    for key in KEYS:
        with pytest.raises(LoraUnusable, match="needs an input"):
            refuse_other_inputs({}, entries(**{key: (2, 2)}), COLUMNS)
    with pytest.raises(LoraUnusable, match="132 numbers per patch, the model has 68"):
        refuse_other_inputs({}, entries(**{PATCH: (2, 132)}), COLUMNS)


def test_ordinary_files_are_not_mistaken_for_them() -> None:
    for metadata in (
        {
            "modelspec.architecture": "anima-preview/lora",
            "modelspec.title": "Editorial ink, controlled",
        },
        {
            "ss_network_module": "networks.lora_anima",
            "ss_output_name": "context-free reference sheet",
        },
        {"modelspec.title": "Captain Context", "ss_output_name": "train_in_context_of_winter"},
        {"modelspec.title": "Villain Context", "name": "Blender edit style"},
        {"modelspec.title": "Remote control (game)", "name": "Mind Control hypnosis"},
        {"modelspec.title": "Girl in context", "modelspec.tags": "edit, credit, painting"},
        {"modelspec.description": "Does not need a reference image; not an in-context LoRA."},
        {"modelspec.description": "Best edits of the season, with better control of light."},
        {"ss_output_name": "my_inpaint_oc", "modelspec.title": "ControlNet-chan cosplay"},
        {"prompt": json.dumps({"1": {"class_type": "T", "inputs": {"control_image": ["2", 0]}}})},
        {"description": "No reference image required. Works without an input image."},
        {"ss_network_module": "networks.lora_anima", "task": "text-to-image"},
        {"ss_tag_frequency": json.dumps({"a": {"controlnet": 3, "reference_images": 2}})},
        {"simpletuner_config": json.dumps({"conditioning_type": "mask", "controlnet": False})},
        {"lora_adapter_metadata": json.dumps({"transformer.task_type": None})},
        {
            "ss_datasets": json.dumps(
                [{"conditioning_data_dir": None, "control_path": "", "has_control": False}]
            )
        },
    ):
        refuse_other_inputs(metadata, entries(**{PATCH: (2, 68)}), COLUMNS)
