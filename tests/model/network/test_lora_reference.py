"""Merged weights of random LoRA files equal those of an independent second computation."""

from pathlib import Path

import pytest

from tests.support.lora_agreement import MAX_ERRORS, LoraAgreement

FILES = 120


@pytest.fixture(scope="module")
def agreement() -> LoraAgreement:
    return LoraAgreement()


def test_random_files_of_all_methods_agree_with_the_second_computation(
    agreement: LoraAgreement, tmp_path: Path
) -> None:
    wrong = [line for seed in range(FILES) if (line := agreement.check(tmp_path, seed))]
    assert wrong == []
    assert agreement.missing_cases() == set()
    for dtype, error in agreement.worst.items():
        assert error <= MAX_ERRORS[dtype], (dtype, error)
