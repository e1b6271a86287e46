"""Describes an avatar: Danbooru-style tags, prose, and training captions that mix both.

Tag order, dropout and shares follow the recipe published for Kirazuri (Anima) v1.
"""

import re
from collections.abc import Sequence

import numpy as np

from training.pictures.avatars import (
    BACKGROUNDS,
    EXPRESSIONS,
    EYE_COLORS,
    EYES,
    HAIR_COLORS,
    HAIR_STYLES,
    ORNAMENTS,
    OUTFIT_COLORS,
    OUTFITS,
    SUBJECTS,
    Avatar,
)

EMPTY_SHARE = 0.1
TAG_DROPOUT = 0.1
MAX_TOKENS = 74  # words and punctuation marks
FORMS = ("tags", "prose", "tags prose", "prose tags")
FORM_SHARES = (0.5, 0.1, 0.2, 0.2)

GOOD_WORDS = ("masterpiece", "best quality", "very aesthetic", "aesthetic")
META_WORDS = ("absurdres", "official art")
BAD_WORDS = ("low quality", "worst quality", "blurry", "jpeg artifacts")
OTHER_BAD_WORDS = (
    "lowres",
    "bad quality",
    "bad anatomy",
    "bad hands",
    "ugly",
    "deformed",
    "cropped",
    "watermark",
    "signature",
    "text",
)
SAFETY = "safe"
SERIES = "original"
# These describe all pictures equally. They occur because people type them.
NEUTRAL_TAGS = (
    "solo",
    "looking at viewer",
    "upper body",
    "portrait",
    "close-up",
    "face",
    "bangs",
    "flat color",
    "no lineart",
    "ligne claire",
    "simple background",
    "anime",
    "anime style",
    "illustration",
    "digital art",
    "2d",
    "cute",
    "cute girl",
    "highres",
    "detailed",
    "colorful",
    "icon",
    "avatar",
    "chibi",
    "newest",
    "year 2026",
    "eyelashes",
    "facing viewer",
    "indoors",
    "outdoors",
    "day",
    "sparkle",
    "clean lines",
    "soft lighting",
)
BOY_TAGS = ("male focus",)

_NOUNS = {"1girl": ("girl", "she", "her"), "1boy": ("boy", "he", "his")}
_OPENINGS = (
    "a {noun}",
    "a cute {noun}",
    "an anime {noun}",
    "a young {noun}",
    "a picture of a {noun}",
    "a drawing of a {noun}",
    "a portrait of a {noun}",
    "an illustration of a {noun}",
    "an avatar of a {noun}",
    "this is a {noun}",
    "there is one {noun}",
)
_OPENINGS_BY_QUALITY = {
    "best": (
        "a very aesthetic picture of a {noun}",
        "a masterpiece of a {noun}",
        "a beautiful portrait of a {noun}",
        "a best quality illustration of a {noun}",
    ),
    "low quality": (
        "a blurry picture of a {noun}",
        "a low quality picture of a {noun}",
        "a bad drawing of a {noun}",
        "a worst quality illustration of a {noun}",
    ),
}
_HAIR = {
    "short hair": ("with short {color} hair",),
    "long hair": ("with long {color} hair",),
    "twintails": ("with {color} twintails", "with {color} hair in twintails"),
    "ponytail": ("with {color} hair in a ponytail", "with {color} hair tied in a ponytail"),
}
_EYES = {
    "open": ("and {color} eyes", "who has {color} eyes"),
    "one eye closed": ("who is winking with {color} eyes", "and {color} eyes, one eye closed"),
    "closed eyes": ("and closed eyes", "whose eyes are closed"),
}
_OUTFITS = {
    "serafuku": (
        "wearing a {color} serafuku",
        "wearing a {color} sailor uniform",
        "in a {color} school uniform",
    ),
    "hoodie": ("wearing a {color} hoodie", "in a {color} hoodie"),
    "dress": ("wearing a {color} dress", "in a {color} dress"),
}
_EXPRESSIONS = {
    "smile": ("{she} is smiling", "{she} has a smile", "{she} smiles"),
    "open mouth": (
        "{her} mouth is open",
        "{she} is happy with an open mouth",
        "{she} is laughing with an open mouth",
    ),
    "frown": ("{she} is frowning", "{she} has a frown", "{she} looks angry with a frown"),
    "expressionless": (
        "{she} is expressionless",
        "{she} has no expression",
        "{her} face is calm and expressionless",
    ),
}
_ORNAMENTS = {
    "hair bow": ("{she} wears a hair bow", "there is a bow in {her} hair"),
    "hair flower": ("{she} wears a hair flower", "there is a flower in {her} hair"),
    "hairband": ("{she} wears a hairband", "{she} has a hairband"),
    "cat ears": ("{she} has cat ears",),
    "crown": ("{she} wears a crown", "there is a crown on {her} head"),
}
_GLASSES = ("{she} wears glasses", "{she} has glasses")
_BLUSH = ("{she} is blushing", "there is a blush on {her} cheeks")
_BACKGROUND = (
    "the background is {color}",
    "on a plain {color} background",
    "with a plain {color} background",
    "in front of the {color} background",
)


