"""Deterministic requests repeat every bit: alone, in a batch, and in another process."""

import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from model.engine.engine import Engine
from model.engine.protocol import ImageReady
from model.network.transformer.forward import Row
from model.resolved_request import ResolvedRequest
from model.sampling import noise
from tests.support.engines import (
    FIELDS,
    AnalyticModel,
    digest,
    engine_of,
    request,
    run,
    tiny_engine,
    work_at_once,
)

NEIGHBOURS = {
    "plain": request(width=128, height=128, steps=4, cfg_scale=1, seed=1),
    "guided": request(width=128, height=128, steps=7, sampler="euler", seed=2),
    "wide": request(width=144, height=112, steps=3, prompt="1boy, red hair", seed=3),
}

ANOTHER_PROCESS = """
from model.network.device import use_deterministic_kernels
from tests.support.engines import FIELDS, digest, request, run, tiny_engine
for _ in range(2):
    print(digest(run(tiny_engine(), {"again": request(**FIELDS)}), "again"))
    use_deterministic_kernels()
"""


@pytest.fixture(scope="module")
def engine() -> Engine:
    return tiny_engine()


@pytest.fixture(scope="module")
def expected(engine: Engine) -> str:
    return digest(run(engine, {"alone": request(**FIELDS)}), "alone")


def test_a_deterministic_request_repeats_itself_to_the_byte(engine: Engine, expected: str) -> None:
    again = [digest(run(engine, {f"{i}": request(**FIELDS)}), f"{i}") for i in range(2)]
    assert again == [expected] * 2


def test_other_requests_do_not_change_it(engine: Engine, expected: str) -> None:
    events = run(engine, {**NEIGHBOURS, "it": request(**FIELDS), "twin": request(**FIELDS)})
    assert digest(events, "it") == digest(events, "twin") == expected


def test_each_of_several_images_equals_its_own_request(engine: Engine) -> None:
    events = run(engine, {"two": request(**{**FIELDS, "num_images": 2})})
    both = {e.seed: e.pixels for e in events if isinstance(e, ImageReady)}
    assert list(both) == [42, 43]
    (single,) = [
        e.pixels
        for e in run(engine, {"one": request(**{**FIELDS, "seed": 43})})
        if isinstance(e, ImageReady)
    ]
    assert numpy.array_equal(both[43], single)


def test_another_process_makes_the_same_bytes(expected: str) -> None:
    """Also with deterministic kernels, as on a GPU: every kernel that the network uses has one."""
    other = subprocess.run(
        [sys.executable, "-c", ANOTHER_PROCESS], capture_output=True, text=True, check=False
    )
    assert other.returncode == 0, other.stderr
    assert other.stdout.split() == [expected] * 2


def test_it_is_alone_in_every_forward_and_other_requests_are_not() -> None:
    model = AnalyticModel()
    jobs = {
        "one": request(deterministic=True, num_images=2, steps=3),
        "two": request(deterministic=True, steps=3),
        "free": request(steps=3),
        "other": request(steps=3),
    }
    run(engine_of(model), jobs)
    assert sorted(rows for rows, _ in model.calls) == [1] * 18 + [4] * 3


def test_a_memory_shortage_does_not_change_it(engine: Engine, expected: str) -> None:
    """After a shortage forwards stay split, and a split forward rounds differently."""
    engine._velocity.max_tokens = 1.0
    try:
        assert digest(run(engine, {"short": request(**FIELDS)}), "short") == expected
    finally:
        engine._velocity.max_tokens = math.inf


def test_the_velocity_is_the_same_alone_and_in_a_batch(engine: Engine) -> None:
    """One evaluation of each row, before a sampler magnifies the rounding."""
    pipeline = engine._pipeline
    x = torch.cat([noise.initial_noise(seed, (1, 16, 1, 16, 16)) for seed in range(6)])
    sigma = torch.tensor([0.99, 0.9, 0.7, 0.5, 0.2, 0.01])
    prompts = ["1girl", "", "1boy, red hair", "cat ears", "smile, (hat:1.3)", "x"]
    weights = pipeline.loras.weights(())
    assert weights is not None
    texts = [pipeline.read_text(pipeline.encode(text), weights) for text in prompts]
    rows = [Row(*row) for row in zip(torch.split(x, 1), sigma.tolist(), texts, strict=True)]
    with torch.inference_mode():
        together = pipeline.velocity(rows)
        for i, row in enumerate(rows):
            alone = pipeline.velocity([row])
            torch.testing.assert_close(alone, together[i : i + 1], atol=1e-5, rtol=0)


