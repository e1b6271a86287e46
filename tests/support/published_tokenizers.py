"""Loads the published tokenizers of Qwen3 and T5, which are too large for the project."""

import os
from pathlib import Path

import pytest

from model.prompting.tokens import Tokenizers, load_qwen_tokenizer, load_t5_tokenizer
from tests.support.paths import ROOT

FOLDER = Path(
    os.environ.get(  # noqa: TID251 - a test has no settings
        "KIRAZURI_TEST_TOKENIZERS", str(ROOT.parent / "shared" / "tokenizers")
    )
)


def published_tokenizers() -> Tokenizers:
    """The published tokenizers; skips the test if their folder is missing."""
    if not (FOLDER / "qwen3").is_dir():
        pytest.skip(f"the published tokenizers are not at {FOLDER} (KIRAZURI_TEST_TOKENIZERS)")
    return Tokenizers(load_qwen_tokenizer(FOLDER / "qwen3"), load_t5_tokenizer(FOLDER / "t5"))
