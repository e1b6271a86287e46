"""Computes picture sizes, in pixels, within a card's limits."""

import math

from model.card import Card, Limits, Resolution


def parse_resolution(value: str, card: Card) -> tuple[int, int]:
    """Turn a preset name or "WIDTHxHEIGHT" into (width, height).

    Raises:
        ValueError: the text is neither, or the size is outside the card's limits.
    """
    for preset in card.resolutions:
        if preset.name == value:
            return preset.width, preset.height
    width, separator, height = value.partition("x")
    numbers = (width, height)
    if not separator or not all(n.isascii() and n.isdigit() and len(n) <= 10 for n in numbers):
        names = ", ".join(preset.name for preset in card.resolutions)
        raise ValueError(f"not a preset ({names}) and not WIDTHxHEIGHT")
    problem = card.limits.size_problem(int(width), int(height))
    if problem:
        raise ValueError(problem)
    return int(width), int(height)


def fitted_size(width: int, height: int, limits: Limits) -> tuple[int, int]:
    """The allowed (width, height) nearest to the size of a picture.

    Scales a picture that is too large down and one that is too small up, keeping its shape. Then
    rounds each side to the nearest multiple and clamps it to the limits, which changes the shape
    only of very long pictures.
    """
    shrink = min(
        1, limits.max_side / max(width, height), (limits.max_pixels / width / height) ** 0.5
    )
    scale = max(shrink, limits.min_side / min(width, height))
    multiple = limits.multiple
    least, most = -(-limits.min_side // multiple), limits.max_side // multiple
    sides = [
        min(max(_round_half_up(side * scale / multiple), least), most) for side in (width, height)
    ]
    while sides[0] * sides[1] * multiple**2 > limits.max_pixels:
        sides[sides.index(max(sides))] -= 1
    return sides[0] * multiple, sides[1] * multiple


def substitute_size(width: int, height: int, card: Card) -> tuple[int, int]:
    """The (width, height) to use for a client that does not know the card.

    Rounds a size that is allowed except for the multiple. Replaces any other size by the preset
    of the most similar shape, and of those the one nearest in area: the limits lie beyond the
    sizes that the checkpoint was trained on, and pictures at a limit look bad.
    """
    fitted = fitted_size(width, height, card.limits)
    multiple = card.limits.multiple
    if abs(fitted[0] - width) < multiple and abs(fitted[1] - height) < multiple:
        return fitted

    def distance(preset: Resolution) -> tuple[float, float]:
        shape = abs(math.log(preset.width * height / preset.height / width))
        area = abs(math.log(preset.width * preset.height / width / height))
        return round(shape, 1), area

    nearest = min(card.resolutions, key=distance)
    return nearest.width, nearest.height


def enlarged_size(width: int, height: int, scale: float, limits: Limits) -> tuple[int, int]:
    """(width, height) times `scale`, each side rounded to the nearest multiple."""
    multiple = limits.multiple
    return (
        _round_half_up(width * scale / multiple) * multiple,
        _round_half_up(height * scale / multiple) * multiple,
    )


def largest_scale(width: int, height: int, limits: Limits) -> float:
    """The largest factor that keeps a size within the limits, rounded down to hundredths."""
    side = limits.max_side / max(width, height)
    return int(min(side, (limits.max_pixels / width / height) ** 0.5) * 100) / 100


def _round_half_up(value: float) -> int:
    """Python's `round` rounds halves to even numbers, which would change shapes."""
    return int(value + 0.5)
