"""Variables that look like settings and are none."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cli import clean_environment, kirazuri
from tests.support.paths import ROOT
from worker.misspelt_settings import warnings_about_names


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("KIRAZURI_MAX_QEUE", "KIRAZURI_MAX_QUEUE"),
        ("KIRAZURI_REDISURL", "KIRAZURI_REDIS_URL"),
        ("kirazuri_devce", "KIRAZURI_DEVICE"),
        ("KIRAZURI_CHECKPOINT_FOLDER", "KIRAZURI_CHECKPOINT_DIR"),
        ("KIRAZURY_MAX_QUEUE", "KIRAZURI_MAX_QUEUE"),
    ],
)
def test_the_nearest_name_is_told(name: str, nearest: str) -> None:
    assert warnings_about_names([name]) == [
        f"{name} is not a setting and has no effect; is {nearest} meant?"
    ]


def test_a_name_without_a_near_one_is_told() -> None:
    assert warnings_about_names(["KIRAZURI_XYZZY"]) == [
        "KIRAZURI_XYZZY is not a setting and has no effect"
    ]


def test_settings_and_foreign_names_are_not_told() -> None:
    compose = [
        line.partition("${")[2].partition(":")[0]
        for file in ROOT.glob("docker-compose*.yml")
        for line in file.read_text().splitlines()
        if "${KIRAZURI_" in line
    ]
    assert compose
    of_kubernetes = ["KIRAZURI_PORT", "KIRAZURI_SERVICE_HOST", "KIRAZURI_PORT_8000_TCP_ADDR"]
    others = ["KIRAZURI_MAX_QUEUE", "kirazuri_max_queue", "PATH", "REDIS_URL", *of_kubernetes]
    assert warnings_about_names([*compose, *others]) == []


def test_a_command_warns_once_and_shows_no_value(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("KIRAZURI_APY_KEY=hidden")
    run = kirazuri(
        "generate", "1girl", "--url", "http://127.0.0.1:9", folder=tmp_path, KIRAZURI_MAX_QEUE="3"
    )
    warnings = [line for line in run.stderr.splitlines() if line.startswith("warning: ")]
    assert [line.split()[1] for line in warnings] == ["KIRAZURI_APY_KEY", "KIRAZURI_MAX_QEUE"]
    assert "is KIRAZURI_API_KEY meant?" in warnings[0]
    assert "hidden" not in run.stderr


def test_a_process_of_the_service_logs_the_warning(tmp_path: Path) -> None:
    code = (
        "from worker.settings import Settings\n"
        "from worker.telemetry.logs import configure_logging\n"
        "configure_logging(Settings(_env_file=None))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=clean_environment(KIRAZURI_MAX_QEUE="3", PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "KIRAZURI_MAX_QEUE is not a setting" in run.stderr
    assert "is KIRAZURI_MAX_QUEUE meant?" in run.stderr
