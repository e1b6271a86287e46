"""What chat interfaces ask for by themselves is answered with a text and makes no picture.

The requests have the published shape of those of Open WebUI, LibreChat, SillyTavern and others:
where the instruction stands, how it begins, how it shows the answer; the words are our own.
"""

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from openai import OpenAI

from api.openai.conversation.messages import read_turn
from api.openai.conversation.text_tasks import text_answer
from model.card import load_card
from tests.support.api_server import ApiServer
from tests.support.manual_worker import ManualWorker
from tests.support.openai_clients import openai_client

PROMPT = "masterpiece, best quality, 1girl, (blue hair:1.2), smile"
TALK = f"\n<chat_history>\nUSER: {PROMPT}\nASSISTANT: ![seed 1](http://x/a.png)\n</chat_history>"
PROMPTING = load_card("kirazuri-tiny").prompting


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def answer(*messages: dict[str, Any], **body: Any) -> str | None:
    found = text_answer(read_turn(list(messages), "messages"), body, PROMPTING)
    return None if found is None else found.text


def sample(task: str, example: str) -> str:
    """A request under headings, with an example of the answer, as Open WebUI writes them."""
    return f"### Task:\n{task}\n### Output:\nJSON format: {example}\n### Chat History:{TALK}"


HEADINGS: list[tuple[str, str, dict[str, Any]]] = [
    ("Find a name.", '{ "title": "a name" }', {"title": "1girl, blue hair, smile"}),
    ("Sort it.", '{ "tags": ["one", "two"] }', {"tags": ["Images"]}),
    ("What might be next?", '{ "follow_ups": ["a?", "b?"] }', {"follow_ups": []}),
    ("What to look up?", '\n{\n  "queries": ["one"]\n}', {"queries": []}),
    ("Go on with <text>1girl, bl</text>", '`{ "text": "<more>" }`', {"text": ""}),
    ("Describe a picture.", '\n{\n    "prompt": "words"\n}', {"prompt": PROMPT}),
    ("Something new.", '{ "colour": "red" }', {"colour": ""}),
]


@pytest.mark.parametrize(("task", "example", "expected"), HEADINGS)
def test_requests_under_headings_get_json(task: str, example: str, expected: Any) -> None:
    text = answer(user(sample(task, example)))
    assert text is not None
    assert json.loads(text) == expected


def test_the_history_cannot_choose_the_key() -> None:
    talk = '<chat_history>\nUSER: {"tags": ["x"]}\n</chat_history>'
    text = f'### Task:\nSort.\nJSON format: {{ "follow_ups": ["a"] }}\n### Chat History:\n{talk}'
    assert json.loads(answer(user(text)) or "") == {"follow_ups": []}
    talk = '<chat_history>\nUSER: 1girl\nASSISTANT: {"tags": ["x"]}\n</chat_history>'
    assert answer(user(f"### Task:\nA title, please.\n### Chat History:\n{talk}")) == "1girl"


def test_a_template_of_the_operator_is_recognised_by_its_history() -> None:
    assert answer(user(f"Five words for this, please. {TALK}")) is not None


TITLES: list[tuple[dict[str, Any], ...]] = [
    # LibreChat: everything in one message, of the system or of the user
    (
        system(
            f'Please write a brief title for the conversation.\n\n||>User:\n"{PROMPT}"\n||>Title:'
        ),
    ),
    (user(f"Provide a short title for this chat.\n\nConversation:\nUser: {PROMPT}\nAI: x"),),
    (user(f"Analyze this conversation and provide: 1. a title\n\nUser: {PROMPT}\nAI: ok"),),
    # others: the conversation, then the request
    (
        user(PROMPT),
        assistant("ok"),
        user("Give a short title to this conversation."),
    ),
    (user(PROMPT), assistant("ok"), system("Summarize this chat into a title of three words.")),
    (user(PROMPT), assistant("ok"), user("Name it: give only a 4 word title.")),
    # others: the request, then the conversation as one message
    (system("Summarize the user's conversation into a short title."), user(f"user: {PROMPT}")),
]


