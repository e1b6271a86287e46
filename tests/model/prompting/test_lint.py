"""Lint warns about what the card advises against and not about ordinary prompts."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from model.card import Card, card_names, load_card
from model.card_request import request_type
from model.prompting.lint import lint
from model.resolved_request import resolve_request
from tests.support.growth import grows_linearly

CARD = load_card("kirazuri-v1")
TINY = load_card("kirazuri-tiny")
GOOD = CARD.prompting.example

ORDINARY = [
    # tags
    "masterpiece, best quality, very aesthetic, absurdres, safe, 1girl, solo, long hair, "
    "blue eyes, school uniform, looking at viewer, cherry blossoms, ligne claire",
    "masterpiece, best quality, 1girl, hatsune miku, vocaloid, twintails, aqua hair, smile, stage",
    r"masterpiece, best quality, 1girl, ganyu \(genshin impact\), genshin impact, horns, bell, sky",
    r"best quality, aesthetic, 1boy, male focus, suit, hat, oil painting \(medium\), portrait",
    r"very aesthetic, 2girls, holding hands, (watercolor \(medium\):1.2), sunset, beach, wind, sky",
    "1girl, solo, white dress, straw hat, sunflower field, blue sky, cloud, smile, outdoors",
    "1girl, 1boy, couple, city lights, night, rain, umbrella, looking at another, from behind",
    "no humans, scenery, mountain, river, sunset, cloud, tree, reflection, absurd detail, village",
    "multiple girls, 3girls, classroom, desk, window, school uniform, talking, smile, sitting",
    "6+girls, stage, idol, microphone, spotlight, confetti, dress, dancing, open mouth",
    "1other, androgynous, armor, sword, ruins, fog, cape, gauntlets, full body, standing",
    "solo, 1girl, glasses, library, bookshelf, sweater, brown hair, ponytail, reading",
    "masterpiece, newest, year 2025, highres, safe, 1girl, solo, kimono, fan, lantern, night",
    "year 2025, newest, normal quality, highres, masterpiece, safe, 1girl, forest, dress, sky",
    "masterpiece, 8k, ultra detailed, best quality, intricate details, 1girl, portrait, hat, lips",
    "masterpiece, best quality, sensitive, 1girl, swimsuit, pool, wet hair, sunlight, summer",
    "masterpiece, absurdres, nsfw, 1girl, bed sheet, blush, looking at viewer, indoors, night",
    "masterpiece, best quality, 1girl, @wlop, long hair, flower, petals, wind, dress",
    r"best quality, 1girl, @ask \(askzy\), animal ears, tail, fang, hoodie, city, neon lights",
    "1girl, ^_^, cat ears, paw pose, apron, maid, cafe, tray, cake, closed eyes",
    "1girl, >_<, blush, snow, scarf, mittens, winter clothes, breath, street",
    "1girl, __, ____, __, hat, scarf, snow, kingdom hearts:2.8, {_}, night, lights",
    "1girl, o_o, surprised, open mouth, sweatdrop, simple background, upper body, hand up",
    "1girl, :d, :3, ;), smile, fang, jacket, baseball cap, peace sign",
    "1boy, 0_0, glasses, lab coat, test tube, explosion, smoke, comedy, chibi",
    "1girl, x_x, knocked out, spiral eyes, lying, grass, comedy, bandaid",
    "1girl, ||_||, =_=, tired, coffee mug, desk, laptop, messy hair, night",
    r"1girl, (o\)_\(o), monster, forest, dark, moon, hood, cloak",
    "masterpiece, best quality, 1girl, (red hair:1.3), (freckles), braid, barn, overalls",
    "masterpiece, ((dynamic angle)), 1girl, jumping, city, rooftop, jacket, wind, motion lines",
    "(masterpiece, best quality:1.1), 1girl, solo, elf, pointy ears, bow (weapon:1.1), forest",
    "1girl, solo, (blue eyes, white hair:1.2), mage, staff, glowing, floating rocks, robe",
    "1girl, sleeves past fingers, hand on own chest, looking to the side, one eye closed, cardigan",
    "1girl, fate/stay night, saber, armor, excalibur, blonde hair, ahoge, glowing sword, night",
    "1girl, don't look back, p.t., st. bernard, dog, walking, park, autumn leaves, coat",
    "painterly, chiaroscuro, 1girl, candle, dark room, portrait, veil, tears, close-up",
    "masterpiece\n1girl, solo\nred dress, ballroom, chandelier, dancing, smile, high heels",
    "Masterpiece, Best Quality, 1girl, Long Hair, Blue Eyes, Smile, Sky, Flower Field",
    "1girl, 80s, retro artstyle, walkman, headphones, leg warmers, roller skates, sunset",
    "1girl, blue archive, halo, school uniform, rifle, desert, sand, looking back, dust",
    "1girl, hat (smile:1.2), boy (:3), cat (:d), poster (16:9), fox (tail:.9), (re:zero:1.2), snow",
    "1girl, saber (alter:1.2) (fate:0.9), (re:zero), (hat) (scarf), night, city, lights, rain",
    # prose
    "A girl with long silver hair stands in the rain under a red umbrella, looking at the sea.",
    "An old lighthouse keeper reads a letter by candlelight, his face half in shadow, while a "
    "storm rages outside the window.",
    "Two knights cross swords on a bridge at dawn. Mist rises from the river below, and their "
    "banners are torn.",
    "A watercolor painting of a quiet street in Kyoto (in autumn), with leaves on the ground.",
    "She wears a blue dress (with white frills), and holds a bouquet of roses in both hands.",
    "The general rides ahead of his army, e.g. a thousand spears, across the frozen lake at night.",
    # both
    "masterpiece, best quality, 1girl, solo, red hair, A girl leans out of a window and waves.",
    "A girl leans out of a train window and waves to somebody. masterpiece, best quality, 1girl, "
    "red hair, freckles, smile",
    "1girl, solo, witch hat. She stirs a cauldron that glows green, and a black cat watches her.",
    "A fox sleeps in the snow near an old shrine at night, best quality, no humans, animal, fox",
    "very aesthetic, 1boy, armor, The knight kneels before a broken statue, and rain falls on him.",
    # other scripts
    "夜の街, 1girl, 雨, 傘, ネオン, 制服, 黒髪, 窓, 反射",
    "1girl, 🙂, smile, sunflower, hat, summer, field, sky, dress",
]  # fmt: skip


def codes(card: Card = CARD, **fields: Any) -> set[str]:
    request = request_type(card)(**{"prompt": GOOD, **fields})
    found = lint(resolve_request(request, card, seed=1), card, request.tags)
    assert len({warning.code for warning in found}) == len(found), "one warning per code"
    return {warning.code for warning in found}


def detail(prompt: str, code: str) -> str:
    request = request_type(CARD)(prompt=prompt)
    found = lint(resolve_request(request, CARD, seed=1), CARD)
    return next(warning.detail for warning in found if warning.code == code)


@pytest.mark.parametrize("name", card_names())
def test_a_cards_example_has_no_warning(name: str) -> None:
    card = load_card(name)
    assert codes(card, prompt=card.prompting.example) == set()


def test_ordinary_prompts_have_no_warning() -> None:
    assert {prompt: found for prompt in ORDINARY if (found := codes(prompt=prompt))} == {}


def test_each_warning_is_given_alone() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"steps": 10}, "steps_not_recommended"),
        ({"steps": 30, "sampler": "sa_solver_pece"}, "steps_not_recommended"),
        ({"cfg_scale": 7}, "cfg_scale_not_recommended"),
        ({"scheduler": "karras"}, "scheduler_not_recommended"),
        ({"resolution": "1024x768"}, "size_not_trained"),
        ({"resolution": "1536x1536"}, "size_not_trained"),
        ({"resolution": "2048x768"}, "size_not_trained"),
        ({"hires": {"scale": 1.5, "strength": 0.5}}, "size_not_trained"),
        ({"prompt": "1girl, smile"}, "short_prompt"),
        ({"prompt": "1girl, solo, masterpiece, hat, coat, scarf, boots, snow"}, "tag_order"),
        ({"prompt": "hat, coat, scarf, boots, snow, 1girl, tree, fox"}, "tag_order"),
        ({"prompt": "hat, coat, scarf, boots, snow, safe, tree, fox"}, "tag_order"),
        ({"prompt": f"{GOOD}, watercolor (medium)"}, "unescaped_parentheses"),
        ({"prompt": f"{GOOD}, ganyu (genshin impact), smile"}, "unescaped_parentheses"),
        ({"prompt": f"{GOOD}, (watercolor (medium):1.2)"}, "unescaped_parentheses"),
        ({"prompt": f"{GOOD}, rem (re:zero)"}, "unescaped_parentheses"),
        ({"prompt": f"{GOOD}, 2b (nier:automata), fox"}, "unescaped_parentheses"),
        ({"prompt": f"{GOOD}, saber (alter) (swimsuit rider) (fate)"}, "unescaped_parentheses"),
        ({"prompt": f"rating:explicit, {GOOD}"}, "unknown_safety_tag"),
        ({"prompt": f"rating: s, {GOOD}"}, "unknown_safety_tag"),
        ({"prompt": f"rating_questionable, {GOOD}"}, "unknown_safety_tag"),
        ({"prompt": f"questionable, {GOOD}"}, "unknown_safety_tag"),
        ({"prompt": f"general, {GOOD}"}, "unknown_safety_tag"),
        ({"prompt": f"(sfw:1.2), {GOOD}"}, "unknown_safety_tag"),
        ({"tags": {"safety": ["spicy"]}}, "unknown_safety_tag"),
        ({"prompt": f"score_9, score_8_up, {GOOD}"}, "unknown_quality_tag"),
        ({"prompt": f"score_9, score_8, score_7, score_6, {GOOD}"}, "unknown_quality_tag"),
        ({"prompt": f"{GOOD}, hair_ribbon, ^_^"}, "underscores_in_tags"),
        ({"prompt": f"{GOOD}, Blue Eyes"}, "duplicate_tags"),
        ({"prompt": f"{GOOD}, (blue eyes:1.2)"}, "duplicate_tags"),
        ({"prompt": f"{GOOD}, artist:wlop"}, "artist_prefix"),
        ({"prompt": f"{GOOD}, art by greg rutkowski"}, "artist_prefix"),
        ({"prompt": f"{GOOD}, BREAK, fox"}, "unknown_syntax"),
        ({"prompt": f"{GOOD}, [fox], <lora:style:0.8>"}, "unknown_syntax"),
        ({"prompt": f"{GOOD}, {{fox}}"}, "unknown_syntax"),
        ({"prompt": f"{GOOD}, embedding:easynegative"}, "unknown_syntax"),
        ({"prompt": f"{GOOD}, __animal__"}, "unknown_syntax"),
        ({"prompt": f"{GOOD}, a cat AND a dog"}, "unknown_syntax"),
        ({"prompt": f"{GOOD}, (fox:1.2, snow"}, "unbalanced_brackets"),
        ({"prompt": f"{GOOD}, （fox：1.2）"}, "full_width_brackets"),
        ({"negative_prompt": "(bad hands:1.2, blurry"}, "unbalanced_brackets"),
        ({"negative_prompt": "embedding:easynegative, [blurry]"}, "unknown_syntax"),
        ({"negative_prompt": "（blurry：1.2）"}, "full_width_brackets"),
    ]
    wrong = [(fields, found) for fields, code in cases if (found := codes(**fields)) != {code}]
    assert wrong == []


def test_a_warning_says_what_to_write() -> None:
    for prompt, code, advice in (
        ("ganyu (genshin impact), x", "unescaped_parentheses", r"write ganyu \(genshin impact\)"),
        ("rating:general, x", "unknown_safety_tag", "write safe"),
        ("rating_q, x", "unknown_safety_tag", "write nsfw"),
        ("rating:7, x", "unknown_safety_tag", "its tags are safe, sensitive, nsfw, explicit"),
        ("score_9, x", "unknown_quality_tag", "masterpiece, best quality, very aesthetic"),
        ("long_hair, x", "underscores_in_tags", "write long hair for long_hair"),
        (
            "hatsune_miku_(vocaloid), x",
            "underscores_in_tags",
            "write hatsune miku for hatsune_miku",
        ),
        ("hatsune_miku_(vocaloid), x", "unescaped_parentheses", r"hatsune miku \(vocaloid\)"),
        ("x, x", "duplicate_tags", "(tag:1.2)"),
        (r"artist:ask_\(askzy\), x", "artist_prefix", r"@ask \(askzy\)"),
        ("[x]", "unknown_syntax", "[x] does not weaken; write (words:0.9)"),
        ("<lora:a:1>", "unknown_syntax", "<lora:a:1> is plain text"),
    ):
        assert advice in detail(prompt, code), prompt


def test_a_negative_prompt_without_guidance_has_no_warning() -> None:
    negative = "(bad hands:1.2, [blurry], （blurry：1.2）"
    assert codes(negative_prompt=negative, cfg_scale=1) == {"cfg_scale_not_recommended"}


def test_a_warning_names_the_prompt_that_it_is_about() -> None:
    request = request_type(CARD)(prompt=f"{GOOD}, [fox]", negative_prompt="{snow}")
    (warning,) = lint(resolve_request(request, CARD, seed=1), CARD)
    assert warning.detail == (
        "[fox] does not weaken; write (words:0.9); "
        "negative_prompt: {snow} does not strengthen; write (words:1.05)"
    )


def test_sizes_between_the_presets_have_no_warning() -> None:
    for size in ("1152x1152", "1344x960", "1024x1472"):
        assert codes(resolution=size) == set(), size


def test_safety_tags_must_be_those_of_the_card() -> None:
    for word in ("nsfw", "explicit", "questionable"):
        prompt = f"masterpiece, {word}, 1girl, blue hair, smile"
        assert codes(TINY, prompt=prompt) == {"unknown_safety_tag"}, word


def test_structured_tags_have_no_warning() -> None:
    tags = {
        "general": ["long_hair", "watercolor_(medium)", "^_^", "hat", "scarf", "smile"],
        "artist": ["wlop"],
        "subject": ["1girl", "solo"],
        "quality": ["masterpiece"],
    }
    assert codes(prompt=None, tags=tags) == set()


def test_hostile_prompts_take_linear_time() -> None:
    frames = {
        "an open bracket": ("[", "a", ""),
        "an open brace": ("{", "a", ""),
        "brackets": ("", "()", ""),
        "qualifiers": ("", "a (b),", ""),
        "nested": ("(" * 19, "a (b)", ")" * 19),
        "a rating": ("rating", "_", "!"),
        "wildcards": ("", "/__a", ""),
        "underscores": ("", "a_", ""),
        "tags": ("", "a_b,", ""),
        "spaces": ("a", " ", "(b)"),
        "long words": ("", "x_" * 2_490 + ",", ""),
        "separators": ("", ",", ""),
    }
    request = resolve_request(request_type(CARD)(prompt=GOOD), CARD, seed=1)
    for name, (before, piece, after) in frames.items():

        def check(text: str, before: str = before, after: str = after) -> None:
            prompt = before + text + after
            found = lint(request.model_copy(update={"prompt": prompt}), CARD)
            assert all(len(warning.detail) < 1000 for warning in found)

        assert grows_linearly(check, piece), name


@given(st.text(alphabet="aB1_ ,.\n()[]{}<>:\\@夜", max_size=80))
def test_any_valid_prompt_can_be_checked(prompt: str) -> None:
    try:
        request = resolve_request(request_type(CARD)(prompt=prompt), CARD, seed=1)
    except ValidationError:
        return
    assert all(warning.detail for warning in lint(request, CARD))
