"""A small network that reads an avatar's attributes from a picture, to measure checkpoints.

It is trained on drawn pictures only, so it never sees the pictures that it measures. If its
weights are missing, training takes a few minutes.
"""

import hashlib
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from training.pictures import avatars, composition, drawing, pen
from training.pictures.avatars import Avatar, sample_avatar
from training.pictures.composition import head_center, unit
from training.pictures.drawing import draw

logger = logging.getLogger(__name__)

ATTRIBUTES: dict[str, tuple[str | bool, ...]] = {
    "subject": avatars.SUBJECTS,
    "hair_color": tuple(avatars.HAIR_COLORS),
    "hair_style": avatars.HAIR_STYLES,
    "eye_color": tuple(avatars.EYE_COLORS),
    "eyes": avatars.EYES,
    "expression": avatars.EXPRESSIONS,
    "ornament": avatars.ORNAMENTS,
    "outfit": avatars.OUTFITS,
    "outfit_color": tuple(avatars.OUTFIT_COLORS),
    "background": tuple(avatars.BACKGROUNDS),
    "glasses": (False, True),
    "blush": (False, True),
    "quality": avatars.QUALITIES,
}
SIZES = ((128, 128), (112, 144), (144, 112), (192, 192))
SIDE = 96  # pixels of the network's input
IGNORED = -100  # cross_entropy ignores this label


class Probe(nn.Module):
    """Maps pictures (B, 3, 96, 96) in -1..1 to the logits of every attribute."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 24, 48, 64, 96)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.ReLU()]
        layers += [nn.Conv2d(widths[-1], 32, 1), nn.Flatten(), nn.Dropout(0.1)]
        layers += [nn.Linear(32 * (SIDE // 16) ** 2, 128), nn.ReLU()]
        self.trunk = nn.Sequential(*layers)
        self.heads = nn.ModuleDict(
            {name: nn.Linear(128, len(values)) for name, values in ATTRIBUTES.items()}
        )

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """Logits (B, values) by attribute."""
        features = self.trunk(pictures)
        return {name: head(features) for name, head in self.heads.items()}


def to_input(image: Image.Image) -> Tensor:
    """Crop the composition's unit square from a picture: uint8 (3, 96, 96)."""
    x, y = head_center(image.width, image.height)
    scale = unit(image.width, image.height)
    left, top = round(x - scale / 2), round(y - 0.455 * scale)
    square = image.crop((left, top, left + round(scale), top + round(scale)))
    small = square.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1)


@torch.inference_mode()
def read(probe: Probe, images: Sequence[Image.Image]) -> list[dict[str, str | bool]]:
    """Name every attribute of every picture, in `Avatar`'s own values."""
    answers: list[dict[str, str | bool]] = []
    for start in range(0, len(images), 64):
        pictures = torch.stack([to_input(image) for image in images[start : start + 64]])
        choices = {n: x.argmax(1).tolist() for n, x in probe(_normalised(pictures)).items()}
        answers += [
            {name: ATTRIBUTES[name][choice[i]] for name, choice in choices.items()}
            for i in range(len(pictures))
        ]
    return answers


def load_probe(folder: Path) -> Probe:
    """Load the probe's weights, or train them if drawings, network or training have changed."""
    modules = [avatars, composition, drawing, pen, sys.modules[__name__]]
    sources = b"".join(Path(str(module.__file__)).read_bytes() for module in modules)
    path = folder / f"probe-{hashlib.sha256(sources).hexdigest()[:12]}.safetensors"
    probe = Probe()
    if path.exists():
        probe.load_state_dict(load_file(path))
    else:
        logger.info("no probe at %s: training one", path)
        train(probe)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(probe.state_dict(), path)
    return probe.eval()


def train(probe: Probe, *, pictures: int = 6000, epochs: int = 10, seed: int = 7) -> None:
    """Fit the probe to freshly drawn pictures, with AdamW and a one-cycle learning rate."""
    torch.manual_seed(seed)
    inputs, labels = drawn(pictures, seed=seed)
    batch, peak = 64, 3e-3
    optimizer = torch.optim.AdamW(probe.parameters(), lr=peak, weight_decay=0.02)
    steps = epochs * (pictures // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=steps)
    probe.train()
    for epoch in range(epochs):
        total = 0.0
        order = torch.randperm(pictures)[: pictures // batch * batch]
        for chosen in order.view(-1, batch):
            logits = probe(_roughened(_normalised(inputs[chosen])))
            losses = [
                functional.cross_entropy(logits[name], labels[name][chosen], ignore_index=IGNORED)
                for name in ATTRIBUTES
            ]
            loss = torch.stack(losses).sum()
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            total += loss.item()
        logger.info("epoch %d: loss %.3f", epoch + 1, total * batch / pictures)


def drawn(count: int, *, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Draw pictures of all sizes: uint8 (count, 3, 96, 96) and class indices by attribute."""
    rng = np.random.default_rng(seed)
    inputs, shown = [], []
    for i in range(count):
        avatar = sample_avatar(rng)
        if rng.random() < 0.15:  # closed eyes are rare in drawings; the probe needs more
            eyes = avatars.EYES[int(rng.integers(len(avatars.EYES)))]
            avatar = replace(avatar, eyes=eyes)
        inputs.append(to_input(draw(avatar, *SIZES[i % len(SIZES)], rng)))
        shown.append(avatar)
    return torch.stack(inputs), labelled(shown)


def labelled(shown: Sequence[Avatar]) -> dict[str, Tensor]:
    """Class indices (count,) by attribute; closed eyes have no colour."""
    labels = {
        name: torch.tensor([values.index(getattr(avatar, name)) for avatar in shown])
        for name, values in ATTRIBUTES.items()
    }
    closed = torch.tensor([avatar.eyes == "closed eyes" for avatar in shown])
    labels["eye_color"][closed] = IGNORED
    return labels


def _normalised(pictures: Tensor) -> Tensor:
    return pictures.float() / 127.5 - 1


def _roughened(pictures: Tensor) -> Tensor:
    """Degrade pictures as a small autoencoder does: soft, noisy, with slight shifts."""
    count = len(pictures)
    shift = torch.randint(-3, 4, (2,)).tolist()
    pictures = torch.roll(pictures, shift, dims=(2, 3))
    soft = functional.avg_pool2d(pictures, 3, 1, 1, count_include_pad=False)
    pictures = torch.lerp(pictures, soft, torch.rand(count, 1, 1, 1))
    gain = 1 + 0.1 * torch.randn(count, 3, 1, 1).clamp(-2, 2) * torch.rand(count, 1, 1, 1)
    noise = 0.08 * torch.rand(count, 1, 1, 1) * torch.randn_like(pictures)
    return (pictures * gain + noise).clamp(-1, 1)


@torch.inference_mode()
def accuracy(probe: Probe, *, count: int = 1000, seed: int = 11) -> dict[str, float]:
    """Share of correct answers by attribute, on drawn pictures that training does not use."""
    inputs, labels = drawn(count, seed=seed)
    right = {}
    for name, logits in probe(_normalised(inputs)).items():
        asked = labels[name] != IGNORED
        right[name] = (logits.argmax(1) == labels[name])[asked].float().mean().item()
    return right


def main() -> None:
    """Train the probe if it is missing and print its accuracy on drawn pictures."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    torch.set_num_threads(1)
    for name, share in accuracy(load_probe(Path("out"))).items():
        print(f"{name:14} {share:.3f}")


if __name__ == "__main__":
    main()
