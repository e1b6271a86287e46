"""The settings of a picture: size, sampler, seed, LoRAs, advanced ones, and their errors."""

from typing import Any

import httpx2
from playwright.sync_api import Page, Request, expect

from tests.support.browser import Opener


def body_of(request: Request) -> dict[str, Any]:
    body: dict[str, Any] = request.post_data_json or {}
    return body


def write(page: Page, text: str = "1girl, smile") -> None:
    with page.expect_response("**/generate?dry_run=true"):
        page.locator("#prompt").fill(text)


def test_tiles_are_drawn_to_shape_and_a_size_can_be_free(page: Page) -> None:
    write(page)
    boxes = {}
    for name in ("portrait", "landscape", "square_hd", "square"):
        box = page.locator(f"[data-value={name}] .shape").bounding_box()
        assert box
        boxes[name] = box["width"] / box["height"]
    assert boxes["portrait"] < 0.85 < 0.95 < boxes["square"] < 1.05 < 1.15 < boxes["landscape"]
    page.locator("[data-value=free]").click()
    page.get_by_role("spinbutton", name="Width").fill("160")
    page.get_by_role("spinbutton", name="Height").fill("100")
    expect(page.locator("kz-notes[for=resolution] [data-kind=error]")).to_contain_text("100")
    page.get_by_role("spinbutton", name="Height").fill("112")
    expect(page.locator("kz-notes[for=resolution] [data-code=size_not_trained]")).to_be_visible()
    with page.expect_request("**/generate?dry_run=true") as info:
        page.get_by_role("button", name="Swap width and height").click()
    assert body_of(info.value)["resolution"] == "112x160"
    page.locator("[data-value=portrait]").click()
    expect(page.get_by_role("spinbutton", name="Width")).to_be_hidden()


def test_a_side_that_is_no_size_leaves_the_other_as_it_is(page: Page) -> None:
    write(page)
    page.locator("[data-value=free]").click()
    width = page.get_by_role("spinbutton", name="Width")
    for text in ("128.5", "-5"):
        width.press("Control+a")
        width.press_sequentially(text)
        expect(page.locator("kz-notes[for=resolution] [data-kind=error]")).to_contain_text(text)
        expect(width).to_have_value(text)
        expect(page.get_by_role("spinbutton", name="Height")).to_have_value("128")


def test_a_number_can_be_cleared_and_written_anew(page: Page) -> None:
    write(page)
    page.locator("kz-advanced summary").click()
    page.locator("[name=image_format]").select_option("webp")
    names = ("Steps", "CFG", "eta", "Quality")
    usual = {name: page.get_by_label(name, exact=True).input_value() for name in names}
    for name in names:
        field = page.get_by_label(name, exact=True)
        field.press("End")
        for _ in usual[name]:
            field.press("Backspace")
        expect(field).to_have_value("")
        field.press_sequentially("1")
        expect(field).to_have_value("1")
        field.press("Backspace")
        field.blur()
        expect(field).to_have_value(usual[name])


def test_a_sampler_brings_its_steps_and_its_recommended_range(page: Page) -> None:
    write(page)
    steps = page.get_by_label("Steps")
    expect(steps).to_have_value("20")
    page.locator("[data-field=sampler]").select_option("dpmpp_3m_sde")
    expect(steps).to_have_value("50")
    slider = page.locator("kz-slider.steps")
    expect(slider).to_have_attribute("title", "recommended: 40 to 100")
    expect(page.locator("kz-sampling .note")).to_have_text("Overshoots at few steps.")
    groups = page.locator("[data-field=sampler] optgroup").evaluate_all(
        "all => all.map(one => one.label)"
    )
    assert groups == ["Recommended", "Others"]
    track = slider.locator("[type=range]")
    track.evaluate(
        "range => { range.value = 60; range.dispatchEvent(new Event('input', {bubbles: true})); }"
    )
    expect(steps).to_have_value("60")


def test_a_locked_seed_stays_and_another_is_drawn(page: Page, client: httpx2.Client) -> None:
    page.get_by_label("Steps").fill("2")
    write(page)
    seed = page.get_by_label("Seed", exact=True)
    first = seed.input_value()
    page.get_by_role("button", name="Draw another seed").click()
    second = seed.input_value()
    assert first != second
    page.get_by_role("button", name="Make").click()
    expect(seed).not_to_have_value(second)  # the next picture gets another one
    seed.fill("42")
    lock = page.get_by_role("button", name="Keep the seed").first
    expect(lock).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Make").click()
    expect(page.locator("kz-run .settings")).to_contain_text("seed 42")
    expect(seed).to_have_value("42")
    lock.click()
    expect(lock).to_have_attribute("aria-pressed", "false")
    made = [job["request"]["seed"] for job in client.get("/jobs").json()["items"]]
    assert made == [42, int(second)]


def test_the_settings_of_a_picture_are_used_again(page: Page) -> None:
    page.locator("[data-field=sampler]").select_option("euler")
    page.get_by_label("Steps").fill("3")
    write(page)
    page.get_by_role("button", name="Make").click()
    expect(page.locator("kz-run .settings")).to_contain_text("3 steps")
    seed = page.locator("kz-run .settings span").first.text_content() or ""
    page.locator("[data-field=sampler]").select_option("heun")
    page.locator("#prompt").fill("1boy")
    page.get_by_role("button", name="Use these settings").click()
    expect(page.locator("#prompt")).to_have_value("1girl, smile")
    expect(page.get_by_label("Steps")).to_have_value("3")
    expect(page.locator("[data-field=sampler]")).to_have_value("euler")
    assert seed == f"seed {page.get_by_label('Seed', exact=True).input_value()}"