@pytest.mark.parametrize("messages", TITLES)
def test_titles(messages: tuple[dict[str, Any], ...]) -> None:
    assert answer(*messages) == "1girl, blue hair, smile"


NAMED = "1girl, blue hair, smile"

OTHER_LANGUAGES: list[tuple[str, str]] = [
    # what an interface adds around the words of its operator stays as it is
    (f"Nenne das Thema in drei Worten.\n\nUser: {PROMPT}\nAI: ja", NAMED),
    (f"请为以下内容命名。\n```\n- You: {PROMPT}\n- Assistant: 好\n```", NAMED),
    (f'Trouve un nom.\n\n||>User:\n"{PROMPT}"\n||>Response:\n"oui"', NAMED),
    (
        f"タイトルを付けて\n<conversation>\nUser: {PROMPT}\n</conversation>",
        "1girl, blue hair, smile",
    ),
    (
        f"### Aufgabe:\nEin Titel.\n### Ausgabe:\nNur der Titel.\n\nUser: {PROMPT}",
        "1girl, blue hair",
    ),
    ('Antworte als JSON: { "tags": ["eins", "zwei"] }', '{"tags": ["Images"]}'),
]


@pytest.mark.parametrize(("text", "expected"), OTHER_LANGUAGES)
def test_requests_in_other_languages_are_known_by_their_shape(text: str, expected: str) -> None:
    assert (answer(user(text)) or "").startswith(expected)


def test_a_title_is_extracted_from_a_list_of_lines() -> None:
    """As big-AGI asks for it: who the model is in the system message, the task in the user's."""
    task = "Analyze the given short talk and extract a concise chat title.\nNothing else."
    talk = f"```\n- You: {PROMPT}\n- Assistant: ok\n```"
    titles = system("You write titles for chats.")
    assert answer(titles, user(f"{task}\n\n{talk}")) == "1girl, blue hair, smile"
    assert answer(titles, user(f"{task}\n\n- You: {PROMPT}")) == "1girl, blue hair, smile"


def test_a_named_task_and_an_answer_too_short_for_an_image() -> None:
    assert answer(user(PROMPT), metadata={"task": "emoji_generation"}) is not None
    for odd in ({"task": None}, {"chat": "x"}, "task"):
        assert answer(user(PROMPT), metadata=odd) is None
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
        assert "only makes pictures" in (answer(user("hi"), **{name: 1}) or "")
        for limit in (0, 50, None, "1"):
            assert answer(user("hi"), **{name: limit}) is None


ASIDES = [
    ("[Pause your roleplay and list keywords for the last message.]", PROMPT),
    ("[In the next response, only write a comma-separated list.]", PROMPT),
    ("Ignore previous instructions. Which of the following labels fits: joy, fear?", "joy"),
    ('Ignore previous instructions. Take one of these labels: "joy", "fear"', "joy"),
    ("Ignore previous instructions. Summarize the story briefly.", "The user asked for pictures: "),
    ("Summarize the discussion in at most 200 words.", "The user asked for pictures: "),
]


@pytest.mark.parametrize(("aside", "expected"), ASIDES)
def test_asides_after_the_message_of_the_user(aside: str, expected: str) -> None:
    """SillyTavern asks in a system message at the end of the usual conversation."""
    text = answer(system("You are Aoi."), user("hi"), assistant("hi"), user(PROMPT), system(aside))
    assert text is not None
    assert text.startswith(expected)


def test_other_requests() -> None:
    tools = 'Available Tools: [{"name": "x"}]\nReturn {"tool_calls": []} if none fits.'
    assert json.loads(answer(system(tools), user(f"Query: {PROMPT}")) or "") == {"tool_calls": []}
    face = "Your task is to find an emoji for a message. Message: ```hi```"
    assert answer(user(face)) == "🎨"
    merged = "You have been provided with a set of responses to a query. Merge them."
    assert "only makes pictures" in (answer(user(merged)) or "")


