"""webuiapi, a client of A1111."""

from urllib.parse import urlsplit

import webuiapi
from checks import KEY, PROMPT, URL, check, kept, makes_one_job, raised_by

_address = urlsplit(URL)


def client_of(key: str) -> webuiapi.WebUIApi:
    return webuiapi.WebUIApi(
        host=_address.hostname, port=_address.port, username="client", password=key
    )


client = client_of(KEY)


@check("read all lists")
def read_all_lists() -> None:
    assert client.get_sd_models()[0]["model_name"] == "kirazuri-tiny"
    assert client.get_samplers()
    assert client.get_schedulers()
    assert client.get_upscalers()
    assert client.get_options()["sd_model_checkpoint"]
    assert client.get_progress()["progress"] == 0


@check("generate")
def generate() -> None:
    result = makes_one_job(lambda: client.txt2img(prompt=PROMPT, steps=4, seed=7))
    kept["picture"] = result.image
    assert result.info["seed"] == 7


@check("several images")
def several_images() -> None:
    assert len(client.txt2img(prompt=PROMPT, steps=4, batch_size=2).images) == 2


@check("edit")
def edit() -> None:
    result = client.img2img(images=[kept["picture"]], prompt=PROMPT, steps=4)
    assert result.image.size == kept["picture"].size


@check("edit with a mask")
def edit_with_a_mask() -> None:
    mask = kept["picture"].convert("L").point(lambda _: 0)
    result = client.img2img(images=[kept["picture"]], mask_image=mask, prompt=PROMPT, steps=4)
    assert result.image.tobytes() == kept["picture"].tobytes()


@check("enlarge")
def enlarge() -> None:
    result = client.extra_single_image(
        image=kept["picture"], upscaler_1=webuiapi.Upscaler.Lanczos, upscaling_resize=2
    )
    width, height = kept["picture"].size
    assert result.image.size == (2 * width, 2 * height)


@check("understand an error")
def understand_an_error() -> None:
    error = raised_by(lambda: client.txt2img(prompt=PROMPT, steps=4, sampler_name="PLMS"))
    assert isinstance(error, RuntimeError), repr(error)
    assert "PLMS" in str(error), str(error)


@check("wrong key")
def wrong_key() -> None:
    error = raised_by(lambda: client_of("wrong").txt2img(prompt=PROMPT))
    assert "401" in str(error), str(error)
