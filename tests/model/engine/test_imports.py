"""A worker makes its first picture without importing the libraries that take seconds."""

import subprocess
import sys

from tests.support.torch_free import needs_a_worker

SCRIPT = """
import sys
import worker.runtime.main
from model.card import load_card
from model.engine.loading import load_engine
from model.engine.protocol import ImageReady
from model.request import GenerationRequest
from model.resolved_request import resolve_request
card = load_card("kirazuri-tiny")
engine = load_engine(
    card, None, device="cpu", precision="auto", threads=1, token_budget=4096
)
asked = GenerationRequest(prompt="1girl", steps=2)
engine.admit("it", resolve_request(asked, card, seed=0))
events = []
while not any(isinstance(event, ImageReady) for event in events):
    events = engine.step()
slow = {"diffusers", "transformers", "torch._dynamo", "torch._inductor", "sympy"}
print(sorted(slow & sys.modules.keys()))
"""


@needs_a_worker
def test_a_picture_needs_no_slow_library() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=240
    )
    assert done.stdout == "[]\n", done.stderr
