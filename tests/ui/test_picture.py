"""Starting from a picture: its recipe, the init image, a mask, the second pass."""

import io
import re
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import FilePayload, Locator, Page, Route, expect

from tests.support.browser import PROMPT, Opener, made, open_picture
from tests.support.images import draw_image, encode_file

INFOTEXT = (
    "1girl, red hair, smile\nNegative prompt: blurry\n"
    "Steps: 7, Sampler: Euler, CFG scale: 3.5, Seed: 77, Size: 112x144, Clip skip: 2"
)
DROP = """({text, type}) => {
    const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
    const data = new DataTransfer();
    data.items.add(new File([bytes], "picture", {type: "image/png"}));
    const options = {bubbles: true, cancelable: true};
    const event = type === "paste"
        ? new ClipboardEvent("paste", {...options, clipboardData: data})
        : new DragEvent("drop", {...options, dataTransfer: data});
    document.body.dispatchEvent(event);
}"""


def with_infotext() -> bytes:
    info = PngInfo()
    info.add_text("parameters", INFOTEXT)
    return encode_file(draw_image((112, 144)), pnginfo=info)


def choose(page: Page, data: bytes, name: str = "picture.png", kind: str = "image/png") -> None:
    file = FilePayload(name=name, mimeType=kind, buffer=data)
    page.locator("kz-picture [type=file]").set_input_files(file)


def newest(client: httpx2.Client) -> dict[str, Any]:
    request: dict[str, Any] = client.get("/jobs").json()["items"][0]["request"]
    return request


def make(page: Page, pictures: int = 1) -> None:
    page.locator("#prompt").fill(PROMPT)
    page.locator("kz-sampling .steps [type=number]").fill("2")
    page.keyboard.press("Control+Enter")
    expect(page.locator("kz-gallery .open")).to_have_count(pictures)


def thumb(page: Page) -> Locator:
    return page.locator("kz-picture .thumb .start")


@pytest.mark.parametrize("way", ["choose", "drop", "paste"])
def test_the_recipe_of_a_picture_is_offered_and_fills_the_form(page: Page, way: str) -> None:
    if way == "choose":
        choose(page, with_infotext())
    else:
        text = b64encode(with_infotext()).decode()
        page.evaluate(DROP, {"text": text, "type": way})
    offer = page.locator("kz-picture .offer")
    expect(offer).to_contain_text("A1111")
    expect(offer).to_contain_text("1girl, red hair, smile")
    expect(offer.locator("li")).to_contain_text(["Clip skip"], ignore_case=True)
    expect(page.locator("#prompt")).to_have_value("")
    offer.get_by_role("button", name="Use its settings").click()
    expect(offer).to_be_hidden()
    expect(page.locator("#prompt")).to_have_value("1girl, red hair, smile")
    expect(page.locator("[data-field=negative_prompt]")).to_have_value("blurry")
    expect(page.locator("[data-field=seed]")).to_have_value("77")
    expect(page.locator("[data-field=sampler]")).to_have_value("euler")
    expect(page.locator("[data-value=portrait] input")).to_be_checked()
    expect(page.locator("kz-picture .chosen")).to_be_hidden()


def test_a_picture_of_this_service_offers_its_own_recipe(page: Page, client: httpx2.Client) -> None:
    job = made(client, seed=31)
    choose(page, client.get(job["images"][0]["url"]).content)
    offer = page.locator("kz-picture .offer")
    expect(offer).to_contain_text("this service")
    offer.get_by_role("button", name="Neither").click()
    expect(offer).to_be_hidden()
    expect(page.locator("kz-picture .chosen")).to_be_hidden()


def test_a_picture_without_a_recipe_is_the_start(page: Page, client: httpx2.Client) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (128, 160, 3), dtype=np.uint8)
    choose(page, encode_file(Image.fromarray(noise)))
    expect(thumb(page)).to_be_visible()
    expect(page.locator("kz-size [name=width]")).to_have_value("160")
    page.get_by_label("How much may change").first.fill("0.4")
    make(page)
    request = newest(client)
    assert (request["width"], request["height"], request["strength"]) == (160, 128, 0.4)
    assert request["init_image"]
    page.reload()  # the browser keeps no large pictures
    expect(page.locator("#prompt")).to_have_value(PROMPT)
    expect(page.locator("kz-picture .chosen")).to_be_hidden()
    expect(page.locator("[data-kind=error]")).to_have_count(0)


