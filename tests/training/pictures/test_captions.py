import numpy as np

from model.card import load_card
from training.pictures.avatars import Avatar, sample_avatar
from training.pictures.captions import (
    BAD_WORDS,
    GOOD_WORDS,
    MAX_TOKENS,
    META_WORDS,
    OTHER_BAD_WORDS,
    SAFETY,
    SERIES,
    WORDS,
    caption,
    count_words_and_marks,
    general_tags,
    prompt,
    tags,
    words,
)

DRAWS = 2000


def drawn_captions(seed: int = 0) -> list[tuple[Avatar, str]]:
    rng = np.random.default_rng(seed)
    avatars = [sample_avatar(rng) for _ in range(DRAWS)]
    return [(avatar, caption(avatar, rng)) for avatar in avatars]


PROSE_WORDS = {"a", "an", "the", "is", "has", "wears", "she", "he", "her", "his", "there"}


def form(text: str) -> str:
    """Tell the form by words that prose has and tags lack, in the first and last sentence."""
    if not text:
        return "empty"
    sentences = text.split(". ")
    names = ["prose" if PROSE_WORDS & set(words(sentences[i])) else "tags" for i in (0, -1)]
    return " ".join(dict.fromkeys(names))


def test_a_seed_fixes_the_captions() -> None:
    assert drawn_captions(7) == drawn_captions(7)


def test_every_word_is_known_and_every_known_word_occurs() -> None:
    rng = np.random.default_rng(1)
    seen: set[str] = set()
    for _ in range(8 * DRAWS):
        seen.update(words(caption(sample_avatar(rng), rng)))
    assert seen == set(WORDS)
    assert list(WORDS) == sorted(set(WORDS))


def test_captions_are_short_and_plain() -> None:
    for _, text in drawn_captions():
        assert count_words_and_marks(text) <= MAX_TOKENS
        assert text == text.lower()
        assert ".." not in text


def test_the_mixture_has_the_published_shares() -> None:
    forms = [form(text) for _, text in drawn_captions()]
    shares = {name: forms.count(name) / DRAWS for name in set(forms)}
    expected = {"empty": 0.1, "tags": 0.45, "prose": 0.09, "tags prose": 0.18, "prose tags": 0.18}
    assert set(shares) == set(expected)
    for name, share in expected.items():
        assert abs(shares[name] - share) < 0.035, (name, shares[name])


def test_tag_captions_keep_the_order_of_the_head_and_shuffle_the_rest() -> None:
    ranks = {**dict.fromkeys((*GOOD_WORDS, *BAD_WORDS, *META_WORDS, *OTHER_BAD_WORDS), 0)}
    ranks |= {SAFETY: 1, "1girl": 2, "1boy": 2, SERIES: 3}
    orders = set()
    for avatar, text in drawn_captions():
        if form(text) != "tags":
            continue
        order = [ranks.get(tag, 4) for tag in text.split(", ")]
        assert order == sorted(order)
        general = [tag for tag in text.split(", ") if tag in general_tags(avatar)]
        orders.add(tuple(general_tags(avatar).index(tag) for tag in general))
    assert len(orders) > 500


def test_a_tenth_of_the_tags_drops_out() -> None:
    kept = told = 0
    for avatar, text in drawn_captions():
        if form(text) == "tags":
            told += len(general_tags(avatar))
            kept += len(set(general_tags(avatar)) & set(text.split(", ")))
    assert 0.88 < kept / told < 0.92


def test_captions_name_only_what_is_drawn() -> None:
    colors = ("hair", "eyes", "background")
    for avatar, text in drawn_captions():
        held = set(tags(avatar)) | {avatar.hair_color, avatar.eye_color, avatar.background}
        for tag in text.replace(". ", ", ").removesuffix(".").split(", "):
            if len(tag.split()) == 2 and tag.split()[1] in colors and "simple" not in tag:
                assert tag in held


def test_quality_words_follow_the_quality() -> None:
    for avatar, text in drawn_captions():
        said = set(text.replace(". ", ", ").split(", "))
        assert avatar.quality == "best" or not said & set(GOOD_WORDS)
        assert avatar.quality == "low quality" or not said & {*BAD_WORDS, *OTHER_BAD_WORDS}


def test_the_prompt_names_every_tag_in_the_card_s_order() -> None:
    for avatar, _ in drawn_captions()[:100]:
        parts = prompt(avatar).split(", ")
        assert parts[-len(tags(avatar)) :] == tags(avatar)
        assert ("very aesthetic" in parts) == (avatar.quality == "best")
        assert ("low quality" in parts) == (avatar.quality == "low quality")
        assert count_words_and_marks(prompt(avatar)) <= MAX_TOKENS


def test_the_words_that_the_card_recommends_are_known() -> None:
    card = load_card("kirazuri-tiny")
    advice = card.prompting
    phrases = [*advice.quality, *advice.low_quality, *advice.meta, *advice.safety, *advice.subject]
    phrases += [*advice.styles, advice.example, card.defaults.negative_prompt]
    assert {word for phrase in phrases for word in words(phrase)} <= set(WORDS)
