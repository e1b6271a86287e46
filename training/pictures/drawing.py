"""Draws an avatar as an RGB picture."""

import io
from math import cos, pi, sin

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from training.pictures.avatars import (
    BACKGROUNDS,
    EYE_COLORS,
    HAIR_COLORS,
    OUTFIT_COLORS,
    Avatar,
    Color,
)
from training.pictures.composition import EYE_PLACE, head_center, unit
from training.pictures.pen import INK, Pen, mirror, mix, symmetric

SKIN: Color = (255, 228, 210)
SKIN_SHADE: Color = (240, 190, 172)
SUPERSAMPLING = 4


def draw(avatar: Avatar, width: int, height: int, rng: np.random.Generator) -> Image.Image:
    """Draw the avatar as an RGB picture of the given size; `rng` varies it slightly."""
    if width % 16 or height % 16 or not (96 <= width <= 320 and 96 <= height <= 320):
        raise ValueError(f"size {width}x{height}: sides must be multiples of 16 from 96 to 320")
    factor = SUPERSAMPLING
    image = _background(avatar, width * factor, height * factor)
    scale = unit(width, height) * factor
    shift = rng.uniform(-0.012, 0.012, 2) * scale
    x, y = head_center(width * factor, height * factor)
    origin = (x + float(shift[0]), y + float(shift[1]))
    size = scale * float(rng.uniform(0.97, 1.03))
    tilt = float(rng.uniform(-0.06, 0.06))
    if avatar.quality == "best":
        _sparkles(Pen(image, (x, y), scale, 0.0), rng)
    head = Pen(image, origin, size, tilt)
    _back_hair(head, avatar)
    _body(Pen(image, origin, size, 0.0), avatar)
    _face(head, avatar)
    _front_hair(head, avatar, float(rng.uniform(-0.015, 0.015)))
    _brows(head, avatar)
    if avatar.glasses:
        _glasses(head)
    _ornament(head, avatar)
    return _finish(image.reduce(factor), avatar, rng)


def _background(avatar: Avatar, width: int, height: int) -> Image.Image:
    """A plain colour; pictures of best quality fade to a lighter tone at the bottom."""
    color = BACKGROUNDS[avatar.background]
    if avatar.quality != "best":
        return Image.new("RGB", (width, height), color)
    fade = np.clip((np.arange(height) / height - 0.3) / 0.7, 0, 1)[:, None] * 0.55
    rows = np.array(color) * (1 - fade) + 255 * fade
    column = Image.fromarray(rows.round().astype(np.uint8)[:, None, :])
    return column.resize((width, height), Image.Resampling.NEAREST)


def _sparkles(pen: Pen, rng: np.random.Generator) -> None:
    for x, y, radius in ((-0.40, -0.30, 0.062), (-0.33, -0.405, 0.036), (0.40, -0.36, 0.055)):
        x, y = x + float(rng.uniform(-0.01, 0.01)), y + float(rng.uniform(-0.01, 0.01))
        corners = []
        for k in range(8):
            r = radius if k % 2 == 0 else radius * 0.32
            corners += [(x + r * sin(k * pi / 4), y + r * cos(k * pi / 4))] * 2
        pen.shape(corners, (255, 250, 200), (214, 150, 40), 0.012)


def _finish(image: Image.Image, avatar: Avatar, rng: np.random.Generator) -> Image.Image:
    """Degrade a picture of low quality: soft, blocky and slightly dull."""
    if avatar.quality != "low quality":
        return image
    width, height = image.size
    image = image.filter(ImageFilter.GaussianBlur(0.009 * unit(width, height)))
    image = ImageEnhance.Color(image).enhance(0.85)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(rng.integers(20, 30)))
    return Image.open(buffer).convert("RGB")


def _hair_tones(avatar: Avatar) -> tuple[Color, Color, Color]:
    """Base, shade and highlight of the hair."""
    base = HAIR_COLORS[avatar.hair_color]
    return base, mix(base, (60, 30, 90), 0.24), mix(base, (255, 255, 255), 0.45)


