"""What a forward and a decoding of the published sizes take, counted on the meta device.

The worker's expectations, by which it chooses tiles and the place of the text encoder, cover them.
"""

import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from model.bench.counting import KernelCount, _OneLaunchEach
from model.bench.counts import META, PUBLISHED, _network, _text
from model.card import load_card
from model.network.load import WORKING_BYTES
from model.network.transformer.forward import CACHE_BYTES, Row, forward_bytes
from model.network.vae.modules import Autoencoder
from model.network.vae.tiles import decoded_tiles, decoding_bytes

CARD = load_card("kirazuri-v1")
SIZES = [(1024, 1024), (1536, 1024)]


class Peak(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of tensors without numbers that live at once, beside those of `known`."""

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.bytes = 0
        self._alive = Counter(tensor.untyped_storage()._cdata for tensor in known)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and leaf.is_meta:
                self._hold(leaf.untyped_storage())
        return out

    def _hold(self, storage: Any) -> None:
        place, size = storage._cdata, storage.nbytes()
        if not self._alive[place]:
            self._alive[place] += 1
            self.now += size
            self.bytes = max(self.bytes, self.now)
            weakref.finalize(storage, self._drop, place, size)

    def _drop(self, place: int, size: int) -> None:
        self.now -= size
        del self._alive[place]


def peak_of(work: Callable[[], Any], known: Iterable[Tensor] = ()) -> int:
    with torch.no_grad(), _OneLaunchEach(KernelCount()), Peak(known) as peak:
        work()
    found: int = peak.bytes
    return found


@pytest.fixture(scope="module")
def vae() -> Any:
    with META:
        return Autoencoder(CARD.vae, CARD.transformer.latent_channels)


@pytest.mark.parametrize("tile", [None, 64, 32, 16])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_decoding(vae: Any, width: int, height: int, tile: int | None) -> None:
    z = torch.empty(1, 16, 1, height // 8, width // 8, device=META)

    def in_tiles() -> None:
        for _, _, pixels in decoded_tiles(vae.decoder, z, tile or 0):
            del pixels

    found = peak_of(in_tiles if tile else lambda: vae.decoder(z))
    expected = decoding_bytes(vae.decoder, height // 8, width // 8, tile)
    assert 0.6 * expected < found <= expected


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_forward_and_an_encoding(vae: Any, width: int, height: int) -> None:
    network = _network(CARD, PUBLISHED)
    latents = torch.empty(1, 16, 1, height // 8, width // 8, device=META)
    rows = [Row(latents, 0.5, _text(network, CARD, PUBLISHED, 256)) for _ in range(2)]
    network.velocity(rows)
    module: Any = network._module
    kept = [value for part in module.modules() for value in vars(part).values()]
    known = [*module.parameters(), *(value for value in kept if isinstance(value, Tensor))]
    found = peak_of(lambda: network.velocity(rows), [*known, *(row.text.values for row in rows)])
    expected = forward_bytes(module, 2 * width * height // 256, torch.bfloat16)
    assert 0.7 * expected < found <= expected
    pixels = torch.empty(1, 3, 1, height, width, device=META)
    encoding = peak_of(lambda: vae.quant_conv(vae.encoder(pixels)))
    assert found + encoding + CACHE_BYTES <= WORKING_BYTES, "both at once"
