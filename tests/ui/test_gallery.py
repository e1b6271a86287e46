"""The gallery: own pictures, newest first; a picture in large and what can be done with it."""

import io
import re

import httpx2
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.support.browser import PROMPT, Opener, is_loaded, made, open_picture, tiles


def shown(page: Page) -> list[str]:
    """The names of the tiles, in order."""
    names: list[str] = page.locator("kz-gallery .open").evaluate_all(
        "tiles => tiles.map(tile => tile.dataset.name)"
    )
    return names


def test_pictures_are_shown_newest_first_and_older_ones_while_one_scrolls(
    open_page: Opener, key: str, client: httpx2.Client
) -> None:
    jobs = [made(client, num_images=4, seed=1), *(made(client, seed=seed) for seed in range(2, 27))]
    page = open_page(key, viewport={"width": 1000, "height": 500})
    expect(tiles(page).first).to_have_attribute("data-name", f"{jobs[-1]['id']}/0")
    is_loaded(tiles(page).first.locator("img"))
    page.locator("kz-gallery .end").scroll_into_view_if_needed()
    expect(tiles(page)).to_have_count(29)
    newest_first = [f"{job['id']}/0" for job in reversed(jobs[1:])]
    assert shown(page) == [*newest_first, *(f"{jobs[0]['id']}/{index}" for index in range(4))]


def test_a_picture_that_is_made_comes_first(page: Page, client: httpx2.Client) -> None:
    expect(page.locator("kz-gallery .empty")).to_contain_text("Your pictures will be here")
    page.locator("#prompt").fill(PROMPT)
    page.get_by_label("Steps").fill("2")
    page.keyboard.press("Control+Enter")
    expect(tiles(page)).to_have_count(1)
    is_loaded(tiles(page).first.locator("img"))
    assert shown(page) == [f"{client.get('/jobs').json()['items'][0]['id']}/0"]


def test_the_keyboard_walks_through_the_gallery_and_the_viewer(
    open_page: Opener, key: str, client: httpx2.Client
) -> None:
    jobs = [made(client, seed=seed) for seed in (1, 2, 3)]
    names = [f"{job['id']}/0" for job in reversed(jobs)]
    page = open_page(key)
    expect(tiles(page)).to_have_count(3)
    tiles(page).first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    expect(tiles(page).nth(1)).to_be_focused()
    assert tiles(page).evaluate_all("all => all.map(one => one.tabIndex)") == [-1, 0, -1]
    page.keyboard.press("Enter")
    viewer = page.locator("kz-viewer dialog")
    is_loaded(viewer.locator(".canvas img"))
    seed = viewer.locator("dt:text-is('Seed') + dd")
    expect(seed).to_have_text("2")
    page.keyboard.press("ArrowLeft")
    expect(seed).to_have_text("3")
    expect(viewer.locator(".previous")).to_be_hidden()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(seed).to_have_text("1")
    page.keyboard.press("f")
    page.keyboard.press("Escape")
    expect(viewer).to_be_hidden()
    expect(page.locator("kz-gallery .is-favourite")).to_have_attribute("data-name", names[2])


def test_back_closes_the_large_picture_and_stays_on_the_page(
    page: Page, client: httpx2.Client
) -> None:
    jobs = [made(client, seed=seed) for seed in (1, 2)]
    page.reload()
    viewer = open_picture(page, jobs[0])
    page.go_back()
    expect(viewer).to_be_hidden()
    expect(tiles(page)).to_have_count(2)

    # Closed otherwise, it leaves no entry of the history behind, and can be opened at once again.
    open_picture(page, jobs[0])
    viewer.locator(".close").click()
    open_picture(page, jobs[1])
    expect(viewer.locator("dt:text-is('Seed') + dd")).to_have_text("2")
    page.wait_for_function("history.state?.isOpen === true")
    expect(viewer).to_be_visible()
    page.reload()
    page.wait_for_function("history.state === null")
    page.go_back()
    expect(page).to_have_url(re.compile("/livez$"))  # the page from which the fixture came