def _back_hair(pen: Pen, avatar: Avatar) -> None:
    base, shade, _ = _hair_tones(avatar)
    if avatar.hair_style == "long hair":
        half = [(0.0, -0.37), (0.25, -0.28), (0.35, -0.06), (0.375, 0.2), (0.42, 0.45)]
        pen.shape(symmetric([*half, (0.43, 0.8)]), shade)
        return
    is_bob = avatar.hair_style == "short hair" and avatar.subject == "1girl"
    if is_bob:
        half = [(0.0, -0.37), (0.25, -0.28), (0.35, -0.06), (0.385, 0.14)]
        pen.shape(symmetric([*half, (0.41, 0.24), (0.41, 0.24), (0.28, 0.285), (0.1, 0.28)]), shade)
        return
    if avatar.hair_style == "twintails":
        tail = [(0.30, -0.20), (0.40, -0.27), (0.48, -0.12), (0.50, 0.14), (0.46, 0.36)]
        tail += [(0.39, 0.50), (0.39, 0.50), (0.36, 0.30), (0.37, 0.06), (0.31, -0.08)]
        pen.shape(tail, base)
        pen.shape(mirror(tail), base)
    elif avatar.hair_style == "ponytail":
        tail = [(0.10, -0.34), (0.22, -0.43), (0.37, -0.37), (0.465, -0.18), (0.475, 0.10)]
        tail += [(0.40, 0.36), (0.40, 0.36), (0.37, 0.10), (0.34, -0.08), (0.22, -0.22)]
        pen.shape(tail, base)
    half = [(0.0, -0.36), (0.24, -0.27), (0.335, -0.06), (0.31, 0.12), (0.2, 0.2)]
    pen.shape(symmetric(half), shade)


def _body(pen: Pen, avatar: Avatar) -> None:
    color = OUTFIT_COLORS[avatar.outfit_color]
    shade = mix(color, (50, 30, 80), 0.28)
    torso = symmetric([(0.09, 0.345), (0.20, 0.385), (0.33, 0.43), (0.385, 0.56), (0.40, 0.9)])
    pen.shape(torso, SKIN if avatar.outfit == "dress" else color)
    if avatar.outfit == "hoodie":
        pen.shape(symmetric([(0.10, 0.28), (0.21, 0.33), (0.225, 0.41), (0.12, 0.465)]), shade)
    neck = symmetric([(0.075, 0.2), (0.075, 0.33), (0.10, 0.375), (0.0, 0.425)])
    pen.shape(neck, SKIN_SHADE)
    if avatar.outfit == "serafuku":
        _sailor_collar(pen)
    elif avatar.outfit == "hoodie":
        for x in (-0.055, 0.055):
            pen.stroke([(x, 0.46), (x * 1.1, 0.53)], INK, 0.034)
            pen.stroke([(x, 0.46), (x * 1.1, 0.53)], (255, 255, 255), 0.018)
    else:
        _dress(pen, color)


def _sailor_collar(pen: Pen) -> None:
    navy, white, red = (44, 54, 112), (255, 255, 255), (224, 40, 56)
    for side in (-1, 1):
        lapel = [(0.085, 0.34), (0.085, 0.34), (0.20, 0.385), (0.20, 0.385)]
        lapel += [(0.13, 0.47), (0.0, 0.53), (0.0, 0.53), (0.035, 0.43)]
        pen.shape([(side * x, y) for x, y in lapel], navy)
        stripe = [(side * x, y) for x, y in ((0.168, 0.39), (0.11, 0.455), (0.02, 0.50))]
        pen.stroke(stripe, white, 0.014)
    for side in (-1, 1):
        tail = [(0.0, 0.48), (0.0, 0.48), (0.075, 0.60), (0.02, 0.62)]
        pen.shape([(side * x, y) for x, y in tail], red)
    pen.oval((0.0, 0.49), (0.034, 0.03), red, INK)


def _dress(pen: Pen, color: Color) -> None:
    for side in (-1, 1):
        strap = [(side * 0.19, 0.385), (side * 0.175, 0.48)]
        pen.stroke(strap, INK, 0.068)
        pen.stroke(strap, color, 0.036)
    top = [(0.0, 0.475), (0.13, 0.465), (0.245, 0.455), (0.245, 0.455), (0.25, 0.9)]
    pen.shape(symmetric(top), color)
    for x in (-0.2, -0.1, 0.0, 0.1, 0.2):
        pen.oval((x, 0.46), (0.05, 0.026), (255, 255, 255), INK, 0.012)


