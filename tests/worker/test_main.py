import subprocess
import sys

import pytest

from model.card import card_names, load_card
from worker.main import service_version, warm_up_request


def test_help_needs_neither_redis_nor_torch() -> None:
    code = (
        "import sys; sys.argv = ['worker', '--help']; from worker.main import main\n"
        "try: main()\n"
        "finally: assert 'torch' not in sys.modules"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert "KIRAZURI_REDIS_URL" in shown.stdout


def test_without_a_redis_url_the_variable_is_named(tmp_path: object) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "worker"], capture_output=True, text=True, env={"PATH": ""}
    )
    assert ran.returncode == 2
    assert "KIRAZURI_REDIS_URL" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("name", card_names())
def test_the_warm_up_is_the_cards_smallest_picture(name: str) -> None:
    card = load_card(name)
    request = warm_up_request(card)
    assert request.steps == 2
    sizes = [preset.width * preset.height for preset in card.resolutions]
    assert request.width * request.height == min(sizes)


def test_the_version_names_the_service() -> None:
    assert service_version().startswith("kirazuri-server")