def test_favourites_are_kept_in_the_browser(page: Page, client: httpx2.Client) -> None:
    jobs = [made(client, seed=seed) for seed in (1, 2)]
    page.reload()
    viewer = open_picture(page, jobs[0])
    viewer.locator(".favourite").click()
    expect(viewer.locator(".favourite")).to_have_attribute("aria-pressed", "true")
    viewer.locator(".close").click()
    page.wait_for_function("history.state === null")  # a reload would come between
    page.reload()
    expect(tiles(page)).to_have_count(2)
    page.locator("[data-only=favourites]").click()
    expect(tiles(page)).to_have_count(1)
    assert shown(page) == [f"{jobs[0]['id']}/0"]


def test_the_settings_of_a_picture_are_used_again(page: Page, client: httpx2.Client) -> None:
    loras = [{"name": "ink", "weight": 0.5}]
    job = made(client, num_images=2, seed=40, sampler="euler", cfg_scale=3.0, loras=loras)
    page.reload()
    viewer = open_picture(page, job, 1)
    expect(viewer.locator("kz-recipe")).to_contain_text("ink 0.5")
    viewer.get_by_role("button", name="Use these settings").click()
    expect(viewer).to_be_hidden()
    expect(page.locator("[data-field=seed]")).to_have_value("41")
    expect(page.locator("#prompt")).to_have_value(PROMPT)
    page.keyboard.press("Control+Enter")
    expect(tiles(page)).to_have_count(3)
    again = client.get("/jobs").json()["items"][0]
    same = ("prompt", "sampler", "cfg_scale", "steps", "width", "height", "loras")
    assert {name: again["request"][name] for name in same} == {
        name: job["request"][name] for name in same
    }
    assert again["images"][0]["seed"] == 41


def test_a_grid_changes_two_settings(page: Page, client: httpx2.Client) -> None:
    job = made(client, seed=5, sampler="euler")
    page.reload()
    viewer = open_picture(page, job)
    viewer.get_by_role("button", name="Change one thing").click()
    vary = viewer.locator("kz-vary")
    vary.locator("[name=x]").select_option("steps")
    vary.locator("[name=x-values]").fill("1, 2, 101")
    expect(vary.locator(".wrong")).to_contain_text("101 is not between 1 and 100")
    vary.locator("[name=x-values]").fill("1, 2")
    vary.locator("[name=y]").select_option("seed")
    vary.locator("[name=y-values]").fill("5 6")
    expect(vary.locator(".count")).to_contain_text("4 pictures")
    vary.get_by_role("button", name="Make the grid").click()
    grid = viewer.locator("kz-grid")
    expect(grid.locator("img")).to_have_count(4)
    assert grid.locator("th").all_inner_texts() == ["1", "2", "5", "6"]
    for name in (".delete", ".favourite", ".download >> nth=0"):
        expect(viewer.locator(name)).to_be_hidden()  # which picture would they concern?
    for picture in grid.locator("img").all():
        is_loaded(picture)
    made_of = [one["request"] for one in client.get("/jobs").json()["items"][:4]]
    assert [(one["seed"], one["steps"]) for one in reversed(made_of)] == [
        (5, 1), (5, 2), (6, 1), (6, 2),
    ]  # fmt: skip
    assert {(one["width"], one["sampler"]) for one in made_of} == {(96, "euler")}
    grid.get_by_role("button", name="Steps 2, Seed 6").click()
    expect(viewer.locator("dt:text-is('Seed') + dd")).to_have_text("6")
    expect(viewer.locator("dt:text-is('Steps') + dd")).to_have_text("2")


def test_a_grid_may_change_the_sampler_or_the_weight_of_a_lora(
    page: Page, client: httpx2.Client
) -> None:
    job = made(client, loras=[{"name": "glow", "weight": 1.0}])
    page.reload()
    viewer = open_picture(page, job)
    viewer.get_by_role("button", name="Change one thing").click()
    vary = viewer.locator("kz-vary")
    vary.locator("[name=x]").select_option("sampler")
    vary.locator("[name=x-values]").fill("euler, nonsense")
    expect(vary.locator(".wrong")).to_contain_text("nonsense")
    vary.locator("[name=x-values]").fill("euler, heun")
    vary.locator("[name=y]").select_option("lora glow")
    vary.locator("[name=y-values]").fill("0.5")
    vary.get_by_role("button", name="Make the grid").click()
    expect(viewer.locator("kz-grid img")).to_have_count(2)
    found = [one["request"] for one in client.get("/jobs").json()["items"][:2]]
    assert {(one["sampler"], one["loras"][0]["weight"]) for one in found} == {
        ("euler", 0.5), ("heun", 0.5),
    }  # fmt: skip


