"""Watching a job: its place, progress, previews and end; cancelling; reloads and restarts."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
from playwright.sync_api import Page, expect

from tests.support.browser import made, open_picture
from tests.support.service import halted_worker, process_of
from tests.support.waiting import wait_until


def start(page: Page, *, steps: int = 20, images: int = 1, tile: str = "square") -> None:
    page.locator("#prompt").fill("1girl, blue hair, smile")
    page.locator(f"[data-value={tile}]").click()
    page.get_by_label("Steps").fill(str(steps))
    page.locator("[data-field=num_images]").select_option(str(images))
    page.keyboard.press("Control+Enter")


def statuses(client: httpx2.Client) -> list[str]:
    return [job["status"] for job in client.get("/jobs").json()["items"]]


def test_progress_previews_and_the_picture(page: Page) -> None:
    seen: list[str] = []
    page.expose_function("note", lambda text: seen.append(text))
    page.evaluate(
        """() => new MutationObserver(() => {
            note(document.querySelector("kz-run .state").textContent);
            note(`kind ${document.querySelector(".picture img")?.dataset.kind}`);
        }).observe(document.querySelector("kz-run"), {subtree: true, childList: true})"""
    )
    start(page, steps=40, tile="square_hd")
    picture = page.locator(".picture img[data-kind=image]")
    expect(picture).to_have_count(1)
    assert picture.evaluate("img => img.decode().then(() => img.naturalWidth)") == 192
    assert "token=" in (picture.get_attribute("src") or "")
    expect(page.locator(".watch")).to_be_hidden()
    expect(page.locator("kz-run .settings")).to_contain_text("192 × 192")
    assert "kind preview" in seen
    assert any(text.startswith("Step ") and "left" in text for text in seen)


def test_a_waiting_job_shows_its_place(
    page: Page, client: httpx2.Client, service_folder: Path
) -> None:
    with waiting_jobs(2, client, service_folder):
        start(page)
        expect(page.locator("kz-run .state")).to_contain_text("ahead in the queue")
        page.locator("kz-run .cancel").click()
        expect(page.locator("kz-run .failure")).to_have_text("Cancelled.")
    assert statuses(client)[0] == "cancelled"


@contextmanager
def halted_at_a_step(page: Page, client: httpx2.Client, service_folder: Path) -> Iterator[None]:
    """The newest job runs, and makes no step in the block."""

    def has_begun() -> bool:
        jobs = client.get("/jobs").json()["items"]
        return bool(jobs) and jobs[0]["progress"]["step"] > 0

    wait_until(has_begun)
    with halted_worker(service_folder):
        expect(page.locator("kz-run .state")).to_contain_text("Step")
        yield


def test_escape_cancels_a_running_job(
    page: Page, client: httpx2.Client, service_folder: Path
) -> None:
    start(page, steps=100)
    with (
        halted_at_a_step(page, client, service_folder),
        page.expect_response(lambda answer: answer.request.method == "DELETE"),
    ):
        page.keyboard.press("Escape")
    expect(page.locator("kz-run .failure")).to_have_text("Cancelled.")
    assert statuses(client) == ["cancelled"]


def test_a_reload_goes_on_watching(page: Page, client: httpx2.Client, service_folder: Path) -> None:
    start(page, steps=60, images=2)
    with halted_at_a_step(page, client, service_folder):
        page.reload()
        expect(page.locator("kz-run .watch")).to_be_visible()
        assert page.locator("#prompt").input_value() == "1girl, blue hair, smile"
    expect(page.locator(".picture img[data-kind=image]")).to_have_count(2)


def test_a_restart_of_the_service_is_survived(
    page: Page, client: httpx2.Client, service_folder: Path
) -> None:
    start(page, steps=100)
    expect(page.locator("kz-run .state")).to_contain_text("Step")
    killed = process_of(service_folder, "api")
    os.kill(killed, signal.SIGKILL)
    expect(page.locator("kz-status")).to_contain_text("does not answer")
    expect(page.locator(".picture img[data-kind=image]")).to_have_count(1)
    assert process_of(service_folder, "api") != killed
    expect(page.locator("kz-status")).to_contain_text("ready")
    assert statuses(client) == ["succeeded"]


def test_several_jobs_are_watched_at_once(page: Page, service_folder: Path) -> None:
    other = page.locator("kz-queue li")
    with halted_worker(service_folder):
        start(page)
        expect(page.locator(".picture")).to_have_count(1)
        page.keyboard.press("Control+Enter")
        expect(other).to_have_count(1)
        other.locator(".open").click()
    expect(page.locator(".picture img[data-kind=image]")).to_have_count(1)
    expect(other).to_have_count(0)


@contextmanager
def waiting_jobs(number: int, client: httpx2.Client, service_folder: Path) -> Iterator[None]:
    """Submit jobs while the worker is halted; afterwards it goes on."""
    with halted_worker(service_folder):
        for _ in range(number):
            client.post("/generate", json={"prompt": "1girl", "steps": 1}).raise_for_status()
        yield


def test_only_the_shown_job_is_streamed(
    page: Page, client: httpx2.Client, service_folder: Path
) -> None:
    """Browsers open six connections to a host: a stream for every job would leave none."""
    with waiting_jobs(9, client, service_folder):
        page.reload()
        expect(page.locator("kz-queue li")).to_have_count(8)
        page.locator("#prompt").fill("1girl, smile")
        expect(page.locator(".plan")).to_contain_text("tokens")  # a connection was free
    expect(page.locator("kz-queue li")).to_have_count(0)
    expect(page.locator(".picture img[data-kind=image]")).to_have_count(1)


def test_all_jobs_in_progress_are_found_again(
    page: Page, client: httpx2.Client, service_folder: Path
) -> None:
    with waiting_jobs(24, client, service_folder):
        page.reload()
        expect(page.locator("kz-queue li")).to_have_count(23)
    expect(page.locator("kz-gallery .open")).to_have_count(24)


def test_escape_stops_comparing_before_it_cancels(page: Page, client: httpx2.Client) -> None:
    job = made(client)
    page.reload()
    open_picture(page, job).get_by_role("button", name="Compare").click()
    start(page, steps=60)
    expect(page.locator("kz-run .state")).to_contain_text("Step")
    page.keyboard.press("Escape")
    expect(page.locator("kz-gallery .choosing")).to_be_hidden()
    expect(page.locator(".picture img[data-kind=image]")).to_have_count(1)
    assert statuses(client)[0] == "succeeded"
