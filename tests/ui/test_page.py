"""The page as a whole: the API key, the keyboard, accessibility, every width, pictures of it."""

import json
from pathlib import Path
from typing import Literal

import httpx2
import pytest
from playwright.sync_api import Page, Route, expect

from tests.clients.environment import InstallError, has_node
from tests.support.api_calls import redis_setting
from tests.support.api_server import ApiServer
from tests.support.browser import Opener, made, open_picture
from tests.support.node_packages import HOME, install
from tests.support.paths import ROOT
from worker.settings import Settings

PICTURES = ROOT / "out/ui"
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
WIDTHS = (360, 768, 1280, 1920, 2560)


@pytest.fixture(scope="session")
def axe() -> str:
    """The script of axe-core."""
    if not has_node():
        pytest.skip("axe-core needs npm, which is not installed")
    try:
        install()
    except InstallError as exc:
        pytest.skip(f"axe-core cannot be installed: {exc}")
    return (HOME / "node_modules/axe-core/axe.min.js").read_text(encoding="utf-8")


def assert_accessible(page: Page, axe: str) -> None:
    """In all colours nothing serious or critical.

    The script is not subject to the policy of the page.
    """
    page.evaluate(axe)
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        found = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
        serious = {
            rule["id"]: [node["html"] + " " + node["failureSummary"] for node in rule["nodes"]]
            for rule in found["violations"]
            if rule["impact"] in ("serious", "critical")
        }
        assert serious == {}, f"{scheme}: {json.dumps(serious, indent=1)}"


def test_the_key_is_asked_for_and_kept_in_the_session(open_page: Opener, key: str) -> None:
    page = open_page()
    box = page.get_by_role("dialog", name="API key")
    expect(box).to_be_visible()
    expect(box).to_contain_text("needs an API key")
    box.get_by_label("Key").fill("wrong")
    page.keyboard.press("Enter")
    expect(box).to_contain_text("not known")
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    box.get_by_label("Key").fill(key)
    page.keyboard.press("Enter")
    expect(page.locator(".tile").first).to_be_visible()
    expect(box).to_be_hidden()
    page.reload()
    expect(page.locator(".tile").first).to_be_visible()
    assert urls
    assert not any(key in url for url in urls)
    stored = page.evaluate("() => [JSON.stringify(localStorage), document.cookie, location.href]")
    assert not any(key in text for text in stored)
    page.get_by_role("button", name="Key ✓").click()
    box.get_by_role("button", name="Forget it").click()
    expect(box).to_contain_text("needs an API key")
    assert page.evaluate("() => JSON.stringify(sessionStorage)") == "{}"


def test_a_late_answer_to_an_earlier_key_asks_for_none(open_page: Opener, key: str) -> None:
    page = open_page()
    box = page.get_by_role("dialog", name="API key")
    held: list[Route] = []

    def hold_first(route: Route) -> None:
        is_wrong = route.request.headers.get("authorization") == "Bearer wrong"
        held.append(route) if is_wrong and not held else route.continue_()

    page.route("**/jobs?*", hold_first)
    box.get_by_label("Key").fill("wrong")
    page.keyboard.press("Enter")
    expect(box).to_contain_text("not known")
    box.get_by_label("Key").fill(key)
    page.keyboard.press("Enter")
    expect(page.locator(".tile").first).to_be_visible()
    expect(box).to_be_hidden()
    with page.expect_response(lambda response: response.status == 401):
        held[0].continue_()
    page.evaluate("() => fetch('livez').then((response) => response.text())")
    expect(box).to_be_hidden()


def test_a_key_that_no_header_can_hold_is_refused(open_page: Opener) -> None:
    page = open_page()
    box = page.get_by_role("dialog", name="API key")
    box.get_by_label("Key").fill("ключ")
    page.keyboard.press("Enter")
    expect(box).to_contain_text("other scripts")
    expect(page.locator("kz-status")).not_to_contain_text("does not answer")


def test_a_key_that_ends_does_not_disturb_who_types(page: Page) -> None:
    page.evaluate("sessionStorage.setItem('kirazuri.key', 'ended')")
    with page.expect_response("**/generate?dry_run=true"):
        page.locator("#prompt").press_sequentially("1girl, sm")
    note = page.locator("kz-notes[for=request] [data-kind=error]")
    expect(note).to_be_visible()
    expect(page.locator("#prompt")).to_be_focused()
    box = page.get_by_role("dialog", name="API key")
    expect(box).to_be_hidden()
    page.keyboard.press("Control+Enter")
    expect(box).to_contain_text("not known")


def test_without_keys_and_a_list_of_tags(window: Page, redis_url: str, tmp_path: Path) -> None:
    """An API alone, as on the own machine: no key is asked for; the card's words are completed."""
    settings = Settings(_env_file=None, redis_url=redis_setting(redis_url), data_dir=tmp_path)
    with ApiServer(settings) as server:
        opener = Opener(window, server.url)
        page = opener()
        expect(page.locator(".tile").first).to_be_visible()
        expect(page.get_by_role("dialog")).to_have_count(0)
        expect(page.locator("kz-status")).to_contain_text("no worker is running")
        page.locator("#prompt").press_sequentially("very")
        expect(page.locator(".completion li")).to_have_text(["very aestheticquality"])
        page.keyboard.press("Tab")
        page.get_by_role("button", name="Make").click()
        expect(page.locator("kz-run .state")).to_contain_text("in the queue")
        opener.close()
        assert opener.complaints == [[]]


