"""What is read of a conversation."""

from typing import Any

import pytest
from fastapi.exceptions import RequestValidationError

from api.openai.conversation.messages import read_turn


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def test_parts_are_joined_and_each_is_read_to_a_limit() -> None:
    turn = read_turn([user([text("a"), "b", text("c" * 1_000_000)])], "messages")
    assert turn.text == f"a\nb\n{'c' * 20_000}"
    assert turn.first_text == turn.text


def test_the_end_of_a_conversation_is_enough() -> None:
    class Unread(dict[str, Any]):
        def get(self, *_: Any) -> Any:
            raise AssertionError("an old message was read")

    unread: list[Any] = [Unread() for _ in range(3000)]
    turn = read_turn([*[user("first")] * 20, *unread, user("last")], "messages")
    assert (turn.text, turn.first_text, turn.place) == ("last", "first", "messages.3020.content")


def test_the_user_is_not_searched_for_without_end() -> None:
    reminder = {"role": "system", "content": "x"}
    assert read_turn([user("1girl"), *[reminder] * 999], "messages").text == "1girl"
    assert read_turn([user("1girl"), *[reminder] * 1000], "messages").text is None


def test_instructions_stand_after_the_user_or_before_the_only_message() -> None:
    one, two = ({"role": role, "content": role} for role in ("system", "developer"))
    after = read_turn([one, user("a"), user("b"), two], "messages")
    assert after.instructions == ["developer"]
    assert read_turn([one, user("a")], "messages").instructions == ["system"]


def test_items_without_a_role_are_passed_over_in_inputs_only() -> None:
    call = {"type": "image_generation_call", "id": "ig_1"}
    assert read_turn([user("a"), call], "input").text == "a"
    with pytest.raises(RequestValidationError):
        read_turn([user("a"), call], "messages")
