"""A plan, as a dry run answers."""

from typing import Any

from api.openapi.document import examples
from model.card import load_card

PLAN: dict[str, Any] = examples(load_card("kirazuri-v1"))["Plan"]
