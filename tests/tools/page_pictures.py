"""Takes the pictures of the page that README and docs show: docs/images/page-*.webp.

    python -m tests.tools.page_pictures

It runs a service of its own with `kirazuri-tiny`, makes the pictures of the gallery, and needs
Chromium. Look at the pictures before you commit them.
"""

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from tests.support.browser import WAIT_MS, Opener, is_loaded, launch, made, open_window, tiles
from tests.support.paths import ROOT
from tests.support.service import running

FOLDER = ROOT / "docs/images"
SIZE = (1280, 860)
QUALITY = 90

TAGS = """\
sakuragaoka_high_school_uniform,0,10200,
sakura_miko,4,5600,
sakurai_momoka,4,2500,
sakura_miku,4,2300,
sakuramon,0,1900,
sakurajima_mai,4,1100,
sakurazawa_izumi,1,1000,
sakuraba_yuuki,1,1000,
sakura_bakushin_o_(umamusume),4,930,
"""
"""Of Danbooru's list, what completes "sakura"."""

START = "masterpiece, best quality, safe, 1girl, solo"
LOOKS = {
    12: "white hair, ponytail, yellow eyes, smile, pink background",
    7: "green hair, ponytail, aqua eyes, open mouth, hair bow, white background",
    21: "purple hair, short hair, cat ears, one eye closed, yellow background",
    3: "red hair, long hair, blue eyes, smile, blue background",
    9: "brown hair, cat ears, purple eyes, purple background",
    15: "orange hair, twintails, purple eyes, open mouth, hair bow, purple background",
    26: "blonde hair, long hair, red eyes, smile, green background",
    5: "blue hair, short hair, closed eyes, open mouth, white serafuku, pink background",
    18: "pink hair, long hair, aqua eyes, smile, white serafuku, white background",
}
"""The gallery by seed, the oldest first."""

PROMPT = f"{START}, blue hair, twintails, (red eyes:1.2), smile, hair bow"
PROMPT += ", white serafuku, pink background"
SEED = "31"


def _save(page: Page, scheme: str) -> None:
    page.mouse.move(0, SIZE[1] - 1)
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    file = FOLDER / f"page-{scheme}.webp"
    shot.save(file, quality=QUALITY, method=6)
    sys.stdout.write(f"{file.relative_to(ROOT)}: {file.stat().st_size} bytes\n")


def _write(page: Page) -> None:
    page.locator("#prompt").fill(PROMPT)
    page.locator("[data-value=square_hd]").click()
    page.locator("[data-field=seed]").fill(SEED)
    expect(page.locator(".plan")).to_contain_text("about")


def _wait_for_pictures(page: Page) -> None:
    expect(tiles(page)).to_have_count(len(LOOKS) + 1)
    for shown in (page.locator(".picture img").first, *tiles(page).locator("img").all()):
        is_loaded(shown)


def main() -> None:
    expect.set_options(timeout=WAIT_MS)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        browser = launch(playwright)
        if browser is None:
            raise SystemExit("there is no Chromium")
        tags = Path(name) / "tags.csv"
        tags.write_text(TAGS)
        with running(Path(name), KIRAZURI_TAGS_FILE=tags) as client:
            for seed, looks in LOOKS.items():
                made(
                    client, prompt=f"{START}, {looks}", seed=seed, steps=20, resolution="square_hd"
                )
            opener = Opener(open_window(browser), str(client.base_url).rstrip("/"))
            size = {"width": SIZE[0], "height": SIZE[1]}
            light = opener(viewport=size, color_scheme="light")
            _write(light)
            light.get_by_role("button", name="Make").click()
            _wait_for_pictures(light)
            light.get_by_role("button", name="Chips", exact=True).click()
            expect(light.locator(".chip[data-group=subject]")).to_have_count(1)
            _save(light, "light")
            dark = opener(viewport=size, color_scheme="dark")
            _wait_for_pictures(dark)
            _write(dark)
            dark.locator("#prompt").press("End")
            dark.locator("#prompt").press_sequentially(", sakura")
            expect(dark.locator(".completion li")).to_have_count(len(TAGS.splitlines()))
            dark.keyboard.press("ArrowDown")
            _save(dark, "dark")
            opener.close()
        browser.close()


if __name__ == "__main__":
    main()
