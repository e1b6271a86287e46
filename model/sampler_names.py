"""Names of samplers and schedules, and what a step of each costs. No tensors."""

SAMPLER_NAMES = (
    "er_sde",
    "sa_solver",
    "sa_solver_pece",
    "euler",
    "euler_ancestral",
    "heun",
    "dpmpp_2m",
    "dpmpp_2m_sde",
)

SCHEDULER_NAMES = ("simple", "normal", "sgm_uniform", "beta")
