"""Compares merged weights of random LoRA files with the second computation.

`python -m tests.support.lora_agreement --files 1000` runs many files and prints the worst errors.
"""

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from model.files.lora.folder import read_lora
from model.files.lora.plan import plan_changes
from model.files.lora.targets import stem_table
from model.network.lora_merge import MergeInput, list_modules, merge_files
from tests.support.random_checkpoint import random_models
from tests.support.random_loras import MATRIX_METHODS, LoraMaker, RandomChange
from tests.support.random_rotations import draw_rotations

MAX_ERRORS = {torch.float32: 1e-5, torch.float64: 1e-10}
"""The largest error, as a share of the largest number of the changed weight."""

_ROTATIONS = 5
"""One of so many files has `oft_R`, which other methods are not mixed with."""


class _Models:
    """The parts of a random model that LoRAs may change."""

    def __init__(self) -> None:
        made = random_models(seed=3)
        self.transformer = made.transformer
        self.conditioner = made.conditioner
        self.text_encoder = made.text_encoder
        self.mask_columns = None


class LoraAgreement:
    """Checks files, and remembers the worst errors and the methods seen."""

    def __init__(self) -> None:
        self._modules = {
            target: module
            for target, module in list_modules(_Models())
            if not target.dropped_columns
        }
        self._table = stem_table(self._modules)
        self.worst = dict.fromkeys(MAX_ERRORS, 0.0)
        self.seen: Counter[str] = Counter()

    def check(self, folder: Path, seed: int) -> str | None:
        """Write the file of this seed and merge it; returns a line if a weight differs."""
        targets = list(self._modules)
        if seed % _ROTATIONS == 0:
            lora = draw_rotations(seed, folder / "rotations", targets)
        else:
            lora = LoraMaker(seed).draw(folder / "random.safetensors", targets)
        plan = plan_changes(read_lora(lora.path), self._table)
        by_place = {(change.target, change.method == "bias"): change for change in lora.changes}
        if len(plan.changes) != len(lora.changes):
            return f"seed {seed}: {len(plan.changes)} of {len(lora.changes)} changes"
        for change in lora.changes:
            self.seen.update(_cases(change))
        files = [MergeInput(lora.path, plan.changes, lora.strength)]
        for dtype, limit in MAX_ERRORS.items():
            merged = merge_files(files, self._modules, mask_columns=None, dtype=dtype)
            for (module, name), found in merged.items():
                target = next(t for t, m in self._modules.items() if m is module)
                change = by_place[target, name == "bias"]
                start = getattr(module, name).detach().double().numpy()
                wanted = change.result(start, lora.strength)
                error = float(np.abs(found.double().numpy() - wanted).max() / np.abs(wanted).max())
                self.worst[dtype] = max(self.worst[dtype], error)
                if not error <= limit:
                    return f"seed {seed}: {change.method} of {target.original}: {error:.2e} {dtype}"
        return None

    def missing_cases(self) -> set[str]:
        """The methods and shapes that no checked file has had."""
        wanted = {*MATRIX_METHODS, "norm", "bias", "square", "wide", "tall", "vector", "dora rows",
                  "dora columns", "magnitude", "peft_oft", *_STATED}  # fmt: skip
        return wanted - self.seen.keys()


_STATED = {"series", "limit", "scaled_oft", "oft_embedding_r", "rank"}


def _cases(change: RandomChange) -> list[str]:
    found = [change.method, *(change.tensors.keys() & _STATED)]
    shape = change.target.shape
    if len(shape) == 1:
        found.append("vector")
    else:
        found.append(
            "square" if shape[0] == shape[1] else "wide" if shape[0] < shape[1] else "tall"
        )
    if "magnitude" in change.tensors:
        found.append("magnitude")
    if "dora_scale" in change.tensors:
        scale = change.tensors["dora_scale"]
        is_rows = scale.ndim == 1 or scale.shape == (shape[0], 1)
        found.append("dora rows" if is_rows else "dora columns")
    return found


def main() -> None:
    """Check many files; the exit status is 1 if one differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="The first file's seed.")
    options = parser.parse_args()
    agreement = LoraAgreement()
    with tempfile.TemporaryDirectory() as folder:
        seeds = range(options.seed, options.seed + options.files)
        wrong = [line for seed in seeds if (line := agreement.check(Path(folder), seed))]
    lines = [f"{options.files} files, {sum(agreement.seen.values())} cases: {agreement.seen}"]
    lines += [f"{dtype}: worst error {error:.2e}" for dtype, error in agreement.worst.items()]
    sys.stdout.write("\n".join([*lines, *wrong]) + "\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
