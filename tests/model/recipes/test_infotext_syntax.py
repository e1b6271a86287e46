"""An infotext is split only if it says clearly what its prompts and its parameters are."""

import pytest

from model.recipes.infotext import read_infotext
from model.recipes.infotext_syntax import parse_parameters

PARAMETERS = "Steps: 20, Sampler: Euler a, CFG scale: 5, Seed: 5, Size: 128x128"


def test_a_negative_prompt_is_found_in_every_spelling() -> None:
    for mark in (
        "Negative prompt:", "Negative Prompt:", "negative prompt:", "NEGATIVE PROMPT:",
        "Negative prompt：", "negative_prompt:", "NegativePrompt:", "Negative-prompt:",
    ):  # fmt: skip
        found = read_infotext(f"1girl, solo\n{mark} bad\nworse\n{PARAMETERS}")
        texts = (found.fields["prompt"], found.fields["negative_prompt"])
        assert (*texts, found.notes) == ("1girl, solo", "bad\nworse", []), mark
    twice = read_infotext(f"1girl\nNegative prompt: bad\nnegative prompt: worse\n{PARAMETERS}")
    assert twice.fields["negative_prompt"] == "bad\n worse"


def test_a_prompt_that_may_contain_the_negative_prompt_is_refused() -> None:
    for prompt in (
        "1girl, solo Negative prompt: bad", "1girl. negative prompt: bad", "1girl neg prompt: bad",
        "1girl\nNegative prompt : bad", "1girl\nNegative prompts: bad", "1girl\nNegative: bad",
        "1girl Negative prompt：bad", "1girl\n负面提示词：bad", "1girl\nネガティブプロンプト: bad",
        "1girl\nUndesired content: bad", "1girl\nTemplate: {a|b}", "1girl\nuc: bad",
        "Prompt: 1girl",
    ):  # fmt: skip
        for text in (f"{prompt}\n{PARAMETERS}", f"{prompt}\nNegative prompt: x\n{PARAMETERS}"):
            with pytest.raises(ValueError, match="which may begin another text"):
                read_infotext(text)
            with pytest.raises(ValueError, match="which may begin another text"):
                parse_parameters(text)
    for prompt in ("a photographic negative, prompt reply", "negative space: none", "uchi: a"):
        assert read_infotext(f"{prompt}\n{PARAMETERS}").fields["prompt"] == prompt
    found = read_infotext(f"1girl\nNegative prompt: bad, Negative prompt: worse\n{PARAMETERS}")
    assert found.notes == ["negative_prompt: 'Negative prompt:' is taken as a part of it"]


def test_a_text_with_several_lines_of_parameters_is_refused() -> None:
    for more in (PARAMETERS, "Steps: 7", "Seed: 1, Size: 8x8, Sampler: Euler"):
        for text in (f"1girl\n{more}\n{PARAMETERS}", f"1girl\n{PARAMETERS}\n{more}"):
            with pytest.raises(ValueError, match="2 lines of parameters"):
                read_infotext(text)


def test_a_line_that_only_looks_like_parameters_is_text() -> None:
    for line in ("Steps: 7 stairs", "Template: a, Steps: 7", "Model: a, hair: b, eyes: c"):
        after = read_infotext(f"1girl\nNegative prompt: bad\n{PARAMETERS}\n{line}")
        assert (after.fields["steps"], after.fields["negative_prompt"]) == (20, "bad"), line
        assert after.notes == [f"{line}: text after the parameters is left out"]
    before = read_infotext(f"1girl\nSteps: 7 stairs\nNegative prompt: bad\n{PARAMETERS}")
    assert before.fields["prompt"] == "1girl\nSteps: 7 stairs"


def test_templates_are_no_part_of_the_negative_prompt() -> None:
    text = f"1girl\nNegative prompt: bad\nTemplate: a\nNegative Template: b\n{PARAMETERS}"
    found = read_infotext(text)
    assert found.fields["negative_prompt"] == "bad"
    assert [note.partition(":")[0] for note in found.notes] == ["Template", "Negative Template"]


def test_a_parameter_with_several_values_is_not_used() -> None:
    found = read_infotext(f"1girl\n{PARAMETERS}, Steps: 30, seed: 5, Model: a, Model: b")
    assert "steps" not in found.fields
    assert found.fields["seed"] == 5
    assert [note.partition(" of ")[0] for note in found.notes] == [
        *("steps: 20: one", "steps: 30: one", "model: a: one", "model: b: one"),
    ]
