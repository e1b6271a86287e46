"""The engine against a second implementation: diffusers' Anima pipeline, float32.

The pipeline runs Euler on a schedule that equals `simple` if the steps divide 1000. It supports
neither prompt weights nor escapes, and needs the 17-channel transformer.
"""

from collections.abc import Iterator
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import numpy
import pytest
import torch
from tokenizers import Tokenizer, processors
from torch import Tensor

from model.engine.loading import load_engine
from model.engine.protocol import ImageReady
from model.network.load import Components
from model.network.text.encoder import TextEncoder
from model.network.transformer.forward import Row, Transformer
from model.resolved_request import ResolvedRequest
from model.sampling.noise import initial_noise
from model.sampling.samplers import SAMPLERS
from model.sampling.schedules import SCHEDULES
from tests.support.cosmos_reference import install_mask_resize
from tests.support.random_checkpoint import (
    CONTEXT_ROWS,
    LATENTS_MEAN,
    LATENTS_STD,
    RandomModels,
    WrittenCheckpoint,
)

# The libraries' annotations do not cover these uses.
diffusers: Any = import_module("diffusers")
transformers: Any = import_module("transformers")
modular_pipeline: Any = import_module("diffusers.modular_pipelines.modular_pipeline")

STEPS = 8
SEED = 42
WIDTH, HEIGHT = 96, 64
SHAPE = (1, 16, 1, HEIGHT // 8, WIDTH // 8)
PROMPT = "masterpiece, 1girl, red hair"
TOLERANCE = 1e-4
CASES = [
    (PROMPT, 1.0, ""),
    (PROMPT, 4.0, "smile, b"),
    (PROMPT, 4.0, ""),
    ("red hair, " * 20, 4.0, "smile, b"),  # longer than the context: both cut alike
]
parametrize_cases = pytest.mark.parametrize(("prompt", "cfg_scale", "negative_prompt"), CASES)


class Result(NamedTuple):
    """Final latents and the picture (1, 3, H, W) in [0, 1]."""

    latents: Tensor
    picture: Tensor


@pytest.fixture
def pipeline(written: WrittenCheckpoint, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    install_mask_resize(monkeypatch)
    monkeypatch.setattr(modular_pipeline, "tqdm", partial(modular_pipeline.tqdm, disable=True))
    verbosity = diffusers.utils.logging.get_verbosity()
    diffusers.utils.logging.set_verbosity_error()
    made = written.made
    pipe = diffusers.AnimaModularPipeline()
    pipe.update_components(
        text_encoder=made.text_encoder,
        text_conditioner=made.conditioner,
        transformer=made.transformer,
        vae=made.vae,
        tokenizer=_wrapped_qwen(made),
        t5_tokenizer=_wrapped_t5(made),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    )
    yield pipe
    diffusers.utils.logging.set_verbosity(verbosity)


def _wrapped_qwen(made: RandomModels) -> Any:
    copy = Tokenizer.from_str(made.qwen.to_str())
    return transformers.PreTrainedTokenizerFast(tokenizer_object=copy, pad_token="<|endoftext|>")


def _wrapped_t5(made: RandomModels) -> Any:
    copy = Tokenizer.from_str(made.t5.to_str())
    copy.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", copy.token_to_id("</s>"))]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=copy, pad_token="<pad>", eos_token="</s>"
    )


def run_pipeline(pipe: Any, prompt: str, cfg_scale: float, negative_prompt: str) -> Result:
    pipe.update_components(guider=diffusers.ClassifierFreeGuidance(guidance_scale=cfg_scale))
    found = pipe(
        prompt=prompt,
        negative_prompt=negative_prompt,
        max_sequence_length=CONTEXT_ROWS,
        width=WIDTH,
        height=HEIGHT,
        num_inference_steps=STEPS,
        latents=initial_noise(SEED, SHAPE, device=torch.device("cpu")),
        output_type="pt",
        output=["latents", "images"],
    )
    return Result(found["latents"], found["images"])


@torch.no_grad()
def run_by_hand(
    components: Components,
    encoder: TextEncoder,
    *,
    prompt: str,
    cfg_scale: float,
    negative_prompt: str,
) -> Result:
    network = Transformer(components.transformer, dtype=torch.float32)
    prompts = [encoder.encode(p) for p in (prompt, negative_prompt)]
    texts = [network.read_text(encoded.context, encoded.tokens) for encoded in prompts]
    sigmas = SCHEDULES["simple"](STEPS)
    noise = initial_noise(SEED, SHAPE, device=torch.device("cpu"))
    trajectory = SAMPLERS["euler"](sigmas[0] * noise, sigmas, lambda: pytest.fail("no noise"))
    x, sigma = next(trajectory)
    while True:
        v = network.velocity([Row(x, sigma, text) for text in texts])
        denoised, unguided = (x - sigma * v).chunk(2)
        try:
            x, sigma = trajectory.send(unguided + cfg_scale * (denoised - unguided))
        except StopIteration as result:
            latents = result.value
            break
    mean, std = (torch.tensor(v).view(1, -1, 1, 1, 1) for v in (LATENTS_MEAN, LATENTS_STD))
    vae = components.vae
    picture = vae.decoder(vae.post_quant_conv(latents * std + mean))[:, :, 0].clamp(-1, 1)
    return Result(latents, (picture + 1) / 2)


@parametrize_cases
def test_latents_and_image_equal_the_pipelines(
    prompt: str,
    cfg_scale: float,
    negative_prompt: str,
    pipeline: Any,
    components: Components,
    written: WrittenCheckpoint,
) -> None:
    expected = run_pipeline(pipeline, prompt, cfg_scale, negative_prompt)
    encoder = TextEncoder(components, written.card.text)
    found = run_by_hand(
        components, encoder, prompt=prompt, cfg_scale=cfg_scale, negative_prompt=negative_prompt
    )
    assert found.latents.shape == SHAPE
    assert found.picture.shape == (1, 3, HEIGHT, WIDTH)
    assert (found.latents - expected.latents).abs().max() < TOLERANCE
    assert (found.picture - expected.picture).abs().max() < TOLERANCE


@parametrize_cases
def test_the_engines_image_equals_the_pipelines(
    prompt: str,
    cfg_scale: float,
    negative_prompt: str,
    pipeline: Any,
    written: WrittenCheckpoint,
) -> None:
    expected = run_pipeline(pipeline, prompt, cfg_scale, negative_prompt).picture
    engine = load_engine(
        written.card,
        written.folder,
        device="cpu",
        precision="float32",
        threads=0,
        token_budget=4096,
    )
    engine.admit("job", request(prompt, cfg_scale, negative_prompt))
    pictures: list[ImageReady] = []
    while not pictures:
        pictures = [event for event in engine.step() if isinstance(event, ImageReady)]
    levels = (expected[0] * 255).movedim(0, -1).numpy()
    # Half a level from rounding, and the tolerance of a value in [0, 1].
    assert numpy.abs(pictures[0].pixels - levels).max() <= 0.5 + 255 * TOLERANCE


def request(prompt: str, cfg_scale: float, negative_prompt: str) -> ResolvedRequest:
    return ResolvedRequest(
        prompt=prompt,
        negative_prompt=negative_prompt,
        width=WIDTH,
        height=HEIGHT,
        steps=STEPS,
        cfg_scale=cfg_scale,
        sampler="euler",
        scheduler="simple",
        seed=SEED,
        num_images=1,
        image_format="png",
        image_quality=90,
        metadata="none",
    )


def test_the_compared_images_are_not_flat_and_guidance_matters(
    components: Components, written: WrittenCheckpoint
) -> None:
    """Two equal grey images would prove nothing."""
    encoder = TextEncoder(components, written.card.text)
    plain, guided = (
        run_by_hand(components, encoder, prompt=PROMPT, cfg_scale=cfg, negative_prompt="smile, b")
        for cfg in (1.0, 4.0)
    )
    assert plain.latents.std() > 0.3
    assert ((plain.picture > 0.001) & (plain.picture < 0.999)).float().mean() > 0.2
    assert plain.picture.std() > 0.02
    assert (plain.latents - guided.latents).abs().max() > 100 * TOLERANCE
