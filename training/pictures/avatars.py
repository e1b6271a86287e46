"""The attributes of an avatar and their colours: everything that `kirazuri-tiny` can draw."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Color = tuple[int, int, int]

HAIR_COLORS: dict[str, Color] = {
    "black hair": (48, 44, 58),
    "white hair": (246, 246, 252),
    "grey hair": (150, 154, 170),
    "blonde hair": (255, 224, 96),
    "brown hair": (124, 72, 46),
    "red hair": (206, 32, 46),
    "orange hair": (252, 138, 28),
    "pink hair": (255, 146, 196),
    "purple hair": (146, 76, 204),
    "blue hair": (48, 96, 224),
    "aqua hair": (92, 220, 230),
    "green hair": (58, 168, 80),
}
EYE_COLORS: dict[str, Color] = {
    "blue eyes": (40, 100, 240),
    "red eyes": (222, 30, 44),
    "green eyes": (40, 176, 72),
    "brown eyes": (136, 80, 40),
    "purple eyes": (150, 60, 220),
    "yellow eyes": (252, 200, 30),
    "pink eyes": (255, 100, 176),
    "aqua eyes": (50, 214, 220),
}
BACKGROUNDS: dict[str, Color] = {
    "white background": (252, 252, 252),
    "grey background": (184, 186, 190),
    "black background": (34, 34, 42),
    "red background": (232, 92, 88),
    "pink background": (255, 200, 220),
    "orange background": (255, 184, 112),
    "yellow background": (255, 240, 140),
    "green background": (152, 222, 150),
    "blue background": (136, 188, 252),
    "purple background": (196, 160, 240),
}
OUTFIT_COLORS: dict[str, Color] = {
    "white": (250, 250, 250),
    "black": (52, 50, 60),
    "grey": (156, 158, 166),
    "red": (214, 44, 50),
    "pink": (255, 156, 192),
    "yellow": (252, 214, 70),
    "green": (66, 166, 84),
    "blue": (60, 112, 224),
    "purple": (144, 84, 200),
}
SUBJECTS = ("1girl", "1boy")
HAIR_STYLES = ("short hair", "long hair", "twintails", "ponytail")
EYES = ("open", "closed eyes", "one eye closed")
EXPRESSIONS = ("smile", "open mouth", "frown", "expressionless")
ORNAMENTS = ("none", "hair bow", "hair flower", "hairband", "cat ears", "crown")
OUTFITS = ("serafuku", "hoodie", "dress")
QUALITIES = ("low quality", "normal", "best")


@dataclass(frozen=True, slots=True)
class Avatar:
    """What a caption may name in one picture; each field is a value of the tuples above."""

    subject: str
    hair_color: str
    hair_style: str
    eye_color: str
    eyes: str
    expression: str
    ornament: str
    outfit: str
    outfit_color: str
    background: str
    glasses: bool
    blush: bool
    quality: str


def sample_avatar(rng: np.random.Generator) -> Avatar:
    """Sample all attributes independently, except hair style and outfit of a boy."""
    is_boy = bool(rng.random() < 0.3)
    styles = (0.7, 0.1, 0.0, 0.2) if is_boy else (0.25, 0.25, 0.25, 0.25)
    outfits = (0.3, 0.7, 0.0) if is_boy else (0.34, 0.26, 0.4)
    return Avatar(
        subject=SUBJECTS[is_boy],
        hair_color=_pick(rng, tuple(HAIR_COLORS)),
        hair_style=_pick(rng, HAIR_STYLES, styles),
        eye_color=_pick(rng, tuple(EYE_COLORS)),
        eyes=_pick(rng, EYES, (0.93, 0.035, 0.035)),
        expression=_pick(rng, EXPRESSIONS),
        ornament=_pick(rng, ORNAMENTS, (0.3, 0.14, 0.14, 0.14, 0.14, 0.14)),
        outfit=_pick(rng, OUTFITS, outfits),
        outfit_color=_pick(rng, tuple(OUTFIT_COLORS)),
        background=_pick(rng, tuple(BACKGROUNDS)),
        glasses=bool(rng.random() < 0.2),
        blush=bool(rng.random() < 0.3),
        quality=_pick(rng, QUALITIES, (0.1, 0.5, 0.4)),
    )


def _pick(
    rng: np.random.Generator, values: Sequence[str], weights: Sequence[float] | None = None
) -> str:
    return values[int(rng.choice(len(values), p=weights))]
