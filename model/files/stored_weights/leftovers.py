"""Recognises what other programs leave in a checkpoint: wrappers in names, and unused tensors.

Only known leftovers are recognised. Every other tensor must belong to a part of the checkpoint.
"""

import re

from model.files.keymap import BUNDLE_PREFIXES, TRANSFORMER_PREFIXES

_WRAPPERS = re.compile(
    r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.|^(?:module\.)+"
)
_PREFIXES = sorted(
    {prefix for prefixes in BUNDLE_PREFIXES.values() for prefix in prefixes}
    | set(filter(None, TRANSFORMER_PREFIXES))
    | {"model."},
    key=len,
    reverse=True,
)
_SCHEDULE = (
    "betas|alphas|alphas_cumprod|alphas_cumprod_prev|sqrt_alphas_cumprod"
    "|sqrt_one_minus_alphas_cumprod|log_one_minus_alphas_cumprod|sqrt_recip_alphas_cumprod"
    "|sqrt_recipm1_alphas_cumprod|posterior_variance|posterior_log_variance_clipped"
    "|posterior_mean_coef[12]|lvlb_weights|sigmas|log_sigmas|timesteps|sigma_(?:min|max|data)"
)
_LEFTOVERS = {
    "noise schedule": re.compile(
        rf"^(model_sampling\..+|(denoiser\.|noise_scheduler\.|scheduler\.)?({_SCHEDULE}))$"
    ),
    "position table": re.compile(
        r"(^|\.)(pos_embedder\.(seq|dim_spatial_range|dim_temporal_range)|(original_)?inv_freq(_[thw])?"
        r"|(rotary_emb|rope|pos_embedder)\.(cos|sin|freqs(_cis|_cos|_sin)?|(cos|sin)_cached)"
        r"|position_ids)$"
    ),
    "constant of the VAE": re.compile(r"^latents_(mean|std)$"),
    "EMA copy": re.compile(r"^(model_ema|ema_model|net_ema|ema)\."),
    "loss of a training": re.compile(r"^(logvar(\..+)?$|loss\.)"),
    "state of a training": re.compile(
        r"^(optimizers?|optimizer_states?|lr_schedulers?|grad_scaler|loops|callbacks)\."
        r"|^(global_step|step|epoch|iteration|num_updates|ema_decay)$|^accum_[^.]+$"
        r"|^_?dummy(_param(eter)?)?$"
        r"|(^|\.)(exp_avg|exp_avg_sq|momentum_buffer)$"
    ),
    "state of a layer": re.compile(r"(^|[._])_?extra_state$"),
    "scale for comparing texts with images": re.compile(
        r"^(text_encoders\.[^.]+|cond_stage_model(\.[^.]+)?)\.logit_scale$"
    ),
}


def without_wrappers(name: str) -> str:
    """The name without what `torch.compile` and distributed training add to it."""
    while (shorter := _WRAPPERS.sub("", name)) != name:
        name = shorter
    return name


def leftover_kind(name: str) -> str | None:
    """What the tensor `name` is if no part of a checkpoint needs it; None for every other one."""
    bare = next((name.removeprefix(p) for p in _PREFIXES if name.startswith(p)), name)
    for kind, pattern in _LEFTOVERS.items():
        if pattern.search(bare) or pattern.search(name):
            return kind
    return None
