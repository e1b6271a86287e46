"""Defines the interface between the engine and a loaded model: plain functions on tensors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.engine.compiled.paths import Paths
from model.engine.images.image_plan import LatentCodec, ReadImage
from model.engine.protocol import DeviceMemory
from model.errors import InputMissing
from model.files.lora.folder import LoraFolder
from model.network.lora_switch import LoraSwitch, SetWeights
from model.network.text.encoder import EncodedPrompt
from model.network.transformer.forward import Row, TextKeys


def no_image_store(name: str) -> NDArray[numpy.uint8]:
    """Stand in for an image store if there is none. Always raises InputMissing."""
    raise InputMissing(f"{name} cannot be read: this engine has no image store")


def _no_image_encoder(pixels: Tensor) -> Tensor:
    raise InputMissing("this engine cannot encode images")


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The resident model as functions. The engine uses nothing else of it.

    `encode(prompt)` encodes a prompt, `read_text(prompt, weights)` prepares it for the transformer
    with `SetWeights`, whichever are active. `velocity(rows)` returns one velocity for each row,
    float32 (rows, C, 1, h, w). `decode(latents)` returns uint8 (B, height, width, 3),
    `preview(latents)` of one image uint8 (h, w, 3). `encode_image` takes float32 (B, 3, 1, height,
    width) in [-1, 1] and returns latents. `read_image(name)` returns a stored image, uint8 (height,
    width, 3). `loras` changes the weights that `encode` and `velocity` use, `paths` the code of
    `velocity`.

    `check_device()` raises RuntimeError if the device no longer computes, `memory()`
    returns how full the device is, `release_memory()` frees what the model keeps only for speed.
    """

    encode: Callable[[str], EncodedPrompt]
    read_text: Callable[[EncodedPrompt, SetWeights], TextKeys]
    velocity: Callable[[Sequence[Row]], Tensor]
    decode: Callable[[Tensor], NDArray[numpy.uint8]]
    preview: Callable[[Tensor], NDArray[numpy.uint8]]
    encode_image: Callable[[Tensor], Tensor] = _no_image_encoder
    read_image: ReadImage = no_image_store
    loras: LoraSwitch = field(default_factory=lambda: LoraSwitch(None, LoraFolder(None)))
    paths: Paths = field(default_factory=Paths)
    latent_channels: int = 16
    scale_factor: int = 8
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    description: dict[str, Any] = field(default_factory=dict)
    check_device: Callable[[], None] = lambda: None
    release_memory: Callable[[], None] = lambda: None
    memory: Callable[[], DeviceMemory | None] = lambda: None

    def codec(self) -> LatentCodec:
        """The functions that convert between pixels and latents."""
        return LatentCodec(
            self.encode_image, self.decode, self.latent_channels, self.scale_factor, self.device
        )