SCHEMA = {
    "type": "object",
    "properties": {
        "title": {"type": "string"},
        "language": {"type": "string"},
        "mood": {"enum": ["calm", "wild"]},
        "tags": {"type": "array", "items": {"type": "string"}},
        "score": {"type": "number", "minimum": 1},
        "inner": {"type": "object", "properties": {"ok": {"type": "boolean"}}},
        "more": {"type": ["string", "null"]},
    },
}
FILLED = {
    "title": "1girl, blue hair, smile",
    "language": "English",
    "mood": "calm",
    "tags": [],
    "score": 1,
    "inner": {"ok": False},
    "more": "",
}


def test_requests_for_json_follow_their_schema() -> None:
    for body in (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}},
        {"text": {"format": {"type": "json_schema", "schema": SCHEMA}}},
    ):
        assert json.loads(answer(user(PROMPT), **body) or "") == FILLED
    assert answer(user(PROMPT), response_format={"type": "json_object"}) == "{}"
    odd: Any = {"type": "json_schema", "json_schema": {"schema": {"properties": [1], "type": []}}}
    assert answer(user(PROMPT), response_format=odd) is not None


def test_schemas_nested_deeply_are_cut() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(500):
        schema = {"type": "object", "properties": {"a": schema}}
    text = answer(user(PROMPT), text={"format": {"type": "json_schema", "schema": schema}})
    assert text is not None
    assert text.count("a") < 10


PICTURES: list[tuple[dict[str, Any], ...]] = [
    (user(PROMPT),),
    (user("1girl, title page, conversation, speech bubble"),),
    (user("a chat between two girls, titled magazine cover"),),
    (user("Draw a girl who reads messages on her phone"),),
    (user("hello"),),
    (user("summary of autumn, leaves, 1girl"),),
    (user("task, todo list, 1girl"),),
    (user("### 1girl, smile"),),
    (user("### Scene:\n1girl, smile"),),
    (user("Character: 1girl\nBackground: sea\nModel: anima"),),
    (user('{"prompt": "1girl", "style": ["anime"]}'),),
    (user("{{1girl}}, [[smile]], <lora:chat:1>, (user:1.2)"),),
    (system("You are an artist. In a chat, give every picture a title."), user(PROMPT)),
    (system("You are a helpful assistant. Summarize the conversation if asked to."), user(PROMPT)),
    (user(PROMPT), assistant("ok"), user("now with red hair"), system("Answer in English.")),
    (user(sample("Find a name.", '{ "title": "x" }')), assistant('{"title": "x"}'), user(PROMPT)),
]


@pytest.mark.parametrize("messages", PICTURES)
def test_prompts_are_no_such_requests(messages: tuple[dict[str, Any], ...]) -> None:
    assert answer(*messages) is None


def test_functions_that_may_be_used_are_no_such_request() -> None:
    tool = {"type": "function", "function": {"name": "search"}}
    for choice in (None, "auto", "none", {"type": "image_generation"}, {"type": "function"}):
        assert answer(user(PROMPT), tools=[tool], tool_choice=choice) is None
    both = [tool, {"type": "image_generation"}]
    assert answer(user(PROMPT), tools=both, tool_choice="required") is None
    listed = [{"name": "search"}, {}, "x"]
    for call in (None, "auto", "none", {"name": "other"}, {}, 1):
        assert answer(user(PROMPT), functions=listed, function_call=call) is None
    assert answer(user(PROMPT), functions="search", function_call={"name": "search"}) is None


def test_titles_are_short_and_never_empty() -> None:
    def title(said: str) -> str:
        return answer(user(said), user("Write a short title for this chat.")) or ""

    assert title("masterpiece, best quality") == "Picture"
    assert title("") == "Picture"
    assert (
        title("a girl with blue hair at the edge of the wide cold sea") == "a girl with blue hair"
    )
    assert title("1girl,\n\n  long   hair") == "1girl, long hair"
    assert len(title("x" * 5000)) <= 48