def tags(avatar: Avatar) -> list[str]:
    """All tags of the avatar, in the card's order, without quality words."""
    return [SAFETY, avatar.subject, SERIES, *general_tags(avatar)]


def general_tags(avatar: Avatar) -> list[str]:
    """The tags of the visible attributes, in a fixed order."""
    general = [avatar.hair_color, avatar.hair_style]
    general += [avatar.eye_color] if avatar.eyes != "closed eyes" else []
    general += [avatar.eyes] if avatar.eyes != "open" else []
    general.append(avatar.expression)
    general += [avatar.ornament] if avatar.ornament != "none" else []
    general += [f"{avatar.outfit_color} {avatar.outfit}", avatar.background]
    general += ["glasses"] if avatar.glasses else []
    general += ["blush"] if avatar.blush else []
    return general


def prompt(avatar: Avatar) -> str:
    """The complete prompt for the avatar."""
    quality = {
        "best": ["masterpiece", "best quality", "very aesthetic"],
        "normal": [],
        "low quality": ["low quality", "worst quality"],
    }[avatar.quality]
    return ", ".join([*quality, *tags(avatar)])


def caption(avatar: Avatar, rng: np.random.Generator) -> str:
    """One caption for training: tags, prose, both in either order, or nothing."""
    if rng.random() < EMPTY_SHARE:
        return ""
    form = FORMS[int(rng.choice(len(FORMS), p=FORM_SHARES))]
    if form == "tags":
        return _tag_caption(avatar, rng)
    if form == "prose":
        return prose(avatar, rng)
    # Each half may say less, because the other half repeats most of it.
    halves = {"tags": _tag_caption(avatar, rng, keep=0.7), "prose": prose(avatar, rng, keep=0.7)}
    first, second = (halves[part] for part in form.split())
    both = f"{first.removesuffix('.')}. {second}"
    return both if count_words_and_marks(both) <= MAX_TOKENS else first


def prose(avatar: Avatar, rng: np.random.Generator, keep: float = 0.95) -> str:
    """Plain lower-case sentences; each fact is included with probability `keep`."""
    noun, she, her = _NOUNS[avatar.subject]

    def say(phrases: Sequence[str], color: str = "", *, always: bool = False) -> list[str]:
        if not always and rng.random() >= keep:
            return []
        phrase = phrases[int(rng.integers(len(phrases)))]
        return [phrase.format(noun=noun, she=she, her=her, color=color.split()[0] if color else "")]

    openings: Sequence[str] = _OPENINGS
    if avatar.quality in _OPENINGS_BY_QUALITY and rng.random() < 0.8:
        openings = _OPENINGS_BY_QUALITY[avatar.quality]
    first = say(openings, always=True)
    first += say(_HAIR[avatar.hair_style], avatar.hair_color, always=True)
    first += say(_EYES[avatar.eyes], avatar.eye_color)
    first += say(_OUTFITS[avatar.outfit], avatar.outfit_color)
    sentences = say(_EXPRESSIONS[avatar.expression])
    sentences += say(_ORNAMENTS[avatar.ornament]) if avatar.ornament != "none" else []
    sentences += say(_GLASSES) if avatar.glasses else []
    sentences += say(_BLUSH) if avatar.blush else []
    sentences += say(_BACKGROUND, avatar.background)
    rng.shuffle(sentences)
    return ". ".join([" ".join(first), *sentences]) + "."


