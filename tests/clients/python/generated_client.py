"""A package that openapi-python-client generates, with the configuration of docs/clients.md."""

import importlib
import re
import sys
import tempfile
import urllib.request
from pathlib import Path

import openapi_python_client.cli
from checks import KEY, PROMPT, URL, check, is_image, kept, makes_one_job
from typer.testing import CliRunner

PAGE = Path(__file__).parents[3] / "docs/clients.md"
folder = Path(tempfile.mkdtemp(prefix="kirazuri-generated-"))
sys.path.insert(0, str(folder))


def module(name: str) -> object:
    return importlib.import_module(f"kirazuri_client.{name}")


@check("generate the package without a warning")
def generate_the_package() -> None:
    found = re.search(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (folder / "config.yml").write_text(found[1])
    with urllib.request.urlopen(f"{URL}/openapi.json", timeout=60) as answer:
        (folder / "openapi.json").write_bytes(answer.read())
    arguments = ["generate", "--path", str(folder / "openapi.json"), "--meta", "none"]
    arguments += ["--config", str(folder / "config.yml"), "--fail-on-warning"]
    arguments += ["--output-path", str(folder / "kirazuri_client")]
    ran = CliRunner().invoke(openapi_python_client.cli.app, arguments)
    assert ran.exit_code == 0, ran.output


def client_of(key: str = KEY) -> object:
    return module("client").AuthenticatedClient(base_url=URL, token=key, timeout=240)


def submit(**fields: object) -> object:
    body = module("models").GenerationRequest(prompt=PROMPT, steps=4, **fields)
    answer = module("api.generation.generate").sync(client=client_of(), body=body, prefer="wait=60")
    while answer.status not in ("succeeded", "failed"):
        answer = module("api.jobs.get_job").sync(answer.id, client=client_of())
    return answer


def fetch(job: object) -> bytes:
    name = job.images[0].url.rpartition("/")[2]
    return module("api.images.get_image").sync(name, client=client_of()).payload.read()


@check("generate")
def generate() -> None:
    job = makes_one_job(submit)
    assert isinstance(job, module("models").JobView)
    assert job.status == "succeeded"
    kept["job"] = job


@check("read images of every format")
def read_images() -> None:
    assert is_image(fetch(kept["job"]))
    formats = module("models").GenerationRequestImageFormat
    for kind in (formats.WEBP, formats.JPEG, formats.AVIF):
        assert is_image(fetch(submit(image_format=kind))), kind


@check("edit")
def edit() -> None:
    assert submit(init_image=kept["job"].images[0].url, strength=0.5).status == "succeeded"


@check("tell a plan from a job")
def tell_a_plan_from_a_job() -> None:
    body = module("models").GenerationRequest(prompt=PROMPT)
    plan = module("api.generation.generate").sync(client=client_of(), body=body, dry_run=True)
    assert isinstance(plan, module("models").Plan)
    assert plan.request.seed is None


@check("understand an error")
def understand_an_error() -> None:
    body = module("models").GenerationRequest(prompt=PROMPT, steps=0)
    problem = module("api.generation.generate").sync(client=client_of(), body=body)
    assert isinstance(problem, module("models").Problem)
    assert [error.pointer for error in problem.errors] == ["/steps"]


@check("wrong key")
def wrong_key() -> None:
    problem = module("api.service.get_capabilities").sync(client=client_of("wrong"))
    assert problem.code == "unauthorized"
