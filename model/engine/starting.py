"""Prepares an admitted request: input images, noise, prompts. Runs beside the step loop."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from model.engine.images.image_plan import ImagePlan, image_trajectory, plan_images
from model.engine.pipeline import Pipeline
from model.network.text_encoder import EncodedPrompt
from model.prompting.lint import cut_warning
from model.prompting.tokens import TokenCount
from model.request import MAX_SEED, RequestWarning
from model.resolved_request import LoraSet, ResolvedRequest
from model.sampling.samplers import Trajectory


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a request needs before its first step.

    `images` are the seed and the sampler of each image. `loras` are those that change the
    transformer. `seconds` is how long it took.
    """

    plan: ImagePlan
    images: tuple[tuple[int, Trajectory], ...]
    prompts: tuple[EncodedPrompt, ...]
    loras: LoraSet
    warnings: tuple[RequestWarning, ...]
    seconds: float


def prepare(request: ResolvedRequest, pipeline: Pipeline) -> Prepared:
    """Read the input images, encode the prompts and begin to draw the noise.

    Raises:
        InputMissing, NonFiniteLatents, PromptError, LoraError: the request cannot run.
    """
    began = time.perf_counter()
    codec = pipeline.codec()
    plan = plan_images(request, pipeline.read_image, codec)
    seeds = [(request.seed + index) % (MAX_SEED + 1) for index in range(request.num_images)]
    # The noise is drawn in another thread while the prompts are encoded.
    images = tuple((seed, image_trajectory(request, plan, codec, seed=seed)) for seed in seeds)
    in_text, in_transformer = pipeline.loras.split(request.loras)
    pipeline.loras.use_in_text(in_text)
    prompts = {"prompt": pipeline.encode(request.prompt)}
    if request.cfg_scale != 1:
        prompts["negative_prompt"] = pipeline.encode(request.negative_prompt)
    return Prepared(
        plan,
        images,
        tuple(prompts.values()),
        in_transformer,
        tuple(_cut_warnings(prompts.items())),
        time.perf_counter() - began,
    )


def _cut_warnings(prompts: Iterable[tuple[str, EncodedPrompt]]) -> Iterable[RequestWarning]:
    for name, encoded in prompts:
        if encoded.is_cut:
            yield cut_warning(
                name, TokenCount(encoded.qwen_count, encoded.t5_count, encoded.max_tokens)
            )