def _face(pen: Pen, avatar: Avatar) -> None:
    for side in (-1, 1):
        pen.oval((side * 0.275, 0.06), (0.045, 0.065), SKIN, INK)
    jaw = (0.215, 0.2) if avatar.subject == "1girl" else (0.235, 0.215)
    pen.shape(
        symmetric([(0.0, -0.3), (0.2, -0.24), (0.28, -0.05), (0.275, 0.09), jaw, (0.09, 0.295)]),
        SKIN,
    )
    if avatar.blush:
        for side in (-1, 1):
            pen.oval((side * 0.195, 0.185), (0.058, 0.031), (255, 138, 148))
    for side in (-1, 1):
        if avatar.eyes == "closed eyes" or (avatar.eyes == "one eye closed" and side == 1):
            _closed_eye(pen, side)
        else:
            _open_eye(pen, side, EYE_COLORS[avatar.eye_color], avatar.subject)
    _mouth(pen, avatar.expression)


def _open_eye(pen: Pen, side: int, color: Color, subject: str) -> None:
    x, y = side * EYE_PLACE[0], EYE_PLACE[1]
    tall = 0.095 if subject == "1girl" else 0.078
    pen.oval((x, y), (0.08, tall), (255, 255, 255))
    pen.oval((x, y + 0.004), (0.062, tall - 0.004), mix(color, INK, 0.6))
    pen.oval((x, y + 0.012), (0.052, tall - 0.022), color)
    pen.oval((x, y + tall * 0.55), (0.034, tall * 0.30), mix(color, (255, 255, 255), 0.42))
    pen.oval((x, y - 0.002), (0.024, tall * 0.42), mix(color, INK, 0.82))
    pen.oval((x - 0.024, y - tall * 0.42), (0.022, 0.024), (255, 255, 255))
    lash = [(x - side * 0.088, y - tall * 0.45), (x - side * 0.05, y - tall * 0.93)]
    lash += [(x + side * 0.03, y - tall), (x + side * 0.092, y - tall * 0.35)]
    pen.stroke(lash, INK, 0.032)
    if subject == "1girl":
        pen.stroke(
            [(x + side * 0.085, y - tall * 0.45), (x + side * 0.115, y - tall * 0.75)], INK, 0.022
        )


def _closed_eye(pen: Pen, side: int) -> None:
    x, y = side * 0.135, 0.08
    arc = [(x - 0.085, y - 0.02), (x - 0.045, y + 0.02), (x, y + 0.033)]
    pen.stroke([*arc, (x + 0.045, y + 0.02), (x + 0.085, y - 0.02)], INK, 0.03)


def _mouth(pen: Pen, expression: str) -> None:
    y = 0.222
    if expression == "smile":
        arc = [(-0.085, y - 0.018), (-0.05, y + 0.014), (0.0, y + 0.026), (0.05, y + 0.014)]
        pen.stroke([*arc, (0.085, y - 0.018)], INK, 0.022)
    elif expression == "open mouth":
        lips = [(-0.078, y - 0.03), (-0.078, y - 0.03), (0.0, y - 0.022), (0.078, y - 0.03)]
        lips += [(0.078, y - 0.03), (0.055, y + 0.03), (0.0, y + 0.052), (-0.055, y + 0.03)]
        pen.shape(lips, (226, 52, 74), INK, 0.018)
        pen.oval((0.0, y + 0.03), (0.034, 0.014), (255, 150, 160))
    elif expression == "frown":
        arc = [(-0.065, y + 0.03), (-0.04, y - 0.002), (0.0, y - 0.014), (0.04, y - 0.002)]
        pen.stroke([*arc, (0.065, y + 0.03)], INK, 0.022)
    else:
        pen.stroke([(-0.036, y), (0.036, y)], INK, 0.022)


def _brows(pen: Pen, avatar: Avatar) -> None:
    """Brows repeat the expression."""
    inner, middle, outer = {
        "smile": (-0.068, -0.084, -0.066),
        "open mouth": (-0.076, -0.096, -0.076),
        "frown": (-0.034, -0.066, -0.098),
        "expressionless": (-0.066, -0.066, -0.066),
    }[avatar.expression]
    ink = mix(HAIR_COLORS[avatar.hair_color], INK, 0.8)
    width = 0.018 if avatar.subject == "1girl" else 0.034
    for side in (-1, 1):
        brow = [(side * 0.08, inner), (side * 0.135, middle), (side * 0.19, outer)]
        pen.stroke(brow, ink, width)