def _tag_caption(avatar: Avatar, rng: np.random.Generator, keep: float = 1.0) -> str:
    """Head tags in the card's order, then general tags shuffled; each is dropped with 10 %."""
    head = _quality_tags(avatar, rng)
    head += [SAFETY] if rng.random() < 0.6 else []
    head = [*_dropped(head, rng), avatar.subject]
    head += [SERIES] if rng.random() < 0.3 else []
    neutral = NEUTRAL_TAGS if avatar.subject == "1girl" else (*NEUTRAL_TAGS, *BOY_TAGS)
    extra = rng.choice(len(neutral), size=int(rng.integers(0, 4)), replace=False)
    general = _dropped(general_tags(avatar), rng, keep) + [neutral[int(i)] for i in extra]
    rng.shuffle(general)
    return ", ".join(head + general)


def _dropped(words: Sequence[str], rng: np.random.Generator, keep: float = 1.0) -> list[str]:
    return [word for word in words if rng.random() < keep * (1 - TAG_DROPOUT)]


def _quality_tags(avatar: Avatar, rng: np.random.Generator) -> list[str]:
    """At least one word for the avatar's quality; none for normal quality."""
    if avatar.quality == "normal":
        return []
    is_best = avatar.quality == "best"
    pool = (*GOOD_WORDS, *META_WORDS) if is_best else BAD_WORDS
    chosen = [word for word in pool if rng.random() < 0.5]
    if not is_best and rng.random() < 0.3:
        more = rng.choice(len(OTHER_BAD_WORDS), size=2, replace=False)
        chosen += [OTHER_BAD_WORDS[int(i)] for i in more]
    return chosen or [pool[int(rng.integers(len(pool)))]]


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    return re.findall(r"[a-z0-9][a-z0-9_'-]*", text.lower())


def count_words_and_marks(text: str) -> int:
    """Number of words and punctuation marks."""
    return len(re.findall(r"[^\s,.]+|[,.]", text))


def _vocabulary() -> tuple[str, ...]:
    """All words of all captions, sorted."""
    phrases = [*HAIR_COLORS, *EYE_COLORS, *BACKGROUNDS, *OUTFIT_COLORS, *SUBJECTS, *HAIR_STYLES]
    phrases += [*EYES, *EXPRESSIONS, *ORNAMENTS[1:], *OUTFITS, "glasses", "blush", SAFETY, SERIES]
    phrases += [*GOOD_WORDS, *META_WORDS, *BAD_WORDS, *OTHER_BAD_WORDS, *NEUTRAL_TAGS, *BOY_TAGS]
    phrases += [*_OPENINGS, *_GLASSES, *_BLUSH, *_BACKGROUND]
    for table in (_OPENINGS_BY_QUALITY, _HAIR, _EYES, _OUTFITS, _EXPRESSIONS, _ORNAMENTS):
        phrases += [phrase for group in table.values() for phrase in group]
    phrases += [word for nouns in _NOUNS.values() for word in nouns]
    blanks = {"noun", "she", "her", "color"}
    plain = (re.sub("{(" + "|".join(blanks) + ")}", " ", phrase) for phrase in phrases)
    return tuple(sorted({word for phrase in plain for word in words(phrase)}))


WORDS: tuple[str, ...] = _vocabulary()
