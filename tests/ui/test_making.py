"""Making a picture: the prompt, its completion, weights, size and settings."""

import re

import httpx2
import pytest
from playwright.sync_api import Page, Route, expect

from tests.support.browser import PROMPT, made, open_picture


def write(page: Page, text: str) -> None:
    page.locator("#prompt").fill(text)


def prompt(page: Page) -> str:
    return page.locator("#prompt").input_value()


def newest(client: httpx2.Client) -> dict[str, object]:
    """The request of the newest job."""
    request: dict[str, object] = client.get("/jobs").json()["items"][0]["request"]
    return request


def test_tags_are_completed_with_colours_counts_and_aliases(page: Page) -> None:
    page.locator("#prompt").press_sequentially("1girl, lo")
    options = page.locator(".completion li")
    expect(options).to_have_count(4)  # three of the list, and a word of the card
    first = options.first
    expect(first).to_contain_text("long hair")
    expect(first).to_contain_text("4M")
    expect(options.nth(1)).to_contain_text("long sleeves")
    expect(options.nth(2)).to_contain_text("→ ponytail")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert prompt(page) == "1girl, ponytail, "
    page.keyboard.type("saber")
    expect(options).to_have_count(1)
    character = options.first.locator(".tag").evaluate("tag => getComputedStyle(tag).color")
    page.keyboard.press("Tab")
    assert prompt(page) == r"1girl, ponytail, saber \(fate\), "
    page.keyboard.type("wl")
    expect(options).to_have_count(1)
    assert options.first.locator(".tag").evaluate("tag => getComputedStyle(tag).color") != character
    page.keyboard.press("Tab")
    assert prompt(page).endswith("@wlop, ")
    page.keyboard.type("mas")
    expect(options).to_have_count(1)  # a word of the card
    page.keyboard.press("Escape")
    expect(options).to_have_count(0)
    page.keyboard.press("Control+z")
    assert prompt(page).endswith("@wlop, ma")


def test_ctrl_up_and_down_weigh_the_selection_or_the_tag_at_the_cursor(page: Page) -> None:
    write(page, "1girl, blue hair, smile")
    field = page.locator("#prompt")
    field.evaluate("field => field.setSelectionRange(7, 16)")
    page.keyboard.press("Control+ArrowUp")
    page.keyboard.press("Control+ArrowUp")
    assert prompt(page) == "1girl, (blue hair:1.2), smile"
    page.keyboard.press("Control+ArrowDown")
    page.keyboard.press("Control+ArrowDown")
    assert prompt(page) == "1girl, blue hair, smile"
    page.keyboard.press("End")
    page.keyboard.press("Control+ArrowDown")
    assert prompt(page) == "1girl, blue hair, (smile:0.9)"


def place(page: Page, start: int, end: int | None = None) -> None:
    """Put the cursor into the prompt, or select a part of it."""
    bounds = [start, start if end is None else end]
    page.locator("#prompt").evaluate("(field, at) => field.setSelectionRange(...at)", bounds)


# What has a ^ at both ends is selected; a single ^ is the cursor.
WEIGHED = {
    "((blue hair:1.2), sm^ile:1.3)": "((blue hair:1.2), smile:1.4)",
    "((blue ^hair:1.2), smile:1.3)": "((blue hair:1.3), smile:1.3)",
    "(blue hair, ^long hair), x": "(blue hair, long hair:1.2), x",
    "a, ((^b)), c": "a, (b:1.31), c",
    r"(saber \(fate\), ^smile:1.1)": r"(saber \(fate\), smile:1.2)",
    r"1girl, saber \(f^ate\), x": r"1girl, (saber \(fate\):1.1), x",
    "(a:1.2)(b:^1.3)": "(a:1.2)(b:1.4)",
    "(a:-0.^5), b": "(a:-0.4), b",
    "1girl, (blue ^hair:1.2), sm^ile": "1girl, ((blue hair:1.2), sm:1.1)ile",
    "(^a^, b:1.2)": "((a:1.1), b:1.2)",
    "x, ^(a:1.2), (b:1.1)^, y": "x, ((a:1.2), (b:1.1):1.1), y",
    "(blue ^hair:1^.2), y": "(blue hair:1.3), y",
    ";^) a, b": "(;) a:1.1), b",
}


def test_weights_keep_the_brackets_around_them(page: Page, subtests: pytest.Subtests) -> None:
    for written, weighed in WEIGHED.items():
        with subtests.test(written):
            start, *others = (at for at, letter in enumerate(written) if letter == "^")
            write(page, written.replace("^", ""))
            place(page, start, *(other - 1 for other in others))
            page.keyboard.press("Control+ArrowUp")
            assert prompt(page) == weighed


def test_a_tag_that_is_written_before_another_keeps_it(page: Page) -> None:
    for text, at, typed, whole in (
        ("1girl, smile", 7, "lo", "1girl, long hair, smile"),
        ("1girl,smile, x", 6, "lo", "1girl,long hair, smile, x"),
        ("1girl, lon hair, x", 10, "g", "1girl, long hair, x"),
        ("1girl, log hair", 9, "n", "1girl, long hair, "),
        ("(, x:1.2)", 1, "lo", "(long hair, x:1.2)"),
        ("1girl\nsmile", 5, "\nlo", "1girl\nlong hair\nsmile"),
    ):
        write(page, text)
        place(page, at)
        page.locator("#prompt").press_sequentially(typed)
        expect(page.locator(".completion li").first).to_contain_text("long hair")
        page.keyboard.press("Tab")
        assert prompt(page) == whole