def test_loras_have_weights_and_trigger_words(page: Page) -> None:
    write(page)
    loras = page.locator("kz-loras")
    loras.locator("summary").click()
    loras.locator("select").select_option("ink")
    with page.expect_request("**/generate?dry_run=true") as info:
        loras.get_by_label("Weight of ink").fill("0.5")
    assert body_of(info.value)["loras"] == [{"name": "ink", "weight": 0.5}]
    loras.get_by_role("button", name="ink wash").click()
    expect(page.locator("#prompt")).to_have_value("1girl, smile, ink wash")
    loras.locator("select").select_option("glow")
    loras.get_by_label("Weight of glow").fill("9")
    expect(page.locator("kz-notes[for=loras] [data-kind=error]")).to_be_visible()
    loras.get_by_role("button", name="Remove glow").click()
    expect(page.locator("kz-notes[for=loras] [data-kind=error]")).to_have_count(0)
    expect(loras.locator(".chosen li")).to_have_count(1)


def test_negative_prompt_and_advanced_settings_are_sent(page: Page) -> None:
    write(page)
    page.locator("kz-negative summary").click()
    page.get_by_label("Negative prompt").fill("blurry")
    advanced = page.locator("kz-advanced")
    advanced.locator("summary").click()
    advanced.locator("[name=scheduler]").select_option("karras")
    advanced.locator("[name=image_format]").select_option("webp")
    advanced.get_by_label("Quality").fill("80")
    advanced.get_by_label("eta", exact=True).fill("0.5")
    advanced.locator("[name=metadata]").select_option("none")
    with page.expect_request("**/generate?dry_run=true") as info:
        advanced.get_by_label("The same bytes every time").check()
    body = body_of(info.value)
    wanted: dict[str, Any] = {
        "negative_prompt": "blurry",
        "scheduler": "karras",
        "image_format": "webp",
    }
    wanted |= {"image_quality": 80, "sampler_options": {"eta": 0.5}, "metadata": "none"}
    wanted |= {"deterministic": True, "previews": True}
    assert {name: body[name] for name in wanted} == wanted
    advanced.get_by_role("button", name="Reset").click()
    expect(advanced.locator("[name=scheduler]")).to_have_value("simple")
    expect(page.locator("#prompt")).to_have_value("1girl, smile")


def test_an_error_in_a_folded_part_opens_it(page: Page) -> None:
    page.evaluate(
        "localStorage.setItem('kirazuri.form', JSON.stringify({prompt: '1girl', scheduler: 'x'}))"
    )
    page.reload()
    expect(page.locator("kz-notes[for=scheduler] [data-kind=error]")).to_be_visible()


def test_an_error_of_a_field_that_the_form_lacks_is_beside_the_button(page: Page) -> None:
    page.evaluate(
        "localStorage.setItem('kirazuri.form', JSON.stringify({prompt: '1girl', unknown: 1}))"
    )
    page.reload()
    expect(page.locator("kz-notes[for=request] [data-kind=error]")).to_contain_text("unknown field")


def test_the_form_is_kept_when_the_page_is_loaded_again(page: Page) -> None:
    write(page, "1girl, wink")
    page.get_by_label("Steps").fill("31")
    page.reload()
    expect(page.locator("#prompt")).to_have_value("1girl, wink")
    expect(page.get_by_label("Steps")).to_have_value("31")


def test_dry_runs_leave_half_of_a_keys_rate(open_page: Opener, limited_key: str) -> None:
    page = open_page(limited_key, alone=True)  # the clock is that of a window
    page.clock.install()
    page.reload()
    expect(page.locator(".tile").first).to_be_visible()
    calls: list[str] = []
    page.on("request", lambda sent: calls.append(sent.url) if "dry_run" in sent.url else None)
    for text in ("1girl", "1girl, smile"):
        page.locator("#prompt").fill(text)
        with page.expect_response("**/generate?dry_run=true") as answer:
            page.clock.run_for(400)
        answer.value.finished()
    page.locator("#prompt").fill("1girl, grin")
    page.clock.run_for(1000)
    page.get_by_role("button", name="Make").click()
    expect(page.locator(".picture")).to_have_count(1)
    assert len(calls) == 2


def test_a_faster_quality_is_offered_with_the_samplers_of_the_card(page: Page) -> None:
    page.locator("kz-advanced summary").click()
    quality = page.locator("kz-advanced [data-field=quality]")
    expect(quality.locator("option")).to_have_text(
        ["exact", "balanced: 70 % of the work", "fast: 60 % of the work"]
    )
    write(page)
    with page.expect_request("**/generate?dry_run=true") as info:
        quality.select_option("fast")
    assert body_of(info.value)["quality"] == "fast"
    expect(page.locator("kz-advanced .change")).to_contain_text("forecast")
    with page.expect_request("**/generate?dry_run=true") as info:
        page.locator("[data-field=sampler]").select_option("dpmpp_2m")
    assert "quality" not in body_of(info.value)
    expect(quality).to_be_hidden()
