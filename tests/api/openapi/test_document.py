"""The OpenAPI document: valid, stable, typed errors, and sufficient to generate a client."""

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import httpx2
import pytest
from openapi_spec_validator import validate
from pydantic.json_schema import GenerateJsonSchema

from api.main import create_app
from api.webhooks.schemas import submission_type
from model.card import TagGroup, card_names, load_card
from model.tags import MAX_TAGS
from tests.clients.results import page_example
from tests.support.api_server import ApiServer
from tests.support.waiting import wait_until
from worker.settings import Settings

SECRET = "whsec_" + "c2VjcmV0" * 4


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"max_wait_seconds": 60})


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(Settings(_env_file=None, card="kirazuri-tiny")).openapi()


def test_no_schema_is_made_before_the_document_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        pytest.fail("a schema at the start")

    with monkeypatch.context() as changed:
        changed.setattr(GenerateJsonSchema, "generate", fail)
        app = create_app(Settings(_env_file=None, card="kirazuri-tiny"))
    content = app.openapi()["paths"]["/v1/images/edits"]["post"]["requestBody"]["content"]
    assert {"steps", "image"} <= set(content["multipart/form-data"]["schema"]["properties"])


@pytest.mark.parametrize("name", card_names())
def test_the_document_is_valid_and_its_example_request_is_accepted(name: str) -> None:
    settings = Settings(_env_file=None, card=name, webhook_secret=SECRET)
    document = create_app(settings).openapi()
    assert document["openapi"].startswith("3.1")
    validate(document)
    fields = document["components"]["schemas"]["GenerationRequest"]["properties"]
    body = {field: schema["examples"][0] for field, schema in fields.items()}
    request = submission_type(load_card(name), settings, lambda: ["watercolor"])
    request.model_validate_json(json.dumps(body))


