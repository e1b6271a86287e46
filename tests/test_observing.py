"""The files of the dashboard, the alert rules and their containers."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.paths import ROOT
from tests.support.queries import ALERTS, alert_rules, dashboard, queries, selected

UNITS = ROOT / "tests/data/alerts.yml"


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_every_query_is_promql_and_selects_a_metric() -> None:
    assert [query for query in queries() if not selected(query)] == []


def test_alerts_have_severity_summary_and_description() -> None:
    for rule in alert_rules():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert set(rule["annotations"]) == {"summary", "description"}
    names = [rule["alert"] for rule in alert_rules()]
    assert len(set(names)) == len(names)


def test_every_alert_is_explained() -> None:
    page = (ROOT / "docs/observing.md").read_text(encoding="utf-8")
    described = re.findall(r"^\| `(Kirazuri\w+)` \|", page, re.MULTILINE)
    assert described == [rule["alert"] for rule in alert_rules()]


def test_panels_fill_their_rows_and_name_the_chosen_source() -> None:
    panels = dashboard()["panels"]
    ids = [panel["id"] for panel in panels]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
        for target in panel.get("targets", ()):
            assert target["datasource"]["uid"] == "${datasource}"
    height = max(y for _, y in taken) + 1
    assert len(taken) == 24 * height, "there is a gap"


def test_provisioned_files_exist() -> None:
    services = read(ROOT / "docker-compose.yml")["services"]
    prometheus, grafana = services["prometheus"], services["grafana"]
    for service in (prometheus, grafana):
        assert service["profiles"] == ["observe"]
        (port,) = service["ports"]
        assert ":-127.0.0.1:" in port, "published on this machine only by default"
        for volume in service["volumes"]:
            if volume.startswith("./"):
                assert (ROOT / volume.split(":")[0]).exists()
    mounted = dict(volume.split(":")[:2] for volume in grafana["volumes"])
    provisioning = ROOT / "docker/grafana/provisioning"
    (provider,) = read(provisioning / "dashboards/kirazuri.yml")["providers"]
    assert mounted["./docker/grafana/dashboards"] == provider["options"]["path"]
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home.startswith(provider["options"]["path"])
    assert (ROOT / "docker/grafana/dashboards" / Path(home).name).exists()
    (source,) = read(provisioning / "datasources/prometheus.yml")["datasources"]
    chosen = dashboard()["templating"]["list"][0]
    assert (chosen["type"], chosen["current"]["value"]) == ("datasource", source["uid"])
    assert source["url"] == "http://prometheus:9090"


def test_prometheus_scrapes_the_api_and_loads_the_rules() -> None:
    config = read(ROOT / "docker/prometheus/prometheus.yml")
    (job,) = config["scrape_configs"]
    assert job["job_name"] == "kirazuri"
    assert job["static_configs"] == [{"targets": ["api:8000"]}]
    assert config["rule_files"] == [ALERTS.name]
    mounted = read(ROOT / "docker-compose.yml")["services"]["prometheus"]["volumes"]
    places = {volume.rsplit(":", 2)[-2] for volume in mounted if volume.endswith(":ro")}
    folder = "/etc/prometheus"
    assert places == {
        f"{folder}/prometheus.yml",
        f"{folder}/{ALERTS.name}",
        f"{folder}/{job['authorization']['credentials_file']}",
    }


def test_every_alert_is_tested_firing_and_not_firing() -> None:
    fires: dict[str, set[bool]] = {}
    for case in read(UNITS)["tests"]:
        for check in case["alert_rule_test"]:
            fires.setdefault(check["alertname"], set()).add(bool(check.get("exp_alerts")))
    assert fires == {rule["alert"]: {True, False} for rule in alert_rules()}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_the_rules_fire_when_they_should(tmp_path: Path) -> None:
    config = ROOT / "docker/prometheus/prometheus.yml"
    for name in (config.name, ALERTS.name):
        shutil.copy(config.parent / name, tmp_path)
    (tmp_path / "key").touch()
    for command in (
        ["promtool", "check", "config", str(tmp_path / config.name)],
        ["promtool", "test", "rules", str(UNITS)],
    ):
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stdout + run.stderr
