"""What signs finished pictures, by its shape: known to API and worker, which do not share more."""

from collections.abc import Callable

from model.request import ImageFormat

ImageSigner = Callable[[bytes, ImageFormat, str], bytes]
"""From a file, its format and how it came to be to the same file, signed; SigningError."""


class SigningError(Exception):
    """A finished picture cannot be signed, so that it must not go out."""
