"""Texts are folded to plain letters, and their tokens to letters without gaps."""

from operator import mul

from hypothesis import given, settings
from hypothesis import strategies as st

from model.policy.folding import BARRIER, fold, fold_prompt, in_all_cases
from model.policy.normalize import Gap, NormalizedText, fold_tokens, normalize, squeeze_runs
from tests.support.evasions import EVASIONS

PLAIN = "abcdefghijklmnopqrstuvwxyz"


def test_the_whole_alphabet_becomes_plain() -> None:
    ways = [
        "capitals", "full width", "bold", "script", "fraktur", "monospace", "circled",
        "negative circled", "negative squared", "regional indicators", "small capitals",
        "accents", "heaps of marks", "variation selectors", "zero-width spaces", "direction marks",
        "invisible letters", "cyrillic", "greek", "armenian", "cherokee", "strokes",
    ]  # fmt: skip
    assert {way: folded for way in ways if (folded := fold(EVASIONS[way](PLAIN))) != PLAIN} == {}


def test_capitals_also_count_as_the_look_alikes_of_their_small_letters() -> None:
    for way in ("full width", "bold", "circled", "cyrillic", "greek", "armenian"):
        for case in (str.upper, str.title, str.lower):
            folded = fold_prompt(case(EVASIONS[way](PLAIN)))
            assert PLAIN.replace("l", "i") in folded.replace("l", "i"), (way, case)


