"""What a run looks at: a checkpoint, a device, and engines and networks on it."""

import gc
import re
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from model.bench.counts import transformer_sizes
from model.bench.library import library_transformer
from model.card import Card, load_card
from model.engine.compiled.plan import TEMPLATES
from model.engine.engine import Engine
from model.engine.loading import Compiling, load_engine
from model.engine.protocol import Failed, ImageReady
from model.network.load import Components, load_components
from model.network.transformer.attention import stack_projections
from model.network.transformer.forward import Row, Transformer
from model.resolved_request import ResolvedRequest
from tests.support.engines import request
from tests.tools import full_size

TINY = "kirazuri-tiny"
PUBLISHED = "kirazuri-v1"
PROMPT = "1girl, (blue hair:1.2), twintails, smile, looking at viewer"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class JobFailed(RuntimeError):
    """A job of a section failed."""


class Subject:
    """The checkpoint that ships with the project, or random weights in the published shapes.

    Sizes are (width, height): one that is launch-bound, the usual one and a wide one.
    """

    def __init__(self, device: str, folder: Path, *, is_tiny: bool) -> None:
        self.device = torch.device(device)
        self.is_tiny = is_tiny
        self.folder = folder
        self.loras = folder / "loras"
        self.loras.mkdir(parents=True, exist_ok=True)
        self.precision = "float32" if self.device.type == "cpu" else "bfloat16"
        self.threads = 1 if self.device.type == "cpu" else 0
        self.card_name = TINY if is_tiny else str(folder / "card.toml")
        self.checkpoint = None if is_tiny else folder / "checkpoint"
        sizes = [(64, 64), (128, 128), (96, 64)]
        self.sizes = sizes if is_tiny else [(512, 512), (1024, 1024), (1536, 1024)]
        self.steps = 4 if is_tiny else 30
        self._engines: dict[tuple[str, str, str, bool], Engine] = {}

    def write_weights(self) -> None:
        """Write random weights, made on the device, and a card without checksums for them."""
        if self.checkpoint is None:
            return
        text = (Path(load_card.__code__.co_filename).parent / f"cards/{PUBLISHED}.toml").read_text()
        Path(self.card_name).write_text(re.sub(r"(?m)^sha256 = .*\n", "", text), encoding="utf-8")
        full_size.write(self.checkpoint, device=self.device)

    @cached_property
    def card(self) -> Card:
        """The card of the checkpoint."""
        return load_card(self.card_name)

    @cached_property
    def parts(self) -> Components:
        """The loaded checkpoint, its transformer in the precision that the service uses."""
        dtype = DTYPES[self.precision]
        return load_components(self.card, self.checkpoint, device=self.device, dtype=dtype)

    def module(self, dtype: torch.dtype) -> Any:
        """The library's transformer with the loaded weights, which our forward takes too."""
        sizes = transformer_sizes(self.card, self.checkpoint)
        module: Any = library_transformer(sizes, self.card).requires_grad_(requires_grad=False)
        loaded = self.parts.transformer.state_dict()
        weights = {name: weight.to(dtype, copy=True) for name, weight in loaded.items()}
        module.load_state_dict(weights, assign=True)
        stack_projections(module)
        return module.eval()

    @property
    def backend(self) -> str:
        """The compiler. In a rehearsal nothing is compiled for minutes: graphs run as they are."""
        return "aot_eager" if self.is_tiny else "inductor"

    @property
    def templates(self) -> dict[str, Any] | None:
        """The compiler's options for `KIRAZURI_EXPERIMENTAL=templates`."""
        return TEMPLATES if self.backend == "inductor" else None

    def compiled_engine(self) -> Engine:
        """An engine with compiled code, which is compiled first if its folder has none."""
        return load_engine(
            self.card,
            self.checkpoint,
            device=str(self.device),
            precision=self.precision,
            threads=self.threads,
            token_budget=8192,
            lora_dir=self.loras,
            compiling=Compiling(
                "always", self.folder / "compiled", is_awaited=True, backend=self.backend
            ),
        )

    def engine(
        self,
        device: str | None = None,
        *,
        card: str = "",
        precision: str = "",
        float8: bool = False,
    ) -> Engine:
        """The engine; another card's is that of its shipped checkpoint.

        With `float8` that is how it computes all that need not be deterministic.
        """
        key = (
            device or str(self.device), card or self.card_name, precision or self.precision, float8
        )  # fmt: skip
        if key not in self._engines:
            self._engines[key] = load_engine(
                load_card(key[1]),
                None if card else self.checkpoint,
                device=key[0],
                precision=key[2],
                threads=self.threads,
                token_budget=8192,
                lora_dir=self.loras,
                takes_float8=(lambda request: True) if float8 else None,
            )
        return self._engines[key]

    def forget(self) -> None:
        """Release everything on the device."""
        self._engines.clear()
        self.__dict__.pop("parts", None)
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, call: Callable[[], Any], *, rounds: int = 10, warm_up: int = 3) -> float:
        """Seconds of a call: the mean of `rounds` in a row, after others that warm up."""
        if self.is_tiny:
            rounds, warm_up = 1, 1
        for _ in range(warm_up):
            call()
        self.synchronize()
        began = time.perf_counter()
        for _ in range(rounds):
            call()
        self.synchronize()
        return (time.perf_counter() - began) / rounds

    def request(self, **fields: Any) -> ResolvedRequest:
        """A request for the smallest of the sizes."""
        width, height = self.sizes[0]
        base = {"prompt": PROMPT, "width": width, "height": height, "seed": 7, "cfg_scale": 4.5}
        return request(**{**base, **fields})