NOT_REPEATABLE_ON_CUDA = {
    "bincount", "cumsum", "histc", "kthvalue", "median", "multinomial", "put", "put_", "resize_",
    "scatter_add", "scatter_add_", "index_add", "index_add_", "index_copy", "index_reduce",
    "index_put", "index_put_", "_index_put_impl_", "scatter_reduce", "grid_sampler_2d",
    "adaptive_avg_pool2d", "_adaptive_avg_pool2d", "max_unpool2d", "nll_loss2d",
}  # fmt: skip
"""Operations that have no deterministic CUDA kernel, or only a slow one."""


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the names of all operations on floating-point tensors."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if any(isinstance(arg, Tensor) and arg.is_floating_point() for arg in args):
            self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_no_operation_is_nondeterministic_on_a_gpu() -> None:
    engine = tiny_engine()
    work_at_once(engine)  # operations are seen in one thread only
    hires = {"scale": 1.25, "width": 160, "height": 160, "steps": 2, "strength": 0.5}
    jobs = {
        f"{upscaler}": request(
            **{**FIELDS, "prompt": f"1girl, {upscaler}", "steps": 2},
            hires={**hires, "upscaler": upscaler},
        )
        for upscaler in ("latent", "lanczos")
    }
    with Operations() as seen:
        assert len([e for e in run(engine, jobs) if isinstance(e, ImageReady)]) == 2
    assert {"linear", "conv2d", "layer_norm"} <= seen.names
    assert seen.names & NOT_REPEATABLE_ON_CUDA == set()


Draws = dict[int, list[Tensor]]


def draws_of(jobs: dict[str, ResolvedRequest], monkeypatch: pytest.MonkeyPatch) -> Draws:
    """Every noise tensor that the engine draws, in order, by the seed of its image."""
    taken: Draws = {}

    def initial(seed: int, shape: tuple[int, ...], **options: Any) -> Callable[[], Tensor]:
        taken.setdefault(seed, []).append(noise.initial_noise(seed, shape, **options))
        return lambda: taken[seed][0]

    def stream(seed: int, shape: tuple[int, ...], **options: Any) -> Callable[[], Tensor]:
        draw = noise.noise_stream(seed, shape, **options)

        def kept() -> Tensor:
            taken[seed].append(draw())
            return taken[seed][-1]

        return kept

    # In whichever module draws it.
    places = [module for name, module in sys.modules.items() if name.startswith("model.")]
    for name, recording in (("initial_noise_ahead", initial), ("noise_stream", stream)):
        users = [m for m in places if m is not noise and hasattr(m, name)]
        assert users
        for module in users:
            monkeypatch.setattr(module, name, recording)
    run(engine_of(AnalyticModel()), jobs)
    return taken


def test_noise_is_the_same_to_the_bit_alone_and_in_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = {
        "er_sde": request(seed=1, steps=5),
        "longer": request(seed=2, steps=9, prompt="1boy"),
        "pece": request(seed=3, steps=6, sampler="sa_solver_pece", cfg_scale=1),
        "several": request(seed=10, steps=4, sampler="euler_ancestral", num_images=2),
        "without": request(seed=20, sampler="euler"),
    }
    together = draws_of(jobs, monkeypatch)
    assert set(together) == {1, 2, 3, 10, 11, 20}
    assert len(together[1]) == 5
    assert len(together[20]) == 1
    for wanted in jobs.values():
        for seed, alone in draws_of({"job": wanted}, monkeypatch).items():
            assert len(alone) == len(together[seed])
            assert all(torch.equal(a, b) for a, b in zip(alone, together[seed], strict=True))
