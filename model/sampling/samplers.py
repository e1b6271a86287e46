"""Samplers for a rectified-flow model, by name: generators that yield where they need the model.

They know no network, guidance, seed or device. Notation in `model/solvers`: a step goes from noise
level s to t, lambda = ln((1 - sigma) / sigma). Coefficients are float64, tensors of `x`'s type.
"""

from functools import partial

from model.sampling.er_sde import sample_er_sde
from model.sampling.multistep import (
    sample_deis,
    sample_dpmpp_2m,
    sample_gradient_estimation,
    sample_ipndm,
    sample_res_multistep,
)
from model.sampling.sa_solver import sample_sa_solver
from model.sampling.sampler_protocol import Evaluation, Noise, Sampler, Trajectory
from model.sampling.sde import (
    sample_dpmpp_2m_sde,
    sample_dpmpp_3m_sde,
    sample_dpmpp_sde,
    sample_seeds_2,
    sample_seeds_3,
)
from model.sampling.single_step import (
    sample_dpm_2,
    sample_dpmpp_2s_ancestral,
    sample_euler,
    sample_euler_ancestral,
    sample_heun,
    sample_lcm,
)
from model.sampling.uni_pc import sample_uni_pc

__all__ = ["SAMPLERS", "Evaluation", "Noise", "Sampler", "Trajectory"]

SAMPLERS: dict[str, Sampler] = {
    "er_sde": sample_er_sde,
    "sa_solver": sample_sa_solver,
    "sa_solver_pece": partial(sample_sa_solver, use_pece=True),
    "euler": sample_euler,
    "euler_ancestral": sample_euler_ancestral,
    "heun": sample_heun,
    "dpm_2": sample_dpm_2,
    "dpmpp_2m": sample_dpmpp_2m,
    "dpmpp_2m_sde": sample_dpmpp_2m_sde,
    "dpmpp_3m_sde": sample_dpmpp_3m_sde,
    "dpmpp_sde": sample_dpmpp_sde,
    "dpmpp_2s_ancestral": sample_dpmpp_2s_ancestral,
    "res_multistep": sample_res_multistep,
    "gradient_estimation": sample_gradient_estimation,
    "deis": sample_deis,
    "ipndm": sample_ipndm,
    "uni_pc": sample_uni_pc,
    "uni_pc_bh2": partial(sample_uni_pc, variant="bh2"),
    "seeds_2": sample_seeds_2,
    "seeds_3": sample_seeds_3,
    "lcm": sample_lcm,
}