def test_the_question_mark_lists_the_keys(page: Page) -> None:
    page.locator("body").press("?")
    help_ = page.get_by_role("dialog", name="Keys")
    expect(help_).to_contain_text("Ctrl")
    expect(help_).to_contain_text("Hair: black, brown")  # the advice of the card
    page.keyboard.press("Escape")
    expect(help_).to_be_hidden()
    page.locator("#prompt").press("?")
    expect(help_).to_be_hidden()
    expect(page.locator("#prompt")).to_have_value("?")


def test_colours_follow_the_system_or_the_user(page: Page) -> None:
    def background() -> str:
        return str(page.evaluate("getComputedStyle(document.documentElement).backgroundColor"))

    page.emulate_media(color_scheme="light")
    light = background()
    page.emulate_media(color_scheme="dark")
    dark = background()
    assert light != dark
    page.get_by_role("button", name="Colours").click()
    assert background() == light
    page.reload()
    expect(page.get_by_role("button", name="Colours: light")).to_be_visible()
    assert background() == light


FOCUSED = """() => {
    const {dataset, ariaLabel, innerText, type} = document.activeElement;
    const ringed = document.activeElement.closest(".tile") ?? document.activeElement;
    const ring = getComputedStyle(ringed).outlineStyle;
    return [dataset.field ?? ariaLabel ?? innerText ?? type, ring];
}"""
"""The name of the element that has the focus, and its ring."""


def test_the_form_can_be_used_with_the_keyboard_alone(page: Page) -> None:
    page.locator("#prompt").focus()
    names: list[str] = []
    while "Make" not in " ".join(names):
        name, ring = page.evaluate(FOCUSED)
        names.append(name)
        assert ring == "solid", names
        assert len(names) < 30, names
        page.keyboard.press("Tab")
    assert {"sampler", "seed", "steps", "cfg_scale", "num_images", "Draw another seed"} <= {*names}


def test_nothing_is_serious_for_axe(page: Page, axe: str) -> None:
    assert_accessible(page, axe)
    page.locator("#prompt").fill("masterpiece, 1girl, hatsune miku, vocaloid, (smile")
    page.get_by_label("Steps").fill("3")
    for summary in page.locator("summary").all():
        summary.click()
    page.get_by_role("button", name="Make").click()
    expect(page.locator(".picture img[data-kind=image]")).to_have_count(1)
    expect(page.locator("[data-code=steps_not_recommended]")).to_be_visible()
    assert_accessible(page, axe)
    page.locator("#prompt").press_sequentially(", lo")
    expect(page.locator(".completion li").first).to_be_visible()
    assert_accessible(page, axe)
    page.get_by_role("button", name="Chips").click()
    expect(page.locator(".chip[data-group=character]")).to_have_count(1)
    assert_accessible(page, axe)
    for name in ("Key ✓", "Keys and help"):
        page.get_by_role("button", name=name).click()
        assert_accessible(page, axe)
        page.keyboard.press("Escape")


def test_pictures_in_large_and_masks_are_accessible(
    open_page: Opener, key: str, client: httpx2.Client, axe: str
) -> None:
    first, second = made(client, seed=1), made(client, seed=2)
    page = open_page(key)
    viewer = open_picture(page, first)
    assert_accessible(page, axe)
    viewer.get_by_role("button", name="Change one thing").click()
    viewer.locator("[name=x-values]").fill("1, 2")
    viewer.get_by_role("button", name="Make the grid").click()
    expect(viewer.locator("kz-grid img")).to_have_count(2)
    assert_accessible(page, axe)
    viewer.locator(".close").click()
    open_picture(page, first).get_by_role("button", name="Compare").click()
    assert_accessible(page, axe)
    open_picture(page, second)
    expect(viewer.locator("kz-comparison")).to_be_visible()
    assert_accessible(page, axe)
    page.keyboard.press("Escape")
    open_picture(page, second).get_by_role("button", name="Start from it").click()
    page.locator("kz-hires summary").click()
    page.get_by_label("Enlarge the picture and sample again").check()
    assert_accessible(page, axe)
    page.get_by_role("button", name="Draw a mask").click()
    assert_accessible(page, axe)


def test_every_width_fits(open_page: Opener, key: str) -> None:
    page = open_page(key)
    expect(page.locator(".tile").first).to_be_visible()
    page.locator("#prompt").fill("1girl, " + "pneumonoultramicroscopicsilicovolcanoconiosis" * 3)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        for mode in ("Text", "Chips"):
            page.get_by_role("button", name=mode, exact=True).click()
            overflow = page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
            assert overflow == 0, (width, mode)
        button = page.get_by_role("button", name="Make")
        expect(button).to_be_in_viewport()  # it is always at hand


def test_pictures_of_the_page(page: Page) -> None:
    """For the eyes: out/ui/*.png."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.locator("#prompt").fill(
        "masterpiece, best quality, 1girl, hatsune miku, vocaloid, blue hair, smile, @wlop"
    )
    page.locator("[data-value=square_hd]").click()
    page.get_by_label("Steps").fill("16")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".picture img[data-kind=image]")).to_have_count(1)
    page.get_by_role("button", name="Chips", exact=True).click()
    expect(page.locator(".chip[data-group=character]")).to_have_count(1)
    for width in (360, 1280, 1920):
        page.set_viewport_size({"width": width, "height": 740 if width == 360 else 900})
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            file = PICTURES / f"page-{width}-{scheme}.png"
            page.screenshot(path=file)
            assert file.stat().st_size > 10_000
