"""Recognises what chat interfaces ask a model for by themselves: titles, tags, summaries.

Such requests are answered with a text, because nobody wants a picture of them. The model cannot
write, so the answer is made from what the user said. Interfaces put these requests into a message
of the user or a system message; each pattern stands for a way of at least one interface.
"""

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from api.http.field_errors import printable
from api.openai.conversation.messages import Turn
from model.card import Prompting
from model.errors import PromptError
from model.prompt_grammar import MAX_PROMPT_CHARS, parse_prompt

_READ_CHARS: Final = 4000
_HEAD_CHARS: Final = 600
_SYSTEM_HEAD_CHARS: Final = 250
"""What a system message is for stands at its beginning; later sentences are about many things."""

_VERB = (
    r"\b(?:generate|provide|create|write|give|suggest|make|choose|come up with|summari[sz]e"
    r"|extract|find|propose|produce|return|output)\b"
)
_TALK = r"\b(?:conversation|chat|dialog(?:ue)?|discussion|messages?|thread)\b"

_OPENINGS: Final = re.compile(
    r"\A[\s\[(*#]*(?:"
    r"task:|your task is\b|available tools:"
    r"|ignore (?:all |the |any )?previous instructions\b"
    r"|pause (?:your|the) role-?play\b|in (?:the|your) next (?:response|reply)\b"
    r"|(?:please )?analy[sz]e (?:this|the) conversation and\b"
    r"|you have been provided with a set of responses\b"
    r"|write your next reply from the point of view of\b"
    r")",
    re.IGNORECASE,
)
"""How a request begins: Open WebUI's headings, SillyTavern's asides, LibreChat's titles."""

_TITLE: Final = re.compile(
    rf"{_VERB}.{{0,120}}?\b(?:titles?|name|headline|topic)\b", re.IGNORECASE | re.DOTALL
)
_WORDS_TITLE: Final = re.compile(r"\bwords?\b[^.]{0,20}\btitle\b", re.IGNORECASE)
_SUMMARY: Final = re.compile(
    rf"\bsummari[sz]e\b.{{0,60}}?(?:{_TALK}|\b(?:story|facts|events)\b)", re.IGNORECASE | re.DOTALL
)
_SHORT: Final = re.compile(
    r"\b(?:concise|short|brief(?:ly)?|words?|characters?|only)\b", re.IGNORECASE
)
"""Whoever asks for a title or a summary says how long; a general instruction does not."""
_ABOUT_TALK: Final = re.compile(_TALK, re.IGNORECASE)
_SIDES: Final = re.compile(
    r"^\W{0,9}(user|human|you|assistant|ai|bot|model|response)\W{0,3}:", re.IGNORECASE | re.M
)
_TAGS_OF_HISTORY: Final = re.compile(
    r"</(?:chat_?history|history|conversation|messages?|transcript|chat|dialog(?:ue)?)>|\|\|>",
    re.IGNORECASE,
)
_HEADING: Final = re.compile(r"^#{1,4} [^\n]{1,60}:\s*$", re.M)
_FEW_TOKENS: Final = 16
"""Too few for the URL of an image: whoever allows no more asks whether anybody is there."""

_HISTORY: Final = re.compile(r"<chat_history>|chat history:|\|\|>|\buser\s*:", re.IGNORECASE)
_SAID: Final = re.compile(r"^\W{0,4}(?:user|human|you)\W{0,3}:\s*\"*([^\n]+)", re.IGNORECASE | re.M)
_SAMPLE: Final = re.compile(r"\{\s*\"(\w{1,40})\"\s*:\s*(\[)?")
_LABELS: Final = re.compile(r"\blabels?\b[^:\n]{0,40}:\s*\"?([\w -]{1,40})", re.IGNORECASE)

_NOTHING: Final = "This model only makes pictures. Send a prompt, and it answers with an image."
_UNTITLED: Final = "Picture"
_MAX_TITLE_CHARS: Final = 48


