"""`kirazuri up` and `kirazuri generate` with a real Redis, API and worker."""

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image
from standardwebhooks import Webhook

from model.card import load_card, shipped_folder
from tests.support.cli import (
    Running,
    clean_environment,
    kirazuri,
    kirazuri_inline,
    processes_of,
)
from tests.support.paths import ROOT
from tests.support.receiver import Receiver
from tests.support.snippets import snippets
from tests.support.torch_free import needs_a_worker
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform != "linux", reason="reads processes from /proc"),
    needs_a_worker,
]


_CANCELLED = 'kirazuri_jobs_finished_total{status="cancelled"}'
_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass(frozen=True)
class Up:
    """A running service, its folder and its URL."""

    run: Running
    folder: Path
    url: str

    def children(self, word: str) -> list[int]:
        """Process ids of the service's processes with `word` in the command line."""
        lines = [
            line
            for line in processes_of(self.folder)
            if word in line and "die_with_parent" not in line
        ]
        return [int(line.split()[0]) for line in lines]


@dataclass(frozen=True)
class Job:
    """A job as the API showed it, and its picture."""

    record: dict[str, Any]
    picture: bytes


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("up")
    (folder / ".env").write_text(
        f"KIRAZURI_WEBHOOK_SECRET={_SECRET}\n"
        "KIRAZURI_WEBHOOK_ALLOW_HTTP=true\n"
        "KIRAZURI_WEBHOOK_NETWORKS=127.0.0.1/32\n"
    )
    run = Running(
        *("up", "--port", "0", "--data", str(folder / "data"), "--max-rating", "sensitive"),
        folder=folder,
    )
    try:
        output = run.wait_for("ready at ")
        address = re.search(r"ready at (\S+)", output)
        assert address
        # The first line of the command itself; those of its processes have their names.
        (first, *_) = [line for line in output.splitlines() if not re.match(r"\S+ +\| ", line)]
        assert first == f"{address[1]} is the page: open it in a browser"
        yield Up(run, folder, address[1])
    finally:
        if run.process.poll() is None:
            run.end(signal.SIGKILL)


