"""Open fields of a request are filled with the defaults of the card."""

from model.card import load_card
from model.card_request import request_type
from model.resolved_request import ResolvedLora, ResolvedRequest, resolve_request

CARD = load_card("kirazuri-v1")
REQUEST = request_type(CARD)
LORAS = request_type(CARD, lambda: {"hats": 1, "style/ink": 2})


def test_loras_are_resolved_with_their_hashes() -> None:
    body = {"prompt": "1girl", "loras": [{"name": "style/ink", "weight": -0.5}, {"name": "hats"}]}
    hashes = {"hats": "a" * 64, "style/ink": "b" * 64}
    resolved = resolve_request(LORAS.model_validate(body), CARD, seed=1, lora_hashes=hashes)
    assert resolved.loras == (
        ResolvedLora(name="style/ink", weight=-0.5, sha256="b" * 64),
        ResolvedLora(name="hats", weight=1.0, sha256="a" * 64),
    )
    assert ResolvedRequest.model_validate_json(resolved.model_dump_json()) == resolved


def test_a_request_of_an_earlier_release_has_no_loras() -> None:
    resolved = resolve_request(REQUEST(prompt="1girl"), CARD, seed=7)
    stored = resolved.model_dump(mode="json", exclude={"loras"})
    assert ResolvedRequest.model_validate(stored).loras == ()


def test_defaults_come_from_the_card() -> None:
    resolved = resolve_request(REQUEST(prompt="1girl"), CARD, seed=7)
    assert resolved == ResolvedRequest(
        prompt="1girl",
        negative_prompt=CARD.defaults.negative_prompt,
        width=1024,
        height=1024,
        steps=30,
        cfg_scale=4.0,
        sampler="er_sde",
        scheduler="simple",
        seed=7,
        num_images=1,
        image_format="png",
        image_quality=90,
        metadata="full",
    )


def test_values_of_the_client_override_the_defaults() -> None:
    request = REQUEST(
        prompt="x",
        negative_prompt="",
        resolution="832x1216",
        steps=3,
        cfg_scale=1,
        sampler="heun",
        scheduler="beta",
        seed=0,
    )
    resolved = resolve_request(request, CARD, seed=7)
    assert (resolved.width, resolved.height) == (832, 1216)
    assert (resolved.negative_prompt, resolved.steps, resolved.cfg_scale) == ("", 3, 1.0)
    assert (resolved.sampler, resolved.scheduler, resolved.seed) == ("heun", "beta", 0)


def test_default_steps_follow_the_sampler() -> None:
    resolved = resolve_request(REQUEST(prompt="x", sampler="sa_solver_pece"), CARD, seed=1)
    assert resolved.steps == CARD.samplers["sa_solver_pece"].default_steps


def test_a_resolved_request_keeps_the_types_of_its_options() -> None:
    options = {"simple_order_2": True, "predictor_order": 2, "eta": 1.0}
    request = REQUEST(prompt="x", sampler="sa_solver", sampler_options=options)
    resolved = resolve_request(request, CARD, seed=1)
    again = ResolvedRequest.model_validate_json(resolved.model_dump_json())
    assert again == resolved
    assert [type(value) for value in again.sampler_options.values()] == [bool, int, float]
