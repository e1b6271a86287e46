"""Known leftovers are recognised, and no name of a part is."""

import json

from model.files.stored_weights.leftovers import leftover_kind, without_wrappers
from tests.support.paths import DATA

KEYMAPS = json.loads((DATA / "keymaps.json").read_text())
PREFIXES = ("", "net.", "model.diffusion_model.", "diffusion_model.", "vae.")
LEFTOVERS = {
    "noise schedule": (
        "model_sampling.sigmas model_sampling.log_sigmas betas alphas_cumprod "
        "sqrt_one_minus_alphas_cumprod posterior_mean_coef2 denoiser.sigmas log_sigmas "
        "sigma_min sigma_max"
    ),
    "position table": (
        "pos_embedder.seq pos_embedder.dim_spatial_range pos_embedder.dim_temporal_range "
        "layers.0.self_attn.rotary_emb.inv_freq rotary_emb.original_inv_freq "
        "llm_adapter.rotary_emb.inv_freq embeddings.position_ids rotary_emb.cos_cached "
        "rope.freqs pos_embedder.freqs_cos rope.cos_cached rotary_emb.inv_freq_h"
    ),
    "constant of the VAE": "latents_mean latents_std",
    "EMA copy": (
        "model_ema.decay model_ema.num_updates model_ema.diffusion_modelblocks0mlp "
        "net_ema.blocks.0.mlp.layer1.weight ema_model.blocks.0.mlp.layer1.weight"
    ),
    "loss of a training": "logvar logvar.0.freqs logvar.1.weight loss.discriminator.main.0.weight",
    "state of a training": (
        "optimizer.state.0.exp_avg optimizer_states.0.step lr_schedulers.0.last_lr global_step "
        "epoch ema_decay _dummy_param accum_image_sample_counter "
        "blocks.0.mlp.layer1.weight.exp_avg_sq"
    ),
    "state of a layer": "blocks.0.self_attn._extra_state",
    "scale for comparing texts with images": (
        "text_encoders.qwen3_06b.logit_scale cond_stage_model.logit_scale"
    ),
}
NO_LEFTOVERS = (
    "blocks.0.mlp.layer3.weight", "model_samplings", "sigmas.weight", "logvars", "lossy.weight",
    "blocks.0.ema.weight", "emax.weight", "pos_embedder.weight", "extra_pos_embedder.pos_emb_t",
    "blocks.0.logvar", "scaled_fp8", "blocks.0.betas", "visual.patch_embed.weight", "stepper",
)  # fmt: skip


def test_leftovers_are_recognised_behind_every_prefix() -> None:
    wrong = []
    for kind, names in LEFTOVERS.items():
        for name in names.split():
            prefixes = ("",) if "logit_scale" in name else PREFIXES
            wrong += [prefix + name for prefix in prefixes if leftover_kind(prefix + name) != kind]
    assert wrong == []


def test_no_other_name_is_a_leftover() -> None:
    assert [name for name in NO_LEFTOVERS if leftover_kind(name)] == []
    found = {
        name
        for section, entries in KEYMAPS.items()
        if section.partition("_to_")[1]
        for name, (ours, _) in entries.items()
        if ours and any(leftover_kind(prefix + name) for prefix in PREFIXES)
    }
    assert found == set()


def test_wrappers_are_removed_everywhere() -> None:
    names = {
        "_orig_mod.net.blocks.0.mlp.layer1.weight": "net.blocks.0.mlp.layer1.weight",
        "net._orig_mod.blocks.0._orig_mod.mlp.layer1.weight": "net.blocks.0.mlp.layer1.weight",
        "module.module.net.blocks.0.weight": "net.blocks.0.weight",
        "module._orig_mod.blocks.0.weight": "blocks.0.weight",
        "_orig_mod.module.blocks.0.weight": "blocks.0.weight",
        "blocks.0._fsdp_wrapped_module._checkpoint_wrapped_module.weight": "blocks.0.weight",
        "my_orig_mod.weight": "my_orig_mod.weight",
        "net.module.weight": "net.module.weight",
    }
    assert {name: without_wrappers(name) for name in names} == names
