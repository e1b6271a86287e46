"""Defines the content ratings, mildest first. They are the safety tags of the Anima models."""

from typing import Final, Literal, get_args

Rating = Literal["safe", "sensitive", "nsfw", "explicit"]

RATINGS: Final[tuple[Rating, ...]] = get_args(Rating)
