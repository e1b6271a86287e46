"""LiteLLM as a library."""

import base64
import io

import litellm
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

litellm.telemetry = False
litellm.suppress_debug_info = True

MODEL = "openai/gpt-image-1"


def generate(url: str = URL, key: str = KEY, path: str = "/v1", **options: object) -> bytes:
    response = litellm.image_generation(
        prompt=PROMPT, model=MODEL, api_base=url + path, api_key=key, **options
    )
    data = base64.b64decode(response.data[0].b64_json)
    assert is_image(data)
    return data


@check("generate")
def generate_one() -> None:
    kept["picture"] = makes_one_job(generate)


@check("edit")
def edit() -> None:
    file = io.BytesIO(kept["picture"])
    file.name = "girl.png"
    response = litellm.image_edit(
        image=file,
        prompt=PROMPT,
        model=MODEL,
        api_base=f"{URL}/v1",
        api_key=KEY,
    )
    assert is_image(base64.b64decode(response.data[0].b64_json))


@check("understand an error")
def understand_an_error() -> None:
    error = raised_by(lambda: generate(size="17x17"))
    assert isinstance(error, litellm.BadRequestError), repr(error)
    assert "size" in str(error), str(error)


@check("wrong key")
def wrong_key() -> None:
    error = raised_by(lambda: generate(key="wrong"))
    assert isinstance(error, litellm.AuthenticationError), repr(error)


@check("retry after a timeout: one job")
def retry_after_a_timeout() -> None:
    makes_one_job(lambda: generate(HELD_URL, timeout=5, max_retries=60))


@check("base URL without /v1")
def base_url_without_v1() -> None:
    works_or_mentions("/v1", lambda: generate(path=""))


@check("chat")
def chat() -> None:
    messages = [{"role": "user", "content": PROMPT}]
    response = makes_one_job(
        lambda: litellm.completion(
            model=MODEL, messages=messages, api_base=f"{URL}/v1", api_key=KEY
        )
    )
    assert "](http" in response.choices[0].message.content


@check("responses")
def respond() -> None:
    response = makes_one_job(
        lambda: litellm.responses(
            model=MODEL,
            input=PROMPT,
            tools=[{"type": "image_generation"}],
            api_base=f"{URL}/v1",
            api_key=KEY,
        )
    )
    kinds = [item.type if hasattr(item, "type") else item["type"] for item in response.output]
    assert kinds == ["image_generation_call", "message"], kinds