def test_saves_one_picture(up: Up, tmp_path: Path) -> None:
    out = tmp_path / "new" / "girl.webp"
    done = kirazuri_inline(
        "generate", "1girl, smile", "--steps", "4", "--seed", "3", "--out", str(out), "--url",
        up.url, folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{out}  seed 3  {up.url}/images/")
    with Image.open(out) as image:
        assert (image.format, image.size) == ("WEBP", (128, 128))


def _accepted(up: Up) -> list[str]:
    lines = httpx2.get(f"{up.url}/metrics", timeout=60).text.splitlines()
    return [line for line in lines if line.startswith("kirazuri_jobs_accepted_total ")]


def test_a_dry_run_prints_the_plan_and_makes_nothing(up: Up, tmp_path: Path) -> None:
    before = _accepted(up)
    done = kirazuri_inline(
        "generate", "1girl, long_hair", "--dry-run", "--url", up.url, folder=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^prompt +safe, 1girl, long_hair$", done.stdout, re.MULTILINE)
    assert re.search(r"^warning +rating_held: added safe ", done.stdout, re.MULTILINE)
    assert re.search(r"^tokens +\d+ T5, \d+ Qwen of 80$", done.stdout, re.MULTILINE)
    assert re.search(r"^warning +underscores_in_tags: ", done.stdout, re.MULTILINE)
    assert len(before) == 1
    assert _accepted(up) == before
    assert list(tmp_path.iterdir()) == []


def test_the_highest_rating_can_be_set(up: Up, tmp_path: Path) -> None:
    def dry_run(prompt: str) -> "subprocess.CompletedProcess[str]":
        return kirazuri_inline("generate", prompt, "--dry-run", "--url", up.url, folder=tmp_path)

    assert dry_run("1girl, lingerie").returncode == 0
    refused = dry_run("1girl, nude")
    assert refused.returncode != 0
    assert "the highest allowed rating is sensitive" in refused.stderr


def test_saves_several_pictures_in_a_folder(up: Up, tmp_path: Path) -> None:
    done = kirazuri_inline(
        "generate", "1girl", "--steps", "2", "--seed", "10", "--num-images", "2", "--resolution",
        "portrait", "--url", up.url, folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "kirazuri-10.png",
        "kirazuri-11.png",
    ]
    with Image.open(tmp_path / "kirazuri-11.png") as image:
        assert image.size == (112, 144)


def test_numbers_several_pictures_of_one_name(up: Up, tmp_path: Path) -> None:
    done = kirazuri_inline(
        "generate", "1girl", "--steps", "1", "--num-images", "2", "--out", "a.png", "--url", up.url,
        folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-0.png", "a-1.png"]


def test_every_wrong_field_is_named(up: Up, tmp_path: Path) -> None:
    done = kirazuri_inline(
        "generate", "1girl", "--resolution", "17x17", "--steps", "900", "--sampler", "best",
        "--url", up.url, folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 3
    assert done.stdout == ""
    named = [line.split(":")[0].strip() for line in done.stderr.splitlines()]
    assert named == ["error", "resolution", "steps", "sampler"]


@pytest.mark.parametrize("ending", ["interrupt", "timeout"])
def test_a_client_that_gives_up_cancels_its_job(up: Up, tmp_path: Path, ending: str) -> None:
    def metric(name: str) -> float:
        text = httpx2.get(f"{up.url}/metrics", trust_env=False, timeout=60).text
        return float(text.partition(f"\n{name} ")[2].partition("\n")[0])

    before = metric(_CANCELLED)
    command = [sys.executable, "-m", "cli.main", "generate", "1girl", "--steps", "100"]
    command += ["--num-images", "8", "--resolution", "square_hd", "--url", up.url]
    command += ["--timeout", "2" if ending == "timeout" else "100"]
    with subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=clean_environment()
    ) as process:
        if ending == "interrupt":
            wait_until(lambda: metric("kirazuri_jobs_running") == 1)
            process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == (130 if ending == "interrupt" else 1)
    assert "the job is cancelled" in errors
    wait_until(lambda: metric(_CANCELLED) == before + 1)
    assert list(tmp_path.iterdir()) == []


def test_a_webhook_is_sent(up: Up) -> None:
    hook = Receiver()
    try:
        body = {"prompt": "1girl", "steps": 1, "webhook": {"url": hook.url}}
        job = httpx2.post(f"{up.url}/generate", json=body, trust_env=False, timeout=60).json()
        (received,) = hook.wait_for(1, seconds=120)
    finally:
        hook.close()
    message = Webhook(_SECRET).verify(received.body, received.headers)
    assert (message["type"], message["data"]["id"]) == ("job.succeeded", job["id"])
    (image,) = message["data"]["images"]
    assert httpx2.get(image["url"], trust_env=False, timeout=60).content.startswith(b"\x89PNG")


def test_a_data_folder_belongs_to_one_service(up: Up, tmp_path: Path) -> None:
    second = kirazuri_inline(
        "up", "--port", "0", "--data", str(up.folder / "data"), folder=tmp_path
    )
    assert second.returncode == 1
    assert f"another service uses {up.folder / 'data'}" in second.stderr


def test_a_taken_port_is_named(up: Up, tmp_path: Path) -> None:
    port = up.url.rpartition(":")[2]
    second = kirazuri_inline(
        "up", "--port", port, "--data", str(tmp_path / "data"), folder=tmp_path
    )
    assert second.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in second.stderr.splitlines()[0]


def test_killed_processes_are_restarted(up: Up, tmp_path: Path) -> None:
    """Redis, worker, webhook sender and API. Redis keeps its records, the API its address."""
    for word in ("valkey-server", "-m worker", "-m api --", "-m api.webhooks.sender"):
        (victim,) = up.children(word)
        subprocess.run(["kill", "-9", str(victim)], check=True)
        wait_until(lambda: up.children(word) not in ([], [victim]))  # noqa: B023
    wait_until(lambda: _is_ready(up.url), seconds=120)
    done = kirazuri_inline(
        "generate", "1girl", "--steps", "2", "--out", "a.png", "--url", up.url, folder=tmp_path
    )
    assert done.returncode == 0, done.stderr + up.run.output()


def _is_ready(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/readyz", trust_env=False, timeout=60).status_code == 200
    except httpx2.TransportError:
        return False


@pytest.fixture(scope="module")
def job(up: Up) -> Job:
    """A finished job."""
    headers = {"prefer": "wait=60"}
    body = {"prompt": "1girl, smile", "steps": 2}
    made = httpx2.post(f"{up.url}/generate", json=body, headers=headers, timeout=120).json()
    assert made["status"] == "succeeded", made
    return Job(made, httpx2.get(made["images"][0]["url"], timeout=60).content)


def test_one_interrupt_stops_all_in_order(up: Up, job: Job) -> None:
    """The last test with this service."""
    assert len(processes_of(up.folder)) >= 4
    assert up.run.end(signal.SIGINT) == 0
    assert processes_of(up.folder) == []
    stopping = up.run.output().partition("stopping:")[2]
    assert stopping.index("Finished server process") < stopping.index("event=stopped")
    assert stopping.rstrip().endswith("stopped")


def test_a_backup_has_the_jobs_and_pictures(up: Up, job: Job, tmp_path: Path) -> None:
    """The commands of docs/operating.md, after the last test with the service."""
    page = snippets(ROOT / "docs/operating.md")
    pack, unpack = [one.code for one in page if one.code.count("tar -C")]
    restored = tmp_path / "restored"
    for code in (pack, unpack.partition("kirazuri up")[0]):
        script = code.replace("/srv/kirazuri", str(up.folder / "data"))
        script = script.replace("/srv/restored", str(restored)).replace("/backup", str(tmp_path))
        subprocess.run(["sh", "-euc", script], check=True)
    run = Running("up", "--port", "0", "--data", str(restored), folder=tmp_path)
    try:
        address = re.search(r"running on (http://\S+)", run.wait_for("running on http://"))
        assert address
        with httpx2.Client(base_url=address[1], trust_env=False, timeout=60) as client:
            found = client.get(f"/jobs/{job.record['id']}").json()
            (image,) = found["images"]
            same = ("id", "status", "request", "recipe", "created_at", "finished_at")
            assert {name: found[name] for name in same} == {n: job.record[n] for n in same}
            assert job.record["id"] in [one["id"] for one in client.get("/jobs").json()["items"]]
            assert image["url"].startswith(address[1])
            assert client.get(image["url"]).content == job.picture
    finally:
        run.end(signal.SIGINT)


def test_the_demo_makes_its_picture_and_leaves_nothing_running(tmp_path: Path) -> None:
    demo = Running("--port", "0", "--once", folder=tmp_path, module="cli.demo")
    assert demo.process.wait(280) == 0, demo.output()
    shown = demo.output()
    assert "out/demo.png  seed 7  http://127.0.0.1:" in shown
    assert shown.index("loading the model kirazuri-tiny") < shown.index("engine ready")
    assert "kirazuri generate" not in shown, "the service has stopped"
    with Image.open(tmp_path / "out/demo.png") as image:
        assert image.size == (192, 192)
    assert processes_of(tmp_path) == []


def test_a_broken_checkpoint_is_reported_and_no_process_is_left(tmp_path: Path) -> None:
    run = kirazuri(
        "up", "--port", "0", "--data", str(tmp_path / "data"), "--checkpoint-dir", str(tmp_path),
        folder=tmp_path,
    )  # fmt: skip
    assert run.returncode == 1
    first, *rest, last = run.stderr.splitlines()
    assert first.startswith("fault   checkpoint ")
    assert f"the checkpoint folder {tmp_path} of kirazuri-tiny is not complete:" in first
    assert [line.split()[0] for line in rest] == ["missing"] * 5
    assert last.startswith("error: not started because of a fault")
    assert not (tmp_path / "data").exists(), "nothing was started"


def test_a_worker_that_cannot_load_is_reported_and_no_process_is_left(tmp_path: Path) -> None:
    """Only loading reads the tokenizers."""
    files = shutil.copytree(shipped_folder(load_card("kirazuri-tiny")), tmp_path / "files")
    shutil.copy(files / "tokenizers/qwen3/tokenizer.json", files / "tokenizers/t5")
    run = kirazuri(
        "up", "--port", "0", "--data", str(tmp_path / "data"), "--checkpoint-dir", str(files),
        folder=tmp_path,
    )  # fmt: skip
    assert run.returncode == 1
    last = run.stderr.splitlines()[-1]
    assert last.startswith("error: worker-1 ended with code")
    assert str(files) in last
    assert "Traceback" not in run.stderr
    assert processes_of(tmp_path) == []


@pytest.mark.parametrize(
    ("variables", "who", "told"),
    [
        ({"OUTPUT_FILTER": "none_such:x"}, "worker-1", "KIRAZURI_OUTPUT_FILTER: output filter"),
        ({"C2PA_TRUST": "no.pem"}, "api", "KIRAZURI_C2PA_TRUST: no.pem cannot be read"),
        (
            {"DATA_DIR": "/proc/nope"},
            None,
            "error: KIRAZURI_DATA_DIR: /proc/nope cannot be written",
        ),
    ],
)
def test_a_wrong_setting_is_told_once(
    variables: dict[str, str], who: str | None, told: str, tmp_path: Path
) -> None:
    (tmp_path / "no.pem").write_text("no certificate")
    given = {f"KIRAZURI_{name}": value for name, value in variables.items()}
    run = kirazuri("up", "--port", "0", folder=tmp_path, timeout=240, **given)
    assert run.returncode == 1
    assert run.stderr.count(told) == 1
    last = run.stderr.splitlines()[-1]
    if who:
        assert f"{who:<8} | error: {told}" in run.stderr
        assert last == f"error: {who} did not start; its line above names the setting"
    assert "Traceback" not in run.stderr
    assert processes_of(tmp_path) == []
