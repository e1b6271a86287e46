"""Makes callable code of the blocks: compiles it, or takes it from the folder and nothing else."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from model.engine.compiled.examples import Example, checked, random_rows, traced
from model.engine.compiled.plan import TEMPLATES, Plan
from model.network.transformer.blocks import Blocks
from model.network.transformer.every_size import for_every_size
from model.network.transformer.forward import Transformer


class CodeMissing(RuntimeError):
    """The folder lacks code, or has other code than this process asks for."""


def trace(network: Transformer, config: Any, plan: Plan) -> Blocks:
    """The blocks with all code that forwards need. `network` must be one that nobody else uses.

    Afterwards nothing more is compiled in this process: a forward for which there is no code
    raises RuntimeError.
    """
    options = TEMPLATES if plan.templates else None
    blocks = Blocks.compiled(backend=plan.backend, fullgraph=True, options=options)
    device = torch.device(plan.device)

    def run(examples: Sequence[Example], blocks: Blocks) -> None:
        for float8 in (False, True) if plan.float8 else (False,):
            network.use(blocks, float8=float8)
            for example in examples:
                drawn = random_rows(example, config, plan.context_rows, device)
                network.velocity(drawn.rows(network))

    run(traced(plan.size, plan.context_rows), for_every_size(blocks))
    torch.compiler.set_stance("fail_on_recompile")
    run(checked(plan.size, plan.context_rows), blocks)
    return blocks


@contextmanager
def without_compiling() -> Iterator[None]:
    """Raise CodeMissing where code would have to be made, which takes minutes."""
    from torch._inductor import compile_fx

    changed: Any = compile_fx
    plain = changed.fx_codegen_and_compile

    def refuse(*_: Any, **__: Any) -> Any:
        raise CodeMissing("the folder of compiled code lacks some of it")

    changed.fx_codegen_and_compile = refuse
    try:
        yield
    finally:
        changed.fx_codegen_and_compile = plain
