"""The prompt as chips: nothing is lost; chips are dragged, weighted, changed, added and removed."""

import httpx2
from playwright.sync_api import Locator, Page, expect

from tests.support.browser import Opener

TEXT = (
    "smile,masterpiece ,\n  1girl, hatsune miku, vocaloid, (blue hair, long hair:1.2), @wlop,"
    " She waves from a bridge."
)


def show(page: Page, mode: str) -> None:
    page.get_by_role("button", name=mode, exact=True).click()


def prompt(page: Page) -> str:
    """The prompt as text."""
    show(page, "Text")
    return page.locator("#prompt").input_value()


def chips(page: Page, text: str) -> None:
    page.locator("#prompt").fill(text)
    show(page, "Chips")


def words(page: Page, group: str) -> list[str]:
    return page.locator(f".chip[data-group={group}] .words").all_text_contents()


def chip(page: Page, text: str) -> Locator:
    return page.locator(".chip", has_text=text)


def test_the_text_comes_back_as_it_was_written(page: Page) -> None:
    chips(page, TEXT)
    expect(page.locator(".chip")).to_have_count(8)
    assert prompt(page) == TEXT
    for text in ("a (b, c", "a), b", r"saber \(fate\), x", "a,, b,\n\n", "", " , "):
        chips(page, text)
        assert prompt(page) == text


def test_chips_are_in_the_groups_of_the_card_and_of_the_list(page: Page) -> None:
    chips(page, TEXT)
    expect(page.locator(".chip[data-group=character]")).to_have_count(1)
    assert words(page, "quality") == ["masterpiece"]
    assert words(page, "subject") == ["1girl"]
    assert words(page, "character") == ["hatsune miku"]
    assert words(page, "series") == ["vocaloid"]
    assert words(page, "artist") == ["@wlop"]
    assert words(page, "general") == ["smile", "blue hair, long hair", "She waves from a bridge."]
    expect(chip(page, "long hair").locator(".weight")).to_have_text("×1.2")


def test_an_emoticon_is_no_artist(page: Page) -> None:
    chips(page, "1girl, @_@, @wlop, (@wlop:1.2)")
    expect(page.locator(".chip")).to_have_count(4)
    assert words(page, "artist") == ["@wlop", "@wlop"]
    assert words(page, "general") == ["@_@"]


def drag(page: Page, source: Locator, target: Locator) -> None:
    """Move by the mouse: onto the left half of the target."""
    source.hover(position={"x": 12, "y": 10})
    page.mouse.down()
    box = target.bounding_box()
    assert box
    page.mouse.move(box["x"] + 20, box["y"] + 5)
    page.mouse.move(box["x"] + 3, box["y"] + box["height"] / 2, steps=4)
    expect(page.locator(".mark")).to_be_visible()
    page.mouse.up()


def test_a_chip_is_dragged_within_its_group_and_to_another(page: Page) -> None:
    chips(page, "masterpiece, 1girl, blue hair, smile")
    drag(page, chip(page, "smile"), chip(page, "blue hair"))
    assert words(page, "general") == ["smile", "blue hair"]
    drag(page, chip(page, "smile"), page.locator(".row[data-group=subject] ul"))
    expect(page.locator(".chip[data-group=subject]")).to_have_count(2)
    assert prompt(page) == "masterpiece, smile, 1girl, blue hair"
    # The group is kept, with the text in whatever order.
    show(page, "Chips")
    assert words(page, "subject") == ["smile", "1girl"]


def test_a_drag_ends_without_effect_at_escape(page: Page) -> None:
    chips(page, "1girl, blue hair, smile")
    chip(page, "smile").hover(position={"x": 12, "y": 10})
    page.mouse.down()
    page.mouse.move(40, 200, steps=3)
    expect(page.locator(".ghost")).to_be_visible()
    page.keyboard.press("Escape")
    page.mouse.up()
    expect(page.locator(".ghost")).to_have_count(0)
    assert prompt(page) == "1girl, blue hair, smile"


