"""Every client command against the real service, as a user and as a script call it."""

import json
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from cli.client.prompt_file import RESULTS
from tests.support.cli import clean_environment, kirazuri_inline
from tests.support.paths import ROOT
from tests.support.waiting import wait_until

FAST = ("--steps", "1", "--resolution", "96x96")


class CommandLine:
    """Runs commands in a folder, with the service in KIRAZURI_URL."""

    def __init__(self, service: httpx2.Client, folder: Path) -> None:
        self.url = str(service.base_url).rstrip("/")
        self.folder = folder

    def __call__(
        self, *arguments: str, code: int = 0, **options: Any
    ) -> "subprocess.CompletedProcess[str]":
        run = kirazuri_inline(*arguments, folder=self.folder, KIRAZURI_URL=self.url, **options)
        assert run.returncode == code, run.stderr + run.stdout
        return run

    def json(self, *arguments: str, code: int = 0, **options: Any) -> Any:
        """What a command prints with --json."""
        return json.loads(self(*arguments, "--json", code=code, **options).stdout)

    def start(self, *arguments: str, **variables: str) -> "subprocess.Popen[str]":
        """A command in a process of its own, which can be interrupted."""
        environment = clean_environment(KIRAZURI_URL=self.url, PYTHONPATH=str(ROOT), **variables)
        return subprocess.Popen(
            [sys.executable, "-m", "cli.main", *arguments],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture
def run(service: httpx2.Client, tmp_path: Path) -> CommandLine:
    return CommandLine(service, tmp_path)


@pytest.fixture(scope="module")
def job(service: httpx2.Client, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A job of two images that succeeded."""
    command_line = CommandLine(service, tmp_path_factory.mktemp("job"))
    return command_line.json(
        "generate", "1girl, turquoise hair", "--num-images", "2", "--seed", "3",
        "--deterministic", *FAST
    )  # fmt: skip


def test_generate_makes_files_and_a_contact_sheet(run: CommandLine) -> None:
    arguments = ("generate", "1girl", "--num-images", "2", "--out", "a.png", "--sheet", "all.png")
    done = run(*arguments, *FAST)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["a-0.png", "a-1.png"]
    assert "steps" in done.stderr
    with Image.open(run.folder / "all.png") as sheet:
        assert sheet.size == (2 * 96 + 3 * 8, 96 + 2 * 8)
    before = (run.folder / "a-0.png").read_bytes()
    assert "a-0.png exists" in run(*arguments, *FAST, "--seed", "9", code=2).stderr
    assert (run.folder / "a-0.png").read_bytes() == before
    run(*arguments, *FAST, "--seed", "9", "--force")
    assert (run.folder / "a-0.png").read_bytes() != before


def test_an_image_that_cannot_be_saved_is_downloaded_later(run: CommandLine) -> None:
    (run.folder / ".a.png.part").mkdir()
    told = run("generate", "1girl", "--out", "a.png", *FAST, code=1).stderr
    assert "cannot write a.png: Is a directory\n  its images are kept" in told
    program, *arguments = shlex.split(told.splitlines()[-1].partition(": ")[2])
    assert (Path(program).name, run(*arguments).returncode) == ("kirazuri", 0)
    assert list(run.folder.glob("kirazuri-*.png"))


def test_generate_reads_stdin_and_prints_the_job(run: CommandLine) -> None:
    made = run.json("generate", "-", *FAST, stdin="1boy, smile\n")
    assert made["request"]["prompt"] == "1boy, smile"
    (file,) = made["files"]
    assert (run.folder / file["path"]).is_file()
    plan = run.json("generate", "-", "--dry-run", stdin="1girl")
    assert plan["status"] == "planned"


def test_a_job_that_was_only_submitted_is_watched_and_downloaded(run: CommandLine) -> None:
    job_id = run("generate", "1girl", "--no-watch", *FAST).stdout.strip()
    assert list(run.folder.iterdir()) == []
    shown = run("show", job_id, "--watch").stdout
    assert f"job              {job_id}\nstatus           succeeded\n" in shown
    saved = run.json("download", job_id, "--out", "pictures", "--sheet", "all.webp")
    assert [Path(image["path"]).parent.name for image in saved] == ["pictures"]
    assert (run.folder / "all.webp").is_file()


def test_jobs_are_listed_and_filtered(run: CommandLine, job: Any) -> None:
    table = run("jobs", "--limit", "9" * 20).stdout.splitlines()
    assert table[0].split() == ["JOB", "STATUS", "AGE", "SIZE", "SEED", "PROMPT"]
    (row,) = [line for line in table if line.startswith(job["id"])]
    assert "succeeded" in row
    columns = re.split("  +", row)  # as wide as their widest entry
    assert columns[3:] == ["2 of 96x96", "3", "1girl, turquoise hair"]
    found = run.json("jobs", "--containing", "TURQUOISE", "--status", "succeeded")
    assert [one["id"] for one in found] == [job["id"]]
    assert run.json("jobs", "--containing", "turquoise", "--status", "failed") == []
    assert len(run.json("jobs", "--limit", "1")) == 1


def test_a_job_is_shown_linked_and_downloaded(run: CommandLine, job: Any) -> None:
    shown = run("show", job["id"]).stdout
    assert "prompt           1girl, turquoise hair" in shown
    assert shown.count("\nimage ") == 2
    assert run.json("show", job["id"])["id"] == job["id"]
    assert run("links", job["id"]).stdout.count("/images/") == 2
    assert len(run.json("links", job["id"])["images"]) == 2
    run("download", job["id"])
    run("download", job["id"])
    names = sorted(path.name for path in run.folder.iterdir())
    assert names == ["kirazuri-3-2.png", "kirazuri-3.png", "kirazuri-4-2.png", "kirazuri-4.png"]


def test_an_image_is_replayed_and_verified(run: CommandLine, job: Any) -> None:
    again = run.json("replay", job["id"])
    assert (again["matches"], again["replay_of"]) == (True, job["id"])
    run("download", job["id"])
    image = run.folder / "kirazuri-3.png"
    assert run("verify", str(image)).stdout.startswith("ours\n")
    assert run.json("verify", "-", stdin=image.read_bytes())["verdict"] == "ours"


def test_what_does_not_exist_or_has_ended(run: CommandLine, job: Any) -> None:
    gone = "7ZZZZZZZZZZZZZZZZZZZZZZZZZ"
    for command in ("show", "cancel", "links", "download", "replay"):
        assert f"there is no job {gone}" in run(command, gone, code=4).stderr
    assert "older than results are kept" in run("show", "01" + "0" * 24, code=4).stderr
    ended = run("cancel", job["id"], gone, code=3)
    assert "already succeeded" in ended.stderr
    assert f"there is no job {gone}" in ended.stderr
    assert "steps" in run("generate", "1girl", "--steps", "900", code=3).stderr


def test_a_running_job_is_cancelled(run: CommandLine) -> None:
    slow = ("--steps", "100", "--num-images", "8", "--resolution", "square_hd")
    ids = [run("generate", "1girl", "--no-watch", *slow).stdout.strip() for _ in range(2)]
    cancelled = run("cancel", *ids, "--json").stdout.splitlines()
    assert [json.loads(line)["id"] for line in cancelled] == ids
    for job_id in ids:
        assert "status           cancelled" in run("show", job_id, "--watch", code=1).stdout
    assert "the job cancelled" in run("download", ids[0], code=1).stderr


def test_what_a_service_offers_is_listed(run: CommandLine) -> None:
    capabilities = run("capabilities").stdout
    assert "preset           square_hd 192x192" in capabilities
    assert "er_sde*" in capabilities
    offered = run.json("capabilities")
    assert run.json("models")[0]["name"] == offered["name"] == "kirazuri-tiny"
    assert "kirazuri-tiny" in run("models").stdout
    assert run.json("loras")["loras"] == offered["loras"]
    assert run("loras").stdout.startswith("LORA ")
    tags = run.json("tags", "1gi")
    assert tags[0]["tag"] == "1girl"
    assert "1girl" in run("tags", "1gi").stdout
    assert run("tags", "zzzz").stderr == "no tag begins like this\n"


def test_the_queue_has_length_workers_and_pace(run: CommandLine, job: Any) -> None:
    state = run.json("queue")
    assert (state["reasons"], state["limit"]) == ([], 1000)
    assert state["waiting"] >= 0
    (worker,) = state["workers"]
    assert worker["is_warm"]
    # The worker's metrics arrive with its next heartbeat.
    wait_until(lambda: run.json("queue")["workers"][0]["steps_per_second"])
    assert run.json("queue")["picture_seconds"] > 0
    shown = run("queue").stdout
    assert "of at most 1000 jobs" in shown
    assert worker["name"] in shown


def _results(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_file_of_prompts_is_run_and_continued(run: CommandLine) -> None:
    prompts = run.folder / "prompts.txt"
    prompts.write_text('1girl\n\n# note\n{"prompt": "1boy", "steps": 900}\n1girl\n')
    arguments = ("generate", "--prompts", "prompts.txt", "--out", "made", *FAST)
    done = run(*arguments, code=1)
    results = sorted(_results(done.stdout), key=lambda result: result["line"])
    assert [(result["line"], result["status"]) for result in results] == [
        (1, "succeeded"), (4, "refused"), (5, "succeeded"),
    ]  # fmt: skip
    assert "steps" in results[1]["error"]
    assert "3 prompts: 0 done before, " in done.stderr
    assert len(_results((run.folder / "made" / RESULTS).read_text())) == 3
    assert all((run.folder / result["files"][0]["path"]).is_file() for result in results[::2])

    prompts.write_text("1boy\n1girl\n1girl\n")
    more = run("generate", "--prompts", "-", "--out", "made", *FAST, stdin=prompts.read_text())
    assert [result["line"] for result in _results(more.stdout)] == [1]
    assert "3 prompts: 2 done before, 1 succeeded" in more.stderr
    (run.folder / results[0]["files"][0]["path"]).unlink()
    again = run("generate", "--prompts", "prompts.txt", "--out", "made", *FAST)
    assert [result["prompt"] for result in _results(again.stdout)] == ["1girl"]


def test_an_interrupted_run_cancels_its_jobs_and_continues(
    run: CommandLine, service: httpx2.Client
) -> None:
    slow = (
        '{"prompt": "1girl, interrupted", "steps": 100, "num_images": 8, "resolution": "192x192"}'
    )
    (run.folder / "prompts.txt").write_text(f"1girl, interrupted\n{slow}\n")
    arguments = ("generate", "--prompts", "prompts.txt", *FAST)
    results = run.folder / RESULTS
    with run.start(*arguments) as process:
        assert process.stdout
        assert json.loads(process.stdout.readline())["line"] == 1  # the file has it by now
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=120)
    assert (process.returncode, out) == (130, "")
    assert "interrupted" in errors
    statuses = [result["status"] for result in _results(results.read_text())]
    assert statuses == ["succeeded", "cancelled"]
    assert not list(run.folder.glob(".*"))
    job_id = _results(results.read_text())[1]["job"]
    wait_until(lambda: service.get(f"/jobs/{job_id}").json()["status"] == "cancelled")
    (run.folder / "prompts.txt").write_text("1girl, interrupted\n")
    assert "1 prompt: 1 done before" in run(*arguments).stderr


def test_watching_prints_each_change_and_ends_with_an_interrupt(run: CommandLine) -> None:
    watched = run.json("generate", "1girl, watched", *FAST)  # no other test makes such a job
    with run.start("jobs", "--watch", "--json", "--containing", "watched") as process:
        assert process.stdout
        assert json.loads(process.stdout.readline())["id"] == watched["id"]
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
    assert (process.returncode, out, errors) == (130, "", "error: interrupted\n")


def test_a_closed_pipe_is_no_error(run: CommandLine, job: Any) -> None:
    with run.start("jobs", "--watch") as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        run("generate", "1girl", *FAST)  # another line, which nobody reads
        assert process.stderr.read() == ""
        assert process.wait(60) == 1


def test_the_doctor_finds_a_service_that_runs(run: CommandLine) -> None:
    """Loads torch in a process of its own, as the worker does."""
    port = run.url.rpartition(":")[2]
    findings = {one["check"]: one for one in run.json("doctor", "--port", port)}
    assert f"127.0.0.1:{port} has a service" in findings["port"]["found"]
    assert {one["state"] for one in findings.values()} <= {"ok", "warning"}
    names = {"Python", "packages", "torch", "device", "memory", "data folder", "Redis", "clock"}
    parts = {"transformer and text adapter", "text encoder", "VAE", "tokenizers", "SHA-256"}
    assert findings.keys() >= names | parts


def test_the_doctor_says_what_to_do(run: CommandLine) -> None:
    missing = run.folder / "missing"
    done = run("doctor", "--no-hash", "--checkpoint-dir", str(missing), code=1)
    assert f"there is no folder {missing}" in done.stdout
    assert "→ " in done.stdout
    assert done.stderr == "1 fault: the service would not start\n"