def test_words_whose_capitals_look_like_other_letters_are_also_read_as_small_ones() -> None:
    assert fold_prompt("Plain ＷＩＤＥ 𝗕𝗼𝗹𝗱 ロリ НЯ") == "plain wide bold ロリ hr"
    assert fold_prompt("b，ΗIM, c ΗAT") == f"b,him, c hat,{BARRIER}nim{BARRIER} c nat"
    assert fold_prompt("ΗIM\nAΗ, ΗIM") == f"him\nah, him,{BARRIER}nim{BARRIER} nim"
    one_word = "Ηx" * 251
    assert fold_prompt(one_word) == "hx" * 251 + ",", "more would multiply a text"
    many = " ".join(f"Η{number:03}" for number in range(999))
    assert len(fold_prompt(many)) == len(many) + 1 + (1 + 4) * ((100 + len(many) // 20) // 4)


def test_terms_are_also_written_in_capitals_that_look_other() -> None:
    assert list(in_all_cases("apple")) == ["apple"]
    assert list(in_all_cases("девушка")) == ["девушка"], "its capitals look like its small letters"
    assert list(in_all_cases("=* χρόνων")) == ["=* χρόνων", "=* xponon"]


def test_other_scripts_stay_apart() -> None:
    assert fold("ろり") == fold("ロリ") == fold("ﾛﾘ") == "ロリ"
    assert fold("口リ") == "ロリ"
    assert fold("Հհ") == "hh"
    assert fold("１２ ٣") == "12 3"
    assert fold("don't, don’t") == "dont, dont"
    assert fold("a 👶 b").split() == ["a", "婴", "b"]
    assert len(fold("👧" * 9)) == 9, "a longer word would multiply a text"
    assert fold("㍿㌍ﷺ") == "***", "the same"
    assert (fold("⑰"), fold("𖭡")) == ("17", "9999")


def test_korean_is_read_alike_in_syllables_and_letters() -> None:
    assert fold("섹스") == fold("ㅅㅔㄱㅅㅡ") == "세ᄀ스"
    assert fold("야한").startswith(fold("야하")), "an ending may be a last consonant"
    assert (fold("소녀"), fold("값"), fold("깎")) == ("소녀", "값", "까ᄁ")


def test_squeezing() -> None:
    for letters, squeezed in (
        ("plum", ("plum", (1, 1, 1, 1))),
        ("apple", ("aple", (1, 2, 1, 1))),
        ("11", ("11", (1, 1))),
        ("", ("", ())),
    ):
        assert squeeze_runs(letters) == squeezed


def test_digits_and_signs_give_more_ways_to_read_a_text() -> None:
    assert [normalized.squeezed for normalized in normalize("one word")] == ["oneword"]
    assert [normalized.squeezed for normalized in normalize("n0t, any")] == ["notany", "n0t"]
    assert [normalized.squeezed for normalized in normalize("room 717")] == ["rom", "rom717"]
    assert [normalized.squeezed for normalized in normalize("as$, b")] == ["asb", "as"]
    assert [normalized.raw for normalized in normalize("as$, b")] == ["asb", "as$"]


def test_masks_are_stars() -> None:
    for mask in "○●■█★✖":
        assert [text.squeezed for text in normalize(fold(f"a{mask}c"))] == ["ac", "a*c"]


def test_numerals_are_digits_before_years_only() -> None:
    for written, digits in (
        ("十七歳", "17"),
        ("七才", "7"),
        ("二十七岁", "27"),
        ("百二十歲", "120"),
        ("拾肆岁", "14"),
        ("十 七 歳", "17"),
        ("十、七、歳", "17"),
        ("二 十_七 岁", "27"),
        ("十 四 周 岁", "14"),
        ("十 四 さい", "14"),
        ("年齢 十 四", "年齢14"),
        ("千 四 歳", "1004"),
    ):
        assert [text.squeezed[: len(digits)] for text in normalize(fold(written))][1:] == [digits]
    for text in (
        "十七人",
        "十 七 人",
        "三、才女",
        "第三 才女",
        "三十岁月",
        "八 サイズ",
        "ショー 才能",
    ):
        assert len(list(normalize(fold(text)))) == 1, text


def test_a_sign_in_a_short_word_may_cover_a_letter() -> None:
    assert [text.raw for text in normalize("p@m")] == ["pm", "p@mp*m"]
    assert [text.raw for text in normalize("p@@ms, a@b.c")] == ["pmsabc", "p@@msa@bcp**msa*b"]
    assert [text.raw for text in normalize("c@t, t@ke-g")] == ["cttkeg", "c@tt@keg"]


def test_scripts_without_spaces_are_words_beside_others() -> None:
    (normalized,) = normalize(fold("abcロリdef"))
    assert normalized.starts == [0, 3, 5]
    (normalized,) = normalize(fold("цвет été"))
    assert len(normalized.starts) == 2


def test_gaps() -> None:
    (normalized,) = normalize("a-b c, d\ne;f - g")
    assert list(normalized.gaps) == [
        Gap.TAG, Gap.COVER, Gap.SPACE, Gap.TAG, Gap.LINE, Gap.COVER_TAG, Gap.SPACE, Gap.TAG,
    ]  # fmt: skip
    lettered, _ = normalize("a 22 b 22\nc--d")
    assert list(lettered.gaps[1:]) == [Gap.NUMBER, Gap.NUMBER_LINE, Gap.SIGN, Gap.TAG]


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab1 ,-'$é", max_size=30))
def test_places_map_squeezed_letters_to_raw_ones(text: str) -> None:
    for normalized in normalize(fold(text)):
        assert len(normalized.places) == len(normalized.squeezed) + 1
        assert normalized.places[-1] == len(normalized.raw)
        places, letters = normalized.places, normalized.squeezed
        assert list(places) == sorted(set(places))
        lengths = [places[at + 1] - places[at] for at in range(len(letters))]
        assert "".join(map(mul, letters, lengths)) == normalized.row
        assert [at for at, length in enumerate(lengths) if length > 1] == normalized.runs
        tokens = [
            normalized.raw[a:b] for a, b in zip(normalized.starts, normalized.ends, strict=False)
        ]
        assert "".join(tokens) == normalized.raw


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab1 ,-'$é", max_size=30))
def test_matches_begin_and_end_where_a_token_does_within_a_run(text: str) -> None:
    for normalized in normalize(fold(text)):
        starts, ends, places = set(normalized.starts), set(normalized.ends), normalized.places
        begins, stops = normalized.bounds
        for at in range(len(normalized.squeezed)):
            run = range(places[at], places[at + 1])
            assert begins[at] == (not starts.isdisjoint(run))
            assert stops[at + 1] == (not ends.isdisjoint(letter + 1 for letter in run))


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_folding_again_changes_nothing(text: str) -> None:
    once = fold(text)
    assert fold_tokens(fold(once)) == fold_tokens(once)
    assert isinstance(once, str)


def test_a_text_without_tokens() -> None:
    (normalized,) = normalize(", - ,")
    assert isinstance(normalized, NormalizedText)
    assert (normalized.squeezed, normalized.ends) == ("", [])
