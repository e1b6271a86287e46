"""Warnings that need a list of tags; without one they are not given."""

from pathlib import Path

import pytest

from model.card import load_card
from model.prompting.known_tags import KnownTags, load_known_tags
from model.prompting.lint import lint
from model.request import GenerationRequest
from model.resolved_request import resolve_request

CARD = load_card("kirazuri-v1")
LIST = """long_hair,0,8000,longhair
red_hair,0,7000,
blue_dress,0,6000,
smile,0,5000,
wlop,1,400,
ganyu_(genshin_impact),4,3000,ganyu
genshin_impact,3,5000,
cloud,0,4000,"clouds"
couch,0,3000,sofa
unicorn,0,300,
luminous,1,200,
stanley_lau,1,500,artgerm
pine_(pine-box),1,500,pine
archer_(fate),4,900,archer
solo,0,9000,female_solo
demon_girl,0,900,succubus
love_live!,3,900,
love_letter,0,500,
love_hotel,0,400,
some_series,3,300,love
white_background,0,9000,
orange_(fruit),0,900,
polka_dot_bikini,0,800,
green_tea,0,800,
female,0,8000,"girl,3girls"
"""
LONG = ", looking at viewer, outdoors, standing, sky, day, grass, tree, hat"


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> KnownTags:
    path: Path = tmp_path_factory.mktemp("tags") / "tags.csv"
    path.write_text(LIST, encoding="utf-8")
    return load_known_tags(path, CARD.prompting)


def warnings(prompt: str, known: KnownTags | None) -> dict[str, str]:
    request = resolve_request(GenerationRequest(prompt=prompt), CARD, seed=1)
    return {warning.code: warning.detail for warning in lint(request, CARD, None, known)}


def test_an_alias_is_told_with_its_tag(known: KnownTags) -> None:
    told = warnings("1girl, longhair, (ganyu:1.2)" + LONG, known)
    assert told["unknown_tag"] == (
        r"aliases: write long hair for longhair, ganyu \(genshin impact\) for ganyu"
    )


def test_an_alias_is_told_once_and_only_if_its_tag_is_missing(known: KnownTags) -> None:
    assert warnings("1girl, sofa, (sofa:1.2)" + LONG, known)["unknown_tag"] == (
        "aliases: write couch for sofa"
    )
    for prompt in ("1girl, demon girl, succubus", "1girl, love, pine"):
        assert "unknown_tag" not in warnings(prompt + LONG, known), prompt


def test_a_misspelt_tag_is_told_with_a_similar_one(known: KnownTags) -> None:
    told = warnings("1girl, long hiar, zzzzzzz" + LONG, known)
    assert told["unknown_tag"] == "not in the list of tags: long hiar (similar: long hair)"
    assert "unknown_tag" not in warnings("1girl, long hair, long hiar" + LONG, known)


def test_sentences_get_no_advice_on_their_words(known: KnownTags) -> None:
    for prompt in (
        "1girl, long hair, smile",
        "1girl, She has a long hiar and walks in the rain.",
        "A girl on a roof, clouds, long hiar, sofa, wlop",
        "1girl, The girl stands on a rooftop in the wind, clouds below, ganyu, wlop.",
    ):
        told = warnings(prompt + "\n" + LONG, known)
        assert not {"unknown_tag", "artist_prefix", "tag_order"} & set(told), prompt


def test_an_artist_needs_the_prefix(known: KnownTags) -> None:
    for prompt in ("wlop", "by wlop", "style of wlop", "in the style of WLOP", "wlop style"):
        told = warnings(f"1girl, {prompt}, smile" + LONG, known)
        assert told["artist_prefix"] == (
            "'wlop' is an artist in the list of tags; if meant, write @wlop"
        ), prompt
    several = warnings("1girl, wlop, artgerm, luminous, smile" + LONG, known)
    assert several["artist_prefix"] == (
        "'wlop', 'artgerm', 'luminous' are artists in the list of tags; "
        "if meant, write @wlop, @stanley lau, @luminous"
    )
    assert "unknown_tag" not in several
    for prompt in ("@wlop", "pine"):
        assert "artist_prefix" not in warnings(f"1girl, {prompt}, smile" + LONG, known), prompt
    told = warnings("1girl, @artgerm, smile" + LONG, known)
    assert told["unknown_tag"] == "aliases: write @stanley lau for @artgerm"


def test_characters_and_artists_have_their_place(known: KnownTags) -> None:
    for late in (r"ganyu \(genshin impact\)", "genshin impact", "@wlop"):
        told = warnings(f"1girl, smile, red hair, {late}" + LONG, known)
        assert "comes after 'smile'" in told["tag_order"], late
        assert "tag_order" not in warnings(f"1girl, solo, {late}, smile" + LONG, known), late
    told = warnings("3girls, genshin impact, smile" + LONG, known)
    assert not {"tag_order", "unknown_tag"} & set(told), "an alias in this list"
    assert "tag_order" in warnings("1girl, @wlop, genshin impact, smile" + LONG, known)


def test_words_that_are_names_as_well_may_be_anywhere(known: KnownTags) -> None:
    for prompt in ("unicorn, genshin impact", "smile, red hair, archer", "smile, hat, luminous"):
        assert "tag_order" not in warnings(f"1girl, {prompt}" + LONG, known), prompt


def test_colours_that_spread_are_told_with_a_short_prompt(known: KnownTags) -> None:
    told = warnings("1girl, red hair, blue dress, polka dot bikini, red flag", known)
    assert told["short_prompt"].endswith(
        "so may the colours of red hair, blue dress, polka dot bikini"
    )
    assert "colours of red hair" in warnings("1girl, Red_Hair", known)["short_prompt"]
    told = warnings("1girl, white background, orange \\(fruit\\), green tea", known)
    assert "colours" not in told["short_prompt"]
    assert "short_prompt" not in warnings("1girl, red hair, blue dress" + LONG, known)


def test_without_a_list_none_of_these_is_told() -> None:
    for prompt in ("1girl, longhair", "1girl, long hiar", "1girl, smile, @wlop", "1girl, wlop"):
        told = warnings(prompt + LONG, None)
        assert not {"unknown_tag", "artist_prefix", "tag_order"} & set(told), prompt
