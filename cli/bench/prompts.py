"""Prompts of 80 tags, a usual length."""

import json

SIDE = 128
"""Pixels of each side of a picture: small, because nobody looks at it."""

_TEXT = (
    "1girl, solo, long hair, blue eyes, blonde hair, hair ribbon, twintails, bangs, blush, smile, "
    "open mouth, looking at viewer, school uniform, serafuku, pleated skirt, sailor collar, "
    "red neckerchief, long sleeves, white shirt, black thighhighs, zettai ryouiki, loafers, bag, "
    "holding, book, sitting, bench, park, tree, cherry blossoms, petals, wind, floating hair, sky, "
    "cloud, day, sunlight, lens flare, shadow, grass, flower, butterfly, bird, fence, building, "
    "street, lamppost, power lines, bicycle, cat, from side, cowboy shot, head tilt, hand up, "
    "fingernails, jewelry, necklace, earrings, hairclip, hair between eyes, sidelocks, ahoge, "
    "eyelashes, collarbone, frills, bow, bowtie, plaid skirt, cardigan, open clothes, wristwatch, "
    "backlighting, depth of field, blurry background, bokeh, outdoors, scenery, spring (season), "
    "absurdres, highres"
)
_TAGS = tuple(_TEXT.split(", "))


def prompt(number: int) -> str:
    """A prompt of 80 tags in an order that repeats only after thousands of numbers."""
    start, moved = number % len(_TAGS), 1 + number // len(_TAGS) % (len(_TAGS) - 1)
    tags = [*_TAGS[start:], *_TAGS[:start]]
    tags.append(tags.pop(moved - 1))
    return ", ".join(tags)


def body(number: int) -> str:
    """A body for `POST /generate`."""
    return json.dumps({"prompt": prompt(number), "seed": number})