def test_a_prompt_that_is_too_long_is_told_and_not_cut(page: Page) -> None:
    page.locator("#prompt").focus()
    page.evaluate("document.execCommand('insertText', false, 'smile, '.repeat(1500))")
    assert len(prompt(page)) == 10_500
    expect(page.locator("kz-notes[for=prompt] [data-kind=error]")).to_contain_text("10000")


def test_a_picture_is_made_with_the_settings_of_the_form(page: Page, client: httpx2.Client) -> None:
    write(page, "1girl, blue hair, smile")
    page.locator("[data-value=portrait]").click()
    page.locator("[data-field=sampler]").select_option("euler")
    page.get_by_label("Steps").fill("6")
    page.get_by_label("CFG").fill("3.5")
    page.locator("[data-field=seed]").fill("42")
    page.locator("[data-field=num_images]").select_option("2")
    expect(page.locator(".plan")).to_contain_text("tokens")
    expect(page.locator(".plan")).to_contain_text("cost")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".picture[data-state=done] img[data-kind=image]")).to_have_count(2)
    for index in range(2):
        picture = page.locator(".picture img").nth(index)
        size = picture.evaluate(
            "img => img.decode().then(() => [img.naturalWidth, img.naturalHeight])"
        )
        assert size == [112, 144]
    request = newest(client)
    wanted = {"prompt": "1girl, blue hair, smile", "width": 112, "height": 144, "steps": 6}
    wanted |= {"sampler": "euler", "cfg_scale": 3.5, "seed": 42, "num_images": 2}
    assert {name: request[name] for name in wanted} == wanted


def test_a_warning_is_beside_what_it_concerns(page: Page) -> None:
    write(page, "1girl, blue hair, smile, (open")
    page.get_by_label("Steps").fill("3")
    expect(page.locator("kz-notes[for=steps] [data-code=steps_not_recommended]")).to_be_visible()
    note = page.locator("kz-notes[for=prompt] [data-code=unbalanced_brackets]")
    expect(note).to_be_visible()
    expect(page.locator("#prompt")).to_have_attribute("aria-describedby", "notes-prompt")


def test_errors_are_beside_their_fields(page: Page) -> None:
    write(page, "1girl")
    page.locator("[data-field=seed]").fill("many")
    page.get_by_label("Steps").fill("500")
    page.get_by_role("button", name="Make").click()
    expect(page.locator("kz-notes[for=seed] [data-kind=error]")).to_be_visible()
    expect(page.locator("kz-notes[for=steps] [data-kind=error]")).to_contain_text("100")
    expect(page.locator("input[data-field=steps]")).to_have_attribute("aria-invalid", "true")
    expect(page.locator(".plan")).to_have_text("")
    page.get_by_label("Steps").fill("20")
    page.locator("[data-field=seed]").fill("7")
    expect(page.locator("[data-kind=error]")).to_have_count(0)


def test_a_slow_submission_is_seen(page: Page) -> None:
    held: list[Route] = []
    page.route(re.compile("/generate$"), lambda route: held.append(route))
    write(page, "1girl")
    button = page.get_by_role("button", name="Make")
    button.click()
    expect(button).to_have_attribute("aria-busy", "true")
    held[0].continue_()
    expect(button).not_to_have_attribute("aria-busy", "true")


def test_text_from_right_to_left_is_written_so(page: Page) -> None:
    write(page, "שלום, 1girl")
    direction = "field => getComputedStyle(field).direction"
    assert page.locator("#prompt").evaluate(direction) == "rtl"
    page.get_by_role("button", name="Chips").click()
    chips = page.locator(".chip .words")
    for words, side in (("שלום", "rtl"), ("1girl", "ltr")):
        expect(chips.filter(has_text=words)).to_have_css("direction", side)


def test_undo_brings_back_what_a_button_has_replaced(page: Page, client: httpx2.Client) -> None:
    job = made(client)
    page.reload()
    field = page.locator("#prompt")
    field.press_sequentially("my own words ")
    open_picture(page, job).get_by_role("button", name="Use these settings").click()
    expect(field).to_have_value(PROMPT)
    expect(page.locator(".completion li")).to_have_count(0)
    field.press("Control+z")
    expect(field).to_have_value("my own words ")
    page.locator("kz-loras summary").click()
    page.locator("kz-loras select").select_option("ink")
    page.get_by_role("button", name="ink wash").click()
    expect(page.get_by_role("button", name="ink wash")).to_be_focused()
    assert prompt(page) == "my own words, ink wash"
    field.press("Control+z")
    assert prompt(page) == "my own words "


def test_a_refusal_outlives_the_dry_run_of_the_same_form(page: Page) -> None:
    held: list[Route] = []
    page.route("**/generate?dry_run=true", lambda route: held.append(route))
    body = {"title": "Queue full", "status": 503, "code": "queue_full", "detail": "It is full."}
    page.route(re.compile("/generate$"), lambda route: route.fulfill(status=503, json=body))
    with page.expect_request("**/generate?dry_run=true"):
        write(page, "1girl, smile")
    page.keyboard.press("Control+Enter")
    note = page.locator("kz-notes[for=request] [data-kind=error]")
    expect(note).to_contain_text("full")
    held[0].continue_()
    expect(page.locator(".plan")).to_contain_text("tokens")
    expect(note).to_contain_text("full")
    page.unroute("**/generate?dry_run=true")
    page.get_by_label("Steps").fill("19")
    expect(note).to_have_count(0)