@dataclass(frozen=True, slots=True)
class TextAnswer:
    """A text instead of a picture: the content of a message, or the arguments of a tool.

    `is_legacy` says that the tool was given as one of `functions`, which came before `tools`.
    """

    text: str
    tool: str | None = None
    is_legacy: bool = False


def text_answer(turn: Turn, body: Mapping[str, Any], prompting: Prompting) -> TextAnswer | None:
    """The answer to a request that an interface makes for itself; None if it wants a picture.

    A request for JSON or for a certain function is never one for a picture; `body` says so in the
    way of either API, as it names a task and limits the tokens of the answer.
    """
    task, function, schema = _task(turn, body), _forced_function(body), _wanted_schema(body)
    if task is None and function is None and schema is None:
        return TextAnswer(_NOTHING) if _allows_few_tokens(body) else None
    told = [text[: 4 * _READ_CHARS] for text in (task, turn.text) if text and task]
    said = [found.strip(' "') for text in told for found in _SAID.findall(text)]
    said = said or [text for text in (turn.first_text, turn.text) if text and text != task]
    title = _title(said[0] if said else "", prompting)
    if function is not None:
        arguments = json.dumps(_filled(function.get("parameters"), title))
        name = printable(str(function.get("name", "")))
        return TextAnswer(arguments, name, is_legacy="function_call" in body)
    if schema or task is None:
        return TextAnswer(json.dumps(_filled(schema, title)))
    latest = printable(said[-1], limit=MAX_PROMPT_CHARS) if said else ""
    return TextAnswer(printable(_answer(task, title, latest), limit=MAX_PROMPT_CHARS))


def _task(turn: Turn, body: Mapping[str, Any]) -> str | None:
    """The text with which an interface asks for something; None if the user asks."""
    for text in turn.instructions:
        head = text[:_SYSTEM_HEAD_CHARS]
        if _is_task(head) and (_OPENINGS.search(head) or _SHORT.search(head)):
            return text
    text = turn.text or ""
    metadata = body.get("metadata")
    is_named = isinstance(metadata, dict) and isinstance(metadata.get("task"), str)
    if is_named or _is_task(text[:_HEAD_CHARS]) or _has_its_shape(text[:_READ_CHARS]):
        return text
    return None


def _has_its_shape(text: str) -> bool:
    """Whether a text is built as such requests are in any language, and no prompt is.

    It quotes both sides of a talk, or has several headings, or shows the JSON of the answer.
    """
    sides = {side.lower() for side in _SIDES.findall(text)}
    is_talk = len(sides) > 1 or _TAGS_OF_HISTORY.search(text) is not None
    sample = _SAMPLE.search(text)
    has_sample = sample is not None and bool(text[: sample.start()].strip(" \n`{"))
    return is_talk or has_sample or len(_HEADING.findall(text)) > 1


def _allows_few_tokens(body: Mapping[str, Any]) -> bool:
    names = ("max_tokens", "max_completion_tokens", "max_output_tokens")
    limits = [body[name] for name in names if isinstance(body.get(name), int)]
    return any(0 < limit <= _FEW_TOKENS for limit in limits)


def _is_task(head: str) -> bool:
    is_title = _TITLE.search(head) is not None and _ABOUT_TALK.search(head) is not None
    return is_title or any(one.search(head) for one in (_OPENINGS, _WORDS_TITLE, _SUMMARY))


