"""The samplers for rectified-flow models, by name. `sampler_protocol` defines their signature.

`docs/samplers.md` has their papers, orders and errors. Notation in all of them: a step goes from
noise level s to t, x = (1 - sigma) x0 + sigma noise, lambda = ln((1 - sigma) / sigma), D is the
model's prediction of x0. Coefficients are float64, tensors have the type of `x`.
"""

from functools import partial
from importlib import import_module

from model.sampler_catalog import SAMPLER_CATALOG, SamplerInfo
from model.sampling.sampler_protocol import Evaluation, Noise, Sampler, Trajectory

__all__ = ["SAMPLERS", "Evaluation", "Noise", "Sampler", "Trajectory"]


def _code(info: SamplerInfo) -> Sampler:
    """The generator that the catalog names; the catalog itself must not import torch."""
    module = import_module(f"model.sampling.{info.module}")
    sampler: Sampler = getattr(module, f"sample_{info.variant_of or info.name}")
    return partial(sampler, **info.fixed) if info.fixed else sampler


SAMPLERS: dict[str, Sampler] = {name: _code(info) for name, info in SAMPLER_CATALOG.items()}
