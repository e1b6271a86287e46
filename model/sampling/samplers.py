"""The samplers for rectified-flow models, by name. `sampler_protocol` defines their signature.

`docs/samplers.md` has their papers, orders and errors. Notation in all of them: a step goes from
noise level s to t, x = (1 - sigma) x0 + sigma noise, lambda = ln((1 - sigma) / sigma), D is the
model's prediction of x0. Coefficients are float64, tensors have the type of `x`.
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
    "er_sde": sample_er_sde,  # arXiv 2309.06169
    "sa_solver": sample_sa_solver,  # arXiv 2309.05019
    "sa_solver_pece": partial(sample_sa_solver, use_pece=True),
    "euler": sample_euler,
    "euler_ancestral": sample_euler_ancestral,
    "heun": sample_heun,
    "dpm_2": sample_dpm_2,  # arXiv 2206.00364, algorithm 2
    "dpmpp_2m": sample_dpmpp_2m,  # arXiv 2211.01095, as all dpmpp_*
    "dpmpp_2m_sde": sample_dpmpp_2m_sde,
    "dpmpp_3m_sde": sample_dpmpp_3m_sde,
    "dpmpp_sde": sample_dpmpp_sde,
    "dpmpp_2s_ancestral": sample_dpmpp_2s_ancestral,
    "res_multistep": sample_res_multistep,  # arXiv 2308.02157
    "gradient_estimation": sample_gradient_estimation,  # arXiv 2306.04848
    "deis": sample_deis,  # arXiv 2204.13902
    "ipndm": sample_ipndm,  # arXiv 2204.13902
    "uni_pc": sample_uni_pc,  # arXiv 2302.04867
    "uni_pc_bh2": partial(sample_uni_pc, variant="bh2"),
    "seeds_2": sample_seeds_2,  # arXiv 2305.14267
    "seeds_3": sample_seeds_3,
    "lcm": sample_lcm,  # arXiv 2310.04378
}