def pictures(engine: Engine, jobs: dict[str, ResolvedRequest]) -> dict[str, NDArray[Any]]:
    """Run the jobs at once; the first picture of each. JobFailed if one fails."""
    for job_id, wanted in jobs.items():
        engine.admit(job_id, wanted)
    found: dict[str, NDArray[Any]] = {}
    while engine._running:
        for event in engine.step():
            if isinstance(event, Failed):
                raise JobFailed(f"{event.job_id}: {event.code}: {event.detail}")
            if isinstance(event, ImageReady) and not event.index:
                found[event.job_id] = event.pixels
    return found


class Case:
    """Random latents of some images, each with a noise level and two texts."""

    def __init__(self, subject: Subject, size: tuple[int, int], images: int) -> None:
        generator = torch.Generator().manual_seed(sum(size) + images)
        scale = subject.card.vae.scale_factor
        config: Any = subject.parts.transformer.config
        context = subject.card.text.context_rows
        shape = (images, config.in_channels, 1, size[1] // scale, size[0] // scale)
        self.latents = torch.randn(shape, generator=generator).to(subject.device)
        self.sigmas = torch.linspace(0.95, 0.1, images).tolist()
        texts = torch.randn(2 * images, context, config.text_embed_dim, generator=generator)
        self.tokens = [1 + 61 * number % (context // 2) for number in range(2 * images)]
        for text, tokens in zip(texts, self.tokens, strict=True):
            text[tokens:] = 0
        self.texts = texts.to(subject.device)

    def rows(self, network: Transformer) -> list[Row]:
        """Two rows for each image."""
        images = torch.split(self.latents, 1)
        keys = map(network.read_text, self.texts, self.tokens)
        return [Row(images[n // 2], self.sigmas[n // 2], text) for n, text in enumerate(keys)]

    def of_library(self, module: Any) -> Tensor:
        """The velocity of the library's class, float32."""
        dtype = module.proj_out.weight.dtype
        sigmas = torch.tensor(self.sigmas, device=self.latents.device)
        with torch.inference_mode():
            (velocity,) = module(
                self.latents.repeat_interleave(2, 0).to(dtype),
                sigmas.repeat_interleave(2),
                self.texts.to(dtype),
                return_dict=False,
            )
        found: Tensor = velocity.float()
        return found