def test_the_document_is_written_once(
    server: ApiServer, client: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is long, and anybody may ask for it as often as they like."""
    written, document = [], server.app.openapi()

    def write() -> dict[str, Any]:
        written.append(1)
        return document

    monkeypatch.setattr(server.app, "openapi", write)
    answers = [client.get("/openapi.json") for _ in range(3)]
    assert len(written) <= 1
    assert {answer.text for answer in answers} == {answers[0].text}
    assert answers[0].headers["content-type"] == "application/json"


def test_the_document_and_its_pages_are_served(
    client: httpx2.Client, document: dict[str, Any]
) -> None:
    assert client.get("/openapi.json").json() == document
    page = client.get("/docs").text
    assert "/openapi.json" in page
    assert "https://" not in page
    assets = re.findall(r'(?:src|href)="(/[^"]+)"', page)
    assert len(assets) >= 2
    assert {client.get(asset).status_code for asset in assets} == {200}


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def test_operation_ids_never_change(document: dict[str, Any]) -> None:
    assert {
        (method, path): operation["operationId"] for method, path, operation in operations(document)
    } == {
        ("POST", "/generate"): "generate",
        ("GET", "/jobs"): "listJobs",
        ("GET", "/jobs/{job_id}"): "getJob",
        ("DELETE", "/jobs/{job_id}"): "cancelJob",
        ("POST", "/jobs/{job_id}/links"): "signJobLinks",
        ("POST", "/jobs/{job_id}/replay"): "replayJob",
        ("GET", "/jobs/{job_id}/events"): "streamJobEvents",
        ("GET", "/images/{name}"): "getImage",
        ("DELETE", "/images/{name}"): "deleteImage",
        ("POST", "/verify"): "verifyImage",
        ("GET", "/capabilities"): "getCapabilities",
        ("GET", "/tags"): "completeTags",
        ("GET", "/problems/{code}"): "explainProblem",
        ("GET", "/livez"): "livez",
        ("GET", "/readyz"): "readyz",
        ("GET", "/metrics"): "metrics",
        ("POST", "/sdapi/v1/txt2img"): "a1111TextToImage",
        ("POST", "/sdapi/v1/img2img"): "a1111ImageToImage",
        ("GET", "/sdapi/v1/progress"): "a1111Progress",
        ("POST", "/sdapi/v1/interrupt"): "a1111Interrupt",
        ("POST", "/sdapi/v1/skip"): "a1111Skip",
        ("POST", "/sdapi/v1/png-info"): "a1111PngInfo",
        ("POST", "/sdapi/v1/extra-single-image"): "a1111EnlargeImage",
        ("GET", "/sdapi/v1/options"): "a1111GetOptions",
        ("POST", "/sdapi/v1/options"): "a1111SetOptions",
        ("GET", "/sdapi/v1/sd-models"): "a1111ListModels",
        ("GET", "/sdapi/v1/samplers"): "a1111ListSamplers",
        ("GET", "/sdapi/v1/schedulers"): "a1111ListSchedulers",
        ("GET", "/sdapi/v1/upscalers"): "a1111ListUpscalers",
        ("GET", "/sdapi/v1/latent-upscale-modes"): "a1111ListLatentUpscaleModes",
        ("GET", "/sdapi/v1/sd-vae"): "a1111ListVaes",
        ("GET", "/sdapi/v1/sd-modules"): "a1111ListModules",
        ("GET", "/sdapi/v1/loras"): "a1111ListLoras",
        ("GET", "/sdapi/v1/embeddings"): "a1111ListEmbeddings",
        ("GET", "/sdapi/v1/scripts"): "a1111ListScripts",
        ("GET", "/sdapi/v1/cmd-flags"): "a1111Flags",
        ("GET", "/sdapi/v1/memory"): "a1111Memory",
        ("GET", "/sdapi/v1/prompt-styles"): "a1111ListStyles",
        ("GET", "/sdapi/v1/hypernetworks"): "a1111ListHypernetworks",
        ("GET", "/sdapi/v1/face-restorers"): "a1111ListFaceRestorers",
        ("GET", "/sdapi/v1/realesrgan-models"): "a1111ListRealesrganModels",
        ("POST", "/sdapi/v1/refresh-checkpoints"): "a1111RefreshCheckpoints",
        ("POST", "/sdapi/v1/refresh-vae"): "a1111RefreshVae",
        ("POST", "/sdapi/v1/refresh-loras"): "a1111RefreshLoras",
        ("POST", "/sdapi/v1/refresh-embeddings"): "a1111RefreshEmbeddings",
        ("GET", "/internal/ping"): "a1111Ping",
        ("GET", "/internal/sysinfo"): "a1111SystemInfo",
        ("POST", "/login"): "a1111Login",
        ("POST", "/v1/images/generations"): "openaiGenerateImages",
        ("POST", "/v1/images/edits"): "openaiEditImage",
        ("POST", "/v1/chat/completions"): "openaiChat",
        ("POST", "/v1/responses"): "openaiRespond",
        ("GET", "/v1/models"): "openaiListModels",
        ("GET", "/v1/models/{model}"): "openaiGetModel",
    }


def test_the_own_operations_come_first_and_no_group_is_empty(document: dict[str, Any]) -> None:
    """/docs shows the groups in this order."""
    used = {tag for _, _, operation in operations(document) for tag in operation["tags"]}
    names = [tag["name"] for tag in document["tags"]]
    assert names[:2] == ["generation", "jobs"]
    assert names[-2:] == ["openai", "a1111"]
    assert sorted(names) == sorted(used)
    for hook in document["webhooks"].values():
        assert {*hook["post"]["tags"]} <= used


def test_what_may_change_something_is_forbidden_to_foreign_pages(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        names = {parameter["name"] for parameter in operation.get("parameters", ())}
        may_change = method != "GET" or "cancel_on_disconnect" in names
        assert ("403" in operation["responses"]) == may_change, (method, path)


ERRORS = {
    "a1111": ("application/json", {"A1111Error"}),
    "openai": ("application/json", {"OpenAIError"}),
}
"""By the tag of a dialect; other errors are problems."""


def test_every_error_has_the_type_of_its_dialect(document: dict[str, Any]) -> None:
    for _, path, operation in operations(document):
        (tag,) = operation["tags"]
        media_type, names = ERRORS.get(tag, ("application/problem+json", {"Problem", "NotReady"}))
        assert "500" in operation["responses"], path
        for status, answer in operation["responses"].items():
            if status >= "400":
                assert set(answer["content"]) == {media_type}, (path, status)
                reference = answer["content"][media_type]["schema"]["$ref"]
                assert reference.rpartition("/")[2] in names
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_all_errors_of_a_submission_are_listed(document: dict[str, Any]) -> None:
    responses = document["paths"]["/generate"]["post"]["responses"]
    refused = {"400", "401", "403", "413", "415", "422", "429", "500", "503"}
    assert set(responses) == {"200", "202"} | refused


def test_operations_that_need_a_key_say_so(document: dict[str, Any]) -> None:
    schemes = document["components"]["securitySchemes"]
    opened = set()
    for _, path, operation in operations(document):
        ways = [name for way in operation["security"] for name in way]
        assert set(ways) <= set(schemes)
        assert ("401" in operation["responses"]) is bool(ways)
        if ways:
            assert "WWW-Authenticate" in operation["responses"]["401"]["headers"]
            assert ways[:2] == ["bearerKey", "basicKey"]
        else:
            opened.add(path)
    assert opened == {"/livez", "/readyz", "/problems/{code}"}


ILLUSTRATED = [
    "A1111Error",
    "A1111Model",
    "A1111Options",
    "A1111Pictures",
    "A1111PngInfo",
    "A1111Progress",
    "A1111State",
    "GenerationRequest",
    "ImageToImage",
    "JobLinks",
    "JobList",
    "JobView",
    "JobWebhook",
    "Plan",
    "Problem",
    "StoredImage",
    "Verification",
    "Recipe",
    "SamplerOption",
    "Tags",
    "TextToImage",
    "WebhookDelivery",
    "WebhookMessage",
    "WebhookRequest",
]


def test_every_field_has_an_example(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    missing = [
        f"{name}.{field}"
        for name in ILLUSTRATED
        for field, schema in schemas[name]["properties"].items()
        if not schema.get("examples")
    ]
    assert missing == []


def test_a_form_can_be_built_from_the_document(document: dict[str, Any]) -> None:
    request = document["components"]["schemas"]["GenerationRequest"]
    fields = request["properties"]
    assert request["additionalProperties"] is False
    assert "required" not in request, "a prompt or tags; as their descriptions say"
    assert {"type": "integer", "minimum": 1, "maximum": 100} in fields["steps"]["anyOf"]
    assert "er_sde" in fields["sampler"]["anyOf"][0]["enum"]
    assert "simple" in fields["scheduler"]["anyOf"][0]["enum"]
    assert "square_hd" in fields["resolution"]["description"]
    assert fields["prompt"]["anyOf"][0] == {"type": "string", "maxLength": 10_000}
    groups = document["components"]["schemas"]["Tags"]["properties"]
    assert list(groups) == list(get_args(TagGroup))
    assert {group["maxItems"] for group in groups.values()} == {MAX_TAGS}


def test_the_stream_is_described(document: dict[str, Any]) -> None:
    operation = document["paths"]["/jobs/{job_id}/events"]["get"]
    stream = operation["responses"]["200"]["content"]["text/event-stream"]
    assert "event: progress" in stream["example"]
    assert "Last-Event-ID" in operation["description"]
    names = {field["name"] for field in operation["parameters"]}
    assert names == {"job_id", "last-event-id", "cancel_on_disconnect"}


def test_the_messages_to_webhooks_are_described(document: dict[str, Any]) -> None:
    operation = document["webhooks"]["jobEvent"]["post"]
    assert {field["name"] for field in operation["parameters"]} == {
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
    }
    assert set(operation["responses"]) == {"204", "410", "default"}


@pytest.fixture(scope="module")
def generated_client(
    document: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """A package `kirazuri_client` that is generated from the document as the page says."""
    folder = tmp_path_factory.mktemp("generated")
    (folder / "openapi.json").write_text(json.dumps(document))
    (folder / "config.yml").write_text(page_example("yaml"))
    generator = str(Path(sys.executable).with_name("openapi-python-client"))
    command = [generator, "generate", "--path", "openapi.json", "--config", "config.yml"]
    command += ["--meta", "none", "--output-path", "kirazuri_client", "--fail-on-warning"]
    made = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield


@pytest.fixture
def worker(settings: Settings, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A real worker process with an engine that makes noise images."""
    monkeypatch.setenv("KIRAZURI_REDIS_URL", redis_url)
    monkeypatch.setenv("KIRAZURI_DATA_DIR", str(settings.data_dir))
    command = [sys.executable, "-m", "tests.support.fake_worker"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.usefixtures("generated_client", "worker")
def test_a_generated_client_submits_and_fetches_a_job(server: ApiServer) -> None:
    package = importlib.import_module("kirazuri_client")
    models = importlib.import_module("kirazuri_client.models")
    generate = importlib.import_module("kirazuri_client.api.generation.generate")
    get_job = importlib.import_module("kirazuri_client.api.jobs.get_job")
    get_image = importlib.import_module("kirazuri_client.api.images.get_image")

    with package.Client(base_url=server.url) as client:
        body = models.GenerationRequest(prompt="1girl, blue hair", steps=4, seed=42)
        job = generate.sync(client=client, body=body)
        assert isinstance(job, models.JobView)
        wait_until(lambda: get_job.sync(job.id, client=client).status in {"succeeded", "failed"})
        job = get_job.sync(job.id, client=client)
        assert job.status == models.JobViewStatus.SUCCEEDED
        assert job.request.seed == 42
        (image,) = job.images
        file = get_image.sync(image.url.rpartition("/")[2], client=client)
        assert file.payload.read().startswith(b"\x89PNG")

        tags = models.Tags(general=["long_hair"], artist=["wlop"])
        body = models.GenerationRequest(tags=tags, prompt="She waves.")
        plan = generate.sync(client=client, body=body, dry_run=True)
        assert isinstance(plan, models.Plan)
        assert plan.request.prompt == "@wlop, long hair, She waves."
        assert plan.request.seed is None
        assert plan.tokens.prompt.t5 > 1

        refused = generate.sync(client=client, body=models.GenerationRequest(prompt="", steps=0))
        assert isinstance(refused, models.Problem)
        assert {error.pointer for error in refused.errors} == {"/prompt", "/steps"}


@pytest.mark.usefixtures("generated_client", "worker")
def test_a_generated_client_reads_every_image_format(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program of the page, which makes a PNG, for each format."""
    monkeypatch.chdir(tmp_path)
    wait_until(
        lambda: httpx2.get(f"{server.url}/readyz", timeout=60).status_code == 200, seconds=120
    )
    code = page_example("python", having="kirazuri_client").replace(
        "http://localhost:8000", server.url
    )
    formats = importlib.import_module("kirazuri_client.models").GenerationRequestImageFormat
    beginnings = {"png": b"\x89PNG", "webp": b"RIFF", "jpeg": b"\xff\xd8", "avif": b"\0\0\0"}
    for kind, beginning in beginnings.items():
        written = code.replace("seed=42", "seed=42, image_format=kind")
        exec(compile(written, "clients.md", "exec"), {"kind": formats(kind)})
        assert (tmp_path / "blue.png").read_bytes().startswith(beginning), kind
