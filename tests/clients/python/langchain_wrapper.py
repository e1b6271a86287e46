"""DallEAPIWrapper of langchain-community, which reads URLs."""

import urllib.request
import warnings

import openai
from checks import (
    HELD_URL,
    KEY,
    PROMPT,
    URL,
    check,
    is_image,
    makes_one_job,
    raised_by,
    works_or_mentions,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from langchain_community.utilities.dalle_image_generator import DallEAPIWrapper


def wrapper(url: str = f"{URL}/v1", key: str = KEY, **options: object) -> DallEAPIWrapper:
    return DallEAPIWrapper(base_url=url, api_key=key, **options)


def fetch(url: str) -> bytes:
    assert url.startswith(URL), url
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.read()


@check("generate")
def generate() -> None:
    urls = makes_one_job(lambda: wrapper().run(PROMPT))
    assert is_image(fetch(urls))


@check("several images")
def several_images() -> None:
    urls = wrapper(n=2, model="dall-e-3", quality="hd").run(PROMPT).splitlines()
    assert [is_image(fetch(url)) for url in urls] == [True, True]


@check("understand an error")
def understand_an_error() -> None:
    error = raised_by(lambda: wrapper(size="17x17").run(PROMPT))
    assert isinstance(error, openai.BadRequestError), repr(error)
    assert error.param == "size"


@check("wrong key")
def wrong_key() -> None:
    error = raised_by(lambda: wrapper(key="wrong").run(PROMPT))
    assert isinstance(error, openai.AuthenticationError), repr(error)


@check("retry after 504: one job")
def retry_after_504() -> None:
    patient = wrapper(max_retries=60, default_headers={"Prefer": "wait=0"})
    makes_one_job(lambda: patient.run(PROMPT))


@check("retry after a timeout: one job")
def retry_after_a_timeout() -> None:
    hasty = wrapper(f"{HELD_URL}/v1", timeout=5, max_retries=60)
    makes_one_job(lambda: hasty.run(PROMPT))


@check("base URL without /v1")
def base_url_without_v1() -> None:
    works_or_mentions("/v1", lambda: wrapper(URL).run(PROMPT))
