"""Everything that a form needs, and nothing that does not work."""

import httpx2
import pytest

from api.routes.service.capabilities import capabilities
from model.card import card_names, load_card
from model.sampler_catalog import evaluations
from tests.support.manual_worker import ManualWorker
from worker.settings import Settings


def test_a_form_can_be_built(client: httpx2.Client, worker: ManualWorker) -> None:
    worker.heartbeat()
    told = client.get("/capabilities").json()
    assert told["name"] == "kirazuri-tiny"
    assert told["defaults"]["sampler"] in {sampler["name"] for sampler in told["samplers"]}
    assert told["defaults"]["scheduler"] in {scheduler["name"] for scheduler in told["schedulers"]}
    assert {"name": "square", "width": 128, "height": 128, "group": 128} in told["resolutions"]
    assert told["limits"]["max_steps"] == 100
    assert told["seed"] == {"minimum": 0, "maximum": 2**53 - 1}
    assert told["formats"] == ["png", "webp", "jpeg", "avif"]
    assert told["features"]["prefer_wait_seconds"] == 1
    assert told["features"]["tags"]
    assert told["features"]["dry_run"]
    assert told["features"]["deterministic"]
    assert told["features"]["replay"]
    assert told["features"]["token_counts"]
    assert told["licence"]["name"]
    assert told["prompting"]["example"]
    (listed,) = told["workers"]
    assert listed["device"] == "cpu"


def test_every_choice_told_is_accepted(client: httpx2.Client) -> None:
    told = client.get("/capabilities").json()
    choices = (
        [
            {"sampler": sampler["name"], "steps": sampler["default_steps"]}
            for sampler in told["samplers"]
        ]
        + [{"scheduler": scheduler["name"]} for scheduler in told["schedulers"]]
        + [{"resolution": resolution["name"]} for resolution in told["resolutions"]]
        + [{"image_format": name} for name in told["formats"]]
        + [{"metadata": level} for level in told["features"]["metadata"]]
    )
    for choice in choices:
        answer = client.post("/generate", json={"prompt": told["prompting"]["example"], **choice})
        assert answer.status_code == 202, answer.text
        client.delete(f"/jobs/{answer.json()['id']}")


def test_every_option_told_is_accepted_at_both_ends(client: httpx2.Client) -> None:
    told = client.get("/capabilities").json()
    for sampler in told["samplers"]:
        for end in ("minimum", "maximum"):
            options = {
                option["name"]: option["default"] if option[end] is None else option[end]
                for option in sampler["options"]
            }
            body = {"prompt": told["prompting"]["example"], "sampler": sampler["name"]}
            answer = client.post("/generate", json={**body, "sampler_options": options})
            assert answer.status_code == 202, answer.text
            assert answer.json()["request"]["sampler_options"] == options
            client.delete(f"/jobs/{answer.json()['id']}")
    (solver_type,) = [
        option
        for sampler in told["samplers"]
        if sampler["name"] == "dpmpp_2m_sde"
        for option in sampler["options"]
        if option["type"] == "string"
    ]
    assert solver_type["choices"] == ["midpoint", "heun"]


def test_schedules_that_suit_the_checkpoint_badly_are_marked(client: httpx2.Client) -> None:
    told = {s["name"]: s for s in client.get("/capabilities").json()["schedulers"]}
    assert told["simple"]["is_recommended"]
    assert not told["linear_quadratic"]["is_recommended"]
    assert "sigma 0.975" in told["linear_quadratic"]["note"]


@pytest.mark.parametrize("name", card_names())
def test_every_card_can_be_told(name: str) -> None:
    card = load_card(name)
    told = capabilities(card, Settings(_env_file=None), [], loras=[], has_tokenizers=False)
    assert not told.features.token_counts
    for sampler in told.samplers:
        assert sampler.evaluations == evaluations(
            sampler.name, card.defaults.scheduler, sampler.default_steps
        )
        assert sampler.recommended_steps[0] <= sampler.default_steps <= sampler.recommended_steps[1]
    assert [limitation.code for limitation in told.limitations] == [
        limitation.code for limitation in card.limitations
    ]
