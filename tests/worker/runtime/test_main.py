"""The entry point of a worker process."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from model.card import card_names, load_card
from model.engine import loading
from worker.runtime import main as entry
from worker.runtime.main import main, service_version, warm_up_requests
from worker.settings import Settings


def test_help_needs_neither_redis_nor_torch() -> None:
    code = (
        "import sys; sys.argv = ['worker', '--help']; from worker.runtime.main import main\n"
        "try: main()\n"
        "finally: assert 'torch' not in sys.modules"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert "KIRAZURI_REDIS_URL" in shown.stdout


def test_wrong_settings_end_the_start_with_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.pem").write_text("no certificate")
    monkeypatch.chdir(tmp_path)
    redis = {"KIRAZURI_REDIS_URL": "redis://127.0.0.1:1"}
    signing = {"KIRAZURI_C2PA_CERTIFICATE": "bad.pem", "KIRAZURI_C2PA_KEY": "bad.pem"}
    cases: list[tuple[dict[str, str], str]] = [
        ({}, "KIRAZURI_REDIS_URL is not set"),
        (redis | signing, "KIRAZURI_C2PA_CERTIFICATE: bad.pem cannot be read"),
        (
            redis | {"KIRAZURI_OUTPUT_FILTER": "none_such:x"},
            "error: KIRAZURI_OUTPUT_FILTER: output filter 'none_such:x': ModuleNotFoundError",
        ),
        (redis | {"KIRAZURI_CARD": "none_such"}, "error: KIRAZURI_CARD: no card named 'none_"),
        (redis | {"KIRAZURI_DATA_DIR": "/proc/nope"}, "error: KIRAZURI_DATA_DIR: /proc/nope"),
        ({"KIRAZURI_REDIS_URL": "http://127.0.0.1"}, "KIRAZURI_REDIS_URL cannot be read"),
        ({"KIRAZURI_REDIS_URL": "redis://:se/cret@127.0.0.1"}, "%2F %3F %23"),
    ]
    for variables, message in cases:
        monkeypatch.setattr(os, "environ", variables)
        monkeypatch.setattr(sys, "argv", ["worker"])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        shown = capsys.readouterr().err
        assert message in shown
        assert "cret" not in shown


def test_the_warm_up_has_the_cards_smallest_size_or_each_preset() -> None:
    for name in card_names():
        card = load_card(name)
        sizes = sorted(preset.width * preset.height for preset in card.resolutions)
        (smallest,) = warm_up_requests(card, "smallest")
        assert smallest.steps == 2
        assert smallest.width * smallest.height == sizes[0], name
        every = warm_up_requests(card, "presets")
        assert [request.width * request.height for request in every] == sizes, name


@pytest.mark.parametrize("experimental", ["none", "float8", "templates"])
def test_each_experiment_reaches_the_engine_alone(
    experimental: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, Any] = {}
    monkeypatch.setattr(loading, "load_engine", lambda card, folder, **given: found.update(given))
    monkeypatch.setattr(entry, "BatchWorker", lambda *_, engine_factory, **__: engine_factory())
    monkeypatch.setattr(entry, "work_to_end", lambda worker: None)
    settings = Settings(data_dir=tmp_path, experimental=experimental)
    store: Any = None
    entry.run(settings, load_card("kirazuri-tiny"), "redis://127.0.0.1:1", store)
    assert found["compiling"].templates == (experimental == "templates")
    assert (found["takes_float8"] is not None) == (experimental == "float8")


def test_the_version_names_the_service() -> None:
    assert service_version().startswith("kirazuri-server")