def test_dry_runs_do_not_carry_the_picture(page: Page) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (256, 256, 3), dtype=np.uint8)
    sizes: list[int] = []
    page.on(
        "request",
        lambda sent: sizes.append(len(sent.post_data or "")) if "dry_run" in sent.url else None,
    )
    page.locator("#prompt").fill(PROMPT)
    choose(page, encode_file(Image.fromarray(noise)))
    expect(thumb(page)).to_be_visible()
    expect(page.locator(".plan")).to_contain_text("cost")
    page.locator("kz-sampling .steps [type=number]").fill("3")
    expect(page.locator("kz-notes[for=steps] [data-code=steps_not_recommended]")).to_be_visible()
    assert max(sizes) < 5_000
    expect(page.locator("[data-kind=error]")).to_have_count(0)


def pixels(client: httpx2.Client, name: str) -> Any:
    data = client.get(f"/images/{name}").content
    return np.asarray(Image.open(io.BytesIO(data)).convert("L"))


def test_a_mask_is_drawn_erased_inverted_and_undone(page: Page, client: httpx2.Client) -> None:
    choose(page, encode_file(draw_image((128, 128))))
    page.get_by_role("button", name="Draw a mask").click()
    dialog = page.locator("kz-mask dialog")
    sheet = dialog.locator(".sheet")
    box = sheet.bounding_box()
    assert box
    dialog.locator(".brush [type=number]").fill("40")

    def stroke(*points: tuple[float, float]) -> None:
        first, *others = [
            (box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points
        ]
        page.mouse.move(*first)
        page.mouse.down()
        for point in others:
            page.mouse.move(*point, steps=4)
        page.mouse.up()

    stroke((0.25, 0.25), (0.75, 0.25))
    dialog.get_by_role("button", name="Eraser").click()
    stroke((0.75, 0.25))
    dialog.get_by_role("button", name="Brush").click()
    stroke((0.5, 0.75))
    page.keyboard.press("Control+z")
    dialog.get_by_role("button", name="Invert").click()
    dialog.get_by_role("button", name="Use this mask").click()
    expect(dialog).to_be_hidden()
    expect(page.locator("kz-picture .thumb .mask")).to_be_visible()
    make(page)
    mask = pixels(client, newest(client)["mask"])
    assert mask.shape == (128, 128)
    assert [mask[32, 32], mask[32, 60], mask[32, 96], mask[96, 64], mask[2, 2]] == [
        0, 0, 255, 255, 255,
    ]  # fmt: skip
    page.get_by_role("button", name="Remove the mask").click()
    make(page, 2)
    assert newest(client)["mask"] is None


def test_a_mask_can_be_drawn_with_the_keyboard(page: Page, client: httpx2.Client) -> None:
    choose(page, encode_file(draw_image((128, 128))))
    page.get_by_role("button", name="Draw a mask").click()
    expect(page.locator("kz-mask .sheet")).to_be_focused()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Space")
    page.get_by_role("button", name="Use this mask").press("Enter")
    expect(page.locator("kz-mask dialog")).to_be_hidden()
    make(page)
    mask = pixels(client, newest(client)["mask"])
    assert mask[64, 58] == 255
    assert mask[64, 110] == 0


def test_a_second_pass_enlarges(page: Page, client: httpx2.Client) -> None:
    page.locator("kz-hires summary").click()
    page.get_by_label("Enlarge the picture and sample again").check()
    page.get_by_label("Enlarge by").fill("1.25")
    page.locator("kz-hires .steps [type=number]").fill("2")
    page.locator("[data-value=square] input").check()
    make(page)
    hires = newest(client)["hires"]
    assert (hires["scale"], hires["width"], hires["steps"]) == (1.25, 160, 2)
    size = page.locator("kz-gallery .open img").evaluate(
        "img => img.decode().then(() => img.naturalWidth)"
    )
    assert size == 160
    page.get_by_label("Enlarge the picture and sample again").uncheck()
    make(page, 2)
    assert newest(client)["hires"] is None


def test_an_own_picture_is_the_start_by_its_name(page: Page, client: httpx2.Client) -> None:
    job = made(client, seed=3)
    page.reload()
    page.locator("#prompt").fill("1girl, pink hair")
    open_picture(page, job).get_by_role("button", name="Start from it").click()
    expect(thumb(page)).to_be_visible()
    expect(page.locator("#prompt")).to_have_value(PROMPT)
    make(page, 2)
    request = newest(client)
    assert (request["width"], request["height"]) == (96, 96)
    assert request["init_image"] == job["images"][0]["url"].rsplit("/", 1)[-1]
    client.delete(job["images"][0]["url"])
    page.keyboard.press("Control+Enter")
    expect(page.locator("kz-notes[for=init_image] [data-kind=error]")).to_contain_text("deleted")


def test_a_file_that_is_no_picture_is_told(page: Page, tmp_path: Path) -> None:
    choose(page, b"not a picture", "notes.png")
    expect(page.locator("kz-picture .failure")).to_be_visible()
    choose(page, encode_file(draw_image((64, 96))))
    expect(thumb(page)).to_be_visible()
    expect(page.locator("kz-picture .failure")).to_be_hidden()


def many_bytes() -> bytes:
    """A picture that is too large for a request."""
    noise = np.random.default_rng(0).integers(0, 255, (2400, 2400, 3), dtype=np.uint8)
    return encode_file(Image.fromarray(noise), compress_level=0)


@pytest.mark.parametrize("kind", ["gif", "animated", "bmp", "large"])
def test_what_the_browser_alone_can_read_is_the_start(
    page: Page, client: httpx2.Client, tmp_path: Path, kind: str
) -> None:
    frames = [draw_image((128, 128)), draw_image((128, 128)).rotate(90)]
    if kind == "large":
        data = many_bytes()
    elif kind == "bmp":
        data = encode_file(frames[0], "BMP")
    else:
        form = "GIF" if kind == "gif" else "WEBP"
        data = encode_file(frames[0], form, save_all=True, append_images=frames[1:])
    suffix = {"large": "png", "animated": "webp"}.get(kind, kind)
    file = tmp_path / f"picture.{suffix}"
    file.write_bytes(data)
    page.locator("kz-picture [type=file]").set_input_files(file)
    expect(thumb(page)).to_be_visible()
    expect(page.locator("kz-picture .failure")).to_be_hidden()
    make(page)
    request = newest(client)
    stored = client.get(f"/images/{request['init_image']}").content
    assert Image.open(io.BytesIO(stored)).size == ((256, 256) if kind == "large" else (128, 128))


def test_a_picture_is_scaled_down_for_a_service_that_takes_small_bodies(page: Page) -> None:
    def lower(route: Route) -> None:
        found = route.fetch().json()
        found["features"]["max_body_bytes"] = 1000
        route.fulfill(json=found)

    page.route("**/capabilities", lower)
    page.reload()
    expect(page.locator("kz-status")).to_contain_text("ready")  # it knows the limits
    choose(page, encode_file(draw_image((512, 512))))
    expect(thumb(page)).to_be_visible()
    with page.expect_request(re.compile("/generate$")) as sent:
        make(page)
    body: Any = sent.value.post_data_json
    picture = b64decode(body["init_image"].partition(",")[2])
    assert Image.open(io.BytesIO(picture)).size == (256, 256)


def test_the_last_of_two_pictures_counts(page: Page) -> None:
    held: list[Route] = []
    page.route("**/verify", lambda route: route.continue_() if held else held.append(route))
    page.evaluate(
        """() => {
            const read = createImageBitmap;
            window.reads = 0;
            window.createImageBitmap = (...all) => (window.reads++, read(...all));
        }"""
    )
    choose(page, encode_file(draw_image((128, 128))))
    choose(page, encode_file(draw_image((96, 128))))
    expect(page.locator("kz-picture .size")).to_contain_text("96 × 128")
    with page.expect_response("**/verify") as answer:
        held[0].continue_()
    answer.value.finished()
    page.evaluate("fetch('livez').then((answer) => answer.text())")  # the page has seen it by then
    assert page.evaluate("window.reads") == 1


def test_text_is_pasted_although_a_picture_of_it_comes_along(page: Page) -> None:
    page.locator("#prompt").focus()
    is_taken = page.evaluate(
        """() => {
            const clipboardData = new DataTransfer();
            clipboardData.items.add(new File(["x"], "cells.png", {type: "image/png"}));
            clipboardData.setData("text/plain", "1girl");
            const options = {bubbles: true, cancelable: true, clipboardData};
            return !document.activeElement.dispatchEvent(new ClipboardEvent("paste", options));
        }"""
    )
    assert not is_taken  # the browser pastes
    expect(page.locator("kz-picture .failure")).to_be_hidden()


def test_a_dropped_picture_closes_what_is_open(page: Page, client: httpx2.Client) -> None:
    job = made(client)
    page.reload()
    viewer = open_picture(page, job)
    text = b64encode(with_infotext()).decode()
    page.evaluate(DROP, {"text": text, "type": "drop"})
    expect(viewer).to_be_hidden()
    expect(page.locator("kz-picture .offer")).to_contain_text("A1111")


def test_back_closes_the_mask_and_keeps_what_was_drawn(page: Page) -> None:
    choose(page, encode_file(draw_image((128, 128))))
    page.get_by_role("button", name="Draw a mask").click()
    dialog = page.locator("kz-mask dialog")
    page.keyboard.press("Space")
    page.wait_for_function("history.state?.isOpen === true")
    page.go_back()
    expect(dialog).to_be_hidden()
    expect(thumb(page)).to_be_visible()
    page.get_by_role("button", name="Draw a mask").click()
    expect(dialog.get_by_role("button", name="Undo")).to_be_enabled()


def test_a_second_finger_draws_nothing(open_page: Opener, key: str) -> None:
    page = open_page(key, viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)
    expect(page.locator(".tile").first).to_be_visible()
    choose(page, encode_file(draw_image((128, 128))))
    page.get_by_role("button", name="Draw a mask").click()
    box = page.locator("kz-mask .sheet").bounding_box()
    assert box
    touch = page.context.new_cdp_session(page)

    def send(kind: str, *places: tuple[float, float]) -> None:
        points = [
            {"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"], "id": number}
            for number, (x, y) in enumerate(places)
        ]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    send("touchStart", (0.2, 0.2))
    send("touchStart", (0.2, 0.2), (0.8, 0.8))
    send("touchMove", (0.25, 0.2), (0.8, 0.75))
    send("touchEnd")
    alphas = page.evaluate(
        """(places) => {
            const context = new OffscreenCanvas(128, 128).getContext("2d");
            context.drawImage(document.querySelector("kz-mask canvas"), 0, 0);
            const {data} = context.getImageData(0, 0, 128, 128);
            return places.map(([x, y]) => data[4 * (128 * y + x) + 3]);
        }""",
        [(28, 26), (64, 64), (102, 100)],
    )
    assert alphas == [255, 0, 0]


