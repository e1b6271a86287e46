"""Misspelt ages are found, and words that are like them pass."""

from functools import partial

import pytest

from model.policy.ages.mistakes import misspelt, without_mistakes
from model.policy.policy import Policy
from tests.support.policy_rules import rule_of
from tests.support.steps import steps

MISSPELT = [
    "forteen years old", "fiveteen years old", "twelf yo", "thriteen-year-old", "fourten yrs old",
    "threeteen years old", "sevanteen y/o", "sixten years old", "elevn years old",
    "eigth years old", "tweleve years old", "fuorteen years of age", "fiften year old",
    "sicksteen years old",
    "fourteen yaers old", "14 yaers old", "14 years odl", "8 yeras old", "aged forteen",
    "age: thriteen", "turning fiften", "under eigteen", "not yet eigthteen", "below sixten",
    "quatorse ans", "kwatorze ans", "catorse años", "katorce años", "tredicci anni",
    "vierzen Jahre",
    "fierzehn jahre alt", "quinse anos",
]  # fmt: skip
GLUED = ["nudeforteenyearsold", "fiftenyearoldnude", "NudeForteenYearsOld"]
HARMLESS = [
    "fourty years old", "eighty years old", "eighteen yo", "ninteen years old", "thirdy years old",
    "steven, 30 years old", "aged steel", "aged fortune teller", "aged fountain", "under tights",
    "aged satin", "below the seventh floor", "turning sixty", "not yet seventy", "under elevation",
    "elven yoga", "seven years of war", "not even years old", "light years old", "25 yaers old",
    "20 years odl", "fourteen yellow roses", "twelve yards of silk", "sixty-seven years old",
    "12 yards old", "turned softly", "forest yoga", "age frontier",
    "trente ans", "dix-huit ans", "treinta años", "trinta anos", "trenta anni", "vierzig Jahre",
    "achtzehn Jahre alt", "quarante anos",
]  # fmt: skip
"""Each beside "nude"."""


def test_misspelt_ages_count(policy: Policy) -> None:
    assert [text for text in MISSPELT if rule_of(policy, f"{text}, nude") is None] == []
    assert [text for text in GLUED if rule_of(policy, text) is None] == []
    assert rule_of(policy, "nude", lora="ForteenYearsOld_v2")


def test_other_words_are_no_misspelt_ages(policy: Policy) -> None:
    assert [text for text in HARMLESS if rule_of(policy, f"{text}, nude")] == []


def test_numbers_of_adults_and_right_spellings_are_no_mistakes() -> None:
    assert [misspelt(word) for word in ("forteen", "thriteen", "twelf")] == [
        "fourteen",
        "thirteen",
        "twelve",
    ]
    for word in ("fourteen", "forty", "nineteen", "eighty", "steven", "often", "fountain", "red"):
        assert misspelt(word) is None, word
    assert list(without_mistakes("a fourteen years old tree, seven yo")) == []


def _read(text: str) -> list[str]:
    return list(without_mistakes(text))


@pytest.mark.parametrize("piece", ["a y", "forten yo ", "age ", "fyearold", "a", "y", "seven yrs "])
def test_the_work_grows_linearly(piece: str) -> None:
    short, long = (steps(partial(_read, (piece * length)[:length])) for length in (400, 4000))
    assert long <= 11 * short + 1000
