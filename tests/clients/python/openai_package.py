"""The official Python package of OpenAI."""

import base64

import openai
from checks import (
    HELD_URL,
    KEY,
    PROMPT,
    URL,
    check,
    is_image,
    kept,
    makes_one_job,
    raised_by,
    works_or_mentions,
)

FAST = {"steps": 4}


def client_of(url: str = URL, key: str = KEY, **options: object) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, **options)


client = client_of()


def picture(response: object) -> bytes:
    data = base64.b64decode(response.data[0].b64_json)
    assert is_image(data)
    return data


def generate(with_client: openai.OpenAI = client, steps: int = 4, **options: object) -> bytes:
    body = {"steps": steps}
    return picture(with_client.images.generate(prompt=PROMPT, extra_body=body, **options))


@check("list models")
def list_models() -> None:
    assert [model.id for model in client.models.list()] == ["kirazuri-tiny"]


@check("generate")
def generate_one() -> None:
    kept["picture"] = makes_one_job(lambda: generate(model="gpt-image-1.5", size="1024x1024"))


@check("stream")
def stream_previews() -> None:
    stream = client.images.generate(prompt=PROMPT, stream=True, partial_images=2)
    kinds = [event.type for event in stream]
    partial, completed = "image_generation.partial_image", "image_generation.completed"
    assert kinds == [partial, partial, completed], kinds


@check("edit")
def edit() -> None:
    response = client.images.edit(
        image=("girl.png", kept["picture"], "image/png"), prompt=PROMPT, extra_body=FAST
    )
    assert picture(response) != kept["picture"]


@check("understand an error")
def understand_an_error() -> None:
    error = raised_by(lambda: client.images.generate(prompt=PROMPT, size="17x17"))
    assert isinstance(error, openai.BadRequestError)
    assert error.param == "size"


@check("wrong key")
def wrong_key() -> None:
    error = raised_by(lambda: generate(client_of(key="wrong")))
    assert isinstance(error, openai.AuthenticationError)
    assert error.code == "invalid_api_key"


@check("retry after 504: one job")
def retry_after_504() -> None:
    patient = client_of(max_retries=60)
    makes_one_job(lambda: generate(patient, extra_headers={"Prefer": "wait=0"}))


@check("retry after a timeout: one job")
def retry_after_a_timeout() -> None:
    hasty = client_of(HELD_URL, timeout=5, max_retries=60)
    makes_one_job(lambda: generate(hasty, steps=40))


@check("base URL without /v1")
def base_url_without_v1() -> None:
    short = openai.OpenAI(base_url=URL, api_key=KEY)
    works_or_mentions("/v1", lambda: generate(short))


@check("chat")
def chat() -> None:
    def ask() -> object:
        return client.chat.completions.create(
            model="gpt-image-1",
            messages=[
                {"role": "system", "content": "You are a helpful assistant."},
                {"role": "user", "content": PROMPT},
            ],
            extra_body=FAST,
        )

    message = makes_one_job(ask).choices[0].message
    assert "](http" in message.content, message.content
    assert message.images[0]["image_url"]["url"].startswith("data:image/")


@check("streamed chat with a picture to edit")
def chat_with_a_picture() -> None:
    url = "data:image/png;base64," + base64.b64encode(kept["picture"]).decode()
    parts = [
        {"type": "text", "text": PROMPT},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    stream = client.chat.completions.create(
        model="gpt-image-1",
        messages=[{"role": "user", "content": parts}],
        stream=True,
        extra_body={**FAST, "strength": 0.5},
    )
    deltas = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    assert "](http" in "".join(deltas), deltas


@check("responses")
def respond() -> None:
    def ask() -> object:
        return client.responses.create(
            model="gpt-image-1",
            instructions="You are a helpful assistant.",
            input=PROMPT,
            tools=[{"type": "image_generation", "quality": "low"}],
        )

    response = makes_one_job(ask)
    assert is_image(base64.b64decode(response.output[0].result))
    assert "](http" in response.output_text, response.output_text


@check("streamed responses")
def stream_a_response() -> None:
    tool = {"type": "image_generation", "partial_images": 1}
    stream = client.responses.create(model="gpt-image-1", input=PROMPT, tools=[tool], stream=True)
    kinds = [event.type for event in stream]
    assert kinds[0] == "response.created", kinds
    assert kinds[-1] == "response.completed", kinds
    assert "response.image_generation_call.partial_image" in kinds, kinds