def _front_hair(pen: Pen, avatar: Avatar, sway: float) -> None:
    base, shade, light = _hair_tones(avatar)
    crown = [(-0.335, 0.02), (-0.32, -0.17), (-0.21, -0.32), (0.0, -0.375)]
    crown += [(0.21, -0.32), (0.32, -0.17), (0.335, 0.02)]
    right = [(0.325, 0.13), (0.29, 0.23), (0.29, 0.23), (0.268, 0.08), (0.24, -0.13), (0.24, -0.13)]
    tips = [(0.17, -0.105), (0.11, -0.17), (0.03, -0.09), (-0.05, -0.17), (-0.14, -0.10)]
    bangs = [knot for x, y in tips for knot in [(x + sway, y)] * 2]
    left = [(-x, y) for x, y in reversed(right)]
    pen.shape([*crown, *right, *bangs, *left], base)
    pen.stroke([(0.11 + sway, -0.17), (0.10 + sway, -0.225)], shade, 0.014)
    pen.stroke([(-0.05 + sway, -0.17), (-0.04 + sway, -0.225)], shade, 0.014)
    gloss = [(-0.235, -0.2), (-0.17, -0.245), (-0.08, -0.27)]
    pen.stroke(gloss, light, 0.032 if avatar.quality == "best" else 0.02)
    if avatar.quality == "best":
        pen.stroke([(0.1, -0.27), (0.18, -0.24)], light, 0.032)
    if avatar.hair_style == "twintails":
        for side in (-1, 1):
            pen.oval((side * 0.33, -0.17), (0.036, 0.05), (255, 90, 120), INK)
    elif avatar.hair_style == "ponytail":
        pen.oval((0.20, -0.335), (0.055, 0.036), (255, 90, 120), INK)


def _glasses(pen: Pen) -> None:
    rim = (30, 40, 120)
    pen.stroke([(-0.03, 0.05), (0.03, 0.05)], rim, 0.022)
    for side in (-1, 1):
        pen.stroke([(side * 0.24, 0.04), (side * 0.285, 0.02)], rim, 0.022)
        angles = [k * pi / 6 for k in range(13)]
        ring = [(side * 0.135 + 0.108 * cos(a), 0.068 + 0.108 * sin(a)) for a in angles]
        pen.stroke(ring, rim, 0.022)


def _ornament(pen: Pen, avatar: Avatar) -> None:
    if avatar.ornament == "hair bow":
        _bow(pen)
    elif avatar.ornament == "hair flower":
        _flower(pen)
    elif avatar.ornament == "hairband":
        band = [(-0.325, -0.11), (-0.24, -0.235), (0.0, -0.30), (0.24, -0.235), (0.325, -0.11)]
        pen.stroke(band, INK, 0.088)
        pen.stroke(band, (20, 150, 150), 0.056)
    elif avatar.ornament == "cat ears":
        _cat_ears(pen, HAIR_COLORS[avatar.hair_color])
    elif avatar.ornament == "crown":
        _crown(pen)


def _bow(pen: Pen) -> None:
    red = (236, 40, 60)
    x, y = -0.17, -0.31
    for side in (-1, 1):
        wing = [(0.0, 0.0), (0.0, 0.0), (0.13, -0.085), (0.15, -0.01), (0.13, 0.075)]
        pen.shape([(x + side * dx, y + dy) for dx, dy in wing], red)
    pen.oval((x, y), (0.036, 0.042), (190, 20, 44), INK)


def _flower(pen: Pen) -> None:
    x, y = -0.25, -0.2
    for k in range(5):
        angle = k * 2 * pi / 5 - pi / 2
        pen.oval(
            (x + 0.062 * cos(angle), y + 0.062 * sin(angle)), (0.052, 0.052), (255, 255, 255), INK
        )
    pen.oval((x, y), (0.04, 0.04), (255, 190, 30), INK)


def _cat_ears(pen: Pen, color: Color) -> None:
    for side in (-1, 1):
        ear = [(0.29, -0.22), (0.31, -0.45), (0.31, -0.45), (0.12, -0.345)]
        pen.shape([(side * x, y) for x, y in ear], color)
        inner = [(0.27, -0.28), (0.285, -0.395), (0.285, -0.395), (0.19, -0.345)]
        pen.shape([(side * x, y) for x, y in inner], (255, 140, 160), None)


def _crown(pen: Pen) -> None:
    points = [(-0.15, -0.285), (-0.17, -0.42), (-0.08, -0.355), (0.0, -0.435), (0.08, -0.355)]
    points += [(0.17, -0.42), (0.15, -0.285)]
    pen.shape([knot for point in points for knot in (point, point)], (255, 200, 40))
    for x in (-0.075, 0.0, 0.075):
        pen.oval((x, -0.31), (0.018, 0.02), (226, 40, 70))
