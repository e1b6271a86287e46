"""Letters are read as the plain ones that they look like or consist of."""

import pytest

from model.policy.folding import fold


@pytest.mark.parametrize(
    ("text", "plain"),
    [("nцde", "nude"), ("ПЦDЄ", "nude"), ("nsfш", "nsfw"), ("§ex", "sex"), ("pen¡s", "penis")],
)
def test_letters_of_other_scripts_stand_for_the_latin_ones_they_imitate(
    text: str, plain: str
) -> None:
    assert fold(text) == plain


@pytest.mark.parametrize(
    "text",
    [
        "₦₳₭ɆĐ", "ᏁᏗᏦᏋᎴ", "ղąҡҽժ", "ռǟӄɛɖ", "ᑎᗩKᗴᗪ", "ꈤꍏꀘꍟꀸ", "ꪀꪖ𝘬ꫀᦔ", "ⲛⲁⲕⲉⲇ", "nαкє∂",
        "ɳαҝҽԃ", "nɐkeԃ",
    ],
)  # fmt: skip
def test_fancy_text_is_read_as_latin_letters(text: str) -> None:
    assert fold(text) == "naked"


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("ßoobs", "boobs"), ("ẞDSM", "bdsm"), ("a ßlowjob", "a blowjob"), ("βreast", "breast"),
        ("große Füße", "grosse fusse"), ("puße", "pusse"), ("Spaß", "spass"), ("þenis", "penis"),
    ],
)  # fmt: skip
def test_a_sharp_s_is_a_b_only_where_no_word_has_one(text: str, plain: str) -> None:
    assert fold(text) == plain


@pytest.mark.parametrize("mask", "†‡⁎⁑⁂¤¿¶●🍆∗")
def test_symbols_cover_a_letter(mask: str) -> None:
    assert fold(f"n{mask}de") == "n*de"


@pytest.mark.parametrize("gap", " _.-,♥")
def test_korean_letters_with_gaps_are_syllables(gap: str) -> None:
    assert fold(gap.join("ㄹㅗㄹㅣ")).replace("*", gap) == f"로{gap}리"
    assert fold(gap.join("ㅋㅋ")).replace("*", gap) == f"\u110f{gap}\u110f"


@pytest.mark.parametrize("half", "½¼⅞")
def test_a_fraction_is_no_part_of_the_number_before_it(half: str) -> None:
    assert fold(f"17{half} years") == "17* years"
