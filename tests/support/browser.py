"""A real browser for tests of the page."""

import os
import shutil
from typing import Any

import httpx2
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Error,
    Locator,
    Page,
    Playwright,
    Request,
    expect,
)

WAIT_MS = 60_000
"""For a state of the page; a busy machine may need it."""

PROMPT = "1girl, blue hair, smile"

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def launch(playwright: Playwright) -> Browser | None:
    """The system's Chromium, or the one that Playwright has installed; None if there is none."""
    program = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    # Chromium's own sandbox does not work for root.
    options = [] if os.geteuid() else ["--no-sandbox"]
    try:
        return playwright.chromium.launch(executable_path=program, args=options)
    except Error:
        if program:
            raise
        return None


class Complaints(list[str]):
    """Errors of the page: exceptions, refusals of the security policy, requests of other hosts."""

    def __init__(self, page: Page, origin: str) -> None:
        super().__init__()
        self._origin = origin
        page.on("pageerror", lambda error: self.append(f"exception: {error}"))
        page.on("console", self._hear)
        page.on("request", self._see)

    def _hear(self, message: ConsoleMessage) -> None:
        # The console repeats every 4xx and every lost connection, which tests cause on purpose.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.append(f"{message.type}: {message.text}")

    def _see(self, request: Request) -> None:
        if not request.url.startswith((self._origin, "data:", "blob:")):
            self.append(f"request: {request.url}")


def open_window(browser: Browser, **options: Any) -> Page:
    """A blank tab in a window of its own; options are those of a context."""
    options.setdefault("viewport", {"width": 1280, "height": 900})
    context = browser.new_context(reduced_motion="reduce", **options)
    context.set_default_timeout(WAIT_MS)
    return context.new_page()


class Opener:
    """Opens pages, and collects what they complain about.

    To open a window takes longer than all else of a page, and a new one has no script in its cache.
    So pages are tabs of `window`, which stays, each with an empty storage.
    """

    def __init__(self, window: Page, address: str) -> None:
        self._window = window
        self._pages: list[Page] = []
        self.address = address
        self.complaints: list[Complaints] = []

    def __call__(
        self, key: str = "", *, path: str = "/", alone: bool = False, **options: Any
    ) -> Page:
        """A page at `path`, as if the key had been entered.

        It has a window of its own if it is `alone` or has options, which are those of a context.
        """
        browser = self._window.context.browser
        assert browser
        if alone or options:
            page = open_window(browser, **options)
        else:
            page = self._window.context.new_page()
        self._pages.append(page)
        self.complaints.append(Complaints(page, self.address))
        page.goto(f"{self.address}/livez")  # what is stored belongs to this origin
        page.evaluate("localStorage.clear()")  # of earlier pages; `sessionStorage` is of one tab
        if key:
            page.evaluate("key => sessionStorage.setItem('kirazuri.key', key)", key)
        page.goto(f"{self.address}{path}")
        return page

    def close(self) -> None:
        for context in {page.context for page in self._pages} - {self._window.context}:
            context.close()
        for page in self._window.context.pages:
            if page is not self._window:
                page.close()


def made(client: httpx2.Client, **fields: Any) -> dict[str, Any]:
    """A job that has ended, made without the page."""
    body = {"prompt": PROMPT, "steps": 1, "resolution": "96x96", **fields}
    answer = client.post("/generate", json=body, headers={"prefer": "wait=60"})
    assert answer.status_code == 200, answer.text
    job: dict[str, Any] = answer.json()
    assert job["status"] == "succeeded", job
    return job


def open_picture(page: Page, job: dict[str, Any], index: int = 0) -> Locator:
    """Click a picture of the gallery; the viewer."""
    page.locator(f"kz-gallery .open[data-name='{job['id']}/{index}']").click()
    viewer = page.locator("kz-viewer dialog")
    expect(viewer).to_be_visible()
    return viewer


def tiles(page: Page) -> Locator:
    """The pictures of the gallery."""
    return page.locator("kz-gallery .open")


def is_loaded(picture: Locator) -> None:
    """Wait until the picture is shown with its pixels."""
    expect(picture).to_be_visible()
    assert picture.evaluate("img => img.decode().then(() => img.naturalWidth)") > 0
