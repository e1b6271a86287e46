"""Forms as programs and web pages write them."""

from typing import Any

import httpx2

from tests.support.cases import check_all
from tests.support.images import draw_image, encode_file, to_base64
from tests.support.openai_clients import read_openai_error

EDITS = "/v1/images/edits"
NO_WAIT = {"prefer": "wait=0"}
FILE = encode_file(draw_image())
PROMPT = {"prompt": "1girl, blue hair"}


def submitted(
    client: httpx2.Client, fields: dict[str, Any], files: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The resolved request of a form; its job is cancelled, because the queue holds few."""
    files = {"image": ("a.png", FILE)} if files is None else files
    parts = [(name, (None, value.encode())) for name, value in fields.items()]
    answer = client.post(EDITS, files=[*parts, *files.items()], headers=NO_WAIT)
    job_id = read_openai_error(answer, 504)["job_id"]
    request: dict[str, Any] = client.get(f"/jobs/{job_id}").json()["request"]
    client.delete(f"/jobs/{job_id}")
    return request


def test_switches(client: httpx2.Client) -> None:
    def check(text: str, expected: bool) -> None:
        request = submitted(client, PROMPT | {"deterministic": text})
        assert request["deterministic"] is expected

    words = {
        True: ("true", "True", "TRUE", "1", "on", "yes", " On "),
        False: ("false", "False", "0", "off", "no", "", "null", "None", "undefined"),
    }
    check_all(check, [(text, value) for value, texts in words.items() for text in texts])
    form = PROMPT | {"deterministic": "maybe"}
    error = read_openai_error(
        client.post(EDITS, data=form, files={"image": FILE}, headers=NO_WAIT), 400
    )
    assert error["param"] == "deterministic"


def test_a_stream_that_a_form_asks_for(client: httpx2.Client) -> None:
    for text in ("1", "on", "True"):
        form = PROMPT | {"stream": text}
        with client.stream("POST", EDITS, data=form, files={"image": FILE}) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            client.delete(answer.headers["location"])


def test_fields_that_were_left_open(client: httpx2.Client) -> None:
    names = (
        "n", "size", "quality", "response_format", "output_format", "output_compression", "stream",
        "model", "user", "seed", "steps", "cfg_scale", "sampler", "scheduler", "resolution",
        "strength", "metadata", "deterministic", "loras", "loras[][weight]", "tags[general][]",
        "mask",
    )  # fmt: skip
    plain = submitted(client, PROMPT | {"seed": "7"})
    opened = submitted(client, PROMPT | dict.fromkeys(names, "") | {"seed": "7"})
    assert opened == plain
    assert submitted(client, PROMPT | {"negative_prompt": ""})["negative_prompt"] == ""
    files = {"image": ("a.png", FILE), "mask": ("", b"")}
    assert submitted(client, PROMPT | {"seed": "7"}, files) == plain
    for name in ("seed", "steps", "strength", "n"):
        assert submitted(client, PROMPT | {"seed": "7"} | {name: "undefined"})["steps"] == 20


def test_numbers(client: httpx2.Client) -> None:
    form = {"seed": "7.0", "steps": "9.0", "n": "2.0", "cfg_scale": "4", "strength": "1"}
    request = submitted(client, PROMPT | form)
    assert [request[name] for name in ("seed", "steps", "num_images")] == [7, 9, 2]
    assert (request["cfg_scale"], request["strength"]) == (4.0, 1.0)
    assert submitted(client, PROMPT | {"seed": "-1"})["seed"] >= 0


def test_words_that_mean_something_stay(client: httpx2.Client) -> None:
    form = {"prompt": "null", "negative_prompt": "none", "metadata": "none"}
    request = submitted(client, form)
    assert (request["prompt"], request["negative_prompt"]) == ("null", "none")
    assert request["metadata"] == "none"


def test_images_that_are_texts(client: httpx2.Client) -> None:
    name = submitted(client, PROMPT)["init_image"]
    code = to_base64(FILE)
    for text in (code, f"data:image/png;base64,{code}", code.rstrip("=")):
        assert submitted(client, PROMPT | {"image": text}, {})["init_image"] == name
        assert submitted(client, PROMPT | {"image[]": text}, {})["init_image"] == name
    twice = PROMPT | {"image": code}
    error = read_openai_error(client.post(EDITS, data=twice, files={"image": FILE}), 400)
    assert (error["param"], "2 files; send one" in error["message"]) == ("image", True)


def test_no_image_is_named(client: httpx2.Client) -> None:
    for form in (PROMPT, PROMPT | {"image": ""}):
        answer = client.post(EDITS, data=form, files={"mask": FILE})
        assert read_openai_error(answer, 400)["param"] == "image"
    empty = client.post(EDITS, data=PROMPT, files={"image": ("", b"")})
    assert read_openai_error(empty, 400)["param"] == "image"
