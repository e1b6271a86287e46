import subprocess
import sys
from pathlib import Path

import pytest

from model.card import card_names, load_card
from worker.runtime.main import service_version, warm_up_request


def test_help_needs_neither_redis_nor_torch() -> None:
    code = (
        "import sys; sys.argv = ['worker', '--help']; from worker.runtime.main import main\n"
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


def test_a_bad_certificate_is_told_before_the_model_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "bad.pem").write_text("no certificate")
    variables = {"KIRAZURI_C2PA_CERTIFICATE": "bad.pem", "KIRAZURI_C2PA_KEY": "bad.pem"}
    ran = subprocess.run(
        [sys.executable, "-m", "worker", "--redis-url", "redis://127.0.0.1:1"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PATH": "", "PYTHONPATH": str(Path.cwd()), **variables},
    )
    assert ran.returncode == 2
    assert "KIRAZURI_C2PA_CERTIFICATE: bad.pem cannot be read" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_filter_that_cannot_be_loaded_ends_the_start(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "worker", "--redis-url", "redis://127.0.0.1:1"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PATH": "", "PYTHONPATH": str(Path.cwd()), "KIRAZURI_OUTPUT_FILTER": "none_such:x"},
    )
    assert ran.returncode == 2
    assert "output filter 'none_such:x': ModuleNotFoundError" in ran.stderr
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