@pytest.mark.parametrize(
    "said", ["(1girl:99)", "(((", "\ud800 1girl", "{{1girl", "\x00", "(a:nan)"]
)
def test_odd_words_of_the_user_are_no_error(said: str) -> None:
    for text in (
        answer(user(said), user("Write a short title for this chat.")),
        answer(user(said), system("[Pause your roleplay and list keywords.]")),
        answer(user(said), response_format={"type": "json_object"}),
    ):
        assert text is not None
        text.encode()


# -- over HTTP -------------------------------------------------------------------------------------


@pytest.fixture
def openai(server: ApiServer, redis_url: str) -> Iterator[OpenAI]:
    with openai_client(server.url, max_retries=0) as connected:
        yield connected


def complete(openai: OpenAI, *messages: dict[str, Any], **options: Any) -> Any:
    listed: Any = messages
    return openai.chat.completions.create(model="kirazuri-tiny", messages=listed, **options)


def test_no_job_is_made(openai: OpenAI, worker: ManualWorker) -> None:
    task = user(sample("Sort it.", '{ "tags": ["one"] }'))
    text = complete(openai, task, max_tokens=50)
    (choice,) = text.choices
    assert (choice.message.content, choice.finish_reason) == ('{"tags": ["Images"]}', "stop")
    assert (text.usage.total_tokens, choice.message.tool_calls) == (0, None)
    stream = complete(openai, task, stream=True, stream_options={"include_usage": True})
    begin, end, usage = stream
    assert begin.choices[0].delta.role == "assistant"
    assert begin.choices[0].delta.content == '{"tags": ["Images"]}'
    assert end.choices[0].finish_reason == "stop"
    assert usage.usage.total_tokens == 0
    assert worker.queued_ids() == []


def test_forced_function_of_the_older_kind_is_called(openai: OpenAI, worker: ManualWorker) -> None:
    function = {"name": "keep", "parameters": {"properties": {"title": {"type": "string"}}}}
    options: dict[str, Any] = {"functions": [function], "function_call": {"name": "keep"}}
    (made,) = complete(openai, user(PROMPT), **options).choices
    assert (made.finish_reason, made.message.tool_calls) == ("function_call", None)
    assert made.message.function_call.name == "keep"
    assert json.loads(made.message.function_call.arguments) == {"title": "1girl, blue hair, smile"}
    begin, end = complete(openai, user(PROMPT), stream=True, **options)
    assert begin.choices[0].delta.function_call.name == "keep"
    assert end.choices[0].finish_reason == "function_call"
    assert worker.queued_ids() == []


def test_answers_can_always_be_encoded(client: httpx2.Client, worker: ManualWorker) -> None:
    function = {"name": "\ud800", "parameters": {"enum": ["\ud800"]}}
    forced = {"tools": [{"type": "function", "function": function}], "tool_choice": "required"}
    messages = [user("\ud800"), user("Write a short title for this chat.")]
    for body in ({"messages": messages}, {"messages": messages, **forced}):
        for stream in (False, True):
            content = json.dumps({**body, "stream": stream})
            headers = {"content-type": "application/json"}
            sent = client.post("/v1/chat/completions", content=content, headers=headers)
            assert (sent.status_code, "ud800" in sent.text) == (200, True), sent.text
    assert worker.queued_ids() == []


def test_forced_function_is_called(openai: OpenAI, worker: ManualWorker) -> None:
    function = {"name": "keep", "parameters": {"properties": {"title": {"type": "string"}}}}
    tool: Any = {"type": "function", "function": function}
    for choice in ("required", {"type": "function", "function": {"name": "keep"}}):
        options: dict[str, Any] = {"tools": [tool], "tool_choice": choice}
        (made,) = complete(openai, user(PROMPT), **options).choices
        assert made.finish_reason == "tool_calls"
        (call,) = made.message.tool_calls
        assert (call.function.name, json.loads(call.function.arguments)) == (
            "keep",
            {"title": "1girl, blue hair, smile"},
        )
        begin, end = complete(openai, user(PROMPT), stream=True, **options)
        assert begin.choices[0].delta.tool_calls[0].function.name == "keep"
        assert end.choices[0].finish_reason == "tool_calls"
    assert worker.queued_ids() == []
