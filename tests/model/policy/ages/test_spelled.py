"""Words for ages are found although they are masked, or written with digits and signs."""

from functools import partial

import pytest

from model.policy.ages.spelled import may_be_disguised, undisguised
from model.policy.policy import Policy
from tests.support.policy_rules import rule_of
from tests.support.steps import steps

DISGUISED = [
    "f*urteen y*ars o*d", "fourteen years o*d", "eight y*ars o*d", "seven ye*rs old", "8 ye*rs *ld",
    "six years *ld", "t*n y*ars o*d", "14 years *ld", "14 year-*ld", "14-year-o*d", "8 year* old",
    "f@urteen y@ars o@d", "f$urteen y$ars o$d", "f●ve y●ars o●d", "s🍆x y🍆ars o🍆d",
    "f-urteen y-ars old", "aged s*ven", "a*ed f*urteen", "ag* 14", "u*der e*ghteen", "n*t y*t 18",
    "dre*zehn J*hre alt", "trece a*os", "14 л*т", "14 a*s", "sev*nth gr*de", "el*mentary sch*ol",
    "12*o", "12●o", "12 y*o", "m*nor girl", "f*rteen years old",
    "f0urt*en y3ars old", "f*urt33n years old", "tw3lf years old", "f0rteen years old",
    "e1even years old", "8 y3@rs 0ld",
]  # fmt: skip
"""Each beside "nude"."""

GLUED = ["fourteenyears0ldnude", "f0urteenyearsoldnude", "12y*onude", "13yearso*dnude",
    "nudef*urteenyearsold", "f*fte*nyearoldnude", "NudeTw*lveYearsOld", "fourteeny*arsoldnude",
]  # fmt: skip

HARMLESS = [
    "tw*nty y*ars o*d", "tw*nty-four y*ars o*d", "th*rty y*ars o*d", "e*ghteen y*ars o*d",
    "25 y*ars o*d", "21*o", "*smile* b*ld man", "14*20 grid", "c*ld, 14 degrees", "v*ry old",
    "s*venty years old", "nudetw*ntyfouryearsold", "nudef*rtyyearsold", "e*ghteenyearsoldnude",
]  # fmt: skip


def test_disguised_words_for_ages_count(policy: Policy) -> None:
    assert [text for text in DISGUISED if rule_of(policy, f"{text}, nude") is None] == []
    assert [text for text in GLUED if rule_of(policy, text) is None] == []


def test_disguised_words_for_adults_do_not(policy: Policy) -> None:
    assert [text for text in HARMLESS if rule_of(policy, f"{text}, nude")] == []


def test_all_words_of_an_age_are_said_at_once() -> None:
    text = "x, a f*urteen y*ars o*d elf"
    assert may_be_disguised(text)
    assert list(undisguised(text)) == [" a fourteen years old elf"]
    assert list(undisguised("x, f*ck y*u")) == []
    assert not may_be_disguised("x, 14 years old, a well-worn book_cover")


def _read(text: str) -> list[str]:
    return list(undisguised(text))


@pytest.mark.parametrize("piece", ["a*b", "y*ars o*d ", "f-o-u-r ", "*a* ", "4a4", "t*n ", "e*e*"])
def test_the_work_grows_linearly(piece: str) -> None:
    list(undisguised("a*bcd"))  # reads the words of ages
    short, long = (steps(partial(_read, (piece * length)[:length])) for length in (400, 4000))
    assert long <= 11 * short + 1000
