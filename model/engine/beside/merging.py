"""Merges sets of LoRAs beside the steps, one at a time, so that a step only swaps pointers."""

import logging
from collections.abc import Container, Sequence
from concurrent.futures import Future
from functools import partial

import torch

from model.engine.beside.side_work import Beside
from model.engine.failures import without_frames
from model.network.device import use_on_this_stream
from model.network.lora_merge import MergedValues
from model.network.lora_switch import LoraSwitch
from model.resolved_request import LoraSet

logger = logging.getLogger(__name__)


class MergesBeside:
    """The merge that runs, if there is one; `take` ends it."""

    def __init__(self, loras: LoraSwitch, beside: Beside) -> None:
        self._future: Future[MergedValues] | None = None
        self._loras = loras
        self._beside = beside
        self._set: LoraSet = ()
        self._is_second_try = False

    def futures(self) -> "Sequence[Future[MergedValues]]":
        """The merge that runs, to wait for."""
        return [self._future] if self._future else []

    def begin(self, loras: LoraSet, *, beside: Container[LoraSet]) -> None:
        """Begin to merge a set, unless another one is being merged.

        Sets are dropped for it if there are too many, those of `beside` only if no other is left.
        """
        if self._future is None:
            self._loras.make_room(beside=beside)
            self._is_second_try = False
            self._submit(loras)

    def begin_ahead(self, loras: LoraSet, *, beside: Container[LoraSet]) -> None:
        """Begin to merge a set that is not urgent, if no set of `beside` must go for it."""
        if self._loras.has_room(beside=beside):
            self.begin(loras, beside=beside)

    def _submit(self, loras: LoraSet) -> None:
        self._set = loras
        self._future = self._beside.submit(partial(self._loras.merge, loras))

    def take(self) -> tuple[LoraSet, Exception | None] | None:
        """The set whose merge has ended, and why it failed if it did; None if none has."""
        if self._future is None or not self._future.done():
            return None
        future, self._future = self._future, None
        try:
            values = future.result()
        except Exception as exc:  # noqa: BLE001 - it fails the requests with this set, no others
            failure = exc
        else:
            use_on_this_stream(*values.values())
            self._loras.keep(self._set, values)
            return self._set, None
        # Outside the handler, which would keep the tensors that did not fit alive.
        without_frames(failure)
        is_short = isinstance(failure, torch.OutOfMemoryError)
        if is_short and not self._is_second_try and self._loras.forget_merged():
            logger.warning("no memory for several merged sets of LoRAs; keeping one")
            torch.cuda.empty_cache()
            self._is_second_try = True
            self._submit(self._set)
            return None
        return self._set, failure
