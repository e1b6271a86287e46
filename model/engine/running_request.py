"""Holds the state of an admitted request: its prompts, its unfinished images and its timings."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from model.engine.guidance import DenoiseInput
from model.engine.images.image_plan import ImagePlan
from model.engine.protocol import EAGER, Finished
from model.network.text.encoder import EncodedPrompt
from model.network.transformer.forward import TextKeys
from model.resolved_request import LoraSet, ResolvedRequest
from model.sampling.trajectory import Passes
from model.workload import completed_steps, total_steps


@dataclass(slots=True)
class UnfinishedImage:
    """One image: its sampler's generator, and the evaluation (`x`, `sigma`) that it waits for.

    `remaining` counts the evaluations left, `confirmed` those whose result is known to be finite,
    `waited` the engine steps without it. With `is_beside` it waits for work beside the steps, its
    upscaling or its pixels, instead of for an evaluation.
    """

    job_id: str
    index: int
    seed: int
    plan: ImagePlan
    trajectory: Passes
    remaining: int
    x: Tensor = field(default_factory=lambda: torch.empty(0))
    sigma: float = 0.0
    waited: int = 0
    confirmed: int = 0
    is_beside: bool = False


@dataclass(slots=True)
class RunningRequest:
    """One admitted request.

    `loras` are those that change the transformer. `prompts` are the encoded prompts: the prompt,
    then with guidance the negative prompt; `texts` is what the transformer makes of them with
    these LoRAs, empty until they are merged. `plan` is None and `images` is empty until the request
    has started. `images` holds the unfinished ones by index, which all take the same `path`.
    `is_preparing` says that its preparation runs.
    """

    request: ResolvedRequest
    owner: str = ""
    weight: float = 1.0
    loras: LoraSet = ()
    prompts: tuple[EncodedPrompt, ...] = ()
    texts: tuple[TextKeys, ...] = ()
    plan: ImagePlan | None = None
    path: str = EAGER
    is_preparing: bool = False
    images: dict[int, UnfinishedImage] = field(default_factory=dict)
    denoise_seconds: float = 0.0
    decode_seconds: float = 0.0
    forwards: int = 0
    batched: int = 0

    @property
    def rows(self) -> int:
        """Rows of a forward that one of its images takes."""
        return len(self.prompts)

    @property
    def steps(self) -> int:
        """Steps that its progress is counted in."""
        return total_steps(self.request)

    def step_of(self, image: UnfinishedImage, evaluations: int) -> int:
        """The sampling step that an image reaches with so many evaluations, one or more a step."""
        return min(completed_steps(image.plan.passes, evaluations), self.steps)

    def finished_steps(self) -> int:
        """The step of the image that is furthest behind."""
        return min(
            (self.step_of(image, image.confirmed) for image in self.images.values()),
            default=self.steps,
        )

    def add_forward(self, images: int, seconds: float) -> None:
        """Count a forward of so many images that one of its images took part in."""
        self.forwards += 1
        self.batched += images
        self.denoise_seconds += seconds

    def finished(self, job_id: str) -> Finished:
        """The event of its end."""
        mean_batch = self.batched / max(1, self.forwards)
        return Finished(job_id, self.denoise_seconds, self.decode_seconds, mean_batch)

    def denoise_input(self, image: UnfinishedImage) -> DenoiseInput:
        """The evaluation that an image waits for."""
        return DenoiseInput(image.x, image.sigma, self.texts, self.request.cfg_scale)