def test_escape_ends_a_drag_and_cancels_no_job(page: Page, client: httpx2.Client) -> None:
    page.get_by_label("Steps").fill("100")
    chips(page, "1girl, blue hair, smile")
    page.keyboard.press("Control+Enter")
    expect(page.locator("kz-run .state")).to_contain_text("Step")
    chip(page, "smile").hover(position={"x": 12, "y": 10})
    page.mouse.down()
    page.mouse.move(40, 200, steps=3)
    page.keyboard.press("Escape")
    page.mouse.up()
    expect(page.locator(".ghost")).to_have_count(0)
    expect(page.locator(".picture img[data-kind=image]")).to_have_count(1)
    assert client.get("/jobs").json()["items"][0]["status"] == "succeeded"


def test_enter_that_ends_a_composition_does_not_end_the_edit(page: Page) -> None:
    chips(page, "1girl, smile")
    chip(page, "smile").focus()
    page.keyboard.press("Enter")
    field = page.get_by_label("Change the tag")
    field.evaluate(
        """field => field.dispatchEvent(
            new KeyboardEvent("keydown", {key: "Enter", isComposing: true, bubbles: true}))"""
    )
    expect(field).to_be_focused()


def test_chips_are_worked_with_by_keys(page: Page) -> None:
    chips(page, "1girl, blue hair, smile")
    chip(page, "blue hair").focus()
    page.keyboard.press("Control+ArrowUp")
    page.keyboard.press("Control+ArrowUp")
    expect(chip(page, "blue hair").locator(".weight")).to_have_text("×1.2")
    page.keyboard.press("Alt+ArrowRight")
    expect(chip(page, "blue hair")).to_be_focused()
    assert words(page, "general") == ["smile", "blue hair"]
    page.keyboard.press("Alt+ArrowUp")
    assert words(page, "artist") == ["blue hair"]
    page.keyboard.press("ArrowLeft")
    expect(chip(page, "1girl")).to_be_focused()
    page.keyboard.press("Delete")
    assert words(page, "subject") == []
    chip(page, "smile").focus()
    page.keyboard.press("Enter")
    page.keyboard.type("grin")
    page.keyboard.press("Enter")
    assert prompt(page) == "(blue hair:1.2), grin"


def test_a_new_tag_goes_to_the_end_of_its_group(page: Page) -> None:
    chips(page, "masterpiece, 1girl, smile")
    page.get_by_label("Add a tag").press_sequentially("mik")
    expect(page.locator(".completion li")).to_have_count(1)
    page.keyboard.press("Tab")
    expect(page.locator(".chip[data-group=character]")).to_have_text(["hatsune miku×"])
    page.keyboard.type("blue eyes")
    page.keyboard.press("Enter")
    chip(page, "smile").locator(".remove").click()
    assert prompt(page) == "masterpiece, 1girl, hatsune miku, blue eyes"


def test_a_finger_drags_a_chip_after_a_moment(open_page: Opener, key: str) -> None:
    page = open_page(key, viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)
    expect(page.locator(".tile").first).to_be_visible()
    chips(page, "1girl, blue hair, smile")
    touch = page.context.new_cdp_session(page)

    def send(kind: str, *point: float) -> None:
        points = [{"x": point[0], "y": point[1]}] if point else []
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    start, target = (chip(page, text).bounding_box() for text in ("smile", "blue hair"))
    assert start
    assert target
    send("touchStart", start["x"] + 12, start["y"] + 10)
    expect(page.locator(".ghost")).to_be_visible()
    send("touchMove", target["x"] + 30, target["y"] + 8)
    send("touchMove", target["x"] + 3, target["y"] + 8)
    expect(page.locator(".mark")).to_be_visible()
    send("touchEnd")
    expect(page.locator(".ghost")).to_have_count(0)
    assert prompt(page) == "1girl, smile, blue hair"
