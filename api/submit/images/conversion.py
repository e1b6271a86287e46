"""Converts decoded images: to RGB, to masks, to a size, to PNG."""

import io

from PIL import Image, ImageFilter, ImageOps

from api.submit.images.decoding import InputImageRefused, Size

_PNG_COMPRESS_LEVEL = 4


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert to 8-bit RGB; transparent pixels become white."""
    return _flattened(image, "white").convert("RGB")


def to_mask(image: Image.Image) -> Image.Image:
    """Convert to 8-bit grey; transparent pixels become black, which is kept."""
    return _flattened(image, "black").convert("L")


def foreign_mask(mask: Image.Image, size: Size, *, is_inverted: bool, blur: int) -> Image.Image:
    """Convert a mask as other web UIs send it: of any size, with or without transparency.

    If it has transparent pixels, the opaque ones are repainted; otherwise the bright ones are.
    `blur` softens its edge by that many pixels.
    """
    level = _alpha(mask) if mask.has_transparency_data else None
    if level is None or level.getextrema() == (255, 255):
        level = _eight_bit(mask).convert("L")
    level = level.resize(size, Image.Resampling.BILINEAR)
    if is_inverted:
        level = ImageOps.invert(level)
    return level.filter(ImageFilter.GaussianBlur(blur)) if blur else level


def alpha_mask(image: Image.Image) -> Image.Image:
    """A mask that repaints the transparent pixels of an image.

    Raises:
        InputImageRefused: the image has no alpha channel.
    """
    if not image.has_transparency_data:
        raise InputImageRefused(
            "the mask has no alpha channel; its transparent pixels are repainted"
        )
    return ImageOps.invert(_alpha(image))


def scale_and_crop(image: Image.Image, size: Size) -> Image.Image:
    """Scale and crop around the centre to `size`.

    Masks are scaled bilinearly, because Lanczos overshoots at their edges.
    """
    if image.size == size:
        return image
    is_mask = image.mode == "L"
    method = Image.Resampling.BILINEAR if is_mask else Image.Resampling.LANCZOS
    return ImageOps.fit(image, size, method)


def encode_png(image: Image.Image) -> bytes:
    """The image as a PNG file."""
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=_PNG_COMPRESS_LEVEL)
    return file.getvalue()


def _flattened(image: Image.Image, background: str) -> Image.Image:
    if not image.has_transparency_data:
        return _eight_bit(image)
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, background), rgba)


def _alpha(image: Image.Image) -> Image.Image:
    return image.convert("RGBA").getchannel("A")


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey to 8 bits; Pillow's own conversion clips values above 255."""
    if image.mode.startswith("I"):
        return image.point(lambda level: level / 257).convert("L")
    return image
