"""Prepares an admitted request: input images, prompts, noise. Runs beside the step loop."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from model.engine.images.image_plan import ImagePlan, image_trajectory, plan_images
from model.engine.pipeline import Pipeline
from model.network.device import use_on_this_stream
from model.network.lora_switch import SetWeights
from model.network.text.encoder import EncodedPrompt
from model.network.transformer.forward import TextKeys
from model.prompting.lint import cut_warning
from model.prompting.tokens import TokenCount
from model.request import MAX_SEED, RequestWarning
from model.resolved_request import LoraSet, ResolvedRequest
from model.sampling.samplers import Evaluation
from model.sampling.trajectory import Passes, Sampled, Upscaling, advance


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """One image: its seed, its passes, and what they wait for first."""

    seed: int
    trajectory: Passes
    first: Evaluation | Upscaling | Sampled


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a request needs before its first step.

    `loras` are those that change the transformer. `texts` are the prompts as it reads them, empty
    if these LoRAs are not merged yet. `seconds` is how long it took.
    """

    plan: ImagePlan
    images: tuple[PreparedImage, ...]
    prompts: tuple[EncodedPrompt, ...]
    texts: tuple[TextKeys, ...]
    loras: LoraSet
    warnings: tuple[RequestWarning, ...]
    seconds: float


def prepare(request: ResolvedRequest, pipeline: Pipeline) -> Prepared:
    """Read the input images, encode and read the prompts, and run each sampler to its first wait.

    Raises:
        InputMissing, NonFiniteLatents, PromptError, LoraError: the request cannot run.
    """
    began = time.perf_counter()
    codec = pipeline.codec()
    plan = plan_images(request, pipeline.read_image, codec)
    seeds = [(request.seed + index) % (MAX_SEED + 1) for index in range(request.num_images)]
    # The noise is drawn in another thread while the prompts are encoded.
    passes = [image_trajectory(request, plan, codec, seed=seed) for seed in seeds]
    in_text, in_transformer = pipeline.loras.split(request.loras)
    pipeline.loras.use_in_text(in_text)
    prompts = {"prompt": pipeline.encode(request.prompt)}
    if request.cfg_scale != 1:
        prompts["negative_prompt"] = pipeline.encode(request.negative_prompt)
    encoded = tuple(prompts.values())
    weights = pipeline.loras.weights(in_transformer)
    return Prepared(
        plan,
        tuple(
            PreparedImage(seed, one, advance(one, None))
            for seed, one in zip(seeds, passes, strict=True)
        ),
        encoded,
        read_texts(encoded, weights, pipeline) if weights else (),
        in_transformer,
        tuple(_cut_warnings(prompts.items())),
        time.perf_counter() - began,
    )


def read_texts(
    prompts: Iterable[EncodedPrompt], weights: SetWeights, pipeline: Pipeline
) -> tuple[TextKeys, ...]:
    """What the transformer makes of a request's prompts with these weights."""
    use_on_this_stream(*weights.values.values())
    return tuple(pipeline.read_text(prompt, weights) for prompt in prompts)


def use_in_steps(prepared: Prepared) -> None:
    """Announce that the stream of the steps reads what another one has prepared."""
    waits = [image.first for image in prepared.images]
    noisy = [wait[0] for wait in waits if isinstance(wait, tuple)]
    inputs = [part for one in prepared.plan.inputs for part in (one.original, one.mask)]
    texts = [text.values for text in prepared.texts]
    use_on_this_stream(*noisy, *texts, *(part for part in inputs if part is not None))


def _cut_warnings(prompts: Iterable[tuple[str, EncodedPrompt]]) -> Iterable[RequestWarning]:
    for name, encoded in prompts:
        if encoded.is_cut:
            yield cut_warning(
                name, TokenCount(encoded.qwen_count, encoded.t5_count, encoded.max_tokens)
            )
