"""The plan that a dry run answers."""

from typing import Any

from api.openapi.examples import plan_example
from model.card import load_card

PLAN: dict[str, Any] = plan_example(load_card("kirazuri-v1")).model_dump(mode="json")
