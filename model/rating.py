"""The ratings of pictures, as the Anima models' own safety tags name them, mildest first."""

from typing import Final, Literal, get_args

Rating = Literal["safe", "sensitive", "nsfw", "explicit"]

RATINGS: Final[tuple[Rating, ...]] = get_args(Rating)
