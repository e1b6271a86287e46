"""Compiles the blocks in a process of its own, and finds out whether they are right and pay.

Run as `python -m model.engine.compiled.trial PLAN` with little priority. Two blocks with random
weights stand for the model. It ends with its parent, whose end closes the standard input.
"""

import os
import sys
import threading
import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from diffusers.models.transformers.transformer_cosmos import CosmosTransformer3DModel
from torch import Tensor, nn

from model.engine.compiled.examples import Example, RandomRows, checked, random_rows, traced
from model.engine.compiled.loading import trace
from model.engine.compiled.plan import Plan, Verdict
from model.network.device import use_deterministic_kernels
from model.network.transformer.attention import stack_projections
from model.network.transformer.blocks import Blocks
from model.network.transformer.float8 import keep_float8
from model.network.transformer.forward import Transformer

_NICENESS = 10
_BLOCKS = 2
_ROUNDS = 12
_GAIN = 0.97
"""Compiled code pays if it takes at most this share of the eager processor time."""

_FLOAT32_ERROR = 1e-4
_LIBRARY_SHARE = 1.1


@dataclass(frozen=True)
class Subject:
    """Two blocks of the model with random weights, on the plan's device."""

    plan: Plan

    @cached_property
    def exact(self) -> Any:
        """The library's module in float32."""
        torch.manual_seed(1)
        config = {**self.plan.config, "num_layers": _BLOCKS}
        module: Any = CosmosTransformer3DModel.from_config(config)
        for weight in module.parameters():
            is_norm = weight.ndim == 1
            std = 0.2 if is_norm else weight.shape[1] ** -0.5
            nn.init.normal_(weight, float(is_norm), std)
        return module.requires_grad_(requires_grad=False).eval().to(self.plan.device)

    @cached_property
    def module(self) -> Any:
        """The same weights in the plan's precision."""
        module: Any = CosmosTransformer3DModel.from_config(self.exact.config)
        module.load_state_dict(self.exact.state_dict())
        module.requires_grad_(requires_grad=False).eval()
        # Not the library's `to`, which advises about training.
        nn.Module.to(module, self.plan.device, getattr(torch, self.plan.precision))
        stack_projections(module)
        if self.plan.float8:
            keep_float8(module)
        return module

    def network(self) -> Transformer:
        """Our forward."""
        return Transformer(self.module, dtype=getattr(torch, self.plan.precision))

    def rows(self, example: Example) -> RandomRows:
        """Random rows on the device."""
        device = torch.device(self.plan.device)
        return random_rows(example, self.exact.config, self.plan.context_rows, device)

    def of_library(self, module: Any, drawn: RandomRows) -> Tensor:
        """The velocity of the library's class, float32."""
        dtype, texts = module.proj_out.weight.dtype, drawn.example.texts
        (velocity,) = module(
            drawn.latents.repeat_interleave(texts, 0).to(dtype),
            torch.tensor(drawn.sigmas, device=drawn.latents.device).repeat_interleave(texts),
            drawn.contexts.to(dtype),
            return_dict=False,
        )
        found: Tensor = velocity.float()
        return found


def find_verdict(plan: Plan) -> Verdict:
    """Compile, compare with the library's class, and with eager code."""
    subject = Subject(plan)
    compiled = trace(subject.network(), subject.module.config, plan)
    network = subject.network()
    network.use(compiled)
    wrong = parity_fault(subject, network)
    if plan.float8 and not wrong:
        network.use(compiled, float8=True)
        wrong = float8_fault(subject, network)
        network.use(compiled)
    if wrong:
        return Verdict(use=False, reason=wrong)
    if not plan.must_pay:
        return Verdict(use=True, reason="compiled code is right")
    eager, found = processor_seconds(subject, network)
    reason = (
        f"{1000 * found:.1f} ms of processor time compiled, {1000 * eager:.1f} ms eager, for "
        f"{_BLOCKS} blocks"
    )
    return Verdict(use=found <= _GAIN * eager, reason=reason)


def parity_fault(subject: Subject, network: Transformer) -> str | None:
    """How compiled code is wrong; None if it is within the library's own error."""
    plan = subject.plan
    ours = theirs = 0.0
    examples = traced(plan.size, plan.context_rows) + checked(plan.size, plan.context_rows)
    for drawn in map(subject.rows, examples):
        exact = subject.of_library(subject.exact, drawn)
        found = network.velocity(drawn.rows(network))
        if plan.precision == "float32":
            error = ((found - exact).abs().max() / exact.abs().max()).item()
            if not error <= _FLOAT32_ERROR:
                return f"compiled code is wrong by {error:.1e} at {drawn.example}"
            continue
        ours += ((found - exact).norm() / exact.norm()).item()
        library = subject.of_library(subject.module, drawn)
        theirs += ((library - exact).norm() / exact.norm()).item()
    if plan.precision != "float32" and not ours <= _LIBRARY_SHARE * theirs:
        return f"compiled code has an error of {ours:.2e}, the library {theirs:.2e}"
    return None


def float8_fault(subject: Subject, network: Transformer) -> str | None:
    """How compiled float8 is wrong; None if its error is not larger than that of eager float8."""
    plan, eager = subject.plan, subject.network()
    eager.use(Blocks(), float8=True)
    ours = allowed = 0.0
    for drawn in map(subject.rows, checked(plan.size, plan.context_rows)):
        exact = subject.of_library(subject.exact, drawn)
        for one in (network, eager):
            found = one.velocity(drawn.rows(one))
            error = ((found - exact).norm() / exact.norm()).item()
            ours, allowed = (ours + error, allowed) if one is network else (ours, allowed + error)
    if not ours <= _LIBRARY_SHARE * allowed:
        return f"compiled float8 has an error of {ours:.2e}, eager float8 {allowed:.2e}"
    return None


def processor_seconds(subject: Subject, compiled: Transformer) -> tuple[float, float]:
    """Shortest processor times, eager and compiled, of a pair and of four, in turns A-B-B-A."""
    plan, eager = subject.plan, subject.network()
    totals = [0.0, 0.0]
    for images in (1, 4):
        drawn = subject.rows(Example(images, 2, 1, plan.size, plan.context_rows // 2))
        best = [float("inf")] * 2
        for turn in (0, 1, 1, 0) * _ROUNDS:
            network = (eager, compiled)[turn]
            rows = drawn.rows(network)
            began = time.process_time()
            network.velocity(rows)
            best[turn] = min(best[turn], time.process_time() - began)
        totals = [total + seconds for total, seconds in zip(totals, best, strict=True)]
    return totals[0], totals[1]


def _end_with_parent() -> None:
    # Not `sys.stdin`, whose lock would be held when this process ends.
    while os.read(0, 1024):
        pass
    os._exit(1)


def main() -> None:
    """Find the verdict, unless another process has found it, and write it down."""
    plan = Plan.from_json(sys.argv[1])
    os.nice(_NICENESS)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(plan.threads)
    if torch.device(plan.device).type == "cuda":
        use_deterministic_kernels()
    plan.use_folder()
    with plan.locked(), torch.inference_mode():
        if plan.read_verdict() is None:
            plan.write_verdict(find_verdict(plan))


if __name__ == "__main__":
    main()
