"""Shows images in texts."""

from collections.abc import Callable

from worker.job import StoredImage


def markdown_image(image: StoredImage, url_of: Callable[[str], str]) -> str:
    """A Markdown image with the URL that the client can read without a key."""
    return f"![seed {image.seed}]({url_of(image.url)})"