def test_two_pictures_are_compared_with_a_slider(page: Page, client: httpx2.Client) -> None:
    first, second = made(client, seed=1), made(client, seed=2)
    page.reload()
    open_picture(page, first).get_by_role("button", name="Compare").click()
    expect(page.locator("kz-gallery .choosing")).to_be_visible()
    chosen = page.locator("kz-gallery .is-chosen")
    expect(chosen).to_have_attribute("data-name", f"{first['id']}/0")
    viewer = open_picture(page, second)
    for side in ("left", "right"):
        is_loaded(viewer.locator(f"kz-comparison .{side}"))
    differing = viewer.locator("kz-recipe div", has=page.locator("dt:text-is('Seed')"))
    assert differing.locator("dd").all_inner_texts() == ["1", "2"]
    assert viewer.locator("dt:text-is('Prompt')").count() == 0
    slider = viewer.locator("kz-comparison input")
    expect(slider).to_be_focused()
    clip = "img => getComputedStyle(img).clipPath"
    before = viewer.locator(".left").evaluate(clip)
    page.keyboard.press("ArrowRight")
    assert viewer.locator(".left").evaluate(clip) != before
    box = viewer.locator("kz-comparison .stack").bounding_box()
    assert box
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 10)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 10, steps=3)
    page.mouse.up()
    assert abs(float(slider.input_value()) - 25) < 1.5
    page.keyboard.press("Escape")
    expect(viewer).to_be_hidden()
    open_picture(page, second)
    expect(viewer.locator("kz-comparison")).to_have_count(0)


@pytest.mark.parametrize("kind", ["png", "webp"])
def test_downloads_have_the_recipe_or_the_pixels_alone(
    page: Page, client: httpx2.Client, kind: str
) -> None:
    job = made(client, image_format=kind)
    original = client.get(job["images"][0]["url"]).content
    page.reload()
    viewer = open_picture(page, job)
    with page.expect_download() as saving:
        viewer.locator(".download[data-metadata=full]").click()
    seed = job["images"][0]["seed"]
    assert saving.value.suggested_filename == f"1girl-blue-hair-smile-{seed}.{kind}"
    assert saving.value.path().read_bytes() == original
    with page.expect_download() as saving:
        viewer.locator(".download[data-metadata=none]").click()
    plain = saving.value.path().read_bytes()
    assert re.findall(rb"tEXt|iTXt|zTXt|eXIf|caBX", plain) == []
    one, other = (Image.open(io.BytesIO(data)).convert("RGB") for data in (original, plain))
    assert one.size == other.size
    if kind == "png":
        assert one.tobytes() == other.tobytes()


def test_a_picture_is_deleted_for_good_and_can_be_made_again(
    page: Page, client: httpx2.Client
) -> None:
    job = made(client, seed=9, deterministic=True)
    page.reload()
    viewer = open_picture(page, job)
    button = viewer.locator(".delete")
    button.click()
    assert client.get(job["images"][0]["url"]).status_code == 200
    expect(button).to_have_text("Really delete?")
    button.click()
    expect(viewer.locator(".message")).to_contain_text("Deleted")
    expect(viewer.locator(".canvas")).to_contain_text("This picture was deleted")
    expect(button).to_be_hidden()
    assert client.get(job["images"][0]["url"]).status_code == 410
    viewer.locator(".close").click()
    expect(page.locator("kz-gallery .is-deleted")).to_have_count(1)
    page.wait_for_function("history.state === null")
    page.reload()
    expect(page.locator("kz-gallery .gone")).to_have_text("Deleted")
    viewer = open_picture(page, job)
    viewer.get_by_role("button", name="Make the same again").click()
    expect(tiles(page)).to_have_count(2)
    assert client.get(job["images"][0]["url"]).status_code == 200


def test_a_failure_of_the_gallery_is_told(page: Page, client: httpx2.Client) -> None:
    made(client)
    page.route(re.compile(r"/jobs\?"), lambda route: route.abort())
    page.reload()
    expect(page.locator("kz-gallery .failure")).to_contain_text("does not answer")
    page.unroute(re.compile(r"/jobs\?"))
    page.locator("kz-gallery .again").click()
    expect(tiles(page)).to_have_count(1)
    expect(page.locator("kz-gallery .failure")).to_be_hidden()
