"""Measures, grades of things and keys of music are no ages, and their words no minors."""

from functools import partial

import pytest

from model.policy.ages.amounts import without_amounts
from model.policy.policy import Policy
from tests.support.policy_rules import rule_of
from tests.support.steps import steps

HARMLESS = [
    "under 18 inches", "under 10 cm", "below 14 °C", "under eighteen inches", "less than 12 volts",
    "fewer than 18 people", "under $15", "under 5%", "under 16 GB", "under_12_feet",
    "under 18 karat gold", "unter 15 cm", "moins de 15 mètres", "menos de 15 minutos",
    "meno di 12 metri", "minder dan 15 meter", "grade 8 bolt", "grade 5 titanium",
    "grade 8 hex bolts", "steel grade 8", "a bolt of grade 8", "grade seven steel", "titan grade 5",
    "nude minor key", "naked minor scale", "a minor problem", "a minor third", "a minor role",
    "sonata in A minor", "the key of A minor", "piano sonata no. 8 in A minor", "ré mineur",
    "minor league", "Ursa Minor", "minor character", "minor injury",
]  # fmt: skip
"""Each beside "nude"."""

AMBIGUOUS = [
    "under 18", "girl under 18 inches", "under 18 m", "under 18, inches", "under 18 girls",
    "under 10 minutes old", "grade 8", "grade 8 girl", "grade 8, bolt", "steel grade 8 girl",
    "a minor", "A minor", "a minor, key", "nude minor", "nude minor girl", "a minor role play",
    "lost in a minor", "a minor with a key", "nude minor character", "thunder 18, under 17",
    "cock in a minor", "piano and cum in a minor", "song about sex in a minor",
    "a minor version of hermione", "naked minor burn victim", "grade 8 rope bondage",
]  # fmt: skip


def test_amounts_are_no_ages(policy: Policy) -> None:
    assert [text for text in HARMLESS if rule_of(policy, f"{text}, nude")] == []
    assert [text for text in HARMLESS if rule_of(policy, f"nude, {text}")] == []
    assert rule_of(policy, "nude", lora="Grade8BoltXL") is None


def test_what_may_be_a_person_stays_refused(policy: Policy) -> None:
    assert [text for text in AMBIGUOUS if rule_of(policy, f"{text}, nude") is None] == []


def test_other_words_and_numbers_stay_as_they_are() -> None:
    for text in (*AMBIGUOUS, "under 18 girls", "upgrade 8 bolts", "18 inches", ""):
        if "nude" not in text:
            assert without_amounts(text.lower()) == text.lower()
    assert without_amounts("under 18 inches, 14") == "under \x1f inches, 14"


@pytest.mark.parametrize(
    "piece",
    ["under 1", "under 10 cm ", "less than ", "grade 8 ", "grade steel ", "steel ", "a minor ",
     "minor key ", "key a b c in a minor ", "sonata "],
)  # fmt: skip
def test_the_work_grows_linearly(piece: str) -> None:
    short, long = (
        steps(partial(without_amounts, (piece * length)[:length])) for length in (400, 4000)
    )
    assert long <= 11 * short + 1000