def _answer(task: str, title: str, said: str) -> str:
    """A text in the format that the request shows: JSON with a key, or plain."""
    asked = task[:_READ_CHARS]
    if history := _HISTORY.search(asked):
        asked = asked[: history.start()]
    if '"tool_calls"' in asked:
        return '{"tool_calls": []}'
    if sample := _SAMPLE.search(asked):
        values = {"title": title, "prompt": said, "tags": ["Images"]}
        value = values.get(sample[1], [] if sample[2] else "")
        return json.dumps({sample[1]: value})
    lowered = asked.lower()
    if "title" in lowered or _TITLE.search(asked):
        return title
    if labels := _LABELS.search(asked):
        return labels[1].strip()
    if "emoji" in lowered:
        return "🎨"
    if "keywords" in lowered or "point of view" in lowered or "comma" in lowered:
        return said or title
    if "summar" in lowered:
        return f"The user asked for pictures: {title}"
    # In another language it may ask for anything, most likely for a title.
    return title if _has_its_shape(task[:_READ_CHARS]) else _NOTHING


def _title(said: str, prompting: Prompting) -> str:
    """The first tags of a prompt that say what it shows, or its first words."""
    usual = {*prompting.quality, *prompting.meta, *prompting.safety, *prompting.low_quality}
    text = said[:_HEAD_CHARS]
    with suppress(PromptError):
        text = "".join(segment.text for segment in parse_prompt(text))
    tags = [tag.strip() for tag in text.split(",")]
    telling = [tag for tag in tags if tag and tag.lower() not in usual]
    title = ""
    for words in telling[:4]:
        longer = f"{title}, {words}" if title else words
        if len(longer) > _MAX_TITLE_CHARS:
            break
        title = longer
    if not title and telling:
        title = " ".join(telling[0].split()[:5])[:_MAX_TITLE_CHARS]
    return " ".join(title.split()) or _UNTITLED


def _forced_function(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The function that a request insists on, if it insists on one."""
    choice, legacy = body.get("tool_choice"), body.get("function_call")
    listed = body.get("tools") if choice else body.get("functions")
    items = listed if isinstance(listed, list) else []
    if not choice:
        return _named([item for item in items if isinstance(item, dict)], legacy)
    functions = [found for tool in items if (found := _function(tool)) is not None]
    if choice == "required":
        return functions[0] if functions and len(functions) == len(items) else None
    return _named(functions, _function(choice))


def _named(functions: Sequence[Mapping[str, Any]], wanted: Any) -> Mapping[str, Any] | None:
    name = wanted.get("name") if isinstance(wanted, Mapping) else None
    return next((function for function in functions if name and function.get("name") == name), None)


def _function(tool: Any) -> Mapping[str, Any] | None:
    """The description of a function: nested in one API, flat in the other."""
    if not isinstance(tool, dict) or tool.get("type") != "function":
        return None
    nested = tool.get("function")
    return nested if isinstance(nested, dict) else tool


def _wanted_schema(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The JSON schema that an answer must have; {} if it must only be JSON."""
    text = body.get("text")
    wanted = text.get("format") if isinstance(text, dict) else body.get("response_format")
    if not isinstance(wanted, dict) or wanted.get("type") not in ("json_schema", "json_object"):
        return None
    nested = wanted.get("json_schema")
    schema = (nested if isinstance(nested, dict) else wanted).get("schema")
    return schema if isinstance(schema, dict) else {}


def _filled(schema: Any, title: str, name: str = "", depth: int = 0) -> Any:
    """The smallest value of a schema; texts named `title` are the title."""
    if not isinstance(schema, dict) or depth > 8:
        return {} if depth == 0 else None
    if isinstance(options := schema.get("enum"), list) and options:
        return options[0]
    if "const" in schema:
        return schema["const"]
    kind = schema.get("type", "object" if "properties" in schema or depth == 0 else "string")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    match kind:
        case "object":
            properties = schema.get("properties")
            fields = properties.items() if isinstance(properties, dict) else ()
            return {key: _filled(value, title, str(key), depth + 1) for key, value in fields}
        case "array":
            return []
        case "integer" | "number":
            return schema.get("minimum", 0)
        case "boolean":
            return False
        case "null":
            return None
    return {"language": "English", "prompt": title}.get(name, title if "title" in name else "")
