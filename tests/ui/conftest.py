"""One real service with kirazuri-tiny, and one real browser, for all tests of the page.

Every test has a key, and so a gallery, of its own.
"""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.support import lora_files
from tests.support.api_keys import bearer, make_key
from tests.support.browser import WAIT_MS, Opener, launch, open_window
from tests.support.service import running

KEYS = 120
TAGS = """\
1girl,0,5000000,1girls
long hair,0,4000000,longhair
long sleeves,0,1400000,
blue hair,0,900000,
smile,0,3000000,
ponytail,0,700000,long_ponytail
hatsune_miku,4,110000,miku
vocaloid,3,120000,
wlop,1,600,
saber_(fate),4,9000,
highres,5,4700000,hires
"""


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = launch(playwright)
        if browser is None:
            pytest.skip("there is no Chromium: install it, or run `playwright install chromium`")
        expect.set_options(timeout=WAIT_MS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def window(browser: Browser) -> Page:
    """The window in which the tests open their pages."""
    return open_window(browser)


@pytest.fixture(scope="session")
def _secrets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A file with keys, and the keys."""
    pairs = [make_key(f"test{number}") for number in range(KEYS)]
    file = tmp_path_factory.mktemp("keys") / "keys.toml"
    tables = [f'[{key.name}]\nhash = "{key.hash}"\n' for _, key in pairs]
    file.write_text("".join(tables) + 'rate = "4/minute"\n')  # of the last key
    return file, [secret for secret, _ in pairs]


@pytest.fixture(scope="session")
def service_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the service."""
    return tmp_path_factory.mktemp("service")


@pytest.fixture(scope="session")
def service(
    browser: Browser, _secrets: tuple[Path, list[str]], service_folder: Path
) -> Iterator[httpx2.Client]:
    """A running `kirazuri up` that requires a key. `browser` comes first: it may skip."""
    folder = service_folder
    tags = folder / "tags.csv"
    tags.write_text(TAGS)
    loras = folder / "loras"
    loras.mkdir()
    words = {"modelspec.trigger_phrase": "ink wash"}
    lora_files.write(loras / "ink.safetensors", metadata=words)
    lora_files.write(loras / "glow.safetensors", value=0.001)
    settings = {"KIRAZURI_KEYS_FILE": _secrets[0], "KIRAZURI_TAGS_FILE": tags}
    with running(folder, KIRAZURI_AUTH="required", KIRAZURI_LORA_DIR=loras, **settings) as client:
        yield client


@pytest.fixture(scope="session")
def _unused(_secrets: tuple[Path, list[str]]) -> Iterator[str]:
    return iter(_secrets[1][:-1])


@pytest.fixture
def limited_key(_secrets: tuple[Path, list[str]]) -> str:
    """A key with four submissions in a minute, for one test."""
    return _secrets[1][-1]


@pytest.fixture
def key(_unused: Iterator[str]) -> str:
    """An API key that no other test uses."""
    return next(_unused)


@pytest.fixture
def unused_key(_unused: Iterator[str]) -> str:
    """Another one."""
    return next(_unused)


@pytest.fixture
def client(service: httpx2.Client, key: str) -> Iterator[httpx2.Client]:
    """A client with the key of the page."""
    with httpx2.Client(
        base_url=service.base_url, headers=bearer(key), timeout=60, trust_env=False
    ) as client:
        yield client


@pytest.fixture
def open_page(window: Page, service: httpx2.Client) -> Iterator[Opener]:
    """Opens pages; the test fails if one of them complained."""
    opener = Opener(window, str(service.base_url).rstrip("/"))
    yield opener
    opener.close()
    assert [text for complaints in opener.complaints for text in complaints] == []


@pytest.fixture
def page(open_page: Opener, key: str) -> Page:
    """The page with a key, ready for use."""
    page = open_page(key)
    expect(page.locator(".tile").first).to_be_visible()
    return page
