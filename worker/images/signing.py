"""Defines the type of image signers, without importing what signs."""

from collections.abc import Callable

from model.request import ImageFormat

ImageSigner = Callable[[bytes, ImageFormat, str], bytes]
"""Signs a file: takes its bytes, format and digital source type. Raises SigningError."""


class SigningError(Exception):
    """An image cannot be signed, so it must not be published."""
