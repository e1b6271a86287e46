"""`/capabilities` lists what clients need for a form, and every choice works."""

import httpx2
import pytest

from api.routes.service.capabilities import capabilities
from model.card import card_names, load_card
from model.sampler_catalog import evaluations
from tests.support.manual_worker import ManualWorker
from worker.settings import Settings


def test_a_form_can_be_built(client: httpx2.Client, worker: ManualWorker) -> None:
    worker.heartbeat()
    found = client.get("/capabilities").json()
    assert found["name"] == "kirazuri-tiny"
    assert found["defaults"]["sampler"] in {sampler["name"] for sampler in found["samplers"]}
    schedulers = {scheduler["name"] for scheduler in found["schedulers"]}
    assert found["defaults"]["scheduler"] in schedulers
    assert {"name": "square", "width": 128, "height": 128, "group": 128} in found["resolutions"]
    assert found["limits"]["max_steps"] == 100
    assert found["seed"] == {"minimum": 0, "maximum": 2**53 - 1}
    assert found["formats"] == ["png", "webp", "jpeg", "avif"]
    assert found["features"]["prefer_wait_seconds"] == 1
    assert found["features"]["tags"]
    assert found["features"]["dry_run"]
    assert found["features"]["deterministic"]
    assert found["features"]["replay"]
    assert found["features"]["token_counts"]
    assert found["licence"]["name"]
    assert found["prompting"]["example"]
    (listed,) = found["workers"]
    assert listed["device"] == "cpu"


def test_a_body_may_have_as_many_bytes_as_is_told(client: httpx2.Client) -> None:
    most = client.get("/capabilities").json()["features"]["max_body_bytes"]
    headers = {"Content-Type": "application/json"}
    for length, status in ((most, 422), (most + 1, 413)):
        answer = client.post("/generate", content="[]".ljust(length), headers=headers)
        assert answer.status_code == status


def test_every_listed_choice_is_accepted(client: httpx2.Client) -> None:
    found = client.get("/capabilities").json()
    choices = (
        [
            {"sampler": sampler["name"], "steps": sampler["default_steps"]}
            for sampler in found["samplers"]
        ]
        + [{"scheduler": scheduler["name"]} for scheduler in found["schedulers"]]
        + [{"resolution": resolution["name"]} for resolution in found["resolutions"]]
        + [{"image_format": name} for name in found["formats"]]
        + [
            {"quality": quality["name"], "sampler": sampler}
            for quality in found["qualities"][1:]
            for sampler in quality["samplers"]
        ]
        + [{"metadata": level} for level in found["features"]["metadata"]]
    )
    for choice in choices:
        answer = client.post("/generate", json={"prompt": found["prompting"]["example"], **choice})
        assert answer.status_code == 202, answer.text
        client.delete(f"/jobs/{answer.json()['id']}")


def test_every_option_is_accepted_at_both_limits(client: httpx2.Client) -> None:
    found = client.get("/capabilities").json()
    for sampler in found["samplers"]:
        for end in ("minimum", "maximum"):
            options = {
                option["name"]: option["default"] if option[end] is None else option[end]
                for option in sampler["options"]
            }
            body = {"prompt": found["prompting"]["example"], "sampler": sampler["name"]}
            answer = client.post("/generate", json={**body, "sampler_options": options})
            assert answer.status_code == 202, answer.text
            assert answer.json()["request"]["sampler_options"] == options
            client.delete(f"/jobs/{answer.json()['id']}")
    (solver_type,) = [
        option
        for sampler in found["samplers"]
        if sampler["name"] == "dpmpp_2m_sde"
        for option in sampler["options"]
        if option["type"] == "string"
    ]
    assert solver_type["choices"] == ["midpoint", "heun"]


def test_schedules_that_are_not_recommended_are_marked(client: httpx2.Client) -> None:
    found = {s["name"]: s for s in client.get("/capabilities").json()["schedulers"]}
    assert found["simple"]["is_recommended"]
    assert not found["linear_quadratic"]["is_recommended"]
    assert "sigma 0.975" in found["linear_quadratic"]["note"]


def test_qualities_say_what_they_save_and_change(client: httpx2.Client) -> None:
    exact, *others = client.get("/capabilities").json()["qualities"]
    assert (exact["name"], exact["work"], exact["note"]) == ("exact", 1.0, "")
    assert "dpmpp_2m" in exact["samplers"]
    assert {one["name"]: one["work"] for one in others} == {"balanced": 0.7, "fast": 0.6}
    assert all(one["note"] for one in others)
    assert exact["float8_samplers"] == []
    for one in others:
        assert set(one["float8_samplers"]) < set(one["samplers"])


@pytest.mark.parametrize("name", card_names())
def test_every_card_has_capabilities(name: str) -> None:
    card = load_card(name)
    found = capabilities(
        card, Settings(_env_file=None), [], loras=[], refused_loras=[], has_tokenizers=False
    )
    assert not found.features.token_counts
    for sampler in found.samplers:
        assert sampler.evaluations == evaluations(
            sampler.name, card.defaults.scheduler, sampler.default_steps
        )
        assert sampler.recommended_steps[0] <= sampler.default_steps <= sampler.recommended_steps[1]
    assert [limitation.code for limitation in found.limitations] == [
        limitation.code for limitation in card.limitations
    ]
