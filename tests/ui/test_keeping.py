"""The gallery while things change elsewhere: another tab, another key, a service that is away."""

import re

import httpx2
from playwright.sync_api import Page, expect

from tests.support.browser import Opener, is_loaded, made, open_picture, tiles

REPLACE_CAPABILITIES = """async (fields) => {
    const app = document.querySelector("script[src]").src;
    const {store} = await import(app.replace("app.js", "state/store.js"));
    store.set("capabilities", {...store.state.capabilities, ...fields});
}"""
"""As if the service had answered something else."""


def test_a_service_that_waits_for_a_worker_leaves_the_gallery_as_it_is(
    open_page: Opener, key: str, client: httpx2.Client
) -> None:
    for seed in range(26):
        made(client, seed=seed)
    page = open_page(key, viewport={"width": 1000, "height": 500})
    expect(tiles(page).first).to_be_visible()
    page.locator("kz-gallery .end").scroll_into_view_if_needed()
    expect(tiles(page)).to_have_count(26)
    page.evaluate(
        """() => new MutationObserver((changes) => {
            const removed = changes.flatMap((one) => [...one.removedNodes]);
            window.removed = (window.removed ?? 0) + removed.length;
        }).observe(document.querySelector("kz-gallery .tiles"), {childList: true})"""
    )
    newest = made(client, seed=99)
    with page.expect_response(re.compile(r"/jobs\?")):
        page.evaluate(REPLACE_CAPABILITIES, {"workers": []})
    expect(tiles(page)).to_have_count(27)
    expect(tiles(page).first).to_have_attribute("data-name", f"{newest['id']}/0")
    assert page.evaluate("window.removed ?? 0") == 0


def test_what_another_tab_deletes_or_marks_is_seen(page: Page, client: httpx2.Client) -> None:
    jobs = [made(client, seed=seed) for seed in (1, 2, 3)]
    page.reload()
    expect(tiles(page)).to_have_count(3)
    other = page.context.new_page()
    other.goto(f"{str(client.base_url).rstrip('/')}/livez")
    stored = page.evaluate("sessionStorage.getItem('kirazuri.key')")
    other.evaluate("key => sessionStorage.setItem('kirazuri.key', key)", stored)
    other.goto(str(client.base_url))
    expect(tiles(other)).to_have_count(3)
    open_picture(page, jobs[0]).locator(".favourite").click()
    page.keyboard.press("Escape")
    expect(other.locator("kz-gallery .is-favourite")).to_have_count(1)
    open_picture(other, jobs[1]).locator(".favourite").click()
    other.keyboard.press("Escape")
    expect(page.locator("kz-gallery .is-favourite")).to_have_count(2)
    client.delete(jobs[2]["images"][0]["url"]).raise_for_status()
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.locator("kz-gallery .gone:text-is('Deleted')")).to_have_count(1)


def test_the_favourites_of_a_key_outlive_the_use_of_another(
    page: Page, client: httpx2.Client, unused_key: str
) -> None:
    job = made(client)
    page.reload()
    open_picture(page, job).locator(".favourite").click()
    page.keyboard.press("Escape")
    mine = page.evaluate("sessionStorage.getItem('kirazuri.key')")

    def use(key: str) -> None:
        page.get_by_role("button", name="Key ✓").click()
        page.get_by_role("dialog", name="API key").get_by_label("Key").fill(key)
        page.keyboard.press("Enter")

    use(unused_key)
    expect(page.locator("kz-gallery .empty")).to_contain_text("will be here")
    with page.expect_response(re.compile("/jobs/")):
        page.locator("[data-only=favourites]").click()
    expect(page.locator("kz-gallery .empty")).to_contain_text("No favourites")
    use(mine)
    expect(tiles(page)).to_have_count(1)


def test_the_arrows_walk_through_the_favourites_alone(page: Page, client: httpx2.Client) -> None:
    jobs = [made(client, seed=seed) for seed in (1, 2, 3)]
    page.evaluate(
        "names => localStorage.setItem('kirazuri.favourites', JSON.stringify(names))",
        [f"{jobs[place]['id']}/0" for place in (0, 2)],
    )
    page.reload()
    page.locator("[data-only=favourites]").click()
    expect(tiles(page)).to_have_count(2)
    viewer = open_picture(page, jobs[2])
    page.keyboard.press("ArrowRight")
    expect(viewer.locator("dt:text-is('Seed') + dd")).to_have_text("1")


def test_pictures_that_could_not_be_read_are_shown_later(page: Page, client: httpx2.Client) -> None:
    made(client)
    page.route("**/images/**", lambda route: route.abort())
    page.reload()
    expect(tiles(page)).to_have_count(1)
    expect(page.locator("kz-status")).to_contain_text("does not answer")
    expect(page.locator("kz-gallery .gone")).to_have_text("")
    page.unroute("**/images/**")
    expect(page.locator("kz-status")).to_contain_text("ready")
    is_loaded(tiles(page).first.locator("img"))


def test_a_grid_that_is_left_comes_into_the_gallery(page: Page, client: httpx2.Client) -> None:
    jobs = [made(client, seed=seed) for seed in (1, 2)]
    page.reload()
    viewer = open_picture(page, jobs[0])
    viewer.get_by_role("button", name="Change one thing").click()
    viewer.locator("kz-vary [name=x]").select_option("steps")
    viewer.locator("kz-vary [name=x-values]").fill("60 61 62")
    viewer.get_by_role("button", name="Make the grid").click()
    expect(viewer.locator("kz-grid .hint", has_text=re.compile("waiting|step"))).to_have_count(3)
    page.keyboard.press("Escape")
    rows = page.locator("kz-queue li")
    expect(rows).to_have_count(3)
    rows.last.locator(".stop").click()
    open_picture(page, jobs[1])
    page.keyboard.press("Escape")
    expect(rows).to_have_count(0)
    expect(tiles(page)).to_have_count(4)
    assert [job["status"] for job in client.get("/jobs").json()["items"]].count("cancelled") == 1


def test_the_cost_is_asked_for_again_when_the_service_is_back(page: Page) -> None:
    page.route("**/generate?dry_run=true", lambda route: route.abort())
    page.locator("#prompt").fill("1girl, smile")
    note = page.locator("kz-notes[for=request] [data-kind=error]")
    expect(note).to_contain_text("does not answer")
    page.unroute("**/generate?dry_run=true")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # the gallery asks
    expect(page.locator(".plan")).to_contain_text("tokens")
    expect(note).to_have_count(0)