def test_a_mask_without_paint_is_none(page: Page) -> None:
    choose(page, encode_file(draw_image((128, 128))))
    page.get_by_role("button", name="Draw a mask").click()
    page.keyboard.press("Space")
    page.keyboard.press("Control+z")
    page.get_by_role("button", name="Use this mask").click()
    expect(page.locator("kz-mask dialog")).to_be_hidden()
    expect(page.locator("kz-picture .thumb .mask")).to_be_hidden()


def test_the_size_of_a_second_pass_is_told_before_and_after(
    page: Page, client: httpx2.Client
) -> None:
    page.locator("kz-hires summary").click()
    page.get_by_label("Enlarge the picture and sample again").check()
    page.get_by_label("Enlarge by").fill("1.05")
    page.locator("[data-value=square_hd] input").check()
    expect(page.locator("kz-hires summary .hint")).to_have_text("1.05 ×, 208 × 208")
    make(page)
    assert newest(client)["hires"]["width"] == 208
    expect(page.locator("kz-run .settings")).to_contain_text("208 × 208")


def test_a_service_without_upscalers_offers_no_second_pass(page: Page) -> None:
    expect(page.locator("kz-hires")).to_be_visible()

    def answer(route: Route) -> None:
        body = route.fetch().json()
        body["features"]["upscalers"] = []
        route.fulfill(json=body)

    page.route("**/capabilities", answer)
    page.reload()
    expect(page.locator(".tile").first).to_be_visible()
    expect(page.locator("kz-hires")).to_be_hidden()
