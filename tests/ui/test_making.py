"""Making a picture: the prompt, its completion, weights, size and settings."""

import httpx2
from playwright.sync_api import Page, expect


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
